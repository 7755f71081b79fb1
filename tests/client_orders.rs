//! The client machine under any order of frames, timers and wishes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client_rig;

use client_rig::{Rig, candidate};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use tertulia::protocol::client::{Action, ClientEvent, Input, OwnProperty, PublishProperties, State};

#[derive(Debug, Clone)]
enum Step {
    Open,
    Refuse,
    Cut(u16),
    Wait(u64, bool),
    Act(usize),
    Answer(usize, bool),
    AnswerOld(i64),
    Tell(usize),
    Text(String),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => Just(Step::Open),
        1 => Just(Step::Refuse),
        2 => prop_oneof![Just(1000u16), Just(1006), Just(4102)].prop_map(Step::Cut),
        3 => (0u64..12_000, any::<bool>()).prop_map(|(ms, alive)| Step::Wait(ms, alive)),
        8 => (0usize..20).prop_map(Step::Act),
        8 => (0usize..8, prop::bool::weighted(0.8)).prop_map(|(n, ok)| Step::Answer(n, ok)),
        1 => (-2i64..40).prop_map(Step::AnswerOld),
        4 => (0usize..13).prop_map(Step::Tell),
        1 => "\\PC{0,40}".prop_map(Step::Text),
    ];
    prop::collection::vec(step, 1..120)
}

fn some_action(n: usize) -> (bool, Action) {
    let stream = || "str_CAM_a_con_Bob".to_owned();
    let sdp = || "v=0".into();
    // (whether it is answered, the action)
    match n {
        0 => (false, Action::Join),
        1 => (true, Action::Publish { properties: PublishProperties::default(), sdp_offer: sdp() }),
        2 => (true, Action::Unpublish),
        3 => (true, Action::Subscribe { stream_id: stream(), sdp_offer: sdp() }),
        4 => (true, Action::PrepareSubscribe { stream_id: stream(), reconnect: true }),
        5 => (true, Action::SubscribeAnswer { stream_id: stream(), sdp_answer: sdp() }),
        6 => (true, Action::Unsubscribe { stream_id: stream() }),
        7 => (true, Action::Signal { kind: String::new(), data: String::new(), to: vec![] }),
        8 => (true, Action::PropertyChanged(OwnProperty::AudioActive(true))),
        9 => (true, Action::PropertyChanged(OwnProperty::VideoTrack("cam".into()))),
        10 => (true, Action::ReconnectPublisher { sdp_offer: sdp() }),
        11 => (true, Action::ReconnectSubscriber { stream_id: stream(), sdp_offer: sdp() }),
        12 => (true, Action::Probe),
        13 => (true, Action::ForceDisconnect { connection_id: "con_Bob".into() }),
        14 => (false, Action::Rejoin(Rig::token())),
        15 => (false, Action::NoToken { for_good: false }),
        16 => (false, Action::NetworkChanged),
        17 => (false, Action::RetryNow),
        18 => (false, Action::Leave),
        _ => (
            true,
            Action::IceCandidate {
                connection_id: "con_Me".into(),
                candidate: String::new(),
                sdp_mid: "0".into(),
                sdp_m_line_index: 0,
            },
        ),
    }
}

