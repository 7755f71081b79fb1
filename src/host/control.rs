//! The control task: the room machine between sockets, REST and the media thread.

use super::HostError;
use super::rooms::RoomsFile;
use super::sfu::{self, LegId as SfuLeg, PublishSpec, Sfu, SfuError, SfuEvent, SfuStats};
use crate::protocol::room::{
    Counts, KeyRules, LegId, MediaDone, MediaError, MediaOp, OpId, RestRequest, RestResponse, RoomError, Server,
    ServerInput, ServerOutput, SocketId, VideoCodecName,
};
use crate::protocol::{Now, Sdp, Secret};
use crate::rtp::frame::VideoCodec;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot};

/// Messages waiting for the control task; a socket whose message finds no room waits, and so does its sender: that is the back-pressure.
pub(super) const CONTROL_QUEUE: usize = 1024;
/// Frames waiting for one slow socket; beyond, the socket is closed: signalling is never dropped silently.
pub(super) const OUTGOING_QUEUE: usize = 512;
/// Bytes of such frames; beyond, the same.
const OUTGOING_BYTES: usize = 4 << 20;
/// Requests about one leg waiting for the media thread; candidates beyond are dropped.
const LEG_QUEUE: usize = 128;
/// Pause between two tries to start a media thread that has ended.
const MEDIA_AGAIN: Duration = Duration::from_secs(1);
/// How often the machine is told the time.
const TICK: Duration = Duration::from_millis(100);

/// Opens the media socket and starts the media thread.
pub(super) type MediaStart = Box<dyn Fn() -> Result<(Sfu, mpsc::Receiver<SfuEvent>), HostError> + Send>;

/// What goes out on a socket.
pub(super) enum Outgoing {
    Text(String),
    Close(u16, &'static str),
}

/// The sending half of a socket as the control task sees it.
pub(super) struct SocketSender {
    frames: mpsc::Sender<Outgoing>,
    bytes: Arc<AtomicUsize>,
}

/// The receiving half, for the task that writes to the network.
pub(super) struct SocketFrames {
    frames: mpsc::Receiver<Outgoing>,
    bytes: Arc<AtomicUsize>,
}

/// The two halves of a socket's outgoing queue.
pub(super) fn outgoing() -> (SocketSender, SocketFrames) {
    let (tx, rx) = mpsc::channel(OUTGOING_QUEUE);
    let bytes = Arc::new(AtomicUsize::new(0));
    (SocketSender { frames: tx, bytes: Arc::clone(&bytes) }, SocketFrames { frames: rx, bytes })
}

impl SocketSender {
    fn text(&self, text: String) -> bool {
        let size = text.len();
        if self.bytes.fetch_add(size, Ordering::Relaxed) + size > OUTGOING_BYTES {
            return false;
        }
        self.frames.try_send(Outgoing::Text(text)).is_ok()
    }
}

impl SocketFrames {
    pub(super) async fn next(&mut self) -> Option<Outgoing> {
        let frame = self.frames.recv().await;
        if let Some(Outgoing::Text(text)) = &frame {
            self.bytes.fetch_sub(text.len(), Ordering::Relaxed);
        }
        frame
    }
}

/// Messages to the control task.
pub(super) enum Message {
    Opened {
        socket: SocketId,
        peer: IpAddr,
        cookie: String,
        out: SocketSender,
    },
    Text {
        socket: SocketId,
        text: String,
    },
    /// The other end has read so many frames of this socket.
    Delivered {
        socket: SocketId,
        frames: u64,
    },
    Closed {
        socket: SocketId,
        code: u16,
        reason: String,
    },
    Rest {
        request: RestRequest,
        reply: oneshot::Sender<RestResponse>,
    },
    Media {
        op: OpId,
        result: Result<MediaDone, MediaError>,
    },
    Room {
        name: String,
        rules: KeyRules,
        reply: std::sync::mpsc::SyncSender<Result<Secret, RoomError>>,
    },
    Stats {
        reply: std::sync::mpsc::SyncSender<(Counts, Counts, Option<SfuStats>)>,
    },
    Shutdown {
        reply: std::sync::mpsc::SyncSender<()>,
    },
}

/// Clock of the machine.
#[derive(Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> Now {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now { mono: self.0.elapsed(), unix_ms: u64::try_from(unix.as_millis()).unwrap_or(u64::MAX) }
    }
}

