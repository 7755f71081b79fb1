//! When a picture is due: as soon as it comes evenly, and with the sound of the same moment.
//!
//! Both kinds carry their own RTP clock; the sender's reports map each to one NTP clock (RFC 3550 §6.4.1).

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::media::audio::PlayoutStream;
use crate::peer::MediaKind;
use crate::rtp::frame::{AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ};
use crate::rtp::playout::VideoPlayout;

/// A picture is never held longer than this for its sound.
const MAX_HOLD: Duration = Duration::from_millis(300);
/// A picture may come this much before its sound: nobody notices (ITU-R BT.1359 lets sound lag by more), and all of it is delay.
const EARLY: Duration = Duration::from_millis(15);
/// Nor later than this, however unevenly pictures come: within 40 ms nobody sees it.
const LATE: Duration = Duration::from_millis(30);
/// Where pictures need longer than that, sound waits for them: so much longer each second that they are late ...
const SOUND_RISE_MS: f32 = 60.0;
/// ... and shorter again once they are this much better ...
const SOUND_BETTER_MS: i32 = 15;
/// ... by so much a second.
const SOUND_FALL_MS: f32 = 10.0;
/// Sound waits no longer than this.
const SOUND_LIMIT_MS: f32 = 150.0;
/// It is not asked for more while it has not yet come this near to what was asked for.
const SOUND_NEAR_MS: f32 = 20.0;
/// "Not measured yet" in the atomic below.
const UNKNOWN: i32 = i32::MIN;

#[derive(Debug, Default, Clone, Copy)]
struct Maps {
    audio: Option<(u64, u32)>,
    video: Option<(u64, u32)>,
}

/// Flash and click of one full second are never further apart than this; else they are of different ones.
const SAME_SECOND: Duration = Duration::from_millis(450);
/// Measured offsets kept: a minute of flashes.
const MEASURED_LIMIT: usize = 60;

/// Flashes and clicks of a test stream (`pattern+sync`): the one measure that looks at what is shown and heard.
#[derive(Debug, Default)]
struct Flashes {
    lit: Option<bool>,
    shown_at: Option<Instant>,
    offsets_ms: VecDeque<f64>,
}

/// How long sound waits for pictures that need longer than it does.
#[derive(Debug, Default)]
struct SoundHold {
    least_ms: f32,
    last: Option<Instant>,
}

impl SoundHold {
    /// A picture is shown at `now` or later, `late_ms` after its sound, which waits for `delay_ms`. How long it is to wait at
    /// least, in ms.
    fn picture(&mut self, late_ms: i32, delay_ms: f32, now: Instant) -> u32 {
        let passed =
            self.last.replace(now).map_or(0.0, |last| now.saturating_duration_since(last).as_secs_f32().min(0.2));
        let late = i32::try_from(LATE.as_millis()).unwrap_or_default();
        if late_ms > late {
            if self.least_ms <= delay_ms + SOUND_NEAR_MS {
                self.least_ms = (self.least_ms.max(delay_ms) + SOUND_RISE_MS * passed).min(SOUND_LIMIT_MS);
            }
        } else if late_ms < late - SOUND_BETTER_MS {
            self.least_ms = (self.least_ms - SOUND_FALL_MS * passed).max(0.0);
        }
        self.least_ms.round() as u32
    }
}

/// The clocks of one remote stream.
#[derive(Debug)]
pub(super) struct LipSync {
    maps: Mutex<Maps>,
    flashes: Mutex<Flashes>,
    playout: Mutex<VideoPlayout>,
    sound: Mutex<SoundHold>,
    offset_ms: AtomicI32,
    /// How long the last pictures were held, in ms.
    held_ms: AtomicI32,
}

impl Default for LipSync {
    fn default() -> Self {
        Self {
            maps: Mutex::default(),
            flashes: Mutex::default(),
            playout: Mutex::default(),
            sound: Mutex::default(),
            offset_ms: AtomicI32::new(UNKNOWN),
            held_ms: AtomicI32::new(0),
        }
    }
}

