//! The transport of the moment, with what those before it have counted.
//!
//! A transport that fails is replaced by another one of the same stream. Each counts from zero; a stream does not.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;

use crate::peer::{Publication, PublicationStats, ReceiveStats, SendStats, Subscription, SubscriptionStats};

/// A transport handle that counts.
pub(super) trait Counted {
    /// What it counts.
    type Figures: Clone + Default;

    /// Its figures of now.
    fn figures(&self) -> Self::Figures;

    /// The figures of a stream whose transports had counted `past` before this one counted `now`.
    fn sum(past: &Self::Figures, now: Self::Figures) -> Self::Figures;
}

/// The transport that carries a stream now, if one does. Cheap to clone: leg and engine hold the same.
pub(super) struct Line<T: Counted>(Arc<Inner<T>>);

struct Inner<T: Counted> {
    now: ArcSwapOption<T>,
    past: Mutex<T::Figures>,
}

impl<T: Counted> Clone for Line<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Counted> Default for Line<T> {
    fn default() -> Self {
        Self(Arc::new(Inner { now: ArcSwapOption::empty(), past: Mutex::default() }))
    }
}

impl<T: Counted> Line<T> {
    fn past(&self) -> MutexGuard<'_, T::Figures> {
        self.0.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on this one.
    pub(super) fn set(&self, handle: Arc<T>) {
        self.0.now.store(Some(handle));
    }

    /// The one of the moment.
    pub(super) fn handle(&self) -> Option<Arc<T>> {
        self.0.now.load_full()
    }

    /// Takes the transport out to be closed; what it has counted stays.
    pub(super) fn retire(&self) -> Option<Arc<T>> {
        let mut past = self.past();
        let old = self.0.now.swap(None)?;
        *past = T::sum(&past, old.figures());
        Some(old)
    }

    /// Figures of the stream since its beginning.
    pub(super) fn figures(&self) -> T::Figures {
        let past = self.past();
        match self.0.now.load_full() {
            Some(handle) => T::sum(&past, handle.figures()),
            None => past.clone(),
        }
    }
}

impl Counted for Publication {
    type Figures = PublicationStats;

    fn figures(&self) -> PublicationStats {
        self.stats()
    }

    fn sum(past: &PublicationStats, now: PublicationStats) -> PublicationStats {
        PublicationStats {
            video: both(&past.video, now.video, sent),
            audio: both(&past.audio, now.audio, sent),
            target_bitrate_bps: now.target_bitrate_bps.or(past.target_bitrate_bps),
            transport: now.transport,
        }
    }
}

impl Counted for Subscription {
    type Figures = SubscriptionStats;

    fn figures(&self) -> SubscriptionStats {
        self.stats()
    }

    fn sum(past: &SubscriptionStats, now: SubscriptionStats) -> SubscriptionStats {
        SubscriptionStats {
            video: both(&past.video, now.video, received),
            audio: both(&past.audio, now.audio, received),
            transport: now.transport,
        }
    }
}

fn both<S: Clone>(past: &Option<S>, now: Option<S>, sum: fn(&S, S) -> S) -> Option<S> {
    match (past, now) {
        (Some(past), Some(now)) => Some(sum(past, now)),
        (past, now) => now.or_else(|| past.clone()),
    }
}

fn sent(past: &SendStats, now: SendStats) -> SendStats {
    SendStats {
        codec: now.codec.or(past.codec),
        packets: past.packets + now.packets,
        bytes: past.bytes + now.bytes,
        frames: past.frames + now.frames,
        key_frames: past.key_frames + now.key_frames,
        frames_dropped: past.frames_dropped + now.frames_dropped,
        // Absent until a receiver has reported; what an earlier one reported is not forgotten.
        packets_lost: match (past.packets_lost, now.packets_lost) {
            (Some(past), Some(now)) => Some(past + now),
            (past, now) => now.or(past),
        },
        jitter_ms: now.jitter_ms.or(past.jitter_ms),
        nacks: past.nacks + now.nacks,
        plis: past.plis + now.plis,
        ..now
    }
}

/// Figures of one kind of media over two transports.
pub(super) fn received(past: &ReceiveStats, now: ReceiveStats) -> ReceiveStats {
    ReceiveStats {
        codec: now.codec.or(past.codec),
        packets: past.packets + now.packets,
        bytes: past.bytes + now.bytes,
        packets_lost: past.packets_lost + now.packets_lost,
        packets_recovered: past.packets_recovered + now.packets_recovered,
        nacks: past.nacks + now.nacks,
        plis: past.plis + now.plis,
        jitter_ms: now.jitter_ms.or(past.jitter_ms),
        frames: past.frames + now.frames,
        key_frames: past.key_frames + now.key_frames,
        frames_dropped: past.frames_dropped + now.frames_dropped,
        freezes: past.freezes + now.freezes,
        freeze_ms: past.freeze_ms + now.freeze_ms,
        ..now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake(u64);

    impl Counted for Fake {
        type Figures = SubscriptionStats;

        fn figures(&self) -> SubscriptionStats {
            let video = ReceiveStats { packets: self.0, nacks: 1, bitrate_bps: self.0, ..ReceiveStats::default() };
            SubscriptionStats { video: Some(video), ..SubscriptionStats::default() }
        }

        fn sum(past: &SubscriptionStats, now: SubscriptionStats) -> SubscriptionStats {
            Subscription::sum(past, now)
        }
    }

    #[test]
    fn a_rebuilt_transport_goes_on_counting() {
        let line = Line::<Fake>::default();
        assert_eq!(line.figures(), SubscriptionStats::default());
        for packets in [100, 20] {
            line.set(Arc::new(Fake(packets)));
            assert!(line.retire().is_some());
            assert!(line.retire().is_none(), "counted once");
        }
        let between = line.figures().video.unwrap();
        assert_eq!((between.packets, between.nacks), (120, 2));
        line.set(Arc::new(Fake(3)));
        let now = line.figures().video.unwrap();
        assert_eq!((now.packets, now.nacks, now.bitrate_bps), (123, 3, 3));
    }

    #[test]
    fn what_a_receiver_reported_is_added_and_what_nobody_reported_stays_absent() {
        let with = |lost| SendStats { packets_lost: lost, packets: 1, ..SendStats::default() };
        assert_eq!(sent(&with(Some(2)), with(Some(3))).packets_lost, Some(5));
        assert_eq!(sent(&with(Some(2)), with(None)).packets_lost, Some(2));
        assert_eq!(sent(&with(None), with(None)).packets_lost, None);
    }
}
