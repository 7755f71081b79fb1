//! How long pictures are held before they are shown, so that jitter and repairs do not show as freezes.
//!
//! The delay is what nearly all frames of the last seconds needed beyond the fastest one. It rises with the first frame that
//! comes late and falls slowly, so that a picture is neither skipped nor shown twice for it. On a quiet link it is zero.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::frame::VIDEO_CLOCK_HZ;

/// Frames are never held for longer.
const MAX_DELAY_MS: f64 = 300.0;
/// Frames that are looked back at, by time and by number.
const WINDOW: Duration = Duration::from_secs(5);
const FRAMES: usize = 512;
/// A stream begins with a key frame at a rate that is still being found out: what its first moments need says nothing about the rest.
const BEGINNING: Duration = Duration::from_millis(800);
/// Share of frames that are to be there in time.
const IN_TIME: f64 = 0.97;
/// Lateness that nobody sees: less than half a picture at 30 a second. Nothing is held for it.
const UNSEEN_MS: f64 = 15.0;
/// How fast the delay falls, in milliseconds a second.
const FALL_MS: f64 = 40.0;
/// The fastest frame is looked for in one to two of these; clocks drift, and routes change.
const BASE: Duration = Duration::from_secs(10);
/// Timestamps that are further from the clock than this are another timeline.
const JUMP_MS: f64 = 3_000.0;

/// The playout delay of one stream.
#[derive(Debug, Default)]
pub struct VideoPlayout {
    origin: Option<(Instant, u32)>,
    /// Transit times in ms, to an unknown origin, of the last frames.
    transits: VecDeque<(Instant, f64)>,
    /// Least of the present and of the last [`BASE`].
    base: [Option<f64>; 2],
    base_at: Option<Instant>,
    /// When the stream began.
    began: Option<Instant>,
    delay_ms: f64,
    last: Option<Instant>,
}

impl VideoPlayout {
    /// Takes a frame that became complete at `now`; how long it is to be held.
    pub fn frame(&mut self, rtp_timestamp: u32, now: Instant) -> Duration {
        let (began, first) = *self.origin.get_or_insert((now, rtp_timestamp));
        let sent_ms = f64::from(rtp_timestamp.wrapping_sub(first) as i32) * 1e3 / f64::from(VIDEO_CLOCK_HZ);
        let transit = now.saturating_duration_since(began).as_secs_f64() * 1e3 - sent_ms;
        if self.transits.back().is_some_and(|(_, before)| (transit - before).abs() > JUMP_MS) {
            *self = Self { delay_ms: self.delay_ms, began: self.began, ..Self::default() };
            return self.frame(rtp_timestamp, now);
        }
        // The origin moves along, so that the difference of timestamps never wraps.
        if sent_ms.abs() > 1e6 {
            self.origin = Some((now, rtp_timestamp));
            let shift = |value: f64| value - transit;
            self.transits.iter_mut().for_each(|(_, value)| *value = shift(*value));
            self.base = self.base.map(|base| base.map(shift));
            return self.note(0.0, now);
        }
        self.note(transit, now)
    }

    /// How long frames are held that come without delay.
    pub fn delay(&self) -> Duration {
        Duration::from_secs_f64(self.delay_ms / 1e3)
    }

    fn note(&mut self, transit: f64, now: Instant) -> Duration {
        while self.transits.len() >= FRAMES
            || self.transits.front().is_some_and(|(at, _)| now.saturating_duration_since(*at) > WINDOW)
        {
            self.transits.pop_front();
        }
        if now.saturating_duration_since(*self.began.get_or_insert(now)) < BEGINNING {
            // The beginning is shown as it comes.
            self.transits.clear();
        }
        self.transits.push_back((now, transit));
        if now.saturating_duration_since(*self.base_at.get_or_insert(now)) > BASE {
            self.base_at = Some(now);
            let [present, _] = self.base;
            self.base = [None, present];
        }
        let [present, _] = &mut self.base;
        *present = Some(present.map_or(transit, |least| least.min(transit)));
        let base = self.base.iter().flatten().copied().reduce(f64::min).unwrap_or(transit);
        let beginning = self.began.is_some_and(|began| now.saturating_duration_since(began) < BEGINNING);
        let wanted = if beginning { 0.0 } else { (self.late_ms(base) - UNSEEN_MS).clamp(0.0, MAX_DELAY_MS) };
        let passed = self.last.map_or(0.0, |last| now.saturating_duration_since(last).as_secs_f64());
        self.last = Some(now);
        self.delay_ms = wanted.max(self.delay_ms - FALL_MS * passed).max(0.0);
        Duration::from_secs_f64((base + self.delay_ms - transit).max(0.0) / 1e3)
    }

