//! The client machine away from any recording: losses, resumes, rejoins, queues.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod client_rig;

use client_rig::{Rig, candidate};
use serde_json::json;
use std::time::Duration;
use tertulia::protocol::client::reconnect::{GIVE_UP_AFTER, RETRY_INTERVAL, TOKEN_TIMEOUT};
use tertulia::protocol::client::{
    Action, ActionError, Answer, ClientEvent, EndReason, Input, LostPlace, OwnProperty, REQUEST_TIMEOUT, State,
};

#[test]
fn who_is_there_is_announced_after_joining() {
    let rig = Rig::joined(false);
    let kinds: Vec<_> =
        rig.events.iter().filter(|e| !matches!(e, ClientEvent::State(_) | ClientEvent::Pong { .. })).collect();
    assert!(matches!(kinds[0], ClientEvent::Joined { rejoined: false, .. }));
    assert!(matches!(kinds[1], ClientEvent::ParticipantJoined(p) if p.id == "con_Bob" && p.streams.is_empty()));
    assert!(matches!(kinds[2], ClientEvent::StreamPublished { stream, .. } if stream.id == "str_CAM_a_con_Bob"));
    let debug = format!("{:?} {:?}", rig.client, rig.events);
    for secret in ["tok_Hush", "rpcHush"] {
        assert!(!debug.contains(secret), "{secret} in Debug");
    }
}

