//! Everybody else: who is there, under which name, how loud, how well.

use std::collections::HashMap;
use std::time::Duration;

use super::Engine;
use super::link::Losses;
use super::receiving::Stream;
use crate::call::view::DeviceState;
use crate::media::audio::Sound;
use crate::protocol::message::ParticipantInfo;
use crate::protocol::metadata::Persona;

/// Beyond so many people nobody is announced any more.
const ANNOUNCE_LIMIT: usize = 12;
/// People whose volume and pin are kept, and whose number in the report. Their keys are of their own choosing.
const REMEMBERED_LIMIT: usize = 1_024;
/// Reports of streams that are gone, kept for the end.
const ENDED_LIMIT: usize = 256;

/// Why everybody is gone at once, and comes anew.
const REJOIN: &str = "rejoin";

/// Volume and pin of somebody whom we have left as they came.
const UNTOUCHED: (f32, bool) = (1.0, false);

/// Whom the report calls by which number: in order of appearance, ourselves first. Whoever comes back keeps the number.
#[derive(Debug)]
pub(super) struct Numbers {
    next: usize,
    known: HashMap<String, usize>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { next: 2, known: HashMap::new() }
    }
}

impl Numbers {
    /// The number of the person with this key, whose screen has the same.
    fn of(&mut self, key: &str) -> usize {
        let key = key.strip_suffix("/screen").unwrap_or(key);
        if let Some(number) = self.known.get(key) {
            return *number;
        }
        let number = self.next;
        self.next += 1;
        // Beyond that somebody who comes back counts as somebody new, but nobody has another's number.
        if self.known.len() < REMEMBERED_LIMIT {
            self.known.insert(key.to_owned(), number);
        }
        number
    }
}

/// Somebody else's connection.
pub(super) struct Person {
    pub(super) connection_id: String,
    /// Survives a new connection id where the client tells who it is.
    pub(super) key: String,
    pub(super) name: String,
    pub(super) screen: bool,
    /// Says that it is our second connection, which anybody can say who has read our metadata.
    pub(super) claims_us: bool,
    /// Our own second connection: neither shown nor subscribed to.
    pub(super) ours: bool,
    pub(super) gain: f32,
    pub(super) pinned: bool,
    /// By which the report calls it.
    pub(super) number: usize,
    pub(super) stream: Option<Stream>,
}

impl Engine {
    pub(super) fn participant_joined(&mut self, info: &ParticipantInfo) {
        // After a lost socket the host may say again what it cannot know to have arrived.
        if self.people.iter().any(|p| p.connection_id == info.id) {
            return;
        }
        let persona = Persona::parse(&info.metadata);
        let claims_us = persona.screen && persona.participant_id.as_deref() == Some(self.config.device_key.as_str());
        let ours = claims_us && self.may_be_own_screen(&info.id);
        let key = match &persona.participant_id {
            Some(id) if persona.screen => format!("{id}/screen"),
            Some(id) => id.clone(),
            None => info.id.clone(),
        };
        let name = persona.name.unwrap_or_else(|| info.id.clone());
        // A client that came back before its old connection was given up: the new one takes its place.
        let (gain, pinned) = self.remembered.get(&key).copied().unwrap_or(UNTOUCHED);
        let event = self.event("connectionCreated").with("connection_id", info.id.clone());
        self.emit(event);
        if self.joined_at.is_some_and(|at| at.elapsed() > Duration::from_secs(1))
            && !ours
            && self.people.len() < ANNOUNCE_LIMIT
        {
            self.notice("note.joined", vec![("name", name.clone())]);
            self.chime(Sound::Join);
        }
        let number = self.numbers.of(&key);
        self.people.push(Person {
            connection_id: info.id.clone(),
            key,
            name,
            screen: persona.screen,
            claims_us,
            ours,
            gain,
            pinned,
            number,
            stream: None,
        });
    }

    pub(super) fn participant_left(&mut self, connection_id: &str, reason: &str) {
        let Some(at) = self.people.iter().position(|p| p.connection_id == connection_id) else { return };
        let person = self.people.remove(at);
        self.remember(&person.key, |kept| *kept = (person.gain, person.pinned));
        if let Some(stream) = &person.stream {
            self.keep_report(&person, stream);
        }
        let event = self.event("connectionDestroyed").with("connection_id", connection_id).with("reason", reason);
        self.emit(event);
        if !person.ours && self.people.len() < ANNOUNCE_LIMIT {
            self.notice("note.left", vec![("name", person.name.clone())]);
            self.chime(Sound::Leave);
        }
    }

    fn keep_report(&mut self, person: &Person, stream: &Stream) {
        let report = self.stream_report(person, stream, true);
        self.push_ended(report);
    }

    pub(super) fn push_ended(&mut self, report: crate::call::report::StreamReport) {
        if self.ended_streams.len() >= ENDED_LIMIT {
            self.ended_streams.remove(0);
        }
        self.ended_streams.push(report);
    }

    /// After a rejoin everybody comes anew, with new connection ids; what belongs to a person is remembered.
    pub(super) fn forget_everybody(&mut self) {
        for person in std::mem::take(&mut self.people) {
            if let Some(stream) = &person.stream {
                self.keep_report(&person, stream);
                let event = self
                    .event("streamDestroyed")
                    .with("stream_id", stream.id.clone())
                    .with("connection_id", person.connection_id.clone())
                    .with("reason", REJOIN);
                self.emit(event);
            }
            let event = self
                .event("connectionDestroyed")
                .with("connection_id", person.connection_id.clone())
                .with("reason", REJOIN);
            self.emit(event);
            self.remember(&person.key, |kept| *kept = (person.gain, person.pinned));
        }
    }

