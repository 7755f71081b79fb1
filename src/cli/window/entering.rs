//! From the lobby into a call. What may take time, the keyring for example, is asked in the background.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;

use super::running::{Pending, Running};
use super::{Desk, Failure, Shown, common, shown};
use crate::call::view::{Connection, JoinStep, View};
use crate::call::{self, CallConfig, CallHandle, Command, MediaChoice, VideoInput};
use crate::media::audio::{self, MicrophoneSource, Processing, SpeakerSink};
use crate::media::video::source::{CameraSource, Tuning};
use crate::protocol::Secret;
use crate::rtp::frame::VideoCodec;
use crate::signaling::target::{Target as Place, TokenSource};
use crate::signaling::tls::Trust;
use crate::ui::bridge::{Call, JoinRequest, Target};

/// A keyring that has not answered by then is taken for one without the secret.
const KEYRING: Duration = Duration::from_secs(5);

/// A call that has not begun yet, and may never begin: then its view says why.
#[derive(Clone)]
struct Entering(Arc<Mutex<Stage>>);

enum Stage {
    Waiting { view: Arc<View>, early: Pending },
    Begun(Running),
    Over(Arc<View>),
}

impl Entering {
    fn lock(&self) -> MutexGuard<'_, Stage> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, failure: Shown) {
        *self.lock() = over(Connection::Failed(failure));
    }

    /// Whether the user has left before it began.
    fn is_over(&self) -> bool {
        matches!(&*self.lock(), Stage::Over(_))
    }

    /// Starts the call unless it was left meanwhile; what was asked before is passed on.
    fn begin(&self, config: CallConfig) -> Option<CallHandle> {
        let mut stage = self.lock();
        let Stage::Waiting { early, .. } = &mut *stage else { return None };
        let handle = call::start(config);
        let running = Running::new(handle.clone(), &Handle::current());
        while let Some(command) = early.next() {
            running.send(command);
        }
        *stage = Stage::Begun(running);
        Some(handle)
    }
}

fn over(connection: Connection) -> Stage {
    Stage::Over(Arc::new(View { connection, ..View::default() }))
}

impl Call for Entering {
    fn send(&self, command: Command) {
        match &mut *self.lock() {
            Stage::Begun(call) => call.send(command),
            Stage::Over(_) => {}
            stage @ Stage::Waiting { .. } if matches!(command, Command::Leave) => {
                *stage = over(Connection::Ended { reason: "disconnect".to_owned() });
            }
            Stage::Waiting { early, .. } => early.keep(command),
        }
    }

    fn view(&self) -> Arc<View> {
        match &*self.lock() {
            Stage::Waiting { view, .. } | Stage::Over(view) => Arc::clone(view),
            Stage::Begun(call) => call.view(),
        }
    }
}

impl Desk {
    pub(super) fn enter(&mut self, request: JoinRequest) -> Box<dyn Call> {
        let view = View { connection: Connection::Joining(JoinStep::Reaching), ..View::default() };
        let call = Entering(Arc::new(Mutex::new(Stage::Waiting { view: Arc::new(view), early: Pending::default() })));
        let mut place = match self.place_of(&request.target) {
            Ok(place) => place,
            Err(failure) => {
                call.refuse(failure);
                return Box::new(call);
            }
        };
        if request.own_certificate && place.trust == Trust::System {
            place.trust = Trust::Anything;
        }
        // The call opens the devices itself: a driver gives a camera to one reader only.
        self.close_preview();
        let config = CallConfig {
            target: place,
            name: request.name,
            device_key: String::new(),
            command: "join",
            started: self.started,
            media: media(&request.devices, request.muted, request.camera_off),
            impairments: common::impairments(&self.global).unwrap_or_default(),
            report_names: false,
            decoders: self.decoders.clone(),
            meter: Arc::clone(&self.meter),
            repaint: None,
        };
        let mut config = self.ready(config);
        let (entering, shared, secrets) = (call.clone(), Arc::clone(&self.shared), Arc::clone(&self.secrets));
        self.runtime.spawn(async move {
            if let Target::Session { server, name } = &request.target {
                let address = server.clone();
                let asked = tokio::task::spawn_blocking(move || secrets.get(&address));
                if let Ok(Ok(Some(secret))) = tokio::time::timeout(KEYRING, asked).await {
                    config.target.source = TokenSource::OpenVidu {
                        base: server.trim_end_matches('/').to_owned(),
                        session: name.clone(),
                        secret: Secret::new(secret),
                        role: "PUBLISHER".to_owned(),
                    };
                }
            }
            if !entering.is_over()
                && let Some(handle) = entering.begin(config)
            {
                let mut state = shared.lock();
                state.calls.retain(|call| !call.is_over());
                state.calls.push(handle);
            }
            shared.repaint();
        });
        Box::new(call)
    }

