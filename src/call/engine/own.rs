//! My own devices and my own stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use tokio::sync::mpsc;
use tracing::{info, warn};

use super::{DEVICE_PATIENCE, Engine, MediaNotice};
use crate::call::command::Command;
use crate::call::config::{CallConfig, VideoInput};
use crate::call::handle::start;
use crate::call::leg::{self, Current, LegId, LegInput, LegReport, PublishSpec, Reporter};
use crate::call::view::{DeviceState, Failure, Level};
use crate::media::audio::AudioEvent;
use crate::media::video::capture::{Capture, CaptureEvent};
use crate::media::video::codec::Content;
use crate::media::video::encoder::{EncoderConfig, EncoderThread};
use crate::media::video::frame::FrameSlot;
use crate::media::video::source::{CameraSource, ScreenSource, VideoMode};
use crate::peer::{MediaKind, MediaSender, Publication, PublishMedia};
use crate::signaling::{Property, PublishRequest, Signaling as _};

/// Rate given to the encoder before the network has said anything, in bit/s.
const START_BITRATE_BPS: u32 = 1_200_000;
/// Never more than this for a camera, in bit/s.
const MAX_BITRATE_BPS: u64 = 2_500_000;
/// Taken off the network's figure for sound and headers, in bit/s.
const AUDIO_SHARE_BPS: u64 = 50_000;

/// Devices and publication.
pub(super) struct Own {
    pub(super) video: VideoInput,
    /// What the camera was before a screen took its place, and whether it was muted: it must not come back on by itself.
    camera_before_share: Option<(VideoInput, bool)>,
    capture: Option<Capture>,
    capture_number: u64,
    pub(super) slot: FrameSlot,
    /// Written ten times a second, read by whoever draws.
    pub(super) level: Level,
    pub(super) camera_state: DeviceState,
    pub(super) microphone_state: DeviceState,
    pub(super) camera_name: Option<String>,
    pub(super) microphone_name: Option<String>,
    pub(super) speaker_name: Option<String>,
    pub(super) audio_muted: bool,
    pub(super) video_muted: bool,
    has_microphone: bool,
    mode: VideoMode,
    opening_since: Option<Instant>,
    pub(super) unpublished: bool,
    /// The server refused to let us publish: not asked again in this place.
    refused: bool,
    pub(super) publishing: Option<Publishing>,
    pub(super) encoder: Option<EncoderThread>,
    sender: Arc<ArcSwapOption<MediaSender>>,
    pub(super) encoded_since: Option<Instant>,
    pub(super) target_bps: Option<u64>,
    pub(super) sent_720p_after_ms: Option<u64>,
    pub(super) frames_total: Arc<AtomicU64>,
}

/// A running publication.
pub(super) struct Publishing {
    pub(super) leg: LegId,
    pub(super) input: mpsc::Sender<LegInput>,
    pub(super) current: Current<Publication>,
    pub(super) stream_id: Option<String>,
    pub(super) has_audio: bool,
    pub(super) has_video: bool,
    pub(super) flowing: bool,
    ever_connected: bool,
}

impl Own {
    pub(super) fn new(config: &CallConfig) -> Self {
        let media = &config.media;
        let has_microphone = media.microphone != crate::media::audio::MicrophoneSource::None;
        let device = |there: bool, muted: bool| match (there, muted) {
            (false, _) => DeviceState::None,
            (true, true) => DeviceState::Muted,
            (true, false) => DeviceState::Opening,
        };
        Self {
            camera_state: device(media.video != VideoInput::None, media.video_muted),
            microphone_state: device(has_microphone, media.audio_muted),
            video: media.video.clone(),
            camera_before_share: None,
            capture: None,
            capture_number: 0,
            slot: FrameSlot::new(),
            level: Level::default(),
            camera_name: None,
            microphone_name: None,
            speaker_name: None,
            audio_muted: media.audio_muted,
            video_muted: media.video_muted,
            has_microphone,
            mode: mode_of(&media.video),
            opening_since: None,
            unpublished: media.subscribe_only,
            refused: false,
            publishing: None,
            encoder: None,
            sender: Arc::new(ArcSwapOption::empty()),
            encoded_since: None,
            target_bps: None,
            sent_720p_after_ms: None,
            frames_total: Arc::new(AtomicU64::new(0)),
        }
    }

    pub(super) fn microphone_failed(&mut self, failure: Failure) {
        self.microphone_state = DeviceState::Failed(failure);
    }

