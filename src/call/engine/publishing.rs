//! My stream on its way out: published, fed, ended.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tracing::warn;

use super::encoders::Encoders;
use super::own::Publishing;
use super::{Engine, in_turn};
use crate::call::VideoInput;
use crate::call::leg::{self, LegReport, Line, PublishSpec, Reporter};
use crate::call::view::{DeviceState, Failure};
use crate::media::video::encoder::EncoderConfig;
use crate::media::video::source::Tuning;
use crate::peer::{MediaKind, PublishMedia};
use crate::rtp::frame::{AUDIO_BUILT, VideoCodec};
use crate::rtp::simulcast::layers_for;
use crate::signaling::{PublishRequest, Signaling as _};

/// Rate given to the encoder before the network has said anything, in bit/s: the first key frame has to pass a narrow path
/// within a moment. Where more is possible, more is known a round trip later.
const START_BITRATE_BPS: u32 = 280_000;

/// After a media server restarted nothing is published for so long.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

impl Engine {
    /// The user wants to publish, after a pause or a refusal.
    pub(super) fn publish_again(&mut self) {
        let may = self.place.joined.as_ref().is_none_or(|j| j.role.may_publish());
        if !may {
            return self.refuse("publish", "the role does not allow publishing");
        }
        if self.own.publishing.is_some() {
            return self.refuse("publish", "already published");
        }
        self.own.unpublished = false;
        self.own.refused = false;
    }

    pub(super) fn start_publication(&mut self) {
        let Some(joined) = self.place.joined.clone() else { return };
        let has_audio = self.own.has_microphone && AUDIO_BUILT;
        let has_video = self.own.sends_video() && !self.config.media.codecs.is_empty();
        if !has_audio && !has_video {
            return;
        }
        self.own.active.set_audio(has_audio && self.own.audio_active());
        // A muted camera is closed, and so is one whose film has ended.
        self.own.active.set_video(has_video && self.own.capture.is_some());
        let (audio_active, video_active) = self.own.active.get();
        // Layers are for hosts that say that they take them, of VP8, and of cameras: a screen is to be sharp or nothing.
        let layered = joined.simulcast
            && self.config.media.codecs.first() == Some(&VideoCodec::Vp8)
            && self.own.tuning(&self.config).is_none();
        let layers = if layered { layers_for((self.own.mode.width, self.own.mode.height)) } else { 1 };
        self.own.layers = layers;
        let screen = self.config.media.publish_only || matches!(self.own.video, VideoInput::Screen(_));
        self.own.announced_screen = screen;
        let spec = PublishSpec {
            transport: self.transport(&joined),
            own_connection_id: joined.connection_id.clone(),
            media: PublishMedia {
                audio: has_audio,
                video: has_video.then(|| self.config.media.codecs.clone()),
                stereo: self.own.voice.original_sound,
            },
            layers,
            request: PublishRequest {
                sdp_offer: String::new(),
                has_audio,
                has_video,
                audio_active,
                video_active,
                type_of_video: if screen { "SCREEN".to_owned() } else { "CAMERA".to_owned() },
                frame_rate: self.own.mode.fps,
                video_dimensions: (self.own.mode.width, self.own.mode.height),
            },
            active: Arc::clone(&self.own.active),
        };
        let (leg, input, queue) = self.new_leg();
        let line = Line::default();
        let reporter = Reporter { leg, queue: self.leg_reports.0.clone() };
        tokio::spawn(leg::publish(spec, self.signaling.clone(), queue, reporter, line.clone()));
        self.own.publishing = Some(Publishing {
            leg,
            input,
            line,
            stream_id: None,
            has_audio,
            has_video,
            flowing: false,
            connected_at: None,
        });
        self.dirty = true;
    }

