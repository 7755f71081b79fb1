//! From arriving packets to frames and figures.

use super::connection::{Shared, TICK, lock};
use super::event::{MediaKind, PeerEvent};
use super::meter::Meter;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// No packet for this long on an active stream is a stall.
const STALL: Duration = Duration::from_secs(3);
const STALL_REPEAT: Duration = Duration::from_secs(1);
/// How long a key frame may be missing while packets come, where asking for one does nothing.
const KEY_FRAME_LIMIT: Duration = Duration::from_secs(2);
/// The same where the sender answers requests: it may be slow, and a new connection asks it for no more.
const PATIENT_KEY_FRAME_LIMIT: Duration = Duration::from_secs(5);

/// When things happened, for the watch task.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    first: Option<Instant>,
    last: Option<Instant>,
    /// Since when only a key frame helps, as the receiver of the frames has it.
    keyless_since: Option<Instant>,
    /// Whether the other side passes no key frame request on.
    deaf: bool,
    /// Whether the sender announces this kind as active.
    expected: bool,
    /// Since when.
    expected_since: Option<Instant>,
    /// It may stand still: once it has begun, silence is no stall.
    may_rest: bool,
    /// Since when packets are due: connected and active.
    due_since: Option<Instant>,
    stalled_told: Option<Instant>,
    key_frame_told: Option<Instant>,
}

impl Arrivals {
    /// A packet came; true for the first one.
    pub(super) fn packet(&mut self, now: Instant) -> bool {
        self.last = Some(now);
        self.first.replace(self.first.unwrap_or(now)).is_none()
    }

    /// Since when nothing can be decoded without a key frame; `None` while frames come out.
    pub(super) fn keyless(&mut self, since: Option<Instant>) {
        if self.keyless_since != since {
            self.keyless_since = since;
            self.key_frame_told = None;
        }
    }

    /// The other side passes no key frame request on.
    pub(super) fn set_deaf(&mut self, deaf: bool) {
        self.deaf = deaf;
    }

    /// Whether it may stand still for as long as it likes, as a shared page does.
    pub(super) fn set_may_rest(&mut self, may_rest: bool) {
        self.may_rest = may_rest;
    }

    pub(super) fn expect(&mut self, active: bool, now: Instant) {
        if active && !self.expected {
            // A camera takes a moment to open after the announcement.
            self.due_since = self.due_since.map(|_| now);
            self.last = self.last.map(|_| now);
            self.expected_since = Some(now);
        }
        self.expected = active;
    }

    /// What has to be told now.
    fn check(&mut self, kind: MediaKind, connected: bool, now: Instant, out: &mut Vec<PeerEvent>) {
        if !connected {
            self.due_since = None;
            return;
        }
        let due = *self.due_since.get_or_insert(now);
        let last = self.last.map_or(due, |last| last.max(due));
        let silence = now.saturating_duration_since(last);
        let rests = self.may_rest && self.first.is_some();
        if self.expected && !rests && silence >= STALL {
            if self.stalled_told.is_none_or(|told| now.saturating_duration_since(told) >= STALL_REPEAT) {
                self.stalled_told = Some(now);
                out.push(PeerEvent::Stalled { kind, ms: silence.as_millis() as u64 });
            }
        } else if self.stalled_told.take().is_some() && silence < STALL {
            out.push(PeerEvent::Resumed { kind });
        }
        // Whoever switches a camera on sends a key frame with it, a moment after saying so.
        if let Some(since) = self.keyless_since.filter(|_| self.expected && silence < STALL) {
            let since = [self.expected_since, self.key_frame_told].into_iter().flatten().fold(since, Instant::max);
            let limit = if self.deaf { KEY_FRAME_LIMIT } else { PATIENT_KEY_FRAME_LIMIT };
            if now.saturating_duration_since(since) >= limit {
                self.key_frame_told = Some(now);
                out.push(PeerEvent::NoKeyFrame);
            }
        }
    }
}

/// One kind on its way in.
#[derive(Debug)]
pub(super) struct Incoming {
    pub(super) kind: MediaKind,
    pub(super) arrivals: Mutex<Arrivals>,
    pub(super) rate: Mutex<Meter>,
}

impl Incoming {
    pub(super) fn new(kind: MediaKind) -> Self {
        let arrivals = Arrivals { expected: true, ..Arrivals::default() };
        Self { kind, arrivals: Mutex::new(arrivals), rate: Mutex::default() }
    }

    /// Notes a packet of `bytes` payload bytes.
    pub(super) fn packet(&self, shared: &Shared, now: Instant, bytes: usize) {
        if lock(&self.arrivals).packet(now) {
            shared.emit(PeerEvent::FirstPacket { kind: self.kind });
        }
        lock(&self.rate).add(now, bytes);
    }
}

