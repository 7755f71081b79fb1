//! The actor of one call.
//!
//! It owns all state and never waits for the network: transports run as legs, requests whose answer does not matter to the
//! state run as tasks, devices open on threads of their own. Everything comes back through bounded queues.

mod devices;
mod encoders;
mod figures;
mod legs;
mod link;
mod own;
mod people;
mod publishing;
mod receiving;
mod reporting;
mod session;
mod sharing;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use tokio::sync::{broadcast, mpsc};
use tracing::warn;

use super::command::Command;
use super::config::{CallConfig, VideoInput};
use super::event::Event;
use super::handle::{Ask, CallHandle};
use super::leg::{LEG_QUEUE, LegId, LegReport};
use super::leg_waits::Gate;
use super::report::{Report, StreamReport, Timeline};
use super::view::{ChatLine, Connection, Failure, JoinStep, Notice, View};
use crate::media::audio::{AudioConfig, AudioEngine, AudioEvent};
use crate::media::screen::NotChosen;
use crate::media::video::capture::CaptureEvent;
use crate::media::video::decoder::DecoderEvent;
use crate::protocol::metadata::ClientMetadata;
use crate::signaling::openvidu::{ConnectConfig, OpenVidu, connect};
use crate::signaling::{Joined, Signaling, SignalingError, SignalingEvent};
use link::{LinkWatch, Losses};
use own::Own;
use people::{Numbers, Person};
use sharing::Choosing;

/// Reports of legs that may wait; a leg waits when it is full.
const LEG_REPORTS: usize = 256;
/// Notices of device and decoder threads that may wait; further ones are dropped and logged, the next tick repairs the view.
const MEDIA_NOTICES: usize = 256;
/// Levels, stalls and countdowns are looked at this often.
const TICK: Duration = Duration::from_millis(100);
/// A leave that the server does not answer ends all the same.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Events kept for the report.
const EVENT_LIMIT: usize = 10_000;
/// Chat lines kept.
const CHAT_LIMIT: usize = 5_000;
/// Notices kept; the window shows three.
const NOTICE_LIMIT: usize = 16;
/// A devices that opens longer than this does not hold the publication up.
const DEVICE_PATIENCE: Duration = Duration::from_millis(2_500);

