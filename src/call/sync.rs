//! Lip sync: when a picture is due, given when the sound of the same moment is heard.
//!
//! Both kinds carry their own RTP clock; the sender's reports map each to one NTP clock (RFC 3550 §6.4.1).

use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::{Duration, Instant};

use crate::media::audio::PlayoutStream;
use crate::peer::MediaKind;
use crate::rtp::frame::{AUDIO_CLOCK_HZ, VIDEO_CLOCK_HZ};

/// A picture is never held longer than this for its sound.
const MAX_HOLD: Duration = Duration::from_millis(300);
/// "Not measured yet" in the atomic below.
const UNKNOWN: i32 = i32::MIN;

#[derive(Debug, Default, Clone, Copy)]
struct Maps {
    audio: Option<(u64, u32)>,
    video: Option<(u64, u32)>,
}

/// The clocks of one remote stream.
#[derive(Debug)]
pub(super) struct LipSync {
    maps: Mutex<Maps>,
    offset_ms: AtomicI32,
}

impl Default for LipSync {
    fn default() -> Self {
        Self { maps: Mutex::new(Maps::default()), offset_ms: AtomicI32::new(UNKNOWN) }
    }
}

impl LipSync {
    /// A sender report: at `ntp` (32.32) the kind's clock showed `rtp`.
    pub(super) fn report(&self, kind: MediaKind, ntp: u64, rtp: u32) {
        let mut maps = self.maps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match kind {
            MediaKind::Audio => maps.audio = Some((ntp, rtp)),
            MediaKind::Video => maps.video = Some((ntp, rtp)),
        }
    }

    /// A new transport has new clocks.
    pub(super) fn reset(&self) {
        *self.maps.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Maps::default();
        self.offset_ms.store(UNKNOWN, Ordering::Relaxed);
    }

    /// When the picture with this timestamp is due; `None` is at once.
    pub(super) fn due(&self, video_rtp: u32, playout: Option<&PlayoutStream>, now: Instant) -> Option<Instant> {
        let maps = *self.maps.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let heard_at = playout?.playout_time(audio_timestamp(maps.audio?, maps.video?, video_rtp))?;
        let due = heard_at.min(now + MAX_HOLD).max(now);
        let late = if due >= heard_at {
            due.duration_since(heard_at).as_millis() as i32
        } else {
            -(heard_at.duration_since(due).as_millis() as i32)
        };
        self.offset_ms.store(late, Ordering::Relaxed);
        (due > now).then_some(due)
    }

    /// How far the last picture was shown after (+) or before (−) its sound.
    pub(super) fn offset_ms(&self) -> Option<f64> {
        let offset = self.offset_ms.load(Ordering::Relaxed);
        (offset != UNKNOWN).then(|| f64::from(offset))
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
    fn without_reports_nothing_is_held() {
        assert_eq!(LipSync::default().due(1, None, Instant::now()), None);
        assert_eq!(LipSync::default().offset_ms(), None);
    }
}