    pub(super) fn tick(&mut self) {
        if let Some(since) = self.opening_since
            && since.elapsed() > DEVICE_PATIENCE
        {
            self.opening_since = None;
        }
        if self.sent_720p_after_ms.is_none()
            && let (Some(since), Some(encoder)) = (self.encoded_since, &self.encoder)
            && encoder.stats().height >= 720
        {
            self.sent_720p_after_ms = u64::try_from(since.elapsed().as_millis()).ok();
        }
    }

    /// Whether a publication should be started now: allowed, wanted, and the camera has made up its mind.
    pub(super) fn wants_publishing(&self, allowed: bool) -> bool {
        allowed
            && !self.unpublished
            && !self.refused
            && self.publishing.is_none()
            && self.opening_since.is_none()
            && (self.has_microphone || self.sends_video())
    }

    fn sends_video(&self) -> bool {
        self.video != VideoInput::None && !matches!(self.camera_state, DeviceState::Failed(_))
    }

    pub(super) fn new_place(&mut self) {
        self.refused = false;
    }

    pub(super) fn close(&mut self) {
        self.stop_publishing();
        self.capture = None;
    }

    fn stop_publishing(&mut self) {
        self.sender.store(None);
        self.publishing = None;
        self.encoder = None;
        self.encoded_since = None;
    }

    pub(super) fn close_leg(&mut self) {
        self.stop_publishing();
    }

    fn content(&self) -> Content {
        match self.video {
            VideoInput::Screen(_) => Content::Screen,
            _ => Content::Camera,
        }
    }

    pub(super) fn source_word(&self) -> &'static str {
        match self.video {
            VideoInput::Screen(_) => "screen",
            _ => "camera",
        }
    }
}

fn mode_of(video: &VideoInput) -> VideoMode {
    match video {
        VideoInput::Camera(source) => source.mode().unwrap_or(VideoMode::DEFAULT),
        VideoInput::Screen(ScreenSource::Pattern(pattern)) => pattern.mode,
        VideoInput::Screen(_) => VideoMode { width: 1920, height: 1080, fps: 15 },
        VideoInput::None => VideoMode::DEFAULT,
    }
}

impl Engine {
    /// Opens the camera or screen, unless muted: a muted camera is a closed device.
    pub(super) fn start_capture(&mut self) {
        if self.own.video == VideoInput::None || self.own.video_muted {
            return;
        }
        self.own.capture_number += 1;
        let (number, notices, repaint) = (self.own.capture_number, self.notices.0.clone(), self.config.repaint.clone());
        let events = Box::new(move |event| {
            if notices.try_send(MediaNotice::Capture(number, event)).is_err() {
                warn!("the engine is behind: a camera event was dropped");
            }
            if let Some(repaint) = &repaint {
                repaint();
            }
        });
        self.own.camera_state = DeviceState::Opening;
        self.own.opening_since = Some(Instant::now());
        self.own.capture = Some(match &self.own.video {
            VideoInput::Camera(source) => Capture::open(source, self.own.slot.clone(), events),
            VideoInput::Screen(source) => Capture::open_screen(source, self.own.slot.clone(), events),
            VideoInput::None => return,
        });
        self.dirty = true;
    }

    fn stop_capture(&mut self) {
        // Closing waits for the driver, which may take its time: not on the engine's task.
        if let Some(capture) = self.own.capture.take() {
            tokio::task::spawn_blocking(move || capture.close());
        }
        self.own.capture_number += 1;
        self.own.opening_since = None;
    }

    pub(super) fn media_notice(&mut self, notice: MediaNotice) {
        self.dirty = true;
        match notice {
            MediaNotice::Capture(number, event) if number == self.own.capture_number => self.capture_event(event),
            MediaNotice::Capture(..) => {}
            MediaNotice::Decoder(leg, event, at) => self.decoder_event(leg, event, at),
            MediaNotice::Refused(command, message) => self.refuse(command, &message),
        }
    }