/// What device and decoder threads tell.
#[derive(Debug)]
enum MediaNotice {
    /// From the camera or screen with this number.
    Capture(u64, CaptureEvent),
    /// From the decoder of this leg.
    Decoder(LegId, DecoderEvent, Instant),
    /// A request of the user was refused.
    Refused(&'static str, String),
    /// Answer of the desktop's picker to the question with this number.
    ScreenChosen(u64, Result<(), NotChosen>),
}

/// Both ends of a bounded queue that the engine hands out and reads itself.
type Queue<T> = (mpsc::Sender<T>, mpsc::Receiver<T>);

/// The session as the server described it.
#[derive(Debug, Default)]
struct Place {
    joined: Option<Joined>,
    rejoining: bool,
    lost_at: Option<Instant>,
    reconnect_ms: Vec<u64>,
    reconnects: u32,
    /// Word of the state in which we left of our own accord.
    left_in: Option<&'static str>,
    /// Last known path to the media server.
    candidate: Option<String>,
    rtt_ms: Option<f64>,
}

pub(super) struct Engine {
    config: CallConfig,
    asks: mpsc::Receiver<Ask>,
    view: Arc<ArcSwap<View>>,
    events: broadcast::Sender<Event>,
    log: Vec<Event>,
    signaling: Arc<OpenVidu>,
    signals: mpsc::Receiver<SignalingEvent>,
    leg_reports: Queue<(LegId, LegReport)>,
    notices: Queue<MediaNotice>,
    audio: Option<AudioEngine>,
    audio_events: Option<mpsc::Receiver<AudioEvent>>,
    connection: Connection,
    place: Place,
    own: Own,
    people: Vec<Person>,
    /// Volume and pin by person's key, kept while a person is away.
    remembered: HashMap<String, (f32, bool)>,
    numbers: Numbers,
    /// How large streams are drawn, by stream id; and which of these the host has to be told.
    drawn: HashMap<String, (u32, u32)>,
    drawn_anew: BTreeSet<String>,
    /// No pictures are received, by the user's wish.
    sound_only: bool,
    link: LinkWatch,
    sent_losses: Losses,
    ended_streams: Vec<StreamReport>,
    /// The second connection that carries our screen.
    screen_call: Option<CallHandle>,
    /// Such connections that have been told to leave, until their figures are in.
    left_screens: Vec<CallHandle>,
    /// The desktop is asking what to share.
    choosing: Option<Choosing>,
    choices: u64,
    /// Under which connections our screen has been in the room, the newest last.
    own_screens: Vec<String>,
    chat: Vec<ChatLine>,
    standing: Vec<Notice>,
    next_notice: u64,
    next_leg: u64,
    gate: Gate,
    timeline: Timeline,
    error: Option<String>,
    leaving: bool,
    over: bool,
    dirty: bool,
    joined_at: Option<Instant>,
}

impl Engine {
    pub(super) fn new(
        config: CallConfig,
        asks: mpsc::Receiver<Ask>,
        view: Arc<ArcSwap<View>>,
        events: broadcast::Sender<Event>,
    ) -> Self {
        let metadata = if config.media.publish_only {
            ClientMetadata::screen(&config.name, &config.device_key)
        } else {
            ClientMetadata::camera(&config.name, &config.device_key)
        };
        let (signaling, signals) = connect(ConnectConfig { target: config.target.clone(), metadata });
        let own = Own::new(&config);
        Self {
            asks,
            view,
            events,
            log: Vec::new(),
            signaling: Arc::new(signaling),
            signals,
            leg_reports: mpsc::channel(LEG_REPORTS),
            notices: mpsc::channel(MEDIA_NOTICES),
            audio: None,
            audio_events: None,
            connection: Connection::Joining(JoinStep::Reaching),
            place: Place::default(),
            own,
            people: Vec::new(),
            remembered: HashMap::new(),
            numbers: Numbers::default(),
            drawn: HashMap::new(),
            drawn_anew: BTreeSet::new(),
            sound_only: false,
            link: LinkWatch::default(),
            sent_losses: Losses::default(),
            ended_streams: Vec::new(),
            screen_call: None,
            left_screens: Vec::new(),
            choosing: None,
            choices: 0,
            own_screens: Vec::new(),
            chat: Vec::new(),
            standing: Vec::new(),
            next_notice: 1,
            next_leg: 1,
            gate: Gate::default(),
            timeline: Timeline::default(),
            error: None,
            leaving: false,
            over: false,
            dirty: true,
            joined_at: None,
            config,
        }
    }

    /// Runs the call to its end and gives its report.
    pub(super) async fn run(mut self) -> Report {
        self.start_audio();
        self.start_capture();
        self.publish_view();
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut ticks = 0u64;
        let mut leave_by: Option<Instant> = None;
        while !self.over {
            tokio::select! {
                ask = self.asks.recv(), if !self.leaving => match ask {
                    Some(Ask::Command(command)) => self.command(command).await,
                    Some(Ask::Refused(command, message)) => self.refuse(&command, &message),
                    Some(Ask::Report(reply)) => self.answer_report(reply),
                    None => self.begin_leave(),
                },
                event = self.signals.recv() => match event {
                    Some(event) => self.signaling_event(event).await,
                    None => self.over = true,
                },
                Some((leg, report)) = self.leg_reports.1.recv() => self.leg_report(leg, report).await,
                Some(notice) = self.notices.1.recv() => self.media_notice(notice),
                Some(event) = next_audio_event(&mut self.audio_events) => self.audio_event(event),
                _ = tick.tick() => {
                    ticks += 1;
                    self.on_tick(ticks).await;
                }
                () = sleep_until(leave_by), if self.leaving => {
                    warn!("the server did not answer the leave in time");
                    self.over = true;
                }
            }
            if self.leaving && leave_by.is_none() {
                leave_by = Some(Instant::now() + LEAVE_TIMEOUT);
            }
            if self.dirty {
                self.publish_view();
            }
        }
        self.finish().await
    }