/// The control task's state.
pub(super) struct Control {
    pub(super) server: Server,
    /// Where rooms outlive the host, if they do.
    pub(super) rooms: Option<RoomsFile>,
    pub(super) clock: Clock,
    pub(super) sfu: Sfu,
    /// Starts the media thread anew.
    pub(super) restart: MediaStart,
    /// For the media tasks' answers.
    pub(super) to_self: mpsc::Sender<Message>,
    pub(super) sockets: HashMap<SocketId, SocketSender>,
    pub(super) legs: HashMap<LegId, mpsc::Sender<(OpId, MediaOp)>>,
    /// The most of everything at once, so far.
    pub(super) most: Counts,
}

impl Control {
    /// Runs until it is told to stop.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>, mut events: mpsc::Receiver<SfuEvent>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut again = tokio::time::interval(MEDIA_AGAIN);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut media_alive = true;
        loop {
            tokio::select! {
                message = messages.recv() => {
                    let Some(message) = message else { break };
                    if let Message::Shutdown { reply } = message {
                        self.shut_down().await;
                        let _ = reply.try_send(());
                        break;
                    }
                    self.message(message);
                }
                event = events.recv(), if media_alive => match event {
                    Some(event) => tracing::debug!(?event, "media"),
                    None => {
                        media_alive = false;
                        tracing::error!("the media thread has ended");
                        self.legs.clear();
                        self.server.handle(ServerInput::MediaGone, self.clock.now());
                    }
                },
                _ = again.tick(), if !media_alive => match (self.restart)() {
                    Ok((sfu, new_events)) => {
                        tracing::warn!("the media thread has been started anew");
                        (self.sfu, events, media_alive) = (sfu, new_events, true);
                    }
                    Err(error) => tracing::error!(%error, "the media thread cannot be started"),
                },
                _ = tick.tick() => {
                    self.server.handle(ServerInput::Tick, self.clock.now());
                    self.note_most();
                }
            }
            self.carry_out();
        }
    }

    /// A report that is written when everybody has left would say nothing.
    fn note_most(&mut self) {
        let now = self.server.counts();
        self.most = Counts {
            sessions: self.most.sessions.max(now.sessions),
            participants: self.most.participants.max(now.participants),
            streams: self.most.streams.max(now.streams),
            sockets: self.most.sockets.max(now.sockets),
        };
    }

    fn message(&mut self, message: Message) {
        let now = self.clock.now();
        let input = match message {
            Message::Opened { socket, peer, cookie, out } => {
                self.sockets.insert(socket, out);
                ServerInput::SocketOpened { socket, peer, cookie }
            }
            Message::Text { socket, text } => ServerInput::Text { socket, text },
            Message::Delivered { socket, frames } => ServerInput::Delivered { socket, frames },
            Message::Closed { socket, code, reason } => {
                self.sockets.remove(&socket);
                ServerInput::SocketClosed { socket, code, reason }
            }
            Message::Media { op, result } => ServerInput::Media { op, result },
            Message::Rest { request, reply } => {
                let response = self.server.rest(&request, now);
                self.keep_rooms();
                let _ = reply.send(response);
                return;
            }
            Message::Room { name, rules, reply } => {
                let made = self.server.create_room(&name, rules, now).map(|(_, key)| key);
                self.keep_rooms();
                let _ = reply.try_send(made);
                return;
            }
            Message::Stats { reply } => {
                self.note_most();
                let (counts, most, sfu) = (self.server.counts(), self.most, self.sfu.clone());
                tokio::spawn(async move {
                    let _ = reply.try_send((counts, most, sfu.stats().await.ok()));
                });
                return;
            }
            Message::Shutdown { .. } => return,
        };
        self.server.handle(input, now);
    }

    /// Writes the rooms down when they are not what was written last.
    fn keep_rooms(&mut self) {
        if let Some(file) = &mut self.rooms {
            file.keep(&self.server.state().rooms);
        }
    }

    /// Does what the machine wants done.
    fn carry_out(&mut self) {
        while let Some(output) = self.server.poll_output() {
            match output {
                ServerOutput::Send { socket, text } => {
                    if self.sockets.get(&socket).is_some_and(|out| !out.text(text)) {
                        tracing::warn!(socket = socket.0, "closed: it does not read what it is sent");
                        self.sockets.remove(&socket);
                        let reason = "outgoing queue full".to_owned();
                        self.server.handle(ServerInput::SocketClosed { socket, code: 1006, reason }, self.clock.now());
                    }
                }
                ServerOutput::Close { socket, code, reason } => {
                    // Dropping the sender ends the writer behind the last frame; where the close frame finds no room, that is the close.
                    if let Some(out) = self.sockets.remove(&socket) {
                        let _ = out.frames.try_send(Outgoing::Close(code, reason));
                    }
                }
                ServerOutput::Media { op, request } => self.media(op, request),
            }
        }
    }

    /// Hands a request to the task of its leg, which keeps their order.
    fn media(&mut self, op: OpId, request: MediaOp) {
        let leg = match &request {
            MediaOp::Publish { leg, .. }
            | MediaOp::Subscribe { leg, .. }
            | MediaOp::PrepareSubscribe { leg, .. }
            | MediaOp::SetAnswer { leg, .. }
            | MediaOp::Candidate { leg, .. }
            | MediaOp::Draw { leg, .. }
            | MediaOp::CloseLeg { leg } => *leg,
        };
        if matches!(request, MediaOp::CloseLeg { .. }) {
            if let Some(queue) = self.legs.remove(&leg) {
                // Behind everything else; when there is no room the end of the queue closes the leg as well.
                let _ = queue.try_send((op, request));
            }
            return;
        }
        let queue = self.legs.entry(leg).or_insert_with(|| {
            let (tx, rx) = mpsc::channel(LEG_QUEUE);
            tokio::spawn(serve_leg(leg, rx, self.sfu.clone(), self.to_self.clone()));
            tx
        });
        if let Err(mpsc::error::TrySendError::Full((op, request))) = queue.try_send((op, request))
            && !matches!(request, MediaOp::Candidate { .. } | MediaOp::Draw { .. })
        {
            let result = Err(MediaError::Full);
            self.server.handle(ServerInput::Media { op, result }, self.clock.now());
        }
    }

    async fn shut_down(&mut self) {
        self.server.stop(self.clock.now());
        self.carry_out();
        for (_, out) in self.sockets.drain() {
            let _ = out.frames.try_send(Outgoing::Close(1001, "The host is closing"));
        }
        self.legs.clear();
        if let Err(error) = self.sfu.shutdown().await {
            tracing::debug!(%error, "media thread");
        }
    }
}