    /// A report of the publishing leg.
    pub(super) fn own_report(&mut self, report: LegReport) {
        let Some(publishing) = &mut self.own.publishing else { return };
        self.dirty |= report.is_shown();
        match report {
            LegReport::Published { stream_id, active } => {
                publishing.stream_id = Some(stream_id);
                // What was muted while the request was on its way.
                let now = self.own.active.get();
                if now.0 != active.0 {
                    self.tell_active(MediaKind::Audio, now.0);
                }
                if now.1 != active.1 {
                    self.tell_active(MediaKind::Video, now.1);
                }
            }
            LegReport::Sender { sender, codec } => {
                self.own.sender.store(Some(Arc::new(sender)));
                self.connect_sinks(codec);
                self.pace_pictures();
            }
            LegReport::Connected => {
                publishing.flowing = true;
                let (first, stream_id) = (publishing.connected_at.is_none(), publishing.stream_id.clone());
                publishing.connected_at.get_or_insert_with(Instant::now);
                if let Some(encoder) = &self.own.encoder {
                    encoder.begin_anew();
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
            LegReport::LayerKeyFrame(layer) => {
                if let Some(encoder) = &self.own.encoder {
                    encoder.request_layer_key_frame(layer);
                }
            }
            LegReport::LayersWanted(bps) => {
                if let Some(encoder) = &mut self.own.encoder {
                    encoder.set_wanted(&bps);
                }
            }
            LegReport::Target(bps) => {
                let bps = bps.min(self.own.useful_bps());
                self.own.target_bps = Some(bps);
                if let Some(encoder) = &mut self.own.encoder {
                    encoder.set_target(bps);
                }
                if let Some(audio) = &self.audio {
                    audio.set_bandwidth(bps);
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
                let event = self
                    .event("error")
                    .with("command", "publish")
                    .with("key", error.failure().key)
                    .with("message", error.to_string());
                self.emit(event);
            }
            LegReport::Loss(..)
            | LegReport::FirstPacket(_)
            | LegReport::Stalled(..)
            | LegReport::SenderReport { .. } => {}
        }
    }

    /// A page of text may take its time on the way, a face and a film may not; and none makes use of more than its size.
    pub(super) fn pace_pictures(&self) {
        if let Some(sender) = &*self.own.sender.load() {
            let tuning = self.own.tuning(&self.config);
            sender.set_useful_bps(self.own.useful_bps());
            sender.set_patient(matches!(tuning, Some(Tuning::Auto | Tuning::Text)));
        }
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
        if let Some(encoder) = &mut self.own.encoder {
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
            tuning: self.own.tuning(&self.config),
            keep_alive: !self.own.announced_screen,
            layer: None,
        };
        let sink = Arc::new(move |layer, frame| {
            if let Some(sender) = &*sender.load() {
                total.fetch_add(1, Ordering::Relaxed);
                sender.send_layer(layer, frame);
            }
        });
        match Encoders::start(self.own.slot.clone(), config, self.own.layers, sink) {
            Ok(encoder) => {
                self.own.encoder = Some(encoder);
                self.own.encoding();
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
        in_turn(async move { server.video_data(mode.width, mode.height, video, audio).await });
    }

    pub(super) fn own_stream_gone(&mut self, reason: &str) {
        let stream_id = self.own.publishing.as_ref().and_then(|p| p.stream_id.clone());
        self.collect_own_stream();
        self.own.stop_publishing();
        self.stop_audio_sink();
        // Stopped by somebody else: only the user starts it again. A restarted media server is no such decision, but it is not through yet
        // when it says so.
        let restarted = reason == "mediaServerReconnect";
        self.own.unpublished = !restarted;
        self.own.not_before = restarted.then(|| Instant::now() + RESTART_PAUSE);
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
        let server = Arc::clone(&self.signaling);
        if stream_id.is_some() {
            self.request("unpublish", async move { server.unpublish().await });
        } else {
            // The request may be on its way and would leave a stream without media. Where there is none yet, the refusal
            // is as good.
            in_turn(async move { drop(server.unpublish().await) });
        }
        let event = self.event("streamDestroyed").with("stream_id", stream_id).with("reason", reason);
        self.emit(event);
    }
}
