//! Notices that this computer has another network, or that it slept.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// How often is looked.
const INTERVAL: Duration = Duration::from_secs(2);
/// So much further may [`waking_or_not`] be than the time that we have run; of a computer that slept it is further.
const SLEPT: Duration = Duration::from_secs(5);

/// Says so whenever something changed, until nobody listens.
pub(super) async fn watch(changed: mpsc::Sender<()>) {
    let mut last: Option<Seen> = None;
    loop {
        // Without an answer of the system there is nothing to compare.
        if let Ok(addresses) = tokio::task::spawn_blocking(addresses).await {
            let seen = Seen { addresses, ran: Instant::now(), passed: waking_or_not() };
            if last.replace(seen.clone()).is_some_and(|before| seen.differs_from(&before)) {
                // One that waits already says the same.
                let _ = changed.try_send(());
            }
        }
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = changed.closed() => return,
        }
    }
}

#[derive(Debug, Clone)]
struct Seen {
    addresses: BTreeSet<IpAddr>,
    ran: Instant,
    /// By a clock that goes on while the computer sleeps.
    passed: Duration,
}

impl Seen {
    fn differs_from(&self, before: &Self) -> bool {
        let ran = self.ran.saturating_duration_since(before.ran);
        let passed = self.passed.saturating_sub(before.passed);
        self.addresses != before.addresses || passed.saturating_sub(ran) > SLEPT
    }
}

/// Time from some moment on, sleep included. Setting the time of day changes nothing about it.
#[cfg(target_os = "linux")]
fn waking_or_not() -> Duration {
    use rustix::time::{ClockId, clock_gettime};
    Duration::try_from(clock_gettime(ClockId::Boottime)).unwrap_or_default()
}

/// The time of day: where that is set forward, the connection is looked at without need.
#[cfg(not(target_os = "linux"))]
fn waking_or_not() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default()
}

/// Addresses by which others are reached.
fn addresses() -> BTreeSet<IpAddr> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    all.iter().filter(|i| !i.is_loopback() && !i.is_link_local()).map(if_addrs::Interface::ip).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_address_or_a_sleep_is_a_change() {
        let ran = Instant::now();
        let seen = |addresses: &[[u8; 4]], ran_s, passed_s| Seen {
            addresses: addresses.iter().map(|a| IpAddr::from(*a)).collect(),
            ran: ran + Duration::from_secs(ran_s),
            passed: Duration::from_secs(passed_s),
        };
        let before = seen(&[[10, 0, 0, 1]], 0, 100);
        assert!(!seen(&[[10, 0, 0, 1]], 2, 102).differs_from(&before));
        assert!(!seen(&[[10, 0, 0, 1]], 20, 120).differs_from(&before), "a busy computer");
        assert!(!seen(&[[10, 0, 0, 1]], 2, 40).differs_from(&before), "a clock that goes back");
        assert!(seen(&[[10, 0, 0, 1]], 2, 300).differs_from(&before));
        assert!(seen(&[[10, 0, 0, 2]], 2, 102).differs_from(&before));
        assert!(seen(&[], 2, 102).differs_from(&before));
    }

    #[tokio::test]
    async fn nobody_listening_ends_it() {
        let (changed, listener) = mpsc::channel(1);
        let watching = tokio::spawn(watch(changed));
        drop(listener);
        tokio::time::timeout(Duration::from_secs(10), watching).await.unwrap().unwrap();
    }
}
