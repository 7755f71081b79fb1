//! What our own path loses, and what may be done about it: sound alone.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::Engine;

/// Seconds over which losses are counted.
const SECONDS: usize = 6;
/// Fewer packets say nothing.
const LEAST_PACKETS: u64 = 100;
/// So much is lost, in percent, before anything is offered: repeats and redundancy cost others too much by then.
const MUCH_PERCENT: u64 = 15;
/// A stream that loses this much takes part in it. Where most of them do, it is our path and not that of one of the others.
const SOME_PERCENT: u64 = 8;
/// It is not offered more often.
const SELDOM: Duration = Duration::from_secs(300);

/// Packets that came, or were sent, and packets lost on the way at first, repeated or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Losses {
    pub(super) came: u64,
    pub(super) lost: u64,
}

impl Losses {
    fn percent(self) -> u64 {
        (self.lost * 100).checked_div(self.came + self.lost).unwrap_or(0)
    }

    fn add(self, other: Self) -> Self {
        Self { came: self.came + other.came, lost: self.lost + other.lost }
    }
}

/// One second.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    received: Losses,
    sent: Losses,
    /// Streams that came, and those of them that lost some.
    streams: u64,
    losing: u64,
}

/// Watches the losses of our own path.
#[derive(Debug, Default)]
pub(super) struct LinkWatch {
    seconds: VecDeque<Second>,
    told: Option<Instant>,
}

impl LinkWatch {
    /// Takes what each stream received and all of ours sent within the last second. The percentage that is lost, when sound
    /// alone is to be offered.
    pub(super) fn note(&mut self, received: &[Losses], sent: Losses, now: Instant) -> Option<u64> {
        let came = || received.iter().filter(|stream| stream.came + stream.lost > 0);
        self.seconds.push_back(Second {
            received: received.iter().copied().fold(Losses::default(), Losses::add),
            sent,
            streams: came().count() as u64,
            losing: came().filter(|stream| stream.percent() >= SOME_PERCENT).count() as u64,
        });
        if self.seconds.len() > SECONDS {
            self.seconds.pop_front();
        }
        let sum = |of: fn(&Second) -> u64| self.seconds.iter().map(of).sum::<u64>();
        let whole = |of: fn(&Second) -> Losses| self.seconds.iter().map(of).fold(Losses::default(), Losses::add);
        let much = |of: fn(&Second) -> Losses| {
            Some(whole(of)).filter(|all| all.came + all.lost >= LEAST_PACKETS).map_or(0, Losses::percent)
        };
        let ours = sum(|second| second.losing) * 2 > sum(|second| second.streams);
        let percent = much(|second| second.sent).max(if ours { much(|second| second.received) } else { 0 });
        let seldom = self.told.is_none_or(|at| now.saturating_duration_since(at) >= SELDOM);
        if self.seconds.len() < SECONDS || percent < MUCH_PERCENT || !seldom {
            return None;
        }
        self.told = Some(now);
        Some(percent)
    }

    /// Another path, or nothing to be watched.
    pub(super) fn begin_anew(&mut self) {
        self.seconds.clear();
    }
}

impl Engine {
    /// Offers sound alone where the own path loses much.
    pub(super) fn watch_link(&mut self, received: &[Losses]) {
        let figures = self.own.publishing.as_ref().map(|publishing| publishing.line.figures());
        let (mut packets, mut lost) = (0, 0);
        for kind in figures.iter().flat_map(|f| [f.video.as_ref(), f.audio.as_ref()]).flatten() {
            packets += kind.packets;
            lost += kind.packets_lost.unwrap_or(0);
        }
        let before = std::mem::replace(&mut self.sent_losses, Losses { came: packets, lost });
        let sent = Losses { came: packets.saturating_sub(before.came), lost: lost.saturating_sub(before.lost) };
        // Of what was sent the lost ones are part.
        let sent = Losses { came: sent.came.saturating_sub(sent.lost), ..sent };
        if self.sound_only || self.connection != super::Connection::Connected {
            return self.link.begin_anew();
        }
        if let Some(percent) = self.link.note(received, sent, Instant::now()) {
            let event = self.event("slowLink").with("loss_percent", percent);
            self.emit(event);
            self.notice("net.slow_me", Vec::new());
        }
    }

