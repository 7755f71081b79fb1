//! Devices that run at another rate than they say.

/// Rates that devices have.
const RATES_HZ: [u32; 11] = [8_000, 11_025, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 88_200, 96_000, 192_000];
/// A rate that is counted is one of those when it is this near to it ...
const RATE_NEAR: f64 = 0.012;
/// ... in so many windows one after the other: a machine that loses samples is not as regular.
const RATE_WINDOWS: u32 = 3;

/// Finds out devices that run at another rate than they say.
#[derive(Debug, Default)]
pub(crate) struct RateWatch {
    found: Option<u32>,
    windows: u32,
}

impl RateWatch {
    /// Takes the rate counted over a window; gives the true one once it is certain that `told_hz` is not it.
    pub(crate) fn counted(&mut self, counted_hz: f64, told_hz: u32) -> Option<u32> {
        let near = |hz: u32| (counted_hz / f64::from(hz.max(1)) - 1.0).abs() < RATE_NEAR;
        let found = RATES_HZ.into_iter().find(|hz| near(*hz)).filter(|hz| *hz != told_hz && !near(told_hz));
        self.windows = if found.is_some() && found == self.found { self.windows + 1 } else { 1 };
        self.found = found;
        found.filter(|_| self.windows >= RATE_WINDOWS)
    }

    /// Whether the device seems to be at another rate, which is no loss of samples.
    pub(crate) fn suspects(&self) -> bool {
        self.found.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_lies_about_its_rate_is_found_out_and_a_glitchy_one_is_not() {
        let mut watch = RateWatch::default();
        assert_eq!(watch.counted(44_090.0, 48_000), None);
        assert!(watch.suspects());
        assert_eq!(watch.counted(44_105.0, 48_000), None);
        assert_eq!(watch.counted(44_099.0, 48_000), Some(44_100));
        // Two hundred millionths off is what clocks are.
        let mut watch = RateWatch::default();
        for _ in 0..10 {
            assert_eq!(watch.counted(48_009.6, 48_000), None);
        }
        assert!(!watch.suspects());
        // A busy machine loses a different share each time.
        for share in [0.9, 0.95, 0.85, 0.93, 0.88] {
            assert_eq!(watch.counted(48_000.0 * share, 48_000), None);
        }
        // Twice as fast as it says.
        let mut watch = RateWatch::default();
        assert_eq!((0..3).filter_map(|_| watch.counted(16_010.0, 8_000)).collect::<Vec<_>>(), [16_000]);
    }
}