    fn place_of(&self, target: &Target) -> Result<Place, Shown> {
        let link = |error: Failure| shown("err.link", error.to_string());
        match target {
            Target::Invitation(text) | Target::Token(text) => {
                common::target(text, None, None, "PUBLISHER", false).map_err(link)
            }
            Target::Hosted { .. } => {
                let invitation = self.shared.lock().hosted_invitation.clone();
                let text = invitation.ok_or_else(|| shown("err.no_room", "no room is open here".to_owned()))?;
                common::target(&text, None, None, "PUBLISHER", false).map_err(link)
            }
            Target::Session { server, name } => {
                common::target(server, Some(name), None, "PUBLISHER", false).map_err(link)
            }
        }
    }
}

fn media(devices: &crate::ui::bridge::DeviceChoice, audio_muted: bool, video_muted: bool) -> MediaChoice {
    MediaChoice {
        video: match devices.camera.as_deref().map(CameraSource::parse) {
            None | Some(Ok(CameraSource::None) | Err(_)) => VideoInput::None,
            Some(Ok(source)) => VideoInput::Camera(source),
        },
        microphone: devices.microphone.as_deref().and_then(|s| s.parse().ok()).unwrap_or(MicrophoneSource::None),
        speaker: devices.speaker.as_deref().and_then(|s| s.parse().ok()).unwrap_or(SpeakerSink::Device(None)),
        processing: Processing::Auto,
        codecs: VideoCodec::BUILT.to_vec(),
        audio_muted,
        video_muted,
        subscribe_only: false,
        publish_only: false,
        screen: None,
        default_tone_hz: audio::source::default_tone_hz(0),
        screen_sound: false,
        tuning: Tuning::Auto,
        sync_clicks: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting() -> Entering {
        Entering(Arc::new(Mutex::new(Stage::Waiting { view: Arc::new(View::default()), early: Pending::default() })))
    }

    #[test]
    fn who_leaves_before_the_call_began_is_out_at_once() {
        let call = waiting();
        call.send(Command::MuteAudio(true));
        assert!(!call.is_over());
        call.send(Command::Leave);
        assert!(call.is_over());
        assert_eq!(call.view().connection, Connection::Ended { reason: "disconnect".to_owned() });
    }

    #[test]
    fn early_commands_wait_and_the_newest_counts() {
        let call = waiting();
        for muted in [true, false, true] {
            call.send(Command::MuteAudio(muted));
            call.send(Command::MuteVideo(!muted));
        }
        let Stage::Waiting { early, .. } = &mut *call.lock() else { panic!("it has not begun") };
        assert_eq!(early.next(), Some(Command::MuteAudio(true)));
        assert_eq!(early.next(), Some(Command::MuteVideo(false)));
        assert_eq!(early.next(), None);
    }

    #[test]
    fn a_refusal_is_in_the_view() {
        let call = waiting();
        call.refuse(shown("err.link", String::new()));
        assert!(matches!(&call.view().connection, Connection::Failed(f) if f.key == "err.link"));
    }
}