    /// Receives no pictures and sends none of the camera, or shows those of the others again. Our own camera stays closed then
    /// until it is asked for.
    pub(super) fn set_sound_only(&mut self, on: bool) {
        if self.sound_only == on {
            return;
        }
        self.sound_only = on;
        if on && self.own.source_word() != "screen" {
            self.mute_video(true);
        }
        let event = self.event("soundOnly").with("on", on);
        self.emit(event);
        // A host that knows our tiles sends no pictures for hidden ones; of another one they are not subscribed to.
        let tiles = self.place.joined.as_ref().is_some_and(|joined| joined.tiles);
        let mut changed = Vec::new();
        for stream in self.people.iter_mut().filter(|p| !p.ours).filter_map(|p| p.stream.as_mut()) {
            let shown = stream.has_video && stream.wants_video && stream.subscribed.is_some();
            if tiles && shown {
                changed.push((stream.id.clone(), None));
            } else if if on { shown } else { stream.held_back } {
                stream.held_back = on;
                changed.push((stream.id.clone(), Some(stream.wants_audio)));
            }
        }
        for (id, audio) in changed {
            match audio {
                Some(audio) => self.choose_media(&id, audio, !on),
                None => {
                    self.drawn_anew.insert(id.clone());
                    self.follow_visibility(&id);
                }
            }
        }
        self.dirty = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn losses(came: u64, lost: u64) -> Losses {
        Losses { came, lost }
    }

    /// Seconds of the same until it is offered.
    fn offered(watch: &mut LinkWatch, received: &[Losses], sent: Losses, from: Instant, seconds: u64) -> Option<u64> {
        (0..seconds).find(|second| watch.note(received, sent, from + Duration::from_secs(*second)).is_some())
    }

    #[test]
    fn much_loss_for_a_while_is_told_and_then_seldom() {
        let (mut watch, start) = (LinkWatch::default(), Instant::now());
        assert_eq!(offered(&mut watch, &[losses(90, 10)], losses(95, 5), start, 60), None, "10 % are repaired");
        assert_eq!(offered(&mut watch, &[losses(80, 20)], losses(100, 0), start, 10), Some(2), "20 % are not");
        let at = |s| start + Duration::from_secs(s);
        assert_eq!(offered(&mut watch, &[losses(80, 20)], losses(100, 0), at(10), 200), None);
        assert_eq!(offered(&mut watch, &[losses(80, 20)], losses(100, 0), at(400), 10), Some(0));
        // One bad second is none, and neither are a few packets.
        let mut watch = LinkWatch::default();
        assert_eq!(watch.note(&[losses(20, 80)], losses(0, 0), start), None);
        assert_eq!(offered(&mut watch, &[losses(100, 0)], losses(0, 0), start, 10), None);
        let mut watch = LinkWatch::default();
        assert_eq!(offered(&mut watch, &[losses(1, 9)], losses(0, 0), start, 60), None);
    }

    #[test]
    fn one_of_several_is_another_ones_path_and_what_we_send_is_ours() {
        let (mut watch, start) = (LinkWatch::default(), Instant::now());
        let streams = [losses(60, 40), losses(100, 0), losses(100, 0)];
        assert_eq!(offered(&mut watch, &streams, losses(100, 0), start, 60), None);
        assert!(offered(&mut watch, &streams, losses(80, 20), start, 10).is_some());
        let mut watch = LinkWatch::default();
        assert!(offered(&mut watch, &[losses(80, 20); 3], losses(100, 0), start, 10).is_some());
    }
}
