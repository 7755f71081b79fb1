//! What other processes cost, with all their children: read from `/proc`.

use std::collections::{BTreeMap, HashMap};
use std::fs;

/// Ticks per second of the times in `/proc/*/stat`: fixed at 100 by the kernel's interface (proc(5), USER_HZ).
const USER_HZ: f64 = 100.0;

/// What a tree of processes has used so far.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// User and system time by thread, with its name.
    threads: HashMap<u32, (String, f64)>,
    /// Switches that threads made by themselves: each is one waking up, be it by a timer or by work.
    wakeups: HashMap<u32, u64>,
    /// Memory, shared pages divided among those who share them.
    pub(super) pss_bytes: u64,
    /// Number of processes.
    pub(super) processes: usize,
}

/// Looks at `root` and everything that it started.
pub(super) fn look(root: u32) -> Used {
    let mut used = Used::default();
    for pid in tree(root) {
        used.processes += 1;
        used.pss_bytes += number(&format!("/proc/{pid}/smaps_rollup"), "Pss:").unwrap_or(0) * 1024;
        let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { continue };
        for task in tasks.flatten() {
            let Some(tid) = task.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let path = format!("/proc/{pid}/task/{tid}");
            if let Some(thread) = thread(&format!("{path}/stat")) {
                used.threads.insert(tid, thread);
            }
            if let Some(switches) = number(&format!("{path}/status"), "voluntary_ctxt_switches:") {
                used.wakeups.insert(tid, switches);
            }
        }
    }
    used
}

impl Used {
    /// Seconds of processor time since `before`, by name of thread (its number cut off). What threads used that have
    /// ended meanwhile is missing.
    pub(super) fn cpu_s_since(&self, before: &Self) -> BTreeMap<String, f64> {
        let mut by_name = BTreeMap::new();
        for (tid, (name, seconds)) in &self.threads {
            let earlier = before.threads.get(tid).map_or(0.0, |(_, seconds)| *seconds);
            *by_name.entry(bare(name)).or_default() += seconds - earlier;
        }
        by_name
    }

    /// Wakeups since `before`, by name of thread as in [`Self::cpu_s_since`]; of several of one name the most that one had.
    pub(super) fn wakeups_since(&self, before: &Self) -> BTreeMap<String, u64> {
        let mut by_name = BTreeMap::new();
        for (tid, count) in &self.wakeups {
            let Some((name, _)) = self.threads.get(tid) else { continue };
            let new = count.saturating_sub(before.wakeups.get(tid).copied().unwrap_or(0));
            let most: &mut u64 = by_name.entry(bare(name)).or_default();
            *most = new.max(*most);
        }
        by_name
    }
}

/// A thread's name without its number.
fn bare(name: &str) -> String {
    name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned()
}

/// `root` and its descendants.
fn tree(root: u32) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            Some((pid, fields(&format!("/proc/{pid}/stat"))?.1.get(1)?.parse().ok()?))
        })
        .collect();
    let mut found = vec![root];
    let mut at = 0;
    while let Some(&parent) = found.get(at) {
        found.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

/// Name, and the fields behind it beginning with the state.
fn fields(path: &str) -> Option<(String, Vec<String>)> {
    let stat = fs::read_to_string(path).ok()?;
    // The name is in brackets and may hold anything, brackets too.
    let (front, rest) = stat.rsplit_once(')')?;
    let name = front.split_once('(')?.1.to_owned();
    Some((name, rest.split_whitespace().map(str::to_owned).collect()))
}

fn thread(path: &str) -> Option<(String, f64)> {
    let (name, fields) = fields(path)?;
    let user: f64 = fields.get(11)?.parse().ok()?;
    let system: f64 = fields.get(12)?.parse().ok()?;
    Some((name, (user + system) / USER_HZ))
}

fn number(path: &str, key: &str) -> Option<u64> {
    let text = fs::read_to_string(path).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}
