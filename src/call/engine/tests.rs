//! The engine without a server: what it makes of what it is told.

use super::*;
use crate::call::config::MediaChoice;
use crate::call::process::ProcessMeter;
use crate::call::view::DeviceState;
use crate::media::audio::{MicrophoneSource, Processing, SpeakerSink};
use crate::media::video::decoder::DecoderPool;
use crate::media::video::source::{CameraSource, Tuning};
use crate::protocol::Secret;
use crate::protocol::message::Role;
use crate::signaling::ServerKind;
use crate::signaling::target::{Target, TokenSource};
use crate::signaling::tls::Trust;

fn engine() -> Engine {
    let started = Instant::now();
    let media = MediaChoice {
        video: VideoInput::Camera(CameraSource::parse("pattern:1:64x64@5").unwrap()),
        microphone: "tone:500".parse().unwrap(),
        speaker: SpeakerSink::Null,
        processing: Processing::Off,
        codecs: vec![crate::rtp::frame::VideoCodec::Vp8],
        audio_muted: false,
        video_muted: false,
        subscribe_only: false,
        publish_only: false,
        screen: None,
        screen_sound: false,
        tuning: Tuning::Auto,
        default_tone_hz: 500.0,
        sync_clicks: false,
    };
    let config = CallConfig {
        // Nobody is asked: the text is no token.
        target: Target { source: TokenSource::Raw(Secret::new("none")), trust: Trust::System },
        name: "me".to_owned(),
        device_key: "key".to_owned(),
        command: "join",
        started,
        media,
        impairments: None,
        report_names: false,
        decoders: DecoderPool::new().unwrap(),
        meter: Arc::new(ProcessMeter::new(started)),
        repaint: None,
    };
    let (_, asks) = mpsc::channel(1);
    let mut engine =
        Engine::new(config, asks, Arc::new(ArcSwap::from_pointee(View::default())), broadcast::channel(64).0);
    engine.start_audio();
    engine.start_capture();
    engine
}

fn joined(role: Role) -> SignalingEvent {
    let joined = Joined {
        connection_id: "con_Me".to_owned(),
        session: "room".to_owned(),
        role,
        ice_servers: Vec::new(),
        server_offers: false,
        server: ServerKind::OpenVidu,
        simulcast: false,
        tiles: false,
        host: "127.0.0.1:1".to_owned(),
    };
    SignalingEvent::Joined { joined: Box::new(joined), rejoined: false }
}

impl Engine {
    fn told(&self, name: &str) -> Vec<&Event> {
        self.log.iter().filter(|e| e.event == name).collect()
    }

    /// Camera open, wanted microphone, as far as the engine has it.
    fn open(&self) -> (bool, bool) {
        (self.own.capture.is_some(), !self.own.withheld && self.own.microphone != MicrophoneSource::None)
    }
}

#[tokio::test]
async fn devices_close_when_nothing_of_them_may_be_sent() {
    let mut engine = engine();
    assert_eq!(engine.open(), (true, true));
    engine.signaling_event(joined(Role::Subscriber)).await;
    assert_eq!(engine.open(), (false, false));
    assert_eq!(engine.told("devicesClosed")[0].detail["reason"], "role");
    // Nothing opens them but the role.
    engine.command(Command::MuteVideo(true)).await;
    engine.command(Command::MuteVideo(false)).await;
    engine.command(Command::Camera("pattern:2".to_owned())).await;
    engine.command(Command::Microphone("tone:700".to_owned())).await;
    // That nothing can be published was told once, and each refused command of the two devices.
    assert_eq!((engine.open(), engine.told("error").len()), ((false, false), 3));
    engine.signaling_event(SignalingEvent::RoleChanged(Role::Publisher)).await;
    assert_eq!((engine.open(), engine.told("devicesOpened").len()), ((true, true), 1));
}

#[tokio::test]
async fn who_is_cut_off_is_neither_seen_nor_heard_until_he_is_back() {
    let mut engine = engine();
    engine.signaling_event(joined(Role::Publisher)).await;
    assert_eq!(engine.open(), (true, true));
    let away = SignalingEvent::Reconnecting { attempt: 1, retry_at: None, place_kept_until: Instant::now() };
    engine.signaling_event(away.clone()).await;
    assert_eq!(engine.open(), (true, true), "a short loss closes nothing");
    engine.signaling_event(SignalingEvent::GivenUp).await;
    assert_eq!(engine.open(), (false, false));
    assert_eq!(engine.told("devicesClosed")[0].detail["reason"], "givenUp");
    // The user tries again.
    engine.signaling_event(away).await;
    assert_eq!(engine.open(), (false, false));
    engine.signaling_event(SignalingEvent::Reconnected).await;
    assert_eq!(engine.open(), (true, true));
}

#[tokio::test]
async fn requests_reach_the_queue_in_the_order_in_which_they_are_made() {
    // Also those for which there is no room yet.
    let (queue, mut queued) = mpsc::channel(2);
    for n in 0..100 {
        let queue = queue.clone();
        in_turn(async move { queue.send(n).await.unwrap() });
    }
    drop(queue);
    let mut order = Vec::new();
    while let Some(n) = queued.recv().await {
        order.push(n);
    }
    assert_eq!(order, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_muted_microphone_asks_for_no_drawing() {
    let mut engine = engine();
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    engine.config.repaint = Some(Arc::new(move || {
        counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }));
    for (state, drawings) in [(DeviceState::Muted, 0), (DeviceState::On, 1)] {
        engine.own.microphone_state = state;
        // Louder than the tone, and than silence.
        engine.own.level.set_dbfs(-3.0);
        engine.update_levels();
        assert_eq!(asked.load(std::sync::atomic::Ordering::Relaxed), drawings);
    }
}

#[tokio::test]
async fn a_changed_round_trip_is_known_without_a_drawing_of_its_own() {
    let mut engine = engine();
    engine.config.repaint = Some(Arc::new(|| panic!("nothing is to be drawn")));
    engine.dirty = false;
    engine.place.rtt_ms = Some(42.0);
    engine.update_quality();
    assert_eq!((engine.view.load().rtt_ms, engine.dirty), (Some(42.0), false));
}

#[test]
fn figures_of_a_leg_ask_for_no_drawing() {
    use crate::call::leg::LegReport;
    use crate::peer::MediaKind;
    let figures = [
        LegReport::Target(300_000),
        LegReport::LayersWanted(vec![1]),
        LegReport::Loss(MediaKind::Audio, 0.0),
        LegReport::SenderReport { kind: MediaKind::Audio, ntp: 1, rtp: 1 },
    ];
    assert!(figures.iter().all(|report| !report.is_shown()));
    assert!(LegReport::Connected.is_shown() && LegReport::Stalled(MediaKind::Video, None).is_shown());
}