    fn capture_event(&mut self, event: CaptureEvent) {
        match event {
            CaptureEvent::Opened { name, width, height, fps } => {
                self.own.opening_since = None;
                self.own.camera_state = DeviceState::On;
                self.own.camera_name = Some(name.clone());
                let changed = (self.own.mode.width, self.own.mode.height) != (width, height);
                self.own.mode = VideoMode { width, height, fps };
                let event = self
                    .event("cameraOpened")
                    .with("device", name)
                    .with("width", width)
                    .with("height", height)
                    .with("fps", fps);
                self.emit(event);
                if changed && self.own.publishing.as_ref().is_some_and(|p| p.stream_id.is_some()) {
                    let server = Arc::clone(&self.signaling);
                    self.request("camera", async move {
                        server.set_property(Property::VideoDimensions(width, height)).await
                    });
                }
                if let Some(encoder) = &self.own.encoder {
                    encoder.set_limit((width, height), fps);
                    encoder.request_key_frame();
                } else if self.own.publishing.as_ref().is_some_and(|p| !p.has_video) {
                    // The camera came late: the stream without a picture is replaced by one with it.
                    self.unpublish("cameraOpened");
                    self.own.unpublished = false;
                }
            }
            CaptureEvent::Failed { key, device, detail } => {
                self.own.opening_since = None;
                let event =
                    self.event("deviceError").with("device", "camera").with("key", key).with("message", detail.clone());
                self.emit(event);
                self.own.camera_state = DeviceState::Failed(Failure { key, values: vec![("dev", device)], detail });
                self.own.capture = None;
                self.announce_video(false);
            }
            CaptureEvent::Stalled { device, for_ms } => {
                let event = self.event("cameraStalled").with("for_ms", for_ms);
                self.emit(event);
                self.own.camera_state = DeviceState::Failed(Failure {
                    key: "dev.cam_lost",
                    values: vec![("dev", device)],
                    detail: format!("no picture for {for_ms} ms"),
                });
            }
            CaptureEvent::Recovered => {
                self.own.camera_state = DeviceState::On;
                let event = self.event("cameraRecovered");
                self.emit(event);
            }
            CaptureEvent::Ended => {
                self.own.capture = None;
                if matches!(self.own.video, VideoInput::Screen(_)) {
                    self.notice("share.window_gone", Vec::new());
                    self.share(None);
                } else {
                    self.own.camera_state = DeviceState::None;
                    self.announce_video(false);
                }
            }
        }
    }

    pub(super) fn audio_event(&mut self, event: AudioEvent) {
        self.dirty = true;
        let unmuted = if self.own.audio_muted { DeviceState::Muted } else { DeviceState::On };
        match event {
            AudioEvent::MicrophoneOpened(name) => {
                self.own.microphone_state = unmuted;
                self.own.microphone_name = Some(name.clone());
                let event = self.event("microphoneOpened").with("device", name);
                self.emit(event);
            }
            AudioEvent::MicrophoneFailed(error) => {
                let event = self
                    .event("deviceError")
                    .with("device", "microphone")
                    .with("key", error.key())
                    .with("message", error.to_string());
                self.emit(event);
                self.own.microphone_state =
                    DeviceState::Failed(Failure { key: error.key(), values: Vec::new(), detail: error.to_string() });
            }
            AudioEvent::MicrophoneLost(name) => {
                let event = self.event("microphoneLost").with("device", name);
                self.emit(event);
            }
            AudioEvent::SpeakerOpened(name) => {
                self.own.speaker_name = Some(name.clone());
                let event = self.event("speakerOpened").with("device", name);
                self.emit(event);
            }
            AudioEvent::SpeakerFailed(error) => {
                let event = self
                    .event("deviceError")
                    .with("device", "speaker")
                    .with("key", error.key())
                    .with("message", error.to_string());
                self.emit(event);
                self.notice(error.key(), Vec::new());
            }
            AudioEvent::SpeakerLost(name) => {
                let event = self.event("speakerLost").with("device", name);
                self.emit(event);
            }
            AudioEvent::MicrophoneSilent => {
                let name = self.own.microphone_name.clone().unwrap_or_default();
                self.notice("dev.mic_silent", vec![("dev", name)]);
            }
            AudioEvent::MicrophoneAudible => {}
            AudioEvent::TalkingWhileMuted => self.notice("mute.talking", Vec::new()),
        }
    }