impl LipSync {
    /// A sender report: at `ntp` (32.32) the kind's clock showed `rtp`.
    pub(super) fn report(&self, kind: MediaKind, ntp: u64, rtp: u32) {
        let mut maps = self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        match kind {
            MediaKind::Audio => maps.audio = Some((ntp, rtp)),
            MediaKind::Video => maps.video = Some((ntp, rtp)),
        }
    }

    /// A new transport has new clocks.
    pub(super) fn reset(&self) {
        *self.maps.lock().unwrap_or_else(PoisonError::into_inner) = Maps::default();
        *self.playout.lock().unwrap_or_else(PoisonError::into_inner) = VideoPlayout::default();
        *self.sound.lock().unwrap_or_else(PoisonError::into_inner) = SoundHold::default();
        self.offset_ms.store(UNKNOWN, Ordering::Relaxed);
    }

    /// When the picture with this timestamp, complete at `now`, is due; `None` is at once.
    pub(super) fn due(&self, video_rtp: u32, playout: Option<&PlayoutStream>, now: Instant) -> Option<Instant> {
        let even = now + self.playout.lock().unwrap_or_else(PoisonError::into_inner).frame(video_rtp, now);
        let maps = *self.maps.lock().unwrap_or_else(PoisonError::into_inner);
        let heard_at = maps.audio.zip(maps.video).and_then(|(audio, video)| {
            // Nothing is heard of one who is silent: then there are no lips to read either.
            playout?.playout_time(audio_timestamp(audio, video, video_rtp))
        });
        let due = match heard_at {
            Some(heard_at) => {
                let due = with_sound(even, heard_at).clamp(now, now + MAX_HOLD);
                let late = signed_ms(due, heard_at);
                self.offset_ms.store(late, Ordering::Relaxed);
                if let Some(playout) = playout {
                    let mut sound = self.sound.lock().unwrap_or_else(PoisonError::into_inner);
                    playout.set_least_delay(sound.picture(late, playout.delay_ms(), now), now);
                }
                due
            }
            None => even,
        };
        // A mean over the last second or so.
        let held = signed_ms(due, now) * 16;
        let before = self.held_ms.load(Ordering::Relaxed);
        self.held_ms.store(before + (held - before) / 16, Ordering::Relaxed);
        (due > now).then_some(due)
    }

    /// How long pictures have been held lately, in ms.
    pub(super) fn held_ms(&self) -> f64 {
        f64::from(self.held_ms.load(Ordering::Relaxed)) / 16.0
    }

    /// A test picture is shown at `now`, its sync square lit or not.
    pub(super) fn shown(&self, lit: bool, now: Instant) {
        let mut flashes = self.flashes.lock().unwrap_or_else(PoisonError::into_inner);
        // A square that was lit from the beginning is no flash but a bright picture.
        if flashes.lit.replace(lit) == Some(false) && lit {
            flashes.shown_at = Some(now);
        }
    }

    /// Pairs the last flash with the last click. Called more often than they come.
    pub(super) fn measure(&self, clicked_at: Option<Instant>) {
        let mut flashes = self.flashes.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(shown), Some(heard)) = (flashes.shown_at, clicked_at) else { return };
        let after = shown.saturating_duration_since(heard);
        let before = heard.saturating_duration_since(shown);
        if after.max(before) > SAME_SECOND {
            return;
        }
        flashes.shown_at = None;
        if flashes.offsets_ms.len() >= MEASURED_LIMIT {
            flashes.offsets_ms.pop_front();
        }
        flashes.offsets_ms.push_back((after.as_secs_f64() - before.as_secs_f64()) * 1000.0);
    }

    /// How far pictures are shown after (+) or before (−) their sound: the median of what was measured by flashes and clicks,
    /// else what the clocks say of the last picture.
    pub(super) fn offset_ms(&self) -> Option<f64> {
        let mut measured: Vec<f64> = {
            let flashes = self.flashes.lock().unwrap_or_else(PoisonError::into_inner);
            flashes.offsets_ms.iter().copied().collect()
        };
        measured.sort_by(f64::total_cmp);
        if let Some(median) = measured.get(measured.len() / 2) {
            return Some(*median);
        }
        let offset = self.offset_ms.load(Ordering::Relaxed);
        (offset != UNKNOWN).then(|| f64::from(offset))
    }
}