    /// What nearly all frames needed beyond the fastest.
    fn late_ms(&self, base: f64) -> f64 {
        let mut late: Vec<f64> = self.transits.iter().map(|(_, transit)| transit - base).collect();
        let at = ((late.len() as f64 * IN_TIME) as usize).min(late.len().saturating_sub(1));
        if late.is_empty() { 0.0 } else { *late.select_nth_unstable_by(at, f64::total_cmp).1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 30 frames a second from `from` on, each later than it was sent by what `late_ms` says; the longest gap between two
    /// that are shown, and the mean of what was added to a frame in time.
    fn run(
        playout: &mut VideoPlayout,
        start: Instant,
        from: u32,
        count: u32,
        late_ms: impl Fn(u32) -> u64,
    ) -> (u64, u64) {
        let (mut shown, mut longest, mut added) = (None::<Instant>, 0, 0);
        let mut ready = start;
        for n in from..from + count {
            let sent = start + Duration::from_millis(u64::from(n) * 100 / 3);
            // Frames come in order: a late one holds up those behind it.
            ready = ready.max(sent + Duration::from_millis(late_ms(n)));
            let due = ready + playout.frame(0xffff_f000_u32.wrapping_add(n * 3_000), ready);
            let due = shown.map_or(due, |last| due.max(last));
            if let Some(last) = shown {
                longest = longest.max((due - last).as_millis() as u64);
            }
            added += (due - sent).as_millis() as u64;
            shown = Some(due);
        }
        (longest, added / u64::from(count))
    }

    #[test]
    fn a_slow_beginning_holds_nothing_back_later() {
        let (mut playout, start) = (VideoPlayout::default(), Instant::now());
        let (_, added) = run(&mut playout, start, 0, 90, |n| if n < 12 { 90 - u64::from(n) * 7 } else { 5 });
        assert_eq!(playout.delay(), Duration::ZERO);
        assert!(added < 20, "{added} ms");
    }

    #[test]
    fn a_quiet_link_is_not_delayed() {
        let mut playout = VideoPlayout::default();
        let (longest, added) = run(&mut playout, Instant::now(), 0, 900, |n| u64::from(n * 7 % 9));
        assert!(longest <= 45 && added <= 6, "{longest} {added}");
    }

    #[test]
    fn jitter_is_covered_by_little_more_and_forgotten_within_ten_seconds() {
        for jitter in [30u32, 100, 200] {
            let (mut playout, start) = (VideoPlayout::default(), Instant::now());
            let noise = |n: u32| u64::from((n.wrapping_mul(2_654_435_761) >> 8) % (jitter + 1));
            run(&mut playout, start, 0, 300, noise);
            let (longest, added) = run(&mut playout, start, 300, 300, noise);
            let p95 = u64::from(jitter) * 95 / 100;
            assert!(longest <= 33 + 60 && added <= p95 + 20, "{jitter}: {longest} {added}");
            // Calm again.
            run(&mut playout, start, 600, 300, |_| 0);
            let (_, added) = run(&mut playout, start, 900, 60, |_| 0);
            assert!(added <= 2, "{jitter}: {added} {:?}", playout.delay());
        }
    }

    #[test]
    fn repairs_do_not_freeze_the_picture() {
        let (mut playout, start) = (VideoPlayout::default(), Instant::now());
        // One frame of sixteen needs a round trip of 90 ms more, one of eighty two of them.
        let late = |n: u32| if n % 80 == 79 { 215 } else { u64::from(n.is_multiple_of(16)) * 105 };
        run(&mut playout, start, 0, 120, late);
        let (longest, added) = run(&mut playout, start, 120, 1_500, late);
        assert!(longest < 183 && added < 150, "{longest} {added}");
    }

    #[test]
    fn traces_of_arrivals_are_shown_evenly() {
        /// How late frame `n` is; the longest gap allowed once the delay is known, and the mean that may be added.
        type Trace = (&'static str, fn(u32) -> u64, u64, u64);
        let traces: [Trace; 4] = [
            // Let through ten times a second.
            ("radio that sleeps", |n| 100 - u64::from(n) * 100 / 3 % 100, 75, 110),
            // Ten seconds of which two are a queue that fills and two one that drains.
            (
                "a queue of others",
                |n| (u64::from(n % 300).min(120)).min(120 - u64::from(n % 300).min(120)) * 4,
                110,
                260,
            ),
            // Half a second in which nothing comes, every twenty: seen, but only once each. The delay stays up for a while.
            ("handovers", |n| 500u64.saturating_sub(u64::from(n % 600) * 100 / 3), 540, 150),
            ("a way that is 80 ms longer from the middle on", |n| u64::from(n >= 1_200) * 80, 120, 80),
        ];
        for (name, late, longest_allowed, added_allowed) in traces {
            let (mut playout, start) = (VideoPlayout::default(), Instant::now());
            run(&mut playout, start, 0, 600, late);
            let (longest, added) = run(&mut playout, start, 600, 1_800, late);
            assert!(longest <= longest_allowed && added <= added_allowed, "{name}: {longest} ms, {added} ms");
        }
    }

    #[test]
    fn another_timeline_begins_anew_and_clocks_may_wrap() {
        let (mut playout, start) = (VideoPlayout::default(), Instant::now());
        for n in 0..400u32 {
            let now = start + Duration::from_secs(u64::from(n) * 600);
            // A frame every ten minutes: the timestamp wraps every eighty.
            let held = playout.frame(n.wrapping_mul(600 * 90_000), now);
            assert!(held <= Duration::from_millis(300), "{n}: {held:?}");
        }
        let later = start + Duration::from_secs(400 * 600);
        for n in 0..100u32 {
            // Jumps of hours with every frame.
            let held = playout.frame(n.wrapping_mul(0x2345_6789), later + Duration::from_millis(u64::from(n) * 33));
            assert!(held <= Duration::from_millis(300), "{n}: {held:?}");
        }
    }
}