/// Raises stall and key frame events.
pub(super) async fn watch_arrivals(shared: std::sync::Arc<Shared>, kinds: Vec<std::sync::Arc<Incoming>>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut events = Vec::new();
    loop {
        ticks.tick().await;
        for incoming in &kinds {
            lock(&incoming.arrivals).check(incoming.kind, shared.is_connected(), Instant::now(), &mut events);
        }
        for event in events.drain(..) {
            shared.emit(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(arrivals: &mut Arrivals, kind: MediaKind, now: Instant) -> Vec<PeerEvent> {
        let mut out = Vec::new();
        arrivals.check(kind, true, now, &mut out);
        out
    }

    #[test]
    fn a_stall_is_told_every_second_until_packets_flow_again() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut a = Arrivals { expected: true, ..Arrivals::default() };
        assert!(check(&mut a, MediaKind::Audio, at(0)).is_empty());
        assert!(check(&mut a, MediaKind::Audio, at(2_900)).is_empty());
        assert_eq!(
            check(&mut a, MediaKind::Audio, at(3_000)),
            [PeerEvent::Stalled { kind: MediaKind::Audio, ms: 3_000 }]
        );
        assert!(check(&mut a, MediaKind::Audio, at(3_500)).is_empty());
        assert_eq!(
            check(&mut a, MediaKind::Audio, at(4_000)),
            [PeerEvent::Stalled { kind: MediaKind::Audio, ms: 4_000 }]
        );
        assert!(a.packet(at(4_100)));
        assert!(!a.packet(at(4_200)));
        assert_eq!(check(&mut a, MediaKind::Audio, at(4_300)), [PeerEvent::Resumed { kind: MediaKind::Audio }]);
        // Muted by its sender: silence is right, and becomes due again when unmuted.
        a.expect(false, at(4_400));
        assert!(check(&mut a, MediaKind::Audio, at(60_000)).is_empty());
        a.expect(true, at(60_000));
        assert!(check(&mut a, MediaKind::Audio, at(62_000)).is_empty());
        assert_eq!(
            check(&mut a, MediaKind::Audio, at(63_000)),
            [PeerEvent::Stalled { kind: MediaKind::Audio, ms: 3_000 }]
        );
    }

    #[test]
    fn a_page_that_stands_still_is_no_stall_but_one_that_never_comes_is() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut a = Arrivals { expected: true, may_rest: true, ..Arrivals::default() };
        assert!(check(&mut a, MediaKind::Video, at(0)).is_empty());
        assert_eq!(
            check(&mut a, MediaKind::Video, at(3_000)),
            [PeerEvent::Stalled { kind: MediaKind::Video, ms: 3_000 }]
        );
        a.packet(at(3_500));
        assert_eq!(check(&mut a, MediaKind::Video, at(3_600)), [PeerEvent::Resumed { kind: MediaKind::Video }]);
        assert!(check(&mut a, MediaKind::Video, at(600_000)).is_empty());
    }

    #[test]
    fn a_missing_key_frame_is_told_after_two_seconds() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut a = Arrivals { expected: true, deaf: true, ..Arrivals::default() };
        check(&mut a, MediaKind::Video, at(0));
        a.packet(at(1_000));
        a.keyless(Some(at(1_000)));
        a.packet(at(2_900));
        assert!(check(&mut a, MediaKind::Video, at(2_900)).is_empty());
        a.packet(at(3_000));
        assert_eq!(check(&mut a, MediaKind::Video, at(3_000)), [PeerEvent::NoKeyFrame]);
        a.packet(at(4_000));
        assert!(check(&mut a, MediaKind::Video, at(4_000)).is_empty());
        a.packet(at(5_000));
        assert_eq!(check(&mut a, MediaKind::Video, at(5_000)), [PeerEvent::NoKeyFrame]);
        a.keyless(None);
        a.packet(at(9_000));
        assert!(check(&mut a, MediaKind::Video, at(9_000)).is_empty());
        // A loss in the middle that nothing repaired.
        a.keyless(Some(at(9_500)));
        a.packet(at(11_400));
        assert!(check(&mut a, MediaKind::Video, at(11_400)).is_empty());
        assert_eq!(check(&mut a, MediaKind::Video, at(11_500)), [PeerEvent::NoKeyFrame]);
        // Somebody who passes requests on is given more time.
        a.deaf = false;
        a.packet(at(16_400));
        assert!(check(&mut a, MediaKind::Video, at(16_400)).is_empty());
        assert_eq!(check(&mut a, MediaKind::Video, at(16_500)), [PeerEvent::NoKeyFrame]);
    }

    #[test]
    fn a_camera_that_is_off_owes_no_key_frame() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut a = Arrivals { deaf: true, ..Arrivals::default() };
        // Browsers send black pictures meanwhile, which nobody asked a key frame for.
        for ms in (0..20_000).step_by(1_000) {
            a.packet(at(ms));
            a.keyless(Some(at(0)));
            assert!(check(&mut a, MediaKind::Video, at(ms)).is_empty());
        }
        a.expect(true, at(20_000));
        a.packet(at(21_900));
        assert!(check(&mut a, MediaKind::Video, at(21_900)).is_empty(), "it takes a moment to open");
        assert_eq!(check(&mut a, MediaKind::Video, at(22_000)), [PeerEvent::NoKeyFrame]);
    }
}