    async fn on_tick(&mut self, ticks: u64) {
        self.update_levels();
        self.own.tick();
        self.tell_sizes();
        if self.own.wants_publishing(self.may_publish_now()) {
            self.start_publication();
        } else if self.may_publish_now() && self.own.has_nothing_to_publish() {
            // A screen that was asked for does not wait for a camera that is not there.
            self.start_shared_screen();
        }
        if ticks.is_multiple_of(10) {
            self.config.meter.sample();
            self.update_quality();
        }
        if matches!(self.connection, Connection::Reconnecting { .. }) {
            self.dirty = true;
        }
        self.recognize_own_screen();
        self.watch_screen_call();
    }

    async fn command(&mut self, command: Command) {
        if self.config.media.subscribe_only
            && let Some(name) = command.of_publishing()
        {
            return self.refuse(name, "this participant only watches and listens (--subscribe-only)");
        }
        if self.own.withheld
            && let Some(name) = command.of_publishing()
        {
            return self.refuse(name, "the role or the lost connection does not allow publishing");
        }
        match command {
            Command::MuteAudio(muted) => self.mute_audio(muted),
            Command::MuteVideo(muted) => self.mute_video(muted),
            Command::Camera(source) => self.change_camera(&source),
            Command::Microphone(source) => self.change_microphone(&source),
            Command::Speaker(sink) => self.change_speaker(&sink),
            Command::Voice(change) => self.change_voice(change),
            Command::Levelling(on) => self.change_levelling(on),
            Command::Share(screen) => self.share(screen),
            Command::Tune(tuning) => self.tune(tuning),
            Command::ShareSound(on) => self.share_sound(on),
            Command::Signal { kind, data, to } => self.send_signal(kind, data, to),
            Command::Publish => self.publish_again(),
            Command::Unpublish if self.own.publishing.is_none() => self.refuse("unpublish", "nothing is published"),
            Command::Unpublish => self.unpublish("unpublish"),
            Command::Subscribe { stream_id, audio, video } => self.choose_media(&stream_id, audio, video),
            Command::SoundOnly(on) => self.set_sound_only(on),
            Command::Tile { stream_id, size } => self.tile_size(&stream_id, size),
            Command::Volume { person, gain } => self.set_volume(&person, gain),
            Command::Pin { person, pinned } => self.set_pin(&person, pinned),
            Command::ForceDisconnect(id) => {
                let server = Arc::clone(&self.signaling);
                self.request("force_disconnect", async move { server.force_disconnect(&id).await });
            }
            Command::ForceUnpublish(id) => {
                let server = Arc::clone(&self.signaling);
                self.request("force_unpublish", async move { server.force_unpublish(&id).await });
            }
            Command::ReconnectNow => {
                if let Some(screen) = &self.screen_call {
                    // Its own connection was lost with ours; a call that is over has no way back anyhow.
                    let _ = screen.send(Command::ReconnectNow);
                }
                let server = Arc::clone(&self.signaling);
                in_turn(async move { server.retry_now().await });
            }
            Command::Answer(_) => self.refuse("answer", "nobody is calling"),
            Command::Leave => self.begin_leave(),
        }
    }

    /// Runs a request whose outcome only matters when it fails. It goes to the server behind those made before it.
    fn request(
        &mut self,
        what: &'static str,
        request: impl Future<Output = Result<(), SignalingError>> + Send + 'static,
    ) {
        let notices = self.notices.0.clone();
        in_turn(async move {
            if let Err(error) = request.await {
                // The engine gone means that the call is over.
                drop(notices.send(MediaNotice::Refused(what, error.to_string())).await);
            }
        });
    }

    fn begin_leave(&mut self) {
        if self.leaving {
            return;
        }
        self.leaving = true;
        self.leave_screen();
        let server = Arc::clone(&self.signaling);
        in_turn(async move { server.leave().await });
    }

