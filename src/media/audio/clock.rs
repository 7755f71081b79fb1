//! The time that an engine lives by: the system's, or that of whoever runs it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Clones tell the same time. By default the system's.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clock(Option<Arc<Virtual>>);

#[derive(Debug)]
struct Virtual {
    origin: Instant,
    since_ns: AtomicU64,
}

impl Clock {
    /// One that stands still but for [`Self::set`].
    pub(crate) fn standing() -> Self {
        Self(Some(Arc::new(Virtual { origin: Instant::now(), since_ns: AtomicU64::new(0) })))
    }

    pub(crate) fn now(&self) -> Instant {
        match &self.0 {
            None => Instant::now(),
            Some(v) => v.origin + Duration::from_nanos(v.since_ns.load(Ordering::Relaxed)),
        }
    }

    /// Sets one that stands still to so long after its beginning.
    pub(crate) fn set(&self, since: Duration) {
        if let Some(v) = &self.0 {
            v.since_ns.store(since.as_nanos() as u64, Ordering::Relaxed);
        }
    }
}