fn some_notification(n: usize) -> (&'static str, Value) {
    match n {
        0 => ("participantJoined", json!({"id":"con_Eve"})),
        1 => ("participantPublished", json!({"id":"con_Bob","streams":[{"id":"str_CAM_a_con_Bob"}]})),
        2 => ("participantPublished", json!({"id":"con_Bob","streams":[{"id":"str_CAM_z_con_Bob"}]})),
        3 => ("participantUnpublished", json!({"connectionId":"con_Me","reason":"forceUnpublishByUser"})),
        4 => ("participantLeft", json!({"connectionId":"con_Bob"})),
        5 => ("participantEvicted", json!({"connectionId":"con_Me","reason":"networkDisconnect"})),
        6 => ("iceCandidate", candidate(1)),
        7 => ("iceCandidate", json!({"senderConnectionId":"con_Me"})),
        8 => ("forciblyReconnectSubscriber", json!({"streamId":"str_CAM_a_con_Bob","sdpOffer":"v=0"})),
        9 => ("connectionPropertyChanged", json!({"property":"role","newValue":"SUBSCRIBER"})),
        10 => {
            ("streamPropertyChanged", json!({"streamId":"str_CAM_a_con_Bob","property":"videoDimensions","newValue":5}))
        }
        11 => ("participantEvicted", json!({"connectionId":"con_Me","reason":"forceDisconnectByUser"})),
        _ => ("unknown", json!([1])),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// No order of messages, timeouts and wishes panics, leaves a request without an end, ends one twice, or keeps the machine busy for ever.
    #[test]
    fn any_order_of_anything(can_rejoin: bool, begin_joined: bool, steps in steps()) {
        let mut rig = if begin_joined { Rig::joined(can_rejoin) } else { Rig::new(can_rejoin) };
        let mut asked = Vec::new();
        let mut next = 1000u64;
        for step in steps {
            match step {
                Step::Open => if let Some((_, false)) = rig.socket { rig.open() },
                Step::Refuse => rig.refuse(),
                Step::Cut(code) => rig.cut(code),
                Step::Wait(ms, alive) => rig.wait(ms, alive),
                Step::Act(n) => {
                    let (answered, action) = some_action(n);
                    if answered { asked.push(next); }
                    rig.act(next, action);
                    next += 1;
                }
                Step::Answer(back, ok) => {
                    let Some(frame) = rig.sent.iter().rev().nth(back).cloned() else { continue };
                    let id = frame["id"].clone();
                    if ok {
                        let result = match frame["method"].as_str().unwrap() {
                            "joinRoom" => Rig::join_answer(),
                            "publishVideo" | "reconnectStream" => json!({"sdpAnswer":"v=0","id":"str_MIC_x_con_Me"}),
                            "receiveVideoFrom" => json!({"sdpAnswer":"v=0"}),
                            "prepareReceiveVideoFrom" => json!({"sdpOffer":"v=0"}),
                            _ => json!({}),
                        };
                        rig.say(json!({"id":id,"result":result,"jsonrpc":"2.0"}));
                    } else {
                        let code = if frame["method"] == "connect" { 40007 } else { -1 };
                        rig.say(json!({"id":id,"error":{"code":code,"message":""},"jsonrpc":"2.0"}));
                    }
                }
                Step::AnswerOld(id) => rig.say(json!({"id":id,"result":null,"jsonrpc":"2.0"})),
                Step::Tell(n) => { let (method, params) = some_notification(n); rig.tell(method, params) }
                Step::Text(text) => if let Some((socket, true)) = rig.socket {
                    rig.put(Input::Text { socket, text: text.into() });
                },
            }
        }
        // The line goes dead. Everything has to come to rest by itself.
        rig.wait(200_000, false);
        prop_assert_eq!(rig.client.poll_timeout(), None, "{:?}", rig.client.state());
        let resting = matches!(rig.client.state(), State::Idle | State::GivenUp | State::Ended(_));
        prop_assert!(resting, "{:?}", rig.client.state());
        let mut ends: BTreeMap<u64, usize> = BTreeMap::new();
        for event in &rig.events {
            if let ClientEvent::Answered { action, .. } = event { *ends.entry(*action).or_default() += 1; }
        }
        for id in asked {
            prop_assert_eq!(ends.get(&id), Some(&1), "action {}", id);
        }
        // Every change of state is told, and told once.
        let states: Vec<_> = rig.events.iter().filter_map(|e| if let ClientEvent::State(s) = e { Some(s) } else { None }).collect();
        prop_assert!(states.windows(2).all(|w| w[0] != w[1]));
        if let Some(last) = states.last() { prop_assert_eq!(*last, rig.client.state()); }
    }
}