    pub(super) fn start_publication(&mut self) {
        let Some(joined) = self.place.joined.clone() else { return };
        let (has_audio, has_video) =
            (self.own.has_microphone && !self.config.media.publish_only, self.own.sends_video());
        if !has_audio && !has_video {
            return;
        }
        let spec = PublishSpec {
            transport: self.transport(&joined),
            own_connection_id: joined.connection_id.clone(),
            media: PublishMedia { audio: has_audio, video: has_video.then(|| self.config.media.codecs.clone()) },
            request: PublishRequest {
                sdp_offer: String::new(),
                has_audio,
                has_video,
                audio_active: !self.own.audio_muted,
                video_active: !self.own.video_muted,
                type_of_video: if self.config.media.publish_only { "SCREEN".to_owned() } else { "CAMERA".to_owned() },
                frame_rate: self.own.mode.fps,
                video_dimensions: (self.own.mode.width, self.own.mode.height),
            },
        };
        let (leg, input, queue) = self.new_leg();
        let current = Current::default();
        let reporter = Reporter { leg, queue: self.leg_reports.0.clone() };
        tokio::spawn(leg::publish(spec, self.signaling.clone(), queue, reporter, Arc::clone(&current)));
        self.own.publishing = Some(Publishing {
            leg,
            input,
            current,
            stream_id: None,
            has_audio,
            has_video,
            flowing: false,
            ever_connected: false,
        });
        self.dirty = true;
    }

    /// A report of the publishing leg.
    pub(super) fn own_report(&mut self, report: LegReport) {
        let Some(publishing) = &mut self.own.publishing else { return };
        match report {
            LegReport::Published { stream_id } => publishing.stream_id = Some(stream_id),
            LegReport::Sender { sender, codec } => {
                self.own.sender.store(Some(Arc::new(sender)));
                self.connect_sinks(codec);
            }
            LegReport::Connected => {
                publishing.flowing = true;
                let (first, stream_id) = (!publishing.ever_connected, publishing.stream_id.clone());
                publishing.ever_connected = true;
                if let Some(encoder) = &self.own.encoder {
                    encoder.request_key_frame();
                }
                if first {
                    let event = self.event("published").with("stream_id", stream_id);
                    self.timeline.published.get_or_insert(event.t_ms);
                    self.emit(event);
                    self.start_shared_screen();
                }
                self.report_video_data();
            }
            LegReport::Interrupted { why } => {
                publishing.flowing = false;
                let event = self.event("mediaReconnecting").with("direction", "send").with("reason", why);
                self.emit(event);
            }
            LegReport::KeyFrame => {
                if let Some(encoder) = &self.own.encoder {
                    encoder.request_key_frame();
                }
            }
            LegReport::Target(bps) => {
                let bps = bps.saturating_sub(AUDIO_SHARE_BPS).min(MAX_BITRATE_BPS);
                self.own.target_bps = Some(bps);
                if let Some(encoder) = &self.own.encoder {
                    encoder.set_target_bitrate(u32::try_from(bps).unwrap_or(u32::MAX));
                }
            }
            LegReport::Loss(MediaKind::Audio, fraction) => {
                if let Some(audio) = &self.audio {
                    audio.set_packet_loss(fraction);
                }
            }
            LegReport::Refused(error) => {
                warn!(%error, "publication refused");
                self.own.stop_publishing();
                self.own.refused = true;
                self.stop_audio_sink();
                let event = self.event("error").with("command", "publish").with("message", error.to_string());
                self.emit(event);
            }
            LegReport::Loss(..)
            | LegReport::FirstPacket(_)
            | LegReport::Stalled(..)
            | LegReport::SenderReport { .. } => {}
        }
        self.dirty = true;
    }

    /// Lets microphone and camera flow into whatever transport is current. The sinks stay when a transport is rebuilt.
    fn connect_sinks(&mut self, codec: Option<crate::rtp::frame::VideoCodec>) {
        if self.own.publishing.as_ref().is_some_and(|p| p.has_audio)
            && let Some(audio) = &self.audio
        {
            let sender = Arc::clone(&self.own.sender);
            audio.set_sink(Some(Arc::new(move |packet| {
                if let Some(sender) = &*sender.load() {
                    sender.send_audio(packet);
                }
            })));
        }
        let Some(codec) = codec else { return };
        if let Some(encoder) = &self.own.encoder {
            encoder.set_codec(codec);
            encoder.request_key_frame();
            return;
        }
        let (sender, total) = (Arc::clone(&self.own.sender), Arc::clone(&self.own.frames_total));
        let config = EncoderConfig {
            codec,
            max_size: (self.own.mode.width, self.own.mode.height),
            max_fps: self.own.mode.fps,
            bitrate_bps: self.own.target_bps.and_then(|b| u32::try_from(b).ok()).unwrap_or(START_BITRATE_BPS),
            content: self.own.content(),
        };
        let sink = Box::new(move |frame| {
            if let Some(sender) = &*sender.load() {
                total.fetch_add(1, Ordering::Relaxed);
                sender.send_video(frame);
            }
        });
        match EncoderThread::start(self.own.slot.clone(), config, sink) {
            Ok(encoder) => {
                self.own.encoder = Some(encoder);
                self.own.encoded_since = Some(Instant::now());
            }
            Err(error) => {
                let event = self.event("deviceError").with("device", "encoder").with("message", error.to_string());
                self.emit(event);
                self.own.camera_state =
                    DeviceState::Failed(Failure { key: "err.codec", values: Vec::new(), detail: error.to_string() });
            }
        }
    }