/// When a picture is shown that would come evenly at `even` and whose sound is heard at `heard_at`.
fn with_sound(even: Instant, heard_at: Instant) -> Instant {
    even.clamp(heard_at.checked_sub(EARLY).unwrap_or(heard_at), heard_at + LATE)
}

/// From `b` to `a` in ms.
fn signed_ms(a: Instant, b: Instant) -> i32 {
    let ms = |span: Duration| i32::try_from(span.as_millis()).unwrap_or(i32::MAX);
    match a.checked_duration_since(b) {
        Some(after) => ms(after),
        None => -ms(b.saturating_duration_since(a)),
    }
}

/// The audio timestamp of the moment at which the video clock showed `video_rtp`.
fn audio_timestamp(audio: (u64, u32), video: (u64, u32), video_rtp: u32) -> u32 {
    let video_seconds = f64::from(video_rtp.wrapping_sub(video.1) as i32) / f64::from(VIDEO_CLOCK_HZ);
    // NTP times are close together: their difference fits a signed 32.32 number.
    let reports_apart = (video.0.wrapping_sub(audio.0) as i64) as f64 / 4_294_967_296.0;
    let samples = (video_seconds + reports_apart) * f64::from(AUDIO_CLOCK_HZ);
    audio.1.wrapping_add(samples.round() as i64 as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_mapped_over_reports_and_wraps() {
        let second = 1u64 << 32;
        // Video report one second after the audio report, both clocks near their wrap.
        let audio = (100 * second, u32::MAX - 10);
        let video = (101 * second, u32::MAX - 5);
        // Half a second after the video report.
        let at = video.1.wrapping_add(45_000);
        assert_eq!(audio_timestamp(audio, video, at), audio.1.wrapping_add(48_000 + 24_000));
        // Before it.
        assert_eq!(audio_timestamp(audio, video, video.1.wrapping_sub(90_000)), audio.1);
    }

    #[test]
    fn flashes_and_clicks_of_one_second_are_paired() {
        let (lips, start) = (LipSync::default(), Instant::now());
        let at = |ms: u64| start + Duration::from_millis(ms);
        // Lit from the beginning: a bright picture.
        lips.shown(true, at(0));
        lips.measure(Some(at(0)));
        assert_eq!(lips.offset_ms(), None);
        for second in 1..=5 {
            lips.shown(false, at(second * 1000 - 100));
            lips.shown(true, at(second * 1000 + 30));
            lips.shown(true, at(second * 1000 + 60));
            // The click of the second before is still the last one.
            lips.measure(Some(at((second - 1) * 1000)));
            // One picture of five comes late.
            lips.measure(Some(at(second * 1000 + if second == 3 { 200 } else { 10 })));
            lips.measure(Some(at(second * 1000 + 10)));
        }
        assert_eq!(lips.offset_ms().map(f64::round), Some(20.0));
    }

    #[test]
    fn pictures_come_evenly_as_far_as_the_lips_allow() {
        let heard = Instant::now() + Duration::from_secs(1);
        let ms = Duration::from_millis;
        assert_eq!(with_sound(heard - ms(200), heard), heard - EARLY);
        assert_eq!(with_sound(heard + ms(10), heard), heard + ms(10));
        assert_eq!(with_sound(heard + ms(200), heard), heard + LATE);
    }

    #[test]
    fn without_sound_pictures_are_held_for_their_own_jitter() {
        let (lips, start) = (LipSync::default(), Instant::now());
        let mut held = Duration::ZERO;
        for n in 0..90u32 {
            let late = if n % 10 == 9 { 100 } else { 0 };
            let now = start + Duration::from_millis(u64::from(n) * 100 / 3 + late);
            held = lips.due(n * 3_000, None, now).map_or(Duration::ZERO, |due| due - now);
        }
        assert!(held.is_zero(), "the late ones are shown at once: {held:?}");
        let now = start + Duration::from_millis(3_000);
        let held = lips.due(90 * 3_000, None, now).map_or(Duration::ZERO, |due| due - now);
        assert!((70..110).contains(&held.as_millis()), "{held:?}");
        assert!(lips.held_ms() > 40.0, "{}", lips.held_ms());
    }

    /// Sound and pictures of one sender, which need `picture_ms` from camera to decoder at each moment: how far they are apart, and
    /// how long sound waits, at the end of each second.
    fn apart(seconds: u64, picture_ms: impl Fn(u64) -> u64) -> Vec<(f64, f32)> {
        use crate::media::audio::codec::{EncoderSettings, OpusPacketEncoder, PacketEncoder as _};
        use crate::media::audio::mixer::Mixer;
        use crate::media::audio::source::ToneGenerator;
        use crate::media::audio::stream::StreamShared;
        use crate::rtp::frame::AudioPacket;
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let shared = std::sync::Arc::new(StreamShared::new(std::sync::Arc::new(|| {})));
        let stream = PlayoutStream::new(std::sync::Arc::clone(&shared));
        let mut mixer = Mixer::starting_at(start);
        mixer.add(shared).unwrap();
        let mut encoder = OpusPacketEncoder::new(EncoderSettings { dtx: false, ..EncoderSettings::default() }).unwrap();
        let (mut tone, mut packet) = (ToneGenerator::new(300.0, false), vec![0; 1_500]);
        let lips = LipSync::default();
        lips.report(MediaKind::Audio, 100 << 32, 7_000);
        lips.report(MediaKind::Video, 100 << 32, 9_000);
        let (mut frame, mut found) = (0u64, Vec::new());
        for ms in (0..seconds * 1_000).step_by(10) {
            if ms % 20 == 0 && ms >= 40 {
                // Spoken 40 ms ago: a packet, and a network of 20 ms.
                let number = (ms - 40) / 20;
                let samples: Vec<f32> = tone.next_block(500).into_iter().chain(tone.next_block(500)).collect();
                let length = encoder.encode(&samples, &mut packet).unwrap();
                let data = bytes::Bytes::copy_from_slice(&packet[..length]);
                let rtp_timestamp = 7_000 + number as u32 * 960;
                stream.push(AudioPacket { sequence: number as u16, rtp_timestamp, data, at: at(ms) });
            }
            mixer.mix(at(ms), Duration::from_millis(10));
            while frame * 100 / 3 + picture_ms(frame * 100 / 3) <= ms {
                lips.due(
                    9_000 + frame as u32 * 3_000,
                    Some(&stream),
                    at(frame * 100 / 3 + picture_ms(frame * 100 / 3)),
                );
                frame += 1;
            }
            if ms % 1_000 == 990 {
                found.push((lips.offset_ms().unwrap(), stream.delay_ms()));
            }
        }
        found
    }

    #[test]
    fn sound_waits_for_pictures_that_need_longer_and_no_longer_than_they_do() {
        let found = apart(60, |ms| if ms < 20_000 { 200 } else { 30 });
        assert!(found[0].0 > 60.0, "late at first: {found:?}");
        assert!(found[6..20].iter().all(|(late, _)| late.abs() <= 40.0), "{found:?}");
        assert!(found[45..].iter().all(|(late, waits)| late.abs() <= 40.0 && *waits < 45.0), "{found:?}");
        // Pictures are later than sound may ever wait: it waits for as long as it may.
        let found = apart(20, |_| 400);
        assert!(found[12..].iter().all(|(_, waits)| (130.0..160.0).contains(waits)), "{found:?}");
        // Nothing is added where pictures are in time, nor for one that is repaired now and then.
        let found = apart(20, |ms| if ms % 3_000 < 33 { 200 } else { 40 });
        assert!(found[4..].iter().all(|(late, waits)| late.abs() <= 40.0 && *waits < 55.0), "{found:?}");
    }

    #[test]
    fn without_reports_nothing_is_held() {
        assert_eq!(LipSync::default().due(1, None, Instant::now()), None);
        assert_eq!(LipSync::default().offset_ms(), None);
    }
}
