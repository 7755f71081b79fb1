//! How often something is tried again: a transport for want of media, a request that went wrong.
//!
//! A new transport helps when the server has forgotten us or a key frame got lost, and nobody when the sender is silent. So the first tries
//! come at once, and then ever more seldom, until media of the kind comes.

use std::time::{Duration, Instant};

use crate::peer::MediaKind;
use crate::signaling::SignalingError;

/// How often in a row the server may refuse for reasons of its own before that is final.
const REFUSALS_IN_A_ROW: u32 = 6;

/// Seconds from one transport to the next while no key frame comes. Each has had two seconds or more for one.
const WITHOUT_KEY_FRAME: [u64; 6] = [0, 0, 0, 10, 20, 40];
/// Seconds from one transport to the next while no packets of a kind come.
const WITHOUT_PACKETS: [u64; 4] = [10, 30, 60, 120];

/// What one subscription has tried.
#[derive(Debug, Default)]
pub(super) struct Patience {
    key_frame: Tries,
    audio: Tries,
    video: Tries,
}

#[derive(Debug, Default)]
struct Tries {
    count: usize,
    last: Option<Instant>,
}

impl Tries {
    fn due(&self, pauses: &[u64], now: Instant) -> bool {
        let pause = pauses.get(self.count).or(pauses.last()).copied().unwrap_or_default();
        self.last.is_none_or(|last| now.saturating_duration_since(last) >= Duration::from_secs(pause))
    }

    fn made(&mut self, now: Instant) {
        self.last = Some(now);
        self.count += 1;
    }
}

impl Patience {
    /// No key frame comes: whether to try a new transport; then it counts as tried.
    pub(super) fn without_key_frame(&mut self, now: Instant) -> bool {
        let due = self.key_frame.due(&WITHOUT_KEY_FRAME, now);
        if due {
            self.key_frame.made(now);
        }
        due
    }

    /// No packets of this kind come: whether to try a new transport; then it counts as tried.
    pub(super) fn without_packets(&mut self, kind: MediaKind, now: Instant) -> bool {
        let due = self.of(kind).due(&WITHOUT_PACKETS, now);
        if due {
            // One transport carries both: the other kind has had its try, too.
            self.audio.made(now);
            self.video.made(now);
        }
        due
    }

    /// A key frame came.
    pub(super) fn key_frame(&mut self) {
        self.key_frame.count = 0;
    }

    /// Packets of this kind come.
    pub(super) fn packets(&mut self, kind: MediaKind) {
        self.of(kind).count = 0;
    }

    fn of(&mut self, kind: MediaKind) -> &mut Tries {
        match kind {
            MediaKind::Audio => &mut self.audio,
            MediaKind::Video => &mut self.video,
        }
    }
}

/// What went wrong since media last flowed.
#[derive(Debug, Default)]
pub(super) struct Failures {
    /// Transports that did not connect.
    pub(super) in_a_row: u32,
    /// Requests that the server refused though another try may go well.
    refusals: u32,
    /// The last request was lost or failed half-way: the server may have carried it out all the same.
    pub(super) doubtful: bool,
}

impl Failures {
    /// Media can flow again.
    pub(super) fn connected(&mut self) {
        (self.in_a_row, self.refusals) = (0, 0);
    }

    /// Why to try again after a request that went wrong; `None` when that is no use.
    pub(super) fn again_after(&mut self, error: &SignalingError) -> Option<&'static str> {
        match error {
            SignalingError::NotConnected => Some("no_answer"),
            SignalingError::NoAnswer { .. } => {
                self.doubtful = true;
                Some("no_answer")
            }
            // Its media server stumbled, or it has a stream or a subscription of ours from before.
            SignalingError::Server { code: -1 | 104 | 106 | 201 | 301..=306 | 999, .. }
                if self.refusals < REFUSALS_IN_A_ROW =>
            {
                self.doubtful = true;
                self.refusals += 1;
                Some("refused")
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seconds at which a new transport is tried, when it is asked every second.
    fn tries(seconds: u64, mut ask: impl FnMut(Instant) -> bool) -> Vec<u64> {
        let start = Instant::now();
        (0..seconds).filter(|s| ask(start + Duration::from_secs(*s))).collect()
    }

    #[test]
    fn what_may_pass_is_tried_again_and_what_is_final_is_not() {
        let mut failures = Failures::default();
        let server = |code| SignalingError::Server { code, message: String::new() };
        assert_eq!(
            (failures.again_after(&SignalingError::NotConnected), failures.doubtful),
            (Some("no_answer"), false)
        );
        for code in [102, 105, 401, 800] {
            assert_eq!(failures.again_after(&server(code)), None);
        }
        assert!(!failures.doubtful);
        for _ in 0..REFUSALS_IN_A_ROW {
            assert_eq!(failures.again_after(&server(-1)), Some("refused"));
        }
        assert_eq!((failures.again_after(&server(-1)), failures.doubtful), (None, true));
        failures.connected();
        assert_eq!(failures.again_after(&server(302)), Some("refused"));
    }

    #[test]
    fn tries_become_seldom_and_begin_anew_with_media() {
        let mut patience = Patience::default();
        assert_eq!(tries(100, |now| patience.without_packets(MediaKind::Video, now)), [0, 30, 90]);
        patience.packets(MediaKind::Audio);
        let later = Instant::now() + Duration::from_secs(150);
        assert!(!patience.without_packets(MediaKind::Video, later), "sound is no picture");
        assert!(!patience.without_packets(MediaKind::Audio, Instant::now() + Duration::from_secs(95)), "just tried");
        patience.packets(MediaKind::Video);
        assert!(patience.without_packets(MediaKind::Video, later));
        let mut patience = Patience::default();
        assert_eq!(tries(100, |now| patience.without_key_frame(now)), [0, 1, 2, 12, 32, 72]);
        patience.key_frame();
        assert!(patience.without_key_frame(later) && patience.without_key_frame(later));
    }
}