    /// Milliseconds since the process started.
    fn t_ms(&self) -> u64 {
        u64::try_from(self.config.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn emit(&mut self, event: Event) {
        // A call without listeners is fine: the report has them all.
        drop(self.events.send(event.clone()));
        if self.log.len() < EVENT_LIMIT {
            self.log.push(event);
        }
        self.dirty = true;
    }

    fn event(&self, name: &str) -> Event {
        Event::new(self.t_ms(), name)
    }

    fn refuse(&mut self, command: &str, message: &str) {
        let event = self.event("error").with("command", command).with("message", message);
        self.emit(event);
    }

    fn notice(&mut self, key: &'static str, values: Vec<(&'static str, String)>) {
        self.standing.push(Notice { id: self.next_notice, key, values });
        self.next_notice += 1;
        if self.standing.len() > NOTICE_LIMIT {
            self.standing.remove(0);
        }
        self.dirty = true;
    }

    fn say(&mut self, name: String, text: String, own: bool) {
        let at_unix_ms = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(0));
        self.chat.push(ChatLine { name, text, own, at_unix_ms });
        if self.chat.len() > CHAT_LIMIT {
            self.chat.remove(0);
        }
    }

    fn new_leg(&mut self) -> (LegId, mpsc::Sender<super::leg::LegInput>, mpsc::Receiver<super::leg::LegInput>) {
        let id = LegId(self.next_leg);
        self.next_leg += 1;
        let (input, queue) = mpsc::channel(LEG_QUEUE);
        (id, input, queue)
    }

    fn start_audio(&mut self) {
        if self.config.media.publish_only && !self.own.has_microphone {
            return;
        }
        let media = &self.config.media;
        let config = AudioConfig {
            microphone: media.microphone.clone(),
            default_tone_hz: media.default_tone_hz,
            sync_clicks: media.sync_clicks,
            speaker: media.speaker.clone(),
            voice: self.own.voice,
            muted: media.audio_muted,
            ..AudioConfig::default()
        };
        match AudioEngine::start(config) {
            Ok((engine, events)) => {
                self.audio = Some(engine);
                self.audio_events = Some(events);
            }
            Err(error) => {
                let failure = Failure { key: error.key(), values: error.values(), detail: error.to_string() };
                let event = self
                    .event("deviceError")
                    .with("device", "audio")
                    .with("key", failure.key)
                    .with("message", error.to_string());
                self.own.microphone_failed(failure);
                self.emit(event);
            }
        }
    }

    fn publish_view(&mut self) {
        self.dirty = false;
        self.renew_view();
        if let Some(repaint) = &self.config.repaint {
            repaint();
        }
    }

    /// Publishes what is known now to whoever looks next.
    fn renew_view(&self) {
        self.view.store(Arc::new(self.build_view()));
    }

    async fn finish(mut self) -> Report {
        self.leave_screen();
        self.collect_all_streams();
        self.wait_for_screens().await;
        let report = self.report();
        self.own.close();
        self.people.clear();
        if let Some(audio) = self.audio.take() {
            audio.close();
        }
        self.publish_view();
        report
    }

    fn may_publish_now(&self) -> bool {
        !self.leaving
            && self.place.joined.as_ref().is_some_and(|j| j.role.may_publish())
            && matches!(self.connection, Connection::Connected | Connection::Joining(_))
    }

    fn wants_to_publish(&self) -> bool {
        !self.config.media.subscribe_only && (self.own.has_microphone || self.has_own_video())
    }

    fn has_own_video(&self) -> bool {
        self.own.video != VideoInput::None
    }
}

/// Runs a request as a task that has taken its place in the queue to the server before this returns: what is asked later comes later.
///
/// Tasks begin in any order, the newest often first; so the request is begun here, where the order is known. Only its answer is waited for
/// elsewhere. Where the queue is full the place in it is kept all the same.
fn in_turn(request: impl Future<Output = ()> + Send + 'static) {
    let mut request = Box::pin(tokio::task::unconstrained(request));
    if (&mut request).now_or_never().is_none() {
        tokio::spawn(request);
    }
}

async fn next_audio_event(events: &mut Option<mpsc::Receiver<AudioEvent>>) -> Option<AudioEvent> {
    match events {
        Some(queue) => queue.recv().await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