    /// Keeps volume and pin of a person, where they are not what everybody has.
    fn remember(&mut self, key: &str, change: impl FnOnce(&mut (f32, bool))) {
        let mut kept = self.remembered.get(key).copied().unwrap_or(UNTOUCHED);
        change(&mut kept);
        if kept == UNTOUCHED {
            self.remembered.remove(key);
        } else if self.remembered.len() < REMEMBERED_LIMIT || self.remembered.contains_key(key) {
            self.remembered.insert(key.to_owned(), kept);
        }
    }

    pub(super) fn set_volume(&mut self, key: &str, gain: f32) {
        let gain = if gain.is_finite() { gain.clamp(0.0, 2.0) } else { 1.0 };
        for person in self.people.iter_mut().filter(|p| p.key == key) {
            person.gain = gain;
            if let Some(playout) = person.stream.as_ref().and_then(|s| s.subscribed.as_ref()?.playout.as_ref()) {
                playout.set_gain(gain);
            }
        }
        self.remember(key, |kept| kept.0 = gain);
        self.dirty = true;
    }

    pub(super) fn set_pin(&mut self, key: &str, pinned: bool) {
        for person in self.people.iter_mut().filter(|p| p.key == key) {
            person.pinned = pinned;
        }
        self.remember(key, |kept| kept.1 = pinned);
        self.dirty = true;
    }

    pub(super) fn name_of(&self, connection_id: &str) -> Option<String> {
        self.people.iter().find(|p| p.connection_id == connection_id).map(|p| p.name.clone())
    }

    pub(super) fn update_levels(&mut self) {
        let own = match (&self.audio, &self.own.microphone_state) {
            (Some(audio), DeviceState::On | DeviceState::Muted) => audio.levels().processed_dbfs,
            _ => -120.0,
        };
        // Beside a muted microphone no meter is drawn, and no ring.
        let mut shown = self.own.level.set_dbfs(own) && self.own.microphone_state == DeviceState::On;
        for stream in self.people.iter().filter_map(|p| p.stream.as_ref()) {
            if let Some(subscribed) = &stream.subscribed {
                subscribed.lips.measure(subscribed.playout.as_ref().and_then(|p| p.last_click_at()));
            }
            let level = match stream.subscribed.as_ref().and_then(|s| s.playout.as_ref()) {
                Some(playout) if stream.audio_active && stream.stalled_ms().is_none() => playout.level_dbfs(),
                _ => -120.0,
            };
            let spoke = stream.level.speaking();
            stream.level.set_dbfs(level);
            // Of others only the ring of a speaker is drawn.
            shown |= stream.level.speaking() != spoke;
        }
        if shown && let Some(repaint) = &self.config.repaint {
            repaint();
        }
    }

    /// Once a second: bars from the share of packets that never came.
    pub(super) fn update_quality(&mut self) {
        self.note_path();
        let rtt_ms = self.place.rtt_ms.map(|ms| ms as f32);
        if self.view.load().rtt_ms != rtt_ms {
            // The window's clock draws it within a second: no drawing is asked for.
            self.renew_view();
        }
        let mut changed = false;
        let mut losses = Vec::new();
        for stream in self.people.iter_mut().filter_map(|p| p.stream.as_mut()) {
            let Some(subscribed) = &stream.subscribed else { continue };
            let stats = subscribed.line.figures();
            let sum = |f: fn(&crate::peer::ReceiveStats) -> u64| {
                stats.video.as_ref().map_or(0, f) + stats.audio.as_ref().map_or(0, f)
            };
            let counts = [sum(|s| s.packets), sum(|s| s.packets_lost), sum(|s| s.packets_recovered)];
            let before = std::mem::replace(&mut stream.last_packets, counts);
            let [new, gone, repaired] = std::array::from_fn(|at| {
                let of = |counts: &[u64; 3]| counts.get(at).copied().unwrap_or(0);
                of(&counts).saturating_sub(of(&before))
            });
            losses.push(Losses { came: new.saturating_sub(repaired), lost: gone + repaired });
            let percent = (gone * 100).checked_div(new + gone).unwrap_or(0);
            let bars = match percent {
                0..=2 => 4,
                3..=7 => 3,
                8..=19 => 2,
                _ => 1,
            };
            changed |= bars != stream.bars;
            stream.bars = bars;
        }
        self.dirty |= changed;
        self.watch_link(&losses);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_belongs_to_one_person_for_good() {
        let mut numbers = Numbers::default();
        assert_eq!([numbers.of("a"), numbers.of("b"), numbers.of("a/screen"), numbers.of("a")], [2, 3, 2, 2]);
        let flood: Vec<usize> = (0..2 * REMEMBERED_LIMIT).map(|n| numbers.of(&format!("x{n}"))).collect();
        assert!(flood.windows(2).all(|w| w[0] < w[1]));
        assert_eq!(numbers.known.len(), REMEMBERED_LIMIT);
        assert_eq!(numbers.of("b"), 3);
    }
}
