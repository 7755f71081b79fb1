//! A subscribing leg against a server that is one of our own publications.

use std::sync::Mutex as StdMutex;
use std::time::Duration;

use async_trait::async_trait;

use super::*;
use crate::peer::PublishMedia;
use crate::signaling::{LocalCandidate, Property, Published};

const STREAM: &str = "str_CAM_Aaaa_con_A";

/// What was asked of the server, and the answers it got.
#[derive(Default)]
struct Server {
    asked: StdMutex<Vec<String>>,
    answers: StdMutex<Vec<String>>,
    offer: StdMutex<String>,
    away: std::sync::atomic::AtomicBool,
}

impl Server {
    fn note(&self, what: impl Into<String>) {
        self.asked.lock().unwrap().push(what.into());
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    async fn wait_for(&self, what: &str, count: usize) {
        for _ in 0..500 {
            if self.asked().iter().filter(|a| *a == what).count() >= count {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{count} times {what} in vain: {:?}", self.asked());
    }
}

#[async_trait]
impl Signaling for Server {
    async fn publish(&self, request: PublishRequest) -> Result<Published, SignalingError> {
        self.note(format!("publish {} {}", request.audio_active, request.video_active));
        tokio::time::sleep(Duration::from_millis(100)).await;
        Err(SignalingError::NotConnected)
    }
    async fn unpublish(&self) -> Result<(), SignalingError> {
        Ok(())
    }
    async fn subscribe(&self, _: &str, _: &str) -> Result<String, SignalingError> {
        Err(SignalingError::NotConnected)
    }
    async fn prepare_subscribe(&self, _: &str, reconnect: bool) -> Result<String, SignalingError> {
        self.note(format!("prepare {reconnect}"));
        Ok(self.offer.lock().unwrap().clone())
    }
    async fn answer_subscribe(&self, _: &str, answer: &str) -> Result<(), SignalingError> {
        self.answers.lock().unwrap().push(answer.to_owned());
        self.note("answer");
        Ok(())
    }
    async fn unsubscribe(&self, stream_id: &str) -> Result<(), SignalingError> {
        assert_eq!(stream_id, STREAM);
        // Longer than anybody needs to send the next request.
        tokio::time::sleep(Duration::from_millis(100)).await;
        self.note("unsubscribe");
        Ok(())
    }
    async fn reconnect_publication(&self, _: &str) -> Result<String, SignalingError> {
        Err(SignalingError::NotConnected)
    }
    async fn reconnect_subscription(&self, _: &str, _: &str) -> Result<String, SignalingError> {
        Err(SignalingError::NotConnected)
    }
    async fn reconnect_subscription_answer(&self, _: &str, answer: &str, by: bool) -> Result<(), SignalingError> {
        self.answers.lock().unwrap().push(answer.to_owned());
        self.note(if by { "forced answer" } else { "new answer" });
        Ok(())
    }
    async fn candidate(&self, _: LocalCandidate) {}
    async fn set_property(&self, _: Property) -> Result<(), SignalingError> {
        Ok(())
    }
    async fn signal(&self, _: &str, _: &str, _: &[String]) -> Result<(), SignalingError> {
        Ok(())
    }
    async fn video_data(&self, _: u32, _: u32, _: bool, _: bool) {}
    async fn tiles(&self, _tiles: Vec<(String, (u32, u32))>) {}

    async fn force_disconnect(&self, _: &str) -> Result<(), SignalingError> {
        Ok(())
    }
    async fn force_unpublish(&self, _: &str) -> Result<(), SignalingError> {
        Ok(())
    }
    async fn probe(&self) -> Result<(), SignalingError> {
        self.note("probe");
        if self.away.load(std::sync::atomic::Ordering::SeqCst) { Err(SignalingError::NotConnected) } else { Ok(()) }
    }
    async fn retry_now(&self) {}
    async fn leave(&self) {}
}

fn local() -> TransportConfig {
    TransportConfig { local_addrs: vec![[127, 0, 0, 1].into()], ..TransportConfig::default() }
}

/// Somebody else's stream, as its server would offer it.
async fn offered() -> (Publication, mpsc::Receiver<PeerEvent>, String) {
    let media = PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false };
    let (publication, events) = Publication::new(&local(), media).await.unwrap();
    let offer = publication.offer().await.unwrap();
    (publication, events, offer)
}

struct Leg {
    input: mpsc::Sender<LegInput>,
    reports: mpsc::Receiver<(LegId, LegReport)>,
    task: tokio::task::JoinHandle<()>,
}

fn leg(server: &Arc<Server>, turn: &Turn) -> Leg {
    leg_over(local(), server, turn)
}

fn leg_over(transport: TransportConfig, server: &Arc<Server>, turn: &Turn) -> Leg {
    let (input, queue) = mpsc::channel(LEG_QUEUE);
    let (reports, reported) = mpsc::channel(64);
    let spec = SubscribeSpec {
        transport,
        connection_id: "con_A".to_owned(),
        stream_id: STREAM.to_owned(),
        media: SubscribeMedia { audio: true, video: true },
        sinks: Sinks { video: Arc::new(|_| {}), audio: Arc::new(|_| {}) },
        may_rest: false,
        server_offers: true,
        gate: Gate::default(),
        turn: Arc::clone(turn),
    };
    let reporter = Reporter { leg: LegId(1), queue: reports };
    let server: Arc<dyn Signaling> = Arc::<Server>::clone(server);
    let task = tokio::spawn(subscribe(spec, server, queue, reporter, Line::default()));
    Leg { input, reports: reported, task }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transport_that_the_server_replaces_is_answered_with_a_new_one() {
    let (server, turn) = (Arc::new(Server::default()), Turn::default());
    let (first, _first_events, offer) = offered().await;
    server.offer.lock().unwrap().clone_from(&offer);
    let mut leg = leg(&server, &turn);
    server.wait_for("answer", 1).await;
    let answer = server.answers.lock().unwrap()[0].clone();
    first.set_answer(&answer).await.unwrap();

    // `forciblyReconnectSubscriber`: the old connection is closed, the new offer is answered by `reconnectStream`.
    let (second, _second_events, offer) = offered().await;
    leg.input.send(LegInput::ServerOffers(offer)).await.unwrap();
    server.wait_for("forced answer", 1).await;
    let answer = server.answers.lock().unwrap()[1].clone();
    second.set_answer(&answer).await.unwrap();
    assert_eq!(server.asked(), ["prepare false", "answer", "forced answer"]);
    let told = async {
        while let Some((_, report)) = leg.reports.recv().await {
            if let LegReport::Interrupted { why } = report {
                return why;
            }
        }
        String::new()
    };
    assert_eq!(tokio::time::timeout(Duration::from_secs(5), told).await.unwrap(), "server_offers");
    drop(leg.input);
    tokio::time::timeout(Duration::from_secs(5), leg.task).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_leg_takes_back_what_the_one_before_has_asked_for() {
    let (server, turn) = (Arc::new(Server::default()), Turn::default());
    let (_publication, _events, offer) = offered().await;
    server.offer.lock().unwrap().clone_from(&offer);
    let old = leg(&server, &turn);
    server.wait_for("answer", 1).await;
    // Three changes of mind within a moment: only the last one is asked of the server, behind the end of the first.
    drop(old.input);
    let given_up = leg(&server, &turn);
    drop(given_up.input);
    let last = leg(&server, &turn);
    server.wait_for("answer", 2).await;
    let asked = server.asked();
    let end: Vec<&str> = asked.iter().map(String::as_str).skip(2).collect();
    assert!(
        end == ["unsubscribe", "prepare false", "answer"]
            || end == ["unsubscribe", "unsubscribe", "prepare false", "answer"],
        "{asked:?}"
    );
    drop(last.input);
    tokio::time::timeout(Duration::from_secs(5), last.task).await.unwrap().unwrap();
    unsubscribe(turn, server.clone(), STREAM.to_owned()).await;
    assert_eq!(server.asked().last().map(String::as_str), Some("unsubscribe"));
}

/// While the connection is away no transport is built; whoever brings it back says so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_is_asked_before_a_transport_is_built_anew() {
    let (server, turn) = (Arc::new(Server::default()), Turn::default());
    let (_publication, _events, offer) = offered().await;
    server.offer.lock().unwrap().clone_from(&offer);
    let leg = leg(&server, &turn);
    server.wait_for("answer", 1).await;
    server.away.store(true, std::sync::atomic::Ordering::SeqCst);
    leg.input.send(LegInput::Rebuild).await.unwrap();
    server.wait_for("probe", 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.asked(), ["prepare false", "answer", "probe"]);
    server.away.store(false, std::sync::atomic::Ordering::SeqCst);
    leg.input.send(LegInput::Rebuild).await.unwrap();
    server.wait_for("new answer", 1).await;
    assert_eq!(server.asked()[3..], ["prepare true", "new answer"]);
    drop(leg.input);
    tokio::time::timeout(Duration::from_secs(5), leg.task).await.unwrap().unwrap();
}

/// For a moment there is no address to be bound, as after a change of network.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_computer_without_a_network_does_not_end_a_stream() {
    let (server, turn) = (Arc::new(Server::default()), Turn::default());
    let nowhere = TransportConfig { local_addrs: vec![[203, 0, 113, 7].into()], ..TransportConfig::default() };
    let mut leg = leg_over(nowhere, &server, &turn);
    for _ in 0..2 {
        let told = tokio::time::timeout(Duration::from_secs(5), leg.reports.recv()).await.unwrap().unwrap().1;
        assert!(matches!(&told, LegReport::Interrupted { why } if why == "local_error"), "{told:?}");
    }
    assert!(!leg.task.is_finished());
    drop(leg.input);
    tokio::time::timeout(Duration::from_secs(5), leg.task).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_try_to_publish_announces_what_is_muted_by_then() {
    let server = Arc::new(Server::default());
    let (input, queue) = mpsc::channel(LEG_QUEUE);
    let (reports, _reported) = mpsc::channel(64);
    let active = Arc::new(Active::default());
    active.set_audio(true);
    active.set_video(true);
    let spec = PublishSpec {
        transport: local(),
        own_connection_id: "con_A".to_owned(),
        media: PublishMedia { audio: true, video: PublishMedia::any_video(), stereo: false },
        layers: 1,
        request: PublishRequest {
            sdp_offer: String::new(),
            has_audio: true,
            has_video: true,
            audio_active: true,
            video_active: true,
            type_of_video: "CAMERA".to_owned(),
            frame_rate: 30,
            video_dimensions: (1280, 720),
        },
        active: Arc::clone(&active),
    };
    let reporter = Reporter { leg: LegId(1), queue: reports };
    let signaling: Arc<dyn Signaling> = Arc::<Server>::clone(&server);
    let task = tokio::spawn(publish(spec, signaling, queue, reporter, Line::default()));
    server.wait_for("publish true true", 1).await;
    active.set_audio(false);
    server.wait_for("publish false true", 1).await;
    drop(input);
    tokio::time::timeout(Duration::from_secs(5), task).await.unwrap().unwrap();
}
