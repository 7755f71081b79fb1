//! Many come and go at once: everybody who stays knows the same people and streams as the host, and no leg is left over.

use super::*;

/// Joins and leaves of each of the two.
const CYCLES: usize = 200;

/// What a client that stays makes of its notifications: people, and the stream of each.
#[derive(Debug, Default, PartialEq)]
struct Roster(BTreeMap<String, Option<String>>);

impl Roster {
    fn of_join(joined: &Value) -> Self {
        let mut roster = Self::default();
        for person in joined["value"].as_array().unwrap() {
            let stream = person["streams"][0]["id"].as_str().map(str::to_owned);
            roster.0.insert(person["id"].as_str().unwrap().to_owned(), stream);
        }
        roster
    }

    fn hear(&mut self, frame: &Value) {
        let (method, params) = (frame["method"].as_str().unwrap_or_default(), &frame["params"]);
        let name = |key: &str| params[key].as_str().unwrap().to_owned();
        match method {
            "participantJoined" => assert_eq!(self.0.insert(name("id"), None), None, "joined twice"),
            "participantPublished" => {
                let stream = params["streams"][0]["id"].as_str().unwrap().to_owned();
                let person = self.0.get_mut(&name("id")).expect("nobody publishes before joining");
                assert_eq!(person.replace(stream), None, "two streams of one person");
            }
            "participantUnpublished" => {
                let person = self.0.get_mut(&name("connectionId")).expect("nobody unpublishes after leaving");
                assert!(person.take().is_some(), "unpublished twice");
            }
            "participantLeft" => assert!(self.0.remove(&name("connectionId")).is_some(), "left twice"),
            _ => {}
        }
    }
}

/// Legs that the media server was asked for, and that it was asked to close.
#[derive(Default)]
struct Legs {
    open: BTreeSet<LegId>,
    made: usize,
}

impl Legs {
    /// Answers what waits, or holds it back, and follows what is open.
    fn serve(&mut self, room: &mut Room, answer: bool) {
        let (kept, now): (Vec<_>, Vec<_>) = std::mem::take(&mut room.ops).into_iter().partition(|(_, request)| {
            !answer && !matches!(request, MediaOp::CloseLeg { .. } | MediaOp::Candidate { .. } | MediaOp::Draw { .. })
        });
        room.ops = kept;
        for (op, request) in now {
            match request {
                MediaOp::Publish { leg, .. }
                | MediaOp::Subscribe { leg, .. }
                | MediaOp::PrepareSubscribe { leg, .. } => {
                    // One that was closed before it was served stays closed.
                    self.made += 1;
                    self.open.insert(leg);
                    room.handle(ServerInput::Media { op, result: answered() });
                }
                MediaOp::CloseLeg { leg } => drop(self.open.remove(&leg)),
                _ => {}
            }
        }
    }
}

#[test]
fn two_who_publish_and_leave_in_the_same_tick_leave_nothing_behind() {
    let mut room = Room::new(Limits { messages: (1_000_000, 1_000_000), ..Limits::default() });
    let mut watchers: Vec<(u64, Roster)> = Vec::new();
    for socket in 1..=3 {
        let joined = room.join(socket, "PUBLISHER");
        watchers.push((socket, Roster::of_join(&joined)));
        room.frames.clear();
        for (_, roster) in &mut watchers[..socket as usize - 1] {
            roster.0.insert(joined["id"].as_str().unwrap().to_owned(), None);
        }
    }
    let mut legs = Legs::default();
    let mut socket = 100;
    for cycle in 0..CYCLES {
        let (a, b) = (socket, socket + 1);
        socket += 2;
        let (joined_a, joined_b) = (room.join(a, "PUBLISHER"), room.join(b, "PUBLISHER"));
        assert!(joined_a["id"].is_string() && joined_b["id"].is_string(), "{joined_a} {joined_b}");
        let hear = |room: &mut Room, watchers: &mut Vec<(u64, Roster)>| {
            for (to, frame) in std::mem::take(&mut room.frames) {
                if let Some((_, roster)) = watchers.iter_mut().find(|(socket, _)| *socket == to) {
                    roster.hear(&frame);
                }
            }
        };
        room.request(a, "publishVideo", publish());
        room.request(b, "publishVideo", publish());
        // The media server is fast, slow, or fast for one of the two only; somebody watches meanwhile, or not.
        if cycle % 3 == 0 {
            legs.serve(&mut room, true);
            let streams: Vec<String> = room.server.state().sessions["s"]
                .participants
                .values()
                .filter_map(|person| person.stream.as_ref().map(|stream| stream.info.id.clone()))
                .collect();
            assert!(streams.len() >= 2, "both are there, and who is lost for a while");
            for stream in streams {
                room.request(1, "receiveVideoFrom", json!({"sender": stream, "sdpOffer": "v=0"}));
            }
        }
        if cycle % 6 == 0 {
            legs.serve(&mut room, true);
        }
        // Both at once, by saying so, by a dead socket, or by what a moderator's application asks for.
        match cycle % 4 {
            0 => {
                room.request(a, "leaveRoom", json!({}));
                room.request(b, "leaveRoom", json!({}));
            }
            1 => {
                room.lose(a);
                room.request(b, "leaveRoom", json!({}));
            }
            2 => {
                room.lose(b);
                room.lose(a);
            }
            _ => {
                room.request(b, "unpublishVideo", json!({}));
                room.lose(b);
                room.request(a, "closeSession", json!({}));
            }
        }
        legs.serve(&mut room, cycle % 2 == 0);
        room.wait(Duration::from_millis(150));
        hear(&mut room, &mut watchers);
    }
    // The watchers stay in touch; the lost ones are given up, and media answers late or never.
    room.wait(Duration::from_secs(9));
    legs.serve(&mut room, true);
    room.wait(Duration::from_secs(9));
    legs.serve(&mut room, true);
    for (to, frame) in std::mem::take(&mut room.frames) {
        if let Some((_, roster)) = watchers.iter_mut().find(|(socket, _)| *socket == to) {
            roster.hear(&frame);
        }
    }
    let people: BTreeSet<String> = room.server.state().sessions["s"].participants.keys().cloned().collect();
    assert_eq!(people.len(), 3, "only those who stay");
    for (socket, roster) in &watchers {
        let mut known: BTreeSet<String> = roster.0.keys().cloned().collect();
        assert_eq!(known.len(), 2, "{socket} knows {roster:?}");
        assert!(roster.0.values().all(Option::is_none), "{socket} still sees {roster:?}");
        known.retain(|person| !people.contains(person));
        assert!(known.is_empty(), "{socket} knows people who are gone: {known:?}");
    }
    let joined = room.join(99, "SUBSCRIBER");
    assert_eq!(Roster::of_join(&joined).0.keys().cloned().collect::<BTreeSet<_>>(), people, "one who comes now");
    assert_eq!(room.server.counts().streams, 0);
    assert!(legs.made >= CYCLES, "{} legs", legs.made);
    assert!(legs.open.is_empty(), "{:?} of {} legs are left over", legs.open, legs.made);
}
