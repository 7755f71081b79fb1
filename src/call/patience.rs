//! How often something is tried again: a transport for want of media, a request that went wrong.
//!
//! A new transport helps when the server has forgotten us or a key frame got lost, and nobody when the sender is silent. So the first tries
//! come at once, and then ever more seldom, until media of the kind comes.

use std::time::{Duration, Instant};

use crate::peer::{MediaKind, PeerError};
use crate::signaling::SignalingError;

/// How often in a row the server may refuse for reasons of its own before that is final.
const REFUSALS_IN_A_ROW: u32 = 6;
/// How often in a row something on this computer may go wrong before that is final: longer than a lost network is waited for.
const LOCAL_ERRORS_IN_A_ROW: u32 = 20;
/// Pauses in ms after refusals and errors, one after the other; the last one stays. A media server that restarts needs a few seconds.
const PAUSES_MS: [u64; 4] = [500, 1_000, 2_000, 4_000];
/// How often in a row a transport is rebuilt at once before there is a pause of [`REST_MS`].
const REBUILDS_IN_A_ROW: u32 = 3;
/// Pause after [`REBUILDS_IN_A_ROW`] failures: the network may come back, and nobody is served by hammering the server.
const REST_MS: u64 = 5_000;

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
    in_a_row: u32,
    /// Requests that the server refused though another try may go well.
    refusals: u32,
    /// Transports that could not even be built.
    local_errors: u32,
    /// What the last refusal or error asks for.
    pause: Duration,
    /// The last request was lost or failed half-way: the server may have carried it out all the same.
    pub(super) doubtful: bool,
}

impl Failures {
    /// Media can flow again.
    pub(super) fn connected(&mut self) {
        (self.in_a_row, self.refusals, self.local_errors) = (0, 0, 0);
    }

    /// Counts a transport that came to nothing; how long to wait before the next.
    pub(super) fn rest(&mut self) -> Duration {
        self.in_a_row += 1;
        let rest = if self.in_a_row > REBUILDS_IN_A_ROW { REST_MS } else { 0 };
        std::mem::take(&mut self.pause).max(Duration::from_millis(rest))
    }

    /// The server refused for reasons that may pass: why to try again; `None` when it has done so too often.
    pub(super) fn refused(&mut self) -> Option<&'static str> {
        if self.refusals >= REFUSALS_IN_A_ROW {
            return None;
        }
        self.doubtful = true;
        self.pause = pause_after(self.refusals);
        self.refusals += 1;
        Some("refused")
    }

    /// Whether to try again after something went wrong on this computer. A description or a codec that does not fit never will.
    pub(super) fn again_after_local(&mut self, error: &PeerError) -> bool {
        let fits = !matches!(error, PeerError::NoMedia | PeerError::BadDescription(_) | PeerError::NoCommonCodec(_));
        let again = fits && self.local_errors < LOCAL_ERRORS_IN_A_ROW;
        if again {
            self.pause = pause_after(self.local_errors);
            self.local_errors += 1;
        }
        again
    }

    /// Why to try again after a request that went wrong; `None` when that is no use.
    pub(super) fn again_after(&mut self, error: &SignalingError) -> Option<&'static str> {
        match error {
            SignalingError::NotConnected => Some("no_answer"),
            SignalingError::NoAnswer { .. } => {
                self.doubtful = true;
                Some("no_answer")
            }
            // Its media server stumbled or is not back yet, or it has a stream or a subscription of ours from before.
            SignalingError::Server { code: -1 | 104 | 106 | 201 | 301..=306 | 999, .. }
            | SignalingError::NoCapacity { .. } => self.refused(),
            _ => None,
        }
    }
}

/// The pause after so many like the last one.
fn pause_after(before: u32) -> Duration {
    let at = usize::try_from(before).unwrap_or(usize::MAX);
    Duration::from_millis(PAUSES_MS.get(at).or(PAUSES_MS.last()).copied().unwrap_or_default())
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
        let full = SignalingError::NoCapacity { detail: String::new() };
        assert_eq!(failures.again_after(&full), Some("refused"), "a media server that restarts");
    }

    #[test]
    fn what_goes_wrong_here_is_tried_again_with_pauses_and_not_for_ever() {
        let mut failures = Failures::default();
        for error in [PeerError::NoMedia, PeerError::BadDescription("x".into()), PeerError::NoCommonCodec("video")] {
            assert!(!failures.again_after_local(&error), "{error}");
        }
        let passing = [PeerError::NoAddress, PeerError::Timeout(1), PeerError::Stack("x".into())];
        let mut pauses = Vec::new();
        for error in passing.iter().cycle().take(LOCAL_ERRORS_IN_A_ROW as usize) {
            assert!(failures.again_after_local(error), "{error}");
            pauses.push(failures.rest().as_millis());
        }
        assert_eq!(pauses[..5], [500, 1_000, 2_000, 5_000, 5_000]);
        assert!(!failures.again_after_local(&PeerError::NoAddress));
        failures.connected();
        assert!(failures.again_after_local(&PeerError::NoAddress));
        assert_eq!((failures.rest().as_millis(), failures.rest().as_millis()), (500, 0), "a pause is for once");
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
