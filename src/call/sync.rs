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

/// The clocks of one remote stream.
#[derive(Debug)]
pub(super) struct LipSync {
    maps: Mutex<Maps>,
    flashes: Mutex<Flashes>,
    playout: Mutex<VideoPlayout>,
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

    #[test]
    fn without_reports_nothing_is_held() {
        assert_eq!(LipSync::default().due(1, None, Instant::now()), None);
        assert_eq!(LipSync::default().offset_ms(), None);
    }
}