    pub(super) fn stop_audio_sink(&mut self) {
        if let Some(audio) = &self.audio {
            audio.set_sink(None);
        }
    }

    /// Others use it for their quality marks; sent once after the stream is up, as the browser does in its first seconds.
    fn report_video_data(&self) {
        let (server, mode) = (Arc::clone(&self.signaling), self.own.mode);
        let (video, audio) = (!self.own.video_muted, !self.own.audio_muted);
        tokio::spawn(async move { server.video_data(mode.width, mode.height, video, audio).await });
    }

    pub(super) fn own_stream_gone(&mut self, reason: &str) {
        let stream_id = self.own.publishing.as_ref().and_then(|p| p.stream_id.clone());
        self.collect_own_stream();
        self.own.stop_publishing();
        self.stop_audio_sink();
        // Stopped by somebody else: only the user starts it again. A restarted media server is no such decision.
        self.own.unpublished = reason != "mediaServerReconnect";
        let event = self.event("streamDestroyed").with("stream_id", stream_id).with("reason", reason);
        self.emit(event);
    }

    pub(super) fn unpublish(&mut self, reason: &str) {
        self.own.unpublished = true;
        let Some(publishing) = &self.own.publishing else { return };
        let stream_id = publishing.stream_id.clone();
        self.collect_own_stream();
        self.own.stop_publishing();
        self.stop_audio_sink();
        if stream_id.is_some() {
            let server = Arc::clone(&self.signaling);
            self.request("unpublish", async move { server.unpublish().await });
        }
        let event = self.event("streamDestroyed").with("stream_id", stream_id).with("reason", reason);
        self.emit(event);
    }

    pub(super) fn mute_audio(&mut self, muted: bool) {
        if let Some(audio) = &self.audio {
            audio.set_muted(muted);
        }
        self.own.audio_muted = muted;
        if !matches!(self.own.microphone_state, DeviceState::None | DeviceState::Failed(_)) {
            self.own.microphone_state = if muted { DeviceState::Muted } else { DeviceState::On };
        }
        let event = self.event("muted").with("audio", muted);
        self.emit(event);
        if self.own.publishing.as_ref().is_some_and(|p| p.stream_id.is_some() && p.has_audio) {
            let server = Arc::clone(&self.signaling);
            self.request("mute", async move { server.set_property(Property::AudioActive(!muted)).await });
        }
    }

    pub(super) fn mute_video(&mut self, muted: bool) {
        if self.own.video_muted == muted {
            return;
        }
        self.own.video_muted = muted;
        if self.has_own_video() {
            if muted {
                self.stop_capture();
                self.own.camera_state = DeviceState::Muted;
            } else {
                self.start_capture();
            }
        }
        let event = self.event("muted").with("video", muted);
        self.emit(event);
        self.announce_video(!muted);
    }

    fn announce_video(&mut self, active: bool) {
        if self.own.publishing.as_ref().is_some_and(|p| p.stream_id.is_some() && p.has_video) {
            let server = Arc::clone(&self.signaling);
            self.request("mute", async move { server.set_property(Property::VideoActive(active)).await });
        }
    }

    pub(super) fn change_camera(&mut self, source: &str) {
        match CameraSource::parse(source) {
            Ok(CameraSource::None) => self.use_video(VideoInput::None),
            Ok(source) => self.use_video(VideoInput::Camera(source)),
            Err(error) => self.refuse("camera", &error.to_string()),
        }
    }

