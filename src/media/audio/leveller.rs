//! Brings people who are too soft or too loud near to one loudness.

use super::dsp::sine_dbfs;

/// Loudness aimed at, in dBFS; what is within [`DEAD_ZONE_DB`] of it stays as it is.
const TARGET_DBFS: f32 = -20.0;
const DEAD_ZONE_DB: f32 = 4.0;
/// Softer is not speech but what is between, in dBFS.
const GATE_DBFS: f32 = -50.0;
/// Bounds of the correction, in dB.
const RANGE_DB: (f32, f32) = (-12.0, 12.0);
/// Change of the correction per block of 10 ms: 2 dB a second, which nobody hears as a change.
const STEP_DB: f32 = 0.02;
/// Weight of one block of speech in the loudness: half is forgotten after 1.4 s of speech.
const WEIGHT: f32 = 0.005;
/// Speech heard before anything is corrected, in blocks: 1 s.
const LISTEN_BLOCKS: u32 = 100;

/// Correction for one person.
#[derive(Debug, Clone, Default)]
pub struct Leveller {
    /// Mean square of speech.
    power: f32,
    heard: u32,
    gain_db: f32,
}

impl Leveller {
    /// The factor for a block of this RMS value.
    pub fn factor(&mut self, rms: f32) -> f32 {
        let level = sine_dbfs(rms);
        // Pauses and the breath between words say nothing about how loud somebody speaks.
        if level > GATE_DBFS.max(sine_dbfs(self.power.sqrt()) - 15.0) {
            self.heard = self.heard.saturating_add(1);
            // The first second is a mean, so that the first word is not all there is.
            let weight = WEIGHT.max(1.0 / self.heard as f32);
            self.power += weight * (rms * rms - self.power);
            if self.heard >= LISTEN_BLOCKS {
                let off_db = TARGET_DBFS - sine_dbfs(self.power.sqrt());
                let wanted = (off_db.abs() - DEAD_ZONE_DB).max(0.0).copysign(off_db).clamp(RANGE_DB.0, RANGE_DB.1);
                self.gain_db += (wanted - self.gain_db).clamp(-STEP_DB, STEP_DB);
            }
        }
        10f32.powf(self.gain_db / 20.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Speaks for `seconds` at `dbfs`, every third half second a pause; the last factor in dB.
    fn after(leveller: &mut Leveller, seconds: u32, dbfs: f32) -> f32 {
        let rms = 10f32.powf(dbfs / 20.0) / std::f32::consts::SQRT_2;
        let mut factor = 1.0;
        for block in 0..seconds * 100 {
            factor = leveller.factor(if block % 150 < 100 { rms } else { 1e-4 });
        }
        20.0 * factor.log10()
    }

    #[test]
    fn soft_people_are_raised_loud_ones_lowered_and_the_rest_is_left_alone() {
        assert_eq!(after(&mut Leveller::default(), 20, -20.0), 0.0);
        assert_eq!(after(&mut Leveller::default(), 20, -23.5), 0.0);
        let soft = after(&mut Leveller::default(), 30, -34.0);
        assert!((9.0..10.5).contains(&soft), "{soft}");
        let loud = after(&mut Leveller::default(), 30, -6.0);
        assert!((-10.5..-9.0).contains(&loud), "{loud}");
        assert!(after(&mut Leveller::default(), 60, -45.0) <= 12.0);
        assert_eq!(after(&mut Leveller::default(), 30, -70.0), 0.0, "noise is not raised");
    }

    #[test]
    fn it_is_slow_and_follows() {
        let mut leveller = Leveller::default();
        let early = after(&mut leveller, 3, -34.0);
        assert!(early < 4.0, "{early}");
        after(&mut leveller, 30, -34.0);
        let back = after(&mut leveller, 30, -20.0);
        assert!(back.abs() < 0.1, "{back}");
    }
}
