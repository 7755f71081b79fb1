//! What only background tasks open and close: devices of the lobby, the room of this computer, the file of the settings.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::runtime::Handle;
use tokio::task::JoinHandle;

/// Something that takes its time to open and to close. The newest wish wins; one that was overtaken does nothing.
pub(super) struct Held<T> {
    wish: AtomicU64,
    held: Mutex<Option<T>>,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { wish: AtomicU64::new(0), held: Mutex::new(None) }
    }
}

impl<T: Send + 'static> Held<T> {
    /// Waits for what is being opened or closed: never on the window's thread.
    pub(super) fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads something from what is open; `None` also while it is being opened or closed.
    pub(super) fn glance<R>(&self, read: impl FnOnce(&T) -> R) -> Option<R> {
        match self.held.try_lock() {
            Ok(held) => held.as_ref().map(read),
            Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => None,
        }
    }

    /// A new wish: from now on the ones before it count no more.
    pub(super) fn wish(&self) -> u64 {
        self.wish.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn is_newest(&self, wish: u64) -> bool {
        self.wish.load(Ordering::SeqCst) == wish
    }

    /// Closes what is open, then opens what is wanted now: a driver gives a device to one reader only, and a port has one room.
    pub(super) fn carry_out(
        self: &Arc<Self>,
        runtime: &Handle,
        wish: u64,
        open: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> JoinHandle<()> {
        let this = Arc::clone(self);
        runtime.spawn_blocking(move || {
            let mut held = this.lock();
            if this.is_newest(wish) {
                *held = None;
            }
            if this.is_newest(wish) {
                *held = open();
            }
        })
    }

    /// [`Self::wish`] and [`Self::carry_out`] where nothing is shown in between.
    pub(super) fn replace(
        self: &Arc<Self>,
        runtime: &Handle,
        open: impl FnOnce() -> Option<T> + Send + 'static,
    ) -> JoinHandle<()> {
        let wish = self.wish();
        self.carry_out(runtime, wish, open)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    /// A device whose driver takes its time to close: until it is told to go on.
    struct Hanging(mpsc::Receiver<()>);

    impl Drop for Hanging {
        fn drop(&mut self) {
            let _ = self.0.recv_timeout(Duration::from_secs(20));
        }
    }

    #[test]
    fn a_hanging_driver_holds_nobody_up_and_the_newest_wish_wins() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("threads");
        let held: Arc<Held<Hanging>> = Arc::default();
        let (go_on, waits) = mpsc::sync_channel(1);
        let (opened, seen) = mpsc::sync_channel(8);
        let open = |name: &'static str, device: Hanging| {
            let opened = opened.clone();
            move || {
                opened.send(name).expect("listened to");
                Some(device)
            }
        };
        let quick = || Hanging(mpsc::sync_channel(1).1);
        drop(held.replace(runtime.handle(), open("first", Hanging(waits))));
        assert_eq!(seen.recv_timeout(Duration::from_secs(20)), Ok("first"));
        // The first does not close; both wishes return all the same, and neither has been carried out.
        drop(held.replace(runtime.handle(), open("second", quick())));
        drop(held.replace(runtime.handle(), open("third", quick())));
        assert!(seen.try_recv().is_err());
        go_on.send(()).expect("it waits");
        assert_eq!(seen.recv_timeout(Duration::from_secs(20)), Ok("third"));
        drop(runtime);
        // The second was overtaken before it was opened, unless it was the one that waited for the close.
        assert!(seen.try_iter().all(|name| name != "second"));
        assert!(held.lock().is_some());
    }
}
