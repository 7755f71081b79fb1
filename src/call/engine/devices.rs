//! Opening, changing and muting my devices.

use std::sync::Arc;
use std::time::Instant;

use tracing::warn;

use super::own::{Publishing, mode_of, to_be_opened};
use super::sharing::WINDOW_GONE;
use super::{Engine, MediaNotice};
use crate::call::command::VoiceChange;
use crate::call::config::VideoInput;
use crate::call::view::{Connection, DeviceState, Failure};
use crate::media::audio::{AudioDevice, AudioEvent, MicrophoneSource, Processing, Sound, SpeakerSink};
use crate::media::video::capture::{Capture, CaptureEvent};
use crate::media::video::device::GIVEN_UP_AFTER;
use crate::media::video::source::{CameraSource, VideoMode};
use crate::peer::MediaKind;
use crate::signaling::{Property, Signaling as _};

impl Engine {
    /// Opens the camera or screen, unless muted: a muted camera is a closed device.
    pub(super) fn start_capture(&mut self) {
        if self.own.video == VideoInput::None || self.own.video_muted || self.own.withheld {
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

    pub(super) fn stop_capture(&mut self) {
        if let Some(capture) = self.own.capture.take() {
            // From here on none of its pictures goes anywhere.
            capture.shut();
            // Closing waits for the driver, which may take its time: not on the engine's task.
            tokio::task::spawn_blocking(move || capture.close());
        }
        self.own.capture_number += 1;
        self.own.opening_since = None;
    }

    /// Camera and microphone are open where what they give may be sent: neither with whoever may only watch nor with whoever is cut off.
    pub(super) fn settle_devices(&mut self) {
        let may_publish = self.place.joined.as_ref().is_none_or(|j| j.role.may_publish());
        let reason = if matches!(self.connection, Connection::Failed(_)) { "givenUp" } else { "role" };
        let withheld = reason == "givenUp" || !may_publish;
        if std::mem::replace(&mut self.own.withheld, withheld) == withheld {
            return;
        }
        let event = if withheld {
            self.stop_capture();
            (self.own.camera_state, self.own.microphone_state) = (DeviceState::None, DeviceState::None);
            self.event("devicesClosed").with("reason", reason)
        } else {
            self.own.camera_state = to_be_opened(self.has_own_video(), self.own.video_muted);
            self.own.microphone_state = to_be_opened(self.own.has_microphone, self.own.audio_muted);
            self.start_capture();
            self.event("devicesOpened")
        };
        if let Some(audio) = &self.audio {
            audio.set_microphone(if withheld { MicrophoneSource::None } else { self.own.microphone.clone() });
        }
        if self.has_own_video() || self.own.has_microphone {
            self.emit(event);
        }
        self.dirty = true;
    }

    pub(super) fn media_notice(&mut self, notice: MediaNotice) {
        self.dirty = true;
        match notice {
            MediaNotice::Capture(number, event) if number == self.own.capture_number => self.capture_event(event),
            MediaNotice::Capture(..) => {}
            MediaNotice::Decoder(leg, event, at) => self.decoder_event(leg, event, at),
            MediaNotice::Refused(command, message) => self.refuse(command, &message),
            MediaNotice::ScreenChosen(number, result) => self.screen_chosen(number, result),
        }
    }

    fn capture_event(&mut self, event: CaptureEvent) {
        match event {
            CaptureEvent::Opened { name, width, height, fps } => {
                self.own.opening_since = None;
                self.own.camera_state = DeviceState::On;
                let another = self.own.camera_name.replace(name.clone()).is_some_and(|before| before != name);
                let label = self.own.video_label(&name);
                let changed = (self.own.mode.width, self.own.mode.height) != (width, height);
                self.own.mode = VideoMode { width, height, fps };
                let event = self
                    .event("cameraOpened")
                    .with("device", name)
                    .with("width", width)
                    .with("height", height)
                    .with("fps", fps);
                self.emit(event);
                if another {
                    self.tell_track(Property::VideoTrack(label));
                }
                if changed && self.own.publishing.as_ref().is_some_and(|p| p.stream_id.is_some()) {
                    let server = Arc::clone(&self.signaling);
                    self.request("camera", async move {
                        server.set_property(Property::VideoDimensions(width, height)).await
                    });
                }
                let tuning = self.own.tuning(&self.config);
                if let Some(encoder) = &mut self.own.encoder {
                    encoder.set_source(tuning, (width, height), fps);
                    encoder.request_key_frame();
                    self.pace_pictures();
                }
                self.picture_is_there("cameraOpened");
            }
            CaptureEvent::Failed { key, device, detail } => {
                self.own.opening_since = None;
                let event =
                    self.event("deviceError").with("device", "camera").with("key", key).with("message", detail.clone());
                self.emit(event);
                let values = vec![("dev", device)];
                // A camera is tried again for as long as it is wanted.
                if !matches!(self.own.video, VideoInput::Camera(CameraSource::Device { .. })) {
                    self.own.capture = None;
                }
                if matches!(self.own.video, VideoInput::Screen(_)) && !self.config.media.publish_only {
                    // The camera comes back in its place.
                    self.notice(key, values);
                    self.share(None);
                } else {
                    self.own.camera_state = DeviceState::Failed(Failure { key, values, detail });
                    self.announce_video(false);
                }
            }
            CaptureEvent::Stalled { device, for_ms } => {
                let event = self.event("cameraStalled").with("for_ms", for_ms);
                self.emit(event);
                self.own.camera_state = DeviceState::Failed(Failure {
                    key: "dev.cam_lost",
                    values: vec![("dev", device)],
                    detail: format!("no picture for {for_ms} ms"),
                });
                if u128::from(for_ms) >= GIVEN_UP_AFTER.as_millis() {
                    // The others are not left with a picture that stands still.
                    self.announce_video(false);
                }
            }
            CaptureEvent::Recovered => {
                self.own.camera_state = DeviceState::On;
                let event = self.event("cameraRecovered");
                self.emit(event);
                self.picture_is_there("cameraRecovered");
            }
            CaptureEvent::Ended => {
                self.own.capture = None;
                if matches!(self.own.video, VideoInput::Screen(_)) {
                    self.notice(WINDOW_GONE, Vec::new());
                    if self.config.media.publish_only {
                        // The second connection has nothing left to carry; the first one reads the notice.
                        self.begin_leave();
                    } else {
                        self.share(None);
                    }
                } else {
                    self.own.camera_state = DeviceState::None;
                    self.announce_video(false);
                }
            }
        }
    }

    /// The camera gives pictures, for the first time or again: a stream that began without them is replaced by one with them.
    fn picture_is_there(&mut self, reason: &str) {
        match &self.own.publishing {
            Some(publishing) if !publishing.has_video => {
                self.unpublish(reason);
                self.own.unpublished = false;
            }
            Some(_) if !self.own.active.get().1 => self.announce_video(true),
            Some(_) | None => {}
        }
    }

    pub(super) fn audio_event(&mut self, event: AudioEvent) {
        self.dirty = true;
        let unmuted = if self.own.audio_muted { DeviceState::Muted } else { DeviceState::On };
        match event {
            // Closed again before it could tell.
            AudioEvent::MicrophoneOpened(_) | AudioEvent::MicrophoneFailed(_) if self.own.withheld => {}
            AudioEvent::MicrophoneOpened(name) => {
                self.own.microphone_state = unmuted;
                let another = self.own.microphone_name.replace(name.clone()).is_some_and(|before| before != name);
                if another {
                    // Where a file lies is nobody's business.
                    let label = if name.starts_with("file:") { "file".to_owned() } else { name.clone() };
                    self.tell_track(Property::AudioTrack(label));
                }
                let event = self.event("microphoneOpened").with("device", name);
                self.emit(event);
                self.announce_audio_if_changed();
            }
            AudioEvent::MicrophoneFailed(error) => {
                let event = self
                    .event("deviceError")
                    .with("device", "microphone")
                    .with("key", error.key())
                    .with("message", error.to_string());
                self.emit(event);
                self.own.microphone_state = DeviceState::Failed(Failure {
                    key: error.key(),
                    values: error.values(),
                    detail: error.to_string(),
                });
                self.announce_audio_if_changed();
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
                self.notice(error.key(), error.values());
            }
            AudioEvent::SpeakerLost(name) => {
                let event = self.event("speakerLost").with("device", name);
                self.emit(event);
            }
            AudioEvent::RateCorrected { device, told_hz, true_hz } => {
                let event = self.event("rateCorrected").with("device", device);
                self.emit(event.with("told_hz", told_hz).with("true_hz", true_hz));
            }
            AudioEvent::MicrophoneSilent => {
                let name = self.own.microphone_name.clone().unwrap_or_default();
                let event = self.event("microphoneSilent").with("device", name.clone());
                self.emit(event);
                self.notice("dev.mic_silent", vec![("dev", name)]);
            }
            AudioEvent::MicrophoneAudible => {
                let event = self.event("microphoneAudible");
                self.emit(event);
            }
            AudioEvent::TalkingWhileMuted => {
                let event = self.event("talkingWhileMuted");
                self.emit(event);
                self.notice("mute.talking", Vec::new());
            }
            AudioEvent::DevicesChanged(devices) => {
                let event = self
                    .event("devicesChanged")
                    .with("microphones", listed(&devices.microphones))
                    .with("speakers", listed(&devices.speakers));
                self.emit(event);
            }
        }
    }

    /// What is done to the microphone's sound, from now on.
    pub(super) fn change_voice(&mut self, change: VoiceChange) {
        let voice = &mut self.own.voice;
        change.apply(voice);
        let (voice, stages) = (*voice, voice.stages);
        if let Some(audio) = &self.audio {
            audio.set_voice(voice);
        }
        let event = self
            .event("processing")
            .with("mode", voice.processing.as_str())
            .with("echo", stages.echo)
            .with("noise", stages.noise)
            .with("gain", stages.gain)
            .with("high_pass", stages.high_pass)
            .with("original_sound", voice.original_sound);
        self.emit(event);
    }

    pub(super) fn change_levelling(&mut self, on: bool) {
        if let Some(audio) = &self.audio {
            audio.set_levelling(if on { Processing::On } else { Processing::Off });
        }
    }

    /// A sound of the program, where somebody may hear it: what goes to a file is what the others said.
    pub(super) fn chime(&self, sound: Sound) {
        if let Some(audio) = self.audio.as_ref().filter(|_| self.own.speaker_is_device) {
            audio.play(sound);
        }
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
        self.announce_audio();
    }

    /// Sound is on where there is a microphone that gives some and it is not muted.
    fn announce_audio(&mut self) {
        let active = self.own.audio_active();
        self.own.active.set_audio(active);
        self.tell_active(MediaKind::Audio, active);
    }

    /// As [`Self::announce_audio`], when something of the device changed: only what is news is told.
    fn announce_audio_if_changed(&mut self) {
        if self.own.active.get().0 != self.own.audio_active() {
            self.announce_audio();
        }
    }

    pub(super) fn mute_video(&mut self, muted: bool) {
        if self.own.video_muted == muted {
            return;
        }
        self.own.video_muted = muted;
        if self.has_own_video() && !self.own.withheld {
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

    /// The picture is on or off; told where that is news.
    pub(super) fn announce_video(&mut self, active: bool) {
        self.own.note_video(active);
        let before = self.own.active.get().1;
        self.own.active.set_video(active);
        if before != active {
            self.tell_active(MediaKind::Video, active);
        }
    }

    /// Tells the others that sound or picture come from another device. Who comes later is not told, nor is anybody before we publish.
    fn tell_track(&mut self, track: Property) {
        let (what, carried) = match (&track, &self.own.publishing) {
            (_, None) => return,
            (Property::AudioTrack(_), Some(p)) => ("microphone", p.has_audio && p.stream_id.is_some()),
            (_, Some(p)) => ("camera", p.has_video && p.stream_id.is_some()),
        };
        if carried {
            let server = Arc::clone(&self.signaling);
            self.request(what, async move { server.set_property(track).await });
        }
    }

    /// Tells the others. Before the server has named our stream there is nothing to change: then it follows the name.
    pub(super) fn tell_active(&mut self, kind: MediaKind, active: bool) {
        let carries = |p: &Publishing| match kind {
            MediaKind::Audio => p.has_audio,
            MediaKind::Video => p.has_video,
        };
        if self.own.publishing.as_ref().is_some_and(|p| p.stream_id.is_some() && carries(p)) {
            let server = Arc::clone(&self.signaling);
            let property = match kind {
                MediaKind::Audio => Property::AudioActive(active),
                MediaKind::Video => Property::VideoActive(active),
            };
            self.request("mute", async move { server.set_property(property).await });
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
    pub(super) fn use_video(&mut self, video: VideoInput) {
        self.stop_capture();
        self.own.video = video;
        self.own.mode = mode_of(&self.own.video);
        self.own.camera_state = to_be_opened(self.has_own_video(), self.own.video_muted);
        let tuning = self.own.tuning(&self.config);
        if let Some(encoder) = &mut self.own.encoder {
            encoder.set_tuning(tuning);
        }
        self.pace_pictures();
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
        match source.parse::<MicrophoneSource>() {
            Ok(source) => {
                let there = source != MicrophoneSource::None;
                self.own.microphone = source.clone();
                if let Some(audio) = &self.audio {
                    audio.set_microphone(source);
                }
                self.own.microphone_state = to_be_opened(there, self.own.audio_muted);
                let before = std::mem::replace(&mut self.own.has_microphone, there);
                if before != there {
                    self.announce_audio();
                }
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
        match sink.parse::<SpeakerSink>() {
            Ok(sink) => {
                self.own.speaker_is_device = matches!(sink, SpeakerSink::Device(_));
                if let Some(audio) = &self.audio {
                    audio.set_speaker(sink);
                }
            }
            Err(error) => self.refuse("speaker", &error.to_string()),
        }
    }
}

/// Devices as an event lists them.
fn listed(devices: &[AudioDevice]) -> serde_json::Value {
    devices
        .iter()
        .map(|d| serde_json::json!({"id": d.id, "name": d.name, "default": d.is_default, "monitor": d.is_monitor}))
        .collect()
}