/// One task per leg: its requests run strictly in order, other legs do not wait for them.
async fn serve_leg(leg: LegId, mut queue: mpsc::Receiver<(OpId, MediaOp)>, sfu: Sfu, answers: mpsc::Sender<Message>) {
    let id = SfuLeg(leg.0);
    while let Some((op, request)) = queue.recv().await {
        let result = match request {
            MediaOp::CloseLeg { .. } => break,
            MediaOp::Candidate { candidate, .. } => {
                if let Err(error) = sfu.add_candidate(id, &candidate).await {
                    tracing::debug!(leg = leg.0, %error, "candidate");
                }
                continue;
            }
            MediaOp::Draw { size, .. } => {
                if let Err(error) = sfu.draw(id, size).await {
                    tracing::debug!(leg = leg.0, %error, "tile");
                }
                continue;
            }
            MediaOp::Publish { stream, previous, offer, .. } => match forced(stream.codec) {
                Err(error) => Err(error),
                Ok(_) if previous.is_some() => answer(sfu.reconnect_publisher(id, &stream.stream_id, &offer).await),
                Ok(forced_video) => {
                    let spec = PublishSpec {
                        stream_id: stream.stream_id,
                        session: stream.session_id,
                        audio: stream.has_audio,
                        video: stream.has_video,
                        loopback: stream.loopback,
                        forced_video,
                        size: stream.size,
                    };
                    answer(sfu.publish(id, spec, &offer).await)
                }
            },
            MediaOp::Subscribe { stream, receiver, offer, .. } => {
                answer(sfu.subscribe_as(id, &stream.stream_id, Some(&receiver), &offer).await)
            }
            MediaOp::PrepareSubscribe { stream, receiver, .. } => sfu
                .prepare_subscribe_as(id, &stream.stream_id, Some(&receiver))
                .await
                .map(|n| MediaDone::Offer(Sdp::from(n.sdp)))
                .map_err(media_error),
            MediaOp::SetAnswer { answer, .. } => {
                sfu.set_answer(id, &answer).await.map(|()| MediaDone::Done).map_err(media_error)
            }
        };
        if answers.send(Message::Media { op, result }).await.is_err() {
            break;
        }
    }
    if let Err(error) = sfu.close(id).await
        && !matches!(error, SfuError::UnknownLeg(_) | SfuError::Closed)
    {
        tracing::warn!(leg = leg.0, %error, "closing a leg");
    }
}

