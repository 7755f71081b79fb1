//! What the process costs, read from `/proc` (Linux); elsewhere the values stay absent.

use std::sync::Mutex;
use std::time::Instant;

use super::report::ProcessReport;

/// Ticks per second of the times in `/proc/self/stat`: fixed at 100 by the kernel's interface (proc(5), USER_HZ).
const USER_HZ: f64 = 100.0;

/// Collects peaks; one for the whole process.
#[derive(Debug)]
pub struct ProcessMeter {
    started: Instant,
    peaks: Mutex<(u64, u64)>,
}

impl ProcessMeter {
    /// Starts measuring now.
    pub fn new(started: Instant) -> Self {
        Self { started, peaks: Mutex::new((0, 0)) }
    }

    /// Looks at threads and files; called about once a second.
    pub fn sample(&self) {
        let threads = status_value("Threads:");
        let fds = std::fs::read_dir("/proc/self/fd").map(|d| d.count() as u64).unwrap_or(0);
        let mut peaks = self.peaks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        peaks.0 = peaks.0.max(threads.unwrap_or(0));
        peaks.1 = peaks.1.max(fds);
    }

    /// The figures so far.
    pub fn report(&self) -> ProcessReport {
        self.sample();
        let (threads, fds) = *self.peaks.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = |v: u64| (v > 0).then_some(v);
        ProcessReport {
            wall_s: self.started.elapsed().as_secs_f64(),
            cpu_s: cpu_seconds(),
            rss_peak_bytes: status_value("VmHWM:").map(|kib| kib * 1024),
            threads_peak: known(threads),
            fds_peak: known(fds),
        }
    }
}

fn status_value(key: &str) -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|l| l.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// User and system time of this process in seconds.
pub fn cpu_seconds() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the name in brackets and may hold anything; count from behind it.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / USER_HZ)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn figures_are_there_on_linux() {
        let report = ProcessMeter::new(Instant::now()).report();
        assert!(report.cpu_s.is_some());
        assert!(report.rss_peak_bytes.unwrap() > 1_000_000);
        assert!(report.threads_peak.unwrap() >= 1);
        assert!(report.fds_peak.unwrap() >= 3);
    }
}
