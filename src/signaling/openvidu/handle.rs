//! The [`Signaling`] of an OpenVidu 2 connection: turns calls into actions of the driver and waits for their answers.

use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot};

use super::super::target::Target;
use super::super::{LocalCandidate, Property, PublishRequest, Published, Signaling, SignalingError, SignalingEvent};
use super::driver::{Ask, Driver};
use crate::protocol::Sdp;
use crate::protocol::client::{Action, Answer, DimensionsReason, OwnProperty, PublishProperties};
use crate::protocol::message::{Request, TileSize, Tiles, VideoData, VideoDimensions};
use crate::protocol::metadata::ClientMetadata;

/// Calls that may wait for the driver; a caller waits when it is full.
const ASK_QUEUE: usize = 256;
/// Events that may wait for the engine; the driver waits when it is full, so that nothing is lost.
const EVENT_QUEUE: usize = 512;

/// How to connect.
#[derive(Debug, Clone)]
pub struct ConnectConfig {
    /// Where to, and how to get a token.
    pub target: Target,
    /// Client part of the metadata: name, device key, camera or screen.
    pub metadata: ClientMetadata,
}

/// Starts joining; what becomes of it is told by the events. Must be called on a tokio runtime.
pub fn connect(config: ConnectConfig) -> (OpenVidu, mpsc::Receiver<SignalingEvent>) {
    let (asks, ask_queue) = mpsc::channel(ASK_QUEUE);
    let (events, event_queue) = mpsc::channel(EVENT_QUEUE);
    tokio::spawn(Driver::new(config, ask_queue, events).run());
    (OpenVidu { asks }, event_queue)
}

/// One connection to an OpenVidu 2 server. Dropping the last clone leaves.
#[derive(Debug, Clone)]
pub struct OpenVidu {
    asks: mpsc::Sender<Ask>,
}

impl OpenVidu {
    async fn ask(&self, method: &'static str, action: Action) -> Result<Answer, SignalingError> {
        let (reply, answer) = oneshot::channel();
        self.asks.send(Ask { action, method, reply: Some(reply) }).await.map_err(|_| SignalingError::NotConnected)?;
        answer.await.unwrap_or(Err(SignalingError::NotConnected))
    }

    async fn tell(&self, method: &'static str, action: Action) {
        // Nobody waits for these; a driver that is gone means that the call is over.
        drop(self.asks.send(Ask { action, method, reply: None }).await);
    }
}

fn unexpected(method: &str) -> SignalingError {
    SignalingError::NoAnswer { method: method.to_owned() }
}

#[async_trait]
impl Signaling for OpenVidu {
    async fn publish(&self, request: PublishRequest) -> Result<Published, SignalingError> {
        let (width, height) = request.video_dimensions;
        let properties = PublishProperties {
            do_loopback: false,
            has_audio: request.has_audio,
            has_video: request.has_video,
            audio_active: request.has_audio.then_some(request.audio_active),
            video_active: request.has_video.then_some(request.video_active),
            type_of_video: request.has_video.then_some(request.type_of_video),
            frame_rate: Some(if request.has_video { i32::try_from(request.frame_rate).unwrap_or(-1) } else { -1 }),
            video_dimensions: request.has_video.then_some(VideoDimensions { width, height }),
            filter: None,
        };
        match self.ask("publishVideo", Action::Publish { properties, sdp_offer: Sdp::from(request.sdp_offer) }).await? {
            Answer::Published { stream_id, sdp_answer, .. } => {
                Ok(Published { stream_id, sdp_answer: sdp_answer.as_str().to_owned() })
            }
            _ => Err(unexpected("publishVideo")),
        }
    }

    async fn unpublish(&self) -> Result<(), SignalingError> {
        self.ask("unpublishVideo", Action::Unpublish).await.map(drop)
    }

    async fn subscribe(&self, stream_id: &str, sdp_offer: &str) -> Result<String, SignalingError> {
        let action = Action::Subscribe { stream_id: stream_id.to_owned(), sdp_offer: Sdp::from(sdp_offer.to_owned()) };
        match self.ask("receiveVideoFrom", action).await? {
            Answer::Subscribed { sdp_answer: Some(sdp), .. } => Ok(sdp.as_str().to_owned()),
            _ => Err(unexpected("receiveVideoFrom")),
        }
    }

    async fn prepare_subscribe(&self, stream_id: &str, reconnect: bool) -> Result<String, SignalingError> {
        match self
            .ask("prepareReceiveVideoFrom", Action::PrepareSubscribe { stream_id: stream_id.to_owned(), reconnect })
            .await?
        {
            Answer::Offer { sdp_offer, .. } => Ok(sdp_offer.as_str().to_owned()),
            _ => Err(unexpected("prepareReceiveVideoFrom")),
        }
    }