fn forced(codec: Option<VideoCodecName>) -> Result<Option<VideoCodec>, MediaError> {
    match codec {
        None => Ok(None),
        Some(VideoCodecName::Vp8) => Ok(Some(VideoCodec::Vp8)),
        Some(VideoCodecName::H264) => Ok(Some(VideoCodec::H264)),
        Some(VideoCodecName::Vp9) => Err(MediaError::NoCodec("this host does not forward VP9".into())),
    }
}

fn answer(result: Result<sfu::Negotiated, SfuError>) -> Result<MediaDone, MediaError> {
    result.map(|n| MediaDone::Answer(Sdp::from(n.sdp))).map_err(media_error)
}

fn media_error(error: SfuError) -> MediaError {
    match error {
        SfuError::InvalidSdp(what) => MediaError::BadSdp(what.into()),
        SfuError::NoCommonCodec { wanted } => MediaError::NoCodec(wanted.into()),
        SfuError::UnknownStream | SfuError::UnknownLeg(_) => MediaError::NoSuchStream,
        SfuError::Limit(_) => MediaError::Full,
        other => MediaError::Failed(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::room::ServerConfig;

    #[test]
    fn a_media_thread_that_ends_is_started_anew() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let start = || sfu::start(sfu::SfuConfig::new(([127, 0, 0, 1], 0).into())).unwrap();
        let (first, events) = start();
        let clock = Clock::start();
        let config = ServerConfig {
            secret: Secret::new("S"),
            public_url: "http://127.0.0.1".to_owned(),
            public_url_guessed: false,
            seed: [1; 32],
            limits: Default::default(),
        };
        let (to_self, messages) = mpsc::channel(CONTROL_QUEUE);
        let control = Control {
            server: Server::new(config, clock.now()),
            rooms: None,
            clock,
            sfu: first.clone(),
            restart: Box::new(move || Ok(start())),
            to_self: to_self.clone(),
            sockets: HashMap::new(),
            legs: HashMap::new(),
            most: Counts::default(),
        };
        runtime.block_on(async {
            tokio::spawn(control.run(messages, events));
            first.shutdown().await.unwrap();
            let answered = async {
                loop {
                    let (reply, answer) = std::sync::mpsc::sync_channel(1);
                    assert!(to_self.send(Message::Stats { reply }).await.is_ok());
                    let answer = tokio::task::spawn_blocking(move || answer.recv().unwrap()).await.unwrap();
                    if answer.2.is_some() {
                        break;
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(20), answered).await.expect("it is back");
        });
    }
}