#[test]
fn what_overtakes_the_answer_to_the_join_is_not_lost() {
    let mut rig = Rig::new(true);
    rig.act(0, Action::Join);
    rig.open();
    // Bob stands in the answer already; Cid does not.
    rig.tell("participantJoined", json!({"id":"con_Cid","createdAt":2,"metadata":"{}"}));
    let stream = |id: &str| json!([{"id":id,"hasAudio":true,"hasVideo":true}]);
    rig.tell("participantPublished", json!({"id":"con_Cid","streams":stream("str_CAM_b_con_Cid")}));
    rig.tell("participantPublished", json!({"id":"con_Bob","streams":stream("str_CAM_a_con_Bob")}));
    assert!(!rig.events.iter().any(|e| matches!(e, ClientEvent::ParticipantJoined(_) | ClientEvent::Garbage { .. })));
    rig.answer("joinRoom", Rig::join_answer());
    let published: Vec<_> = rig
        .events
        .iter()
        .filter_map(|e| match e {
            ClientEvent::StreamPublished { stream, .. } => Some(stream.id.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(published, ["str_CAM_a_con_Bob", "str_CAM_b_con_Cid"]);
    // Not more of them than a sane server sends.
    let mut rig = Rig::new(true);
    rig.act(0, Action::Join);
    rig.open();
    for n in 0..600 {
        rig.tell("participantJoined", json!({"id":format!("con_{n}")}));
    }
    assert_eq!(rig.events.iter().filter(|e| matches!(e, ClientEvent::Garbage { .. })).count(), 88);
}

#[test]
fn early_candidates_wait_for_the_description_in_both_modes() {
    for prepare in [false, true] {
        let mut rig = Rig::joined(false);
        rig.tell("iceCandidate", candidate(0)); // nobody asked for it
        let stream_id = "str_CAM_a_con_Bob".to_owned();
        let method = if prepare {
            rig.act(7, Action::PrepareSubscribe { stream_id, reconnect: false });
            "prepareReceiveVideoFrom"
        } else {
            rig.act(7, Action::Subscribe { stream_id, sdp_offer: "v=0".into() });
            "receiveVideoFrom"
        };
        rig.tell("iceCandidate", candidate(1));
        rig.tell("iceCandidate", candidate(2));
        let before = rig.events.len();
        rig.answer(method, json!({"sdpAnswer":"v=1","sdpOffer":"v=1"}));
        rig.tell("iceCandidate", candidate(3));
        let order: Vec<String> = rig.events[before..]
            .iter()
            .map(|e| match e {
                ClientEvent::Answered { action: 7, outcome: Ok(_) } => "answer".to_owned(),
                ClientEvent::RemoteCandidate { connection_id, candidate, .. } => {
                    assert_eq!(connection_id, "con_Bob");
                    candidate[10..11].to_owned()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(order, ["answer", "1", "2", "3"]);
        assert_eq!(rig.client.counters().dropped_candidates, 1);
    }
}

#[test]
fn a_candidate_queue_is_bounded_and_the_oldest_gives_way() {
    let mut rig = Rig::joined(false);
    rig.act(7, Action::Subscribe { stream_id: "str_CAM_a_con_Bob".into(), sdp_offer: "v=0".into() });
    for n in 0..300 {
        rig.tell("iceCandidate", candidate(n));
    }
    rig.answer("receiveVideoFrom", json!({"sdpAnswer":"v=1"}));
    let got = rig.events.iter().filter(|e| matches!(e, ClientEvent::RemoteCandidate { .. })).count();
    assert_eq!((got, rig.client.counters().dropped_candidates), (256, 44));
}

#[test]
fn a_cut_of_four_seconds_keeps_the_place() {
    let mut rig = Rig::publishing(true);
    rig.act(5, Action::Signal { kind: "chat".into(), data: "x".into(), to: vec![] });
    rig.act(6, Action::PropertyChanged(OwnProperty::AudioActive(false)));
    rig.cut(1006);
    assert_eq!(rig.outcome(5), Some(&Err(ActionError::Cancelled)));
    assert!(matches!(rig.client.state(), State::Reconnecting { attempt: 1, retry_at: None, .. }));
    assert_eq!(rig.urls.last().unwrap(), "wss://ov.lan:4443/openvidu?sessionId=SessionA&reconnect=true");
    rig.refuse();
    rig.wait(2900, true);
    rig.refuse();
    rig.wait(1100, true);
    // Muted while away: only the last value counts.
    rig.act(8, Action::PropertyChanged(OwnProperty::AudioActive(true)));
    rig.act(9, Action::PropertyChanged(OwnProperty::AudioActive(false)));
    rig.wait(2000, true);
    rig.open();
    assert_eq!(rig.last("connect")["params"], json!({"sessionId":"rpcHush","reconnect":true}));
    rig.answer("connect", json!({"value":"reconnection successful","sessionId":"rpcHush"}));
    assert!(matches!(rig.client.state(), State::Resuming { .. }));
    assert_eq!(rig.last("ping")["params"], json!({"interval":5000}));
    let changes = rig.count("streamPropertyChanged");
    rig.answer("videoData", json!({"sessionId":"rpcHush"}));
    assert_eq!(*rig.client.state(), State::Joined);
    let reconnected = ClientEvent::Reconnected { own_stream: Some("str_MIC_x_con_Me".into()), subscribed: vec![] };
    assert!(rig.events.contains(&reconnected));
    assert_eq!(rig.count("streamPropertyChanged"), changes + 1);
    assert_eq!(rig.last("streamPropertyChanged")["params"]["newValue"], false);
    rig.answer("streamPropertyChanged", json!({}));
    for overtaken in [6, 8] {
        assert_eq!(rig.outcome(overtaken), Some(&Ok(Answer::Done)));
    }
    assert_eq!(rig.outcome(9), Some(&Ok(Answer::Done)));
    assert_eq!(rig.client.connection_id(), Some("con_Me"));
}

#[test]
fn a_cut_of_fifteen_seconds_ends_in_a_rejoin_with_a_fresh_token() {
    let mut rig = Rig::publishing(true);
    rig.cut(1006);
    let end = rig.now + Duration::from_secs(15);
    while rig.now < end {
        rig.refuse();
        rig.wait(500, true);
    }
    rig.wait(3000, true);
    rig.open();
    rig.refuse_request("connect", 40007);
    assert_eq!(rig.closes.last(), Some(&4101));
    assert!(rig.events.contains(&ClientEvent::RejoinNeeded { attempt: 1, cause: LostPlace::Expired }));
    assert_eq!(*rig.client.state(), State::AwaitingToken { attempt: 1 });
    rig.wait(200, true);
    rig.act(0, Action::Rejoin(Rig::token()));
    assert_eq!(rig.urls.last().unwrap(), "wss://ov.lan:4443/openvidu?sessionId=SessionA");
    rig.open();
    assert!(rig.last("joinRoom")["params"]["token"].as_str().unwrap().ends_with("tok_Fresh78901234567"));
    let mut answer = Rig::join_answer();
    answer["id"] = json!("con_New");
    rig.answer("joinRoom", answer);
    assert_eq!((rig.client.state(), rig.client.connection_id()), (&State::Joined, Some("con_New")));
    assert!(rig.events.iter().any(|e| matches!(e, ClientEvent::Joined { rejoined: true, .. })));
    assert_eq!(rig.client.own_stream(), None);
}

#[test]
fn a_resume_without_participant_is_noticed_within_five_seconds() {
    for can_rejoin in [true, false] {
        let mut rig = Rig::publishing(can_rejoin);
        rig.cut(1006);
        rig.wait(1000, true);
        rig.open();
        rig.answer("connect", json!({"value":"reconnection successful","sessionId":"rpcHush"}));
        rig.answer("ping", json!({"value":"pong"}));
        rig.wait(5000, true);
        // Behind this code the server evicts whoever might still be there.
        assert_eq!(rig.closes.last(), Some(&4104));
        if can_rejoin {
            assert!(rig.events.contains(&ClientEvent::RejoinNeeded { attempt: 1, cause: LostPlace::ParticipantGone }));
        } else {
            assert_eq!(*rig.client.state(), State::Ended(EndReason::NeedsNewToken));
            assert_eq!(rig.client.poll_timeout(), None);
        }
    }
}

#[test]
fn an_error_proves_that_the_participant_exists() {
    let mut rig = Rig::joined(true);
    rig.cut(1006);
    rig.open();
    rig.answer("connect", json!({"value":"reconnection successful"}));
    rig.answer("ping", json!({"value":"pong"}));
    rig.refuse_request("videoData", 105);
    assert_eq!(*rig.client.state(), State::Joined);
    rig.wait(60_000, true);
    assert_eq!(*rig.client.state(), State::Joined, "a healthy connection stays");
}

#[test]
fn a_silent_socket_is_checked_then_replaced() {
    let mut rig = Rig::joined(true);
    rig.wait(5000, false);
    assert_eq!(rig.count("ping"), 2);
    rig.wait(1600, false);
    assert_eq!(*rig.client.state(), State::Checking);
    rig.wait(3500, false);
    assert_eq!(rig.closes.last(), Some(&4104));
    assert!(matches!(rig.client.state(), State::Reconnecting { attempt: 1, .. }));
}

#[test]
fn a_late_pong_ends_the_checking() {
    let mut rig = Rig::joined(true);
    rig.wait(7000, false);
    assert_eq!(*rig.client.state(), State::Checking);
    rig.answer("ping", json!({"value":"pong"}));
    assert_eq!(*rig.client.state(), State::Joined);
    assert!(rig.events.contains(&ClientEvent::Pong { rtt: Duration::from_secs(2) }));
}

#[test]
fn after_a_minute_it_gives_up_until_asked() {
    for nudge in [Action::RetryNow, Action::NetworkChanged] {
        let mut rig = Rig::publishing(true);
        rig.cut(1006);
        rig.act(4, Action::PropertyChanged(OwnProperty::AudioActive(false)));
        let mut waited = Duration::ZERO;
        while *rig.client.state() != State::GivenUp {
            rig.refuse();
            rig.wait(100, true);
            waited += Duration::from_millis(100);
            assert!(waited <= GIVE_UP_AFTER + Duration::from_millis(200));
        }
        assert_eq!(rig.client.poll_timeout(), None, "rests");
        assert_eq!(rig.outcome(4), Some(&Err(ActionError::Cancelled)));
        rig.wait(300_000, true);
        rig.act(0, nudge);
        assert!(matches!(rig.client.state(), State::Reconnecting { attempt: 1, retry_at: None, .. }));
        rig.open();
        rig.refuse_request("connect", 40007);
        assert!(matches!(rig.client.state(), State::AwaitingToken { .. }));
    }
}

#[test]
fn tokens_that_never_come_and_joins_that_fail_end_after_a_minute_too() {
    let mut rig = Rig::joined(true);
    rig.cut(1006);
    rig.open();
    rig.refuse_request("connect", 40007);
    let lost = rig.now;
    rig.wait(u64::try_from(TOKEN_TIMEOUT.as_millis()).unwrap(), true);
    rig.act(0, Action::NoToken { for_good: false });
    while *rig.client.state() != State::GivenUp {
        if matches!(rig.client.state(), State::AwaitingToken { .. }) {
            rig.act(0, Action::Rejoin(Rig::token()));
            rig.open();
            rig.refuse_request("joinRoom", 401);
        }
        rig.wait(500, true);
        assert!(rig.now - lost <= GIVE_UP_AFTER + RETRY_INTERVAL);
    }
    rig.act(0, Action::RetryNow);
    assert!(matches!(rig.client.state(), State::AwaitingToken { .. }));
    rig.act(0, Action::NoToken { for_good: true });
    assert_eq!(*rig.client.state(), State::Ended(EndReason::RejoinImpossible));
}

#[test]
fn a_server_that_drops_us_at_once_is_not_hammered() {
    let mut rig = Rig::joined(true);
    let start = rig.now;
    while rig.now - start < Duration::from_secs(30) {
        rig.cut(1000);
        if rig.socket.is_some() {
            rig.open();
            rig.answer("connect", json!({"value":"reconnection successful"}));
            rig.answer("videoData", json!({}));
        }
        rig.wait(50, true);
    }
    assert!(rig.urls.len() <= 13, "{} sockets in 30 s", rig.urls.len());
}

#[test]
fn an_eviction_ends_it_and_a_network_eviction_rejoins() {
    for (reason, code, ends) in [
        ("forceDisconnectByUser", 4102, true),
        ("sessionClosedByServer", 4102, true),
        ("nodeCrashed", 4102, true),
        ("networkDisconnect", 4102, false),
        ("", 4102, false),
    ] {
        let mut rig = Rig::joined(true);
        rig.tell("participantEvicted", json!({"connectionId":"con_Bob","reason":reason}));
        assert_eq!(*rig.client.state(), State::Joined, "somebody else's");
        rig.publish(3);
        rig.tell("participantEvicted", json!({"connectionId":"con_Me","reason":reason}));
        assert_eq!(rig.closes, [code]);
        assert_eq!(rig.count("leaveRoom"), 0);
        assert_eq!(rig.outcome(3), Some(&Err(ActionError::Cancelled)));
        if ends {
            assert_eq!(*rig.client.state(), State::Ended(EndReason::Evicted { reason: reason.into() }));
        } else {
            assert!(rig.events.contains(&ClientEvent::RejoinNeeded { attempt: 1, cause: LostPlace::NetworkEviction }));
        }
    }
    let mut rig = Rig::joined(true);
    rig.tell("masterNodeCrashedNotification", json!({}));
    assert_eq!(
        (rig.closes.as_slice(), rig.client.state()),
        (&[4103][..], &State::Ended(EndReason::Evicted { reason: "nodeCrashed".into() }))
    );
}

#[test]
fn leaving_ends_with_any_answer_with_none_and_from_every_state() {
    type Step = fn(&mut Rig);
    let answers: [Step; 4] = [
        |r| r.answer("leaveRoom", json!({})),
        |r| r.refuse_request("leaveRoom", -1),
        |r| r.wait(3000, true),
        |r| r.cut(1000),
    ];
    for end in answers {
        let mut rig = Rig::joined(true);
        rig.act(0, Action::Leave);
        assert_eq!(*rig.client.state(), State::Leaving);
        end(&mut rig);
        assert_eq!(*rig.client.state(), State::Ended(EndReason::Left));
        assert!(rig.closes.iter().all(|c| *c == 4102));
    }
    let mut rig = Rig::new(true);
    rig.act(0, Action::Join);
    rig.act(0, Action::Leave);
    assert_eq!(*rig.client.state(), State::Ended(EndReason::Left));
    let mut rig = Rig::new(true);
    rig.act(0, Action::Join);
    rig.open();
    rig.act(0, Action::Leave);
    assert_eq!(rig.count("leaveRoom"), 1, "in order behind the join");
    rig.answer("joinRoom", Rig::join_answer());
    assert_eq!(*rig.client.state(), State::Leaving);
    rig.refuse_request("leaveRoom", 803);
    assert_eq!(*rig.client.state(), State::Ended(EndReason::Left));
    let mut rig = Rig::joined(true);
    rig.cut(1006);
    rig.act(0, Action::Leave);
    assert_eq!((rig.client.state(), rig.client.poll_timeout()), (&State::Ended(EndReason::Left), None));
}

#[test]
fn joining_fails_by_name() {
    let start = || {
        let mut rig = Rig::new(true);
        rig.act(0, Action::Join);
        rig
    };
    let mut rig = start();
    rig.refuse();
    assert_eq!(*rig.client.state(), State::Ended(EndReason::Unreachable { detail: "refused".into() }));
    let mut rig = start();
    rig.wait(10_000, true);
    assert_eq!(*rig.client.state(), State::Ended(EndReason::Unreachable { detail: "timed out".into() }));
    let mut rig = start();
    rig.open();
    rig.answer("ping", json!({"value":"pong"}));
    rig.wait(10_000, true);
    assert_eq!(*rig.client.state(), State::Ended(EndReason::JoinTimedOut));
    let mut rig = start();
    rig.open();
    rig.cut(1011);
    assert_eq!(*rig.client.state(), State::Ended(EndReason::JoinInterrupted { code: 1011 }));
    let mut rig = start();
    rig.open();
    let id = rig.last("joinRoom")["id"].clone();
    let token = rig.last("joinRoom")["params"]["token"].as_str().unwrap().to_owned();
    let message = format!("Unable to join session SessionA. Token {token} is not valid. Code: 401");
    rig.say(json!({"id":id,"error":{"code":401,"message":message},"jsonrpc":"2.0"}));
    let State::Ended(EndReason::Refused(error)) = rig.client.state() else { panic!("{:?}", rig.client.state()) };
    assert_eq!(
        (error.code, error.message.as_str()),
        (401, "Unable to join session SessionA. Token [token] is not valid. Code: 401")
    );
    let mut rig = start();
    rig.open();
    rig.answer("joinRoom", json!({}));
    assert_eq!(*rig.client.state(), State::Ended(EndReason::BadServer));
}

#[test]
fn requests_time_out_once_and_late_publications_are_undone() {
    let mut rig = Rig::joined(true);
    rig.publish(1);
    let publish = rig.last("publishVideo")["id"].clone();
    rig.act(2, Action::Subscribe { stream_id: "str_CAM_a_con_Bob".into(), sdp_offer: "v=0".into() });
    let subscribe = rig.last("receiveVideoFrom")["id"].clone();
    rig.act(3, Action::ForceUnpublish { stream_id: "str_x".into() });
    rig.wait(u64::try_from(REQUEST_TIMEOUT.as_millis()).unwrap(), true);
    for id in 1..=3 {
        assert_eq!(rig.outcome(id), Some(&Err(ActionError::TimedOut)));
    }
    rig.say(json!({"id":publish,"result":{"sdpAnswer":"v=0","id":"str_MIC_x_con_Me"},"jsonrpc":"2.0"}));
    assert_eq!(rig.count("unpublishVideo"), 1);
    rig.say(json!({"id":subscribe,"result":{"sdpAnswer":"v=0"},"jsonrpc":"2.0"}));
    assert_eq!(rig.last("unsubscribeFromVideo")["params"], json!({"sender":"con_Bob"}));
    rig.say(json!({"id":subscribe,"result":{"sdpAnswer":"v=0"},"jsonrpc":"2.0"}));
    assert_eq!((rig.count("unsubscribeFromVideo"), rig.client.counters().stray_answers), (1, 1));
}

#[test]
fn a_probe_without_answer_replaces_the_socket() {
    let mut rig = Rig::joined(true);
    rig.act(1, Action::Probe);
    assert_eq!(rig.last("echo")["params"], json!({}));
    rig.wait(3000, true);
    assert_eq!(rig.outcome(1), Some(&Err(ActionError::TimedOut)));
    assert!(matches!(rig.client.state(), State::Reconnecting { .. }));
    let mut rig = Rig::joined(true);
    rig.act(0, Action::NetworkChanged);
    assert_eq!(rig.count("ping"), 2, "a standing connection is checked");
    rig.wait(3000, false);
    assert!(matches!(rig.client.state(), State::Reconnecting { .. }));
}

#[test]
fn muting_before_the_publication_is_answered_is_not_lost() {
    let mut rig = Rig::joined(true);
    rig.act(1, Action::PropertyChanged(OwnProperty::AudioActive(false)));
    assert_eq!(rig.outcome(1), Some(&Err(ActionError::NotPublishing)));
    rig.publish(2);
    rig.act(3, Action::PropertyChanged(OwnProperty::AudioActive(false)));
    assert_eq!(rig.count("streamPropertyChanged"), 0);
    rig.answer("publishVideo", json!({"sdpAnswer":"v=0","id":"str_MIC_x_con_Me","createdAt":5}));
    assert_eq!(rig.last("streamPropertyChanged")["params"]["streamId"], "str_MIC_x_con_Me");
    rig.answer("streamPropertyChanged", json!({}));
    assert_eq!(rig.outcome(3), Some(&Ok(Answer::Done)));
}

#[test]
fn streams_are_renegotiated_with_the_parameters_of_each_side() {
    let mut rig = Rig::publishing(true);
    rig.act(2, Action::Subscribe { stream_id: "str_CAM_a_con_Bob".into(), sdp_offer: "v=0".into() });
    rig.answer("receiveVideoFrom", json!({"sdpAnswer":"v=1"}));
    rig.act(3, Action::ReconnectPublisher { sdp_offer: "v=2".into() });
    assert_eq!(rig.last("reconnectStream")["params"], json!({"stream":"str_MIC_x_con_Me","sdpString":"v=2"}));
    rig.answer("reconnectStream", json!({"sdpAnswer":"v=3","id":"str_MIC_x_con_Me","createdAt":9}));
    assert!(matches!(rig.outcome(3), Some(Ok(Answer::Published { .. }))));
    rig.act(4, Action::ReconnectSubscriber { stream_id: "str_CAM_a_con_Bob".into(), sdp_offer: "v=4".into() });
    assert_eq!(
        rig.last("reconnectStream")["params"],
        json!({"stream":"str_CAM_a_con_Bob","sdpOffer":"v=4","forciblyReconnect":false})
    );
    rig.tell("iceCandidate", candidate(1));
    assert!(
        !rig.events.iter().any(|e| matches!(e, ClientEvent::RemoteCandidate { .. })),
        "it belongs to the new description"
    );
    rig.answer("reconnectStream", json!({"sdpAnswer":"v=5"}));
    assert!(rig.events.iter().any(|e| matches!(e, ClientEvent::RemoteCandidate { .. })));
    rig.tell(
        "forciblyReconnectSubscriber",
        json!({"connectionId":"con_Bob","streamId":"str_CAM_a_con_Bob","sdpOffer":"v=6"}),
    );
    assert!(matches!(rig.events.last(), Some(ClientEvent::ForciblyReconnect { .. })));
    let action = Action::ReconnectSubscriberAnswer {
        stream_id: "str_CAM_a_con_Bob".into(),
        sdp_answer: "v=7".into(),
        forcibly: true,
    };
    rig.act(5, action);
    assert_eq!(
        rig.last("reconnectStream")["params"],
        json!({"stream":"str_CAM_a_con_Bob","sdpString":"v=7","forciblyReconnect":true})
    );
}

#[test]
fn a_left_participant_takes_its_stream_along_and_duplicates_are_dropped() {
    let mut rig = Rig::joined(true);
    let before = rig.events.len();
    rig.tell("participantPublished", json!({"id":"con_Bob","streams":[{"id":"str_CAM_a_con_Bob"}]}));
    rig.tell("participantJoined", json!({"id":"con_Bob"}));
    assert_eq!(rig.events.len(), before, "known already");
    rig.tell("participantPublished", json!({"id":"con_Eve","streams":[{"id":"str_CAM_b_con_Eve"}]}));
    assert!(matches!(&rig.events[before], ClientEvent::ParticipantJoined(p) if p.id == "con_Eve"));
    rig.tell("streamPropertyChanged", json!({"connectionId":"con_Eve","streamId":"str_CAM_b_con_Eve","property":"videoActive","newValue":"false","reason":"publishVideo"}));
    let eve = rig.client.participants().find(|p| p.id == "con_Eve").unwrap();
    assert_eq!(eve.streams[0].video_active, Some(false));
    let before = rig.events.len();
    rig.tell("participantLeft", json!({"connectionId":"con_Eve","reason":"disconnect"}));
    rig.tell("participantLeft", json!({"connectionId":"con_Eve","reason":"disconnect"}));
    assert!(
        matches!(&rig.events[before], ClientEvent::StreamUnpublished { stream_id, .. } if stream_id == "str_CAM_b_con_Eve")
    );
    assert!(matches!(&rig.events[before + 1], ClientEvent::ParticipantLeft { .. }));
    assert_eq!(rig.events.len(), before + 2);
}

#[test]
fn garbage_is_counted_and_unknown_things_are_passed_on() {
    let mut rig = Rig::joined(true);
    for text in [
        "",
        "x",
        "[]",
        "{}",
        "{\"jsonrpc\":\"2.0\",\"method\":\"participantLeft\",\"params\":{}}",
        "{\"jsonrpc\":\"2.0\",\"id\":\"x\",\"result\":1}",
    ] {
        let (socket, _) = rig.socket.unwrap();
        rig.put(Input::Text { socket, text: text.into() });
    }
    assert_eq!(rig.client.counters().garbage, 6);
    assert_eq!(*rig.client.state(), State::Joined);
    rig.tell("somethingNew", json!({"a":1}));
    assert!(matches!(rig.events.last(), Some(ClientEvent::Other(n)) if n.method() == "somethingNew"));
    // What an older socket still has to say is ignored.
    let frames = rig.client.counters().frames_in;
    rig.put(Input::Text { socket: 999, text: "{}".into() });
    rig.put(Input::SocketClosed { socket: 999, code: 1000, reason: String::new() });
    assert_eq!((rig.client.counters().frames_in, rig.client.state()), (frames, &State::Joined));
}

#[test]
fn too_much_is_refused_at_once() {
    let mut rig = Rig::joined(true);
    rig.act(1, Action::Signal { kind: "chat".into(), data: "x".repeat(60_000), to: vec![] });
    assert_eq!(rig.outcome(1), Some(&Err(ActionError::TooLong)));
    for n in 0..600 {
        rig.act(100 + n, Action::Signal { kind: "chat".into(), data: "x".into(), to: vec![] });
    }
    assert_eq!(rig.outcome(100), None);
    assert_eq!(rig.outcome(699), Some(&Err(ActionError::TooMany)));
}

#[test]
fn only_an_eviction_that_somebody_decided_is_final() {
    let evicted = |can_rejoin: bool, reason: &str| {
        let mut rig = Rig::joined(can_rejoin);
        rig.tell("participantEvicted", json!({"connectionId":"con_Me","reason":reason}));
        assert_eq!(rig.closes.last(), Some(&4102));
        rig
    };
    for reason in ["forceDisconnectByUser", "sessionClosedByServer", "nodeCrashed", "openviduServerStopped"] {
        let rig = evicted(true, reason);
        assert_eq!(*rig.client.state(), State::Ended(EndReason::Evicted { reason: reason.into() }));
    }
    // A ghost is evicted with the reason of what could not be told to it.
    for reason in ["", "networkDisconnect", "disconnect", "unpublish", "never heard of"] {
        let rig = evicted(true, reason);
        assert!(
            rig.events.contains(&ClientEvent::RejoinNeeded { attempt: 1, cause: LostPlace::NetworkEviction }),
            "{reason}"
        );
        assert_eq!(*evicted(false, reason).client.state(), State::Ended(EndReason::NeedsNewToken));
    }
}

#[test]
fn a_stream_that_is_gone_without_a_word_tells_of_lost_notifications() {
    let subscribe = |rig: &mut Rig| {
        rig.act(7, Action::Subscribe { stream_id: "str_CAM_a_con_Bob".into(), sdp_offer: "v=0".into() });
        rig.refuse_request("receiveVideoFrom", 105);
    };
    let needed = |rig: &Rig| rig.events.iter().any(|e| matches!(e, ClientEvent::RejoinNeeded { .. }));
    for (can_rejoin, deaf) in [(true, false), (false, true), (true, true)] {
        let mut rig = Rig::joined(can_rejoin);
        if deaf {
            rig.wait(10_500, false);
        } else {
            rig.cut(1006);
        }
        rig.open();
        rig.answer("connect", json!({"value":"reconnection successful","sessionId":"rpcHush"}));
        rig.answer("ping", json!({"value":"pong"}));
        rig.answer("videoData", json!({}));
        assert_eq!(*rig.client.state(), State::Joined);
        subscribe(&mut rig);
        rig.wait(3_100, true);
        // A socket that closes loses nothing but what the server knows that it lost.
        assert_eq!(needed(&rig), can_rejoin && deaf, "{can_rejoin} {deaf}");
        assert!(rig.outcome(7).is_some());
    }
}