    /// Another picture source in the same stream; nothing is negotiated unless there was no picture before.
    fn use_video(&mut self, video: VideoInput) {
        self.stop_capture();
        self.own.video = video;
        self.own.mode = mode_of(&self.own.video);
        self.own.camera_state = match (&self.own.video, self.own.video_muted) {
            (VideoInput::None, _) => DeviceState::None,
            (_, true) => DeviceState::Muted,
            (_, false) => DeviceState::Opening,
        };
        self.start_capture();
        let wants_video = self.own.sends_video();
        match &self.own.publishing {
            Some(publishing) if !publishing.has_video && wants_video => {
                self.unpublish("cameraChanged");
                self.own.unpublished = false;
            }
            Some(publishing) if publishing.has_video && !wants_video => self.announce_video(false),
            Some(_) | None => {}
        }
        if wants_video && !self.own.video_muted {
            self.announce_video(true);
        }
        self.dirty = true;
    }

    pub(super) fn change_microphone(&mut self, source: &str) {
        match source.parse::<crate::media::audio::MicrophoneSource>() {
            Ok(source) => {
                let there = source != crate::media::audio::MicrophoneSource::None;
                if let Some(audio) = &self.audio {
                    audio.set_microphone(source);
                }
                self.own.microphone_state = match (there, self.own.audio_muted) {
                    (false, _) => DeviceState::None,
                    (true, true) => DeviceState::Muted,
                    (true, false) => DeviceState::Opening,
                };
                self.own.has_microphone = there;
                if there && self.own.publishing.as_ref().is_some_and(|p| !p.has_audio) {
                    self.unpublish("microphoneChanged");
                    self.own.unpublished = false;
                }
                self.dirty = true;
            }
            Err(error) => self.refuse("microphone", &error.to_string()),
        }
    }

    pub(super) fn change_speaker(&mut self, sink: &str) {
        match sink.parse::<crate::media::audio::SpeakerSink>() {
            Ok(sink) => {
                if let Some(audio) = &self.audio {
                    audio.set_speaker(sink);
                }
            }
            Err(error) => self.refuse("speaker", &error.to_string()),
        }
    }

    /// Shares a screen: over a second connection where we can get a second token, else in place of the camera.
    pub(super) fn share(&mut self, screen: Option<String>) {
        self.dirty = true;
        let Some(source) = screen else {
            if let Some(call) = self.screen_call.take() {
                let _ = call.send(Command::Leave);
                let event = self.event("shareStopped");
                self.emit(event);
            } else if let Some((before, muted)) = self.own.camera_before_share.take() {
                self.own.video_muted = muted;
                self.use_video(before);
                if muted {
                    self.announce_video(false);
                }
                let event = self.event("shareStopped");
                self.emit(event);
            }
            return;
        };
        match ScreenSource::parse(&source) {
            Ok(source) => self.share_screen(source),
            Err(error) => self.refuse("share", &error.to_string()),
        }
    }

    fn start_shared_screen(&mut self) {
        if let Some(source) = self.config.media.screen.take() {
            self.share_screen(source);
        }
    }

    fn share_screen(&mut self, source: ScreenSource) {
        if !self.may_publish_now() {
            return self.refuse("share", "the role does not allow publishing");
        }
        if let Some(call) = self.screen_call.take() {
            let _ = call.send(Command::Leave);
        }
        if self.config.target.source.renewable() {
            let mut config = self.config.clone();
            config.media.video = VideoInput::Screen(source);
            config.media.microphone = crate::media::audio::MicrophoneSource::None;
            config.media.screen = None;
            config.media.publish_only = true;
            config.media.subscribe_only = false;
            config.media.video_muted = false;
            info!("sharing the screen over a second connection");
            self.screen_call = Some(start(config));
        } else {
            if self.own.camera_before_share.is_none() {
                self.own.camera_before_share = Some((self.own.video.clone(), self.own.video_muted));
            }
            self.notice("share.replaces_camera", Vec::new());
            self.own.video_muted = false;
            self.use_video(VideoInput::Screen(source));
        }
        let event = self.event("shareStarted").with("own_connection", self.screen_call.is_some());
        self.emit(event);
    }

    pub(super) fn screen_ended(&mut self) {
        if let Some(call) = self.screen_call.take() {
            let view = call.view();
            let event = self.event("shareStopped").with("reason", format!("{:?}", view.connection));
            self.emit(event);
        }
    }

    pub(super) fn sharing(&self) -> bool {
        self.screen_call.is_some() || self.own.camera_before_share.is_some()
    }
}