    async fn answer_subscribe(&self, stream_id: &str, sdp_answer: &str) -> Result<(), SignalingError> {
        let action =
            Action::SubscribeAnswer { stream_id: stream_id.to_owned(), sdp_answer: Sdp::from(sdp_answer.to_owned()) };
        self.ask("receiveVideoFrom", action).await.map(drop)
    }

    async fn unsubscribe(&self, stream_id: &str) -> Result<(), SignalingError> {
        self.ask("unsubscribeFromVideo", Action::Unsubscribe { stream_id: stream_id.to_owned() }).await.map(drop)
    }

    async fn reconnect_publication(&self, sdp_offer: &str) -> Result<String, SignalingError> {
        match self
            .ask("reconnectStream", Action::ReconnectPublisher { sdp_offer: Sdp::from(sdp_offer.to_owned()) })
            .await?
        {
            Answer::Published { sdp_answer, .. } => Ok(sdp_answer.as_str().to_owned()),
            _ => Err(unexpected("reconnectStream")),
        }
    }

    async fn reconnect_subscription(&self, stream_id: &str, sdp_offer: &str) -> Result<String, SignalingError> {
        let action =
            Action::ReconnectSubscriber { stream_id: stream_id.to_owned(), sdp_offer: Sdp::from(sdp_offer.to_owned()) };
        match self.ask("reconnectStream", action).await? {
            Answer::Subscribed { sdp_answer: Some(sdp), .. } => Ok(sdp.as_str().to_owned()),
            _ => Err(unexpected("reconnectStream")),
        }
    }

    async fn reconnect_subscription_answer(
        &self,
        stream_id: &str,
        sdp_answer: &str,
        forcibly: bool,
    ) -> Result<(), SignalingError> {
        let action = Action::ReconnectSubscriberAnswer {
            stream_id: stream_id.to_owned(),
            sdp_answer: Sdp::from(sdp_answer.to_owned()),
            forcibly,
        };
        self.ask("reconnectStream", action).await.map(drop)
    }

    async fn candidate(&self, candidate: LocalCandidate) {
        let action = Action::IceCandidate {
            connection_id: candidate.endpoint,
            candidate: candidate.candidate,
            sdp_mid: candidate.sdp_mid,
            sdp_m_line_index: u32::from(candidate.sdp_mline_index),
        };
        self.tell("onIceCandidate", action).await;
    }

    async fn set_property(&self, property: Property) -> Result<(), SignalingError> {
        let property = match property {
            Property::AudioActive(on) => OwnProperty::AudioActive(on),
            Property::VideoActive(on) => OwnProperty::VideoActive(on),
            Property::AudioTrack(label) => OwnProperty::AudioTrack(label),
            Property::VideoTrack(label) => OwnProperty::VideoTrack(label),
            Property::VideoDimensions(width, height) => OwnProperty::VideoDimensions {
                dimensions: VideoDimensions { width, height },
                reason: DimensionsReason::TrackReplaced,
            },
        };
        self.ask("streamPropertyChanged", Action::PropertyChanged(property)).await.map(drop)
    }

    async fn signal(&self, kind: &str, data: &str, to: &[String]) -> Result<(), SignalingError> {
        let action = Action::Signal { kind: kind.to_owned(), data: data.to_owned(), to: to.to_vec() };
        self.ask("sendMessage", action).await.map(drop)
    }

    async fn video_data(&self, width: u32, height: u32, video_active: bool, audio_active: bool) {
        let data = VideoData { width, height, video_active, audio_active };
        self.tell("videoData", Action::VideoData(data)).await;
    }

    async fn tiles(&self, tiles: Vec<(String, (u32, u32))>) {
        let size = |(stream_id, (width, height))| TileSize { stream_id, width, height };
        let request = Request::Tiles(Tiles { tiles: tiles.into_iter().map(size).collect() });
        self.tell("tertuliaTiles", Action::Request(Box::new(request))).await;
    }

    async fn force_disconnect(&self, connection_id: &str) -> Result<(), SignalingError> {
        self.ask("forceDisconnect", Action::ForceDisconnect { connection_id: connection_id.to_owned() }).await.map(drop)
    }

    async fn force_unpublish(&self, stream_id: &str) -> Result<(), SignalingError> {
        self.ask("forceUnpublish", Action::ForceUnpublish { stream_id: stream_id.to_owned() }).await.map(drop)
    }

    async fn probe(&self) -> Result<(), SignalingError> {
        self.ask("echo", Action::Probe).await.map(drop)
    }

    async fn retry_now(&self) {
        self.tell("connect", Action::RetryNow).await;
    }

    async fn leave(&self) {
        self.tell("leaveRoom", Action::Leave).await;
        // The driver ends, and with it the queue, when the server has answered or its time is up.
        self.asks.closed().await;
    }
}
