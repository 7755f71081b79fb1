//! Sharing a screen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::info;

use super::people::Person;
use super::{Engine, MediaNotice};
use crate::call::command::Command;
use crate::call::config::VideoInput;
use crate::call::handle::{CallHandle, start};
use crate::call::report::{Report, StreamReport};
use crate::call::view::{Connection, DeviceState};
use crate::media::audio::{MicrophoneSource, SpeakerSink};
use crate::media::screen::{self, NotChosen};
use crate::media::video::source::{ScreenSource, Tuning};

/// The window that was shared is not there any more.
pub(super) const WINDOW_GONE: &str = "share.window_gone";
/// The second connection is gone.
const LOST: &str = "share.lost";
/// The desktop's picker was closed without a choice.
const CANCELLED: &str = "cancelled";
/// The desktop gives no screen.
const NOT_GIVEN: &str = "err.portal";
/// How long a report waits for what the second connection has to say.
const SCREEN_PATIENCE: Duration = Duration::from_secs(2);
/// Connections of ours that are remembered: the last one may still be in the room when the next one comes.
const OWN_SCREENS: usize = 8;

/// A question to the desktop that is open. Dropped: its dialog is closed.
pub(super) struct Choosing {
    number: u64,
    cancelled: Arc<AtomicBool>,
}

impl Drop for Choosing {
    fn drop(&mut self) {
        self.cancelled.store(true, Ordering::Release);
    }
}

impl Engine {
    /// Shares a screen: over a second connection where we can get a second token, else in place of the camera.
    pub(super) fn share(&mut self, screen: Option<String>) {
        self.dirty = true;
        self.note_own_screen();
        let Some(source) = screen else {
            if self.config.media.screen.take().is_some() || self.choosing.take().is_some() {
                self.share_ended(CANCELLED);
            } else if self.leave_screen() {
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
            } else {
                self.refuse("share", "nothing is shared");
            }
            return;
        };
        match ScreenSource::parse(&source) {
            Ok(source) => self.share_source(source),
            Err(error) => self.refuse("share", &error.to_string()),
        }
    }

    fn share_source(&mut self, source: ScreenSource) {
        if self.place.joined.is_none() && !self.leaving {
            // Begins with the call.
            self.config.media.screen = Some(source);
            return;
        }
        if !self.may_publish_now() {
            return self.refuse("share", "the role does not allow publishing");
        }
        match source {
            // Nobody in the room hears of it before something has been chosen.
            ScreenSource::Portal { again } => self.choose_screen(again),
            source => {
                self.choosing = None;
                self.share_screen(source);
            }
        }
    }

    fn choose_screen(&mut self, again: bool) {
        if self.choosing.is_some() {
            return self.refuse("share", "the desktop is already asking what to share");
        }
        self.choices += 1;
        let (number, notices, repaint) = (self.choices, self.notices.0.clone(), self.config.repaint.clone());
        let cancelled = Arc::new(AtomicBool::new(false));
        self.choosing = Some(Choosing { number, cancelled: Arc::clone(&cancelled) });
        tokio::task::spawn_blocking(move || {
            let result = screen::choose(again, &|| cancelled.load(Ordering::Acquire));
            // Fails only where the call is over.
            if notices.blocking_send(MediaNotice::ScreenChosen(number, result)).is_err() {
                screen::forget_choice();
            }
            if let Some(repaint) = repaint {
                repaint();
            }
        });
        let event = self.event("shareChoosing");
        self.emit(event);
    }

    pub(super) fn screen_chosen(&mut self, number: u64, result: Result<(), NotChosen>) {
        if self.choosing.as_ref().is_none_or(|c| c.number != number) {
            // Asked for something else meanwhile.
            return screen::forget_choice();
        }
        self.choosing = None;
        match result {
            Ok(()) => self.share_screen(ScreenSource::Portal { again: true }),
            // A normal answer: nothing is said about it on the screen.
            Err(NotChosen::Cancelled) => self.share_ended(CANCELLED),
            Err(NotChosen::Failed(detail)) => {
                info!(%detail, "the desktop's picker gave nothing");
                self.notice(NOT_GIVEN, Vec::new());
                self.share_ended(NOT_GIVEN);
            }
        }
    }

    fn share_ended(&mut self, reason: &str) {
        let event = self.event("shareStopped").with("reason", reason);
        self.emit(event);
    }

    /// Tunes what is shared, and what will be.
    pub(super) fn tune(&mut self, tuning: Tuning) {
        self.config.media.tuning = tuning;
        if let Some(call) = &self.screen_call {
            let _ = call.send(Command::Tune(tuning));
        }
        let own = self.own.tuning(&self.config);
        if let Some(encoder) = &mut self.own.encoder {
            encoder.set_tuning(own);
        }
        self.pace_pictures();
        let event = self.event("shareTuned").with("for", tuning.name());
        self.emit(event);
    }

    /// Whether the sound of this computer goes with a shared screen, from now on.
    pub(super) fn share_sound(&mut self, on: bool) {
        self.config.media.screen_sound = on;
        if let Some(call) = &self.screen_call {
            let source = if on { MicrophoneSource::System } else { MicrophoneSource::None };
            let _ = call.send(Command::Microphone(source.to_string()));
        }
        let event = self.event("shareSound").with("on", on);
        self.emit(event);
    }

    pub(super) fn start_shared_screen(&mut self) {
        if let Some(source) = self.config.media.screen.take() {
            self.share_source(source);
        }
    }

    fn share_screen(&mut self, source: ScreenSource) {
        if !self.may_publish_now() {
            screen::forget_choice();
            return self.refuse("share", "the role does not allow publishing");
        }
        self.leave_screen();
        if self.config.target.source.renewable() {
            let mut config = self.config.clone();
            config.media.video = VideoInput::Screen(source);
            // The sound of a screen is no microphone: it is not muted with mine, and nobody is heard in it.
            config.media.microphone =
                if config.media.screen_sound { MicrophoneSource::System } else { MicrophoneSource::None };
            config.media.speaker = SpeakerSink::Null;
            config.media.audio_muted = false;
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

    /// A screen that cannot be captured, or whose connection has ended or found no way back, is not shared any more, and its
    /// user is told.
    pub(super) fn watch_screen_call(&mut self) {
        self.collect_left_screens();
        let Some(call) = &self.screen_call else { return };
        let view = call.view();
        let gone = view.notices.iter().find(|n| n.key == WINDOW_GONE);
        // Given up while we are in: nobody is going to press its button.
        let in_place = self.connection == Connection::Connected;
        let (key, values, reason) = match (&view.me.camera, &view.connection) {
            (DeviceState::Failed(failure), _) => (failure.key, failure.values.clone(), failure.key.to_owned()),
            _ if gone.is_some() => (WINDOW_GONE, Vec::new(), WINDOW_GONE.to_owned()),
            (_, Connection::Failed(failure)) if call.is_over() || in_place => {
                (LOST, Vec::new(), failure.key.to_owned())
            }
            (_, Connection::Ended { reason }) => (LOST, Vec::new(), reason.clone()),
            _ if call.is_over() => (LOST, Vec::new(), "disconnect".to_owned()),
            _ => return,
        };
        self.leave_screen();
        self.notice(key, values);
        self.share_ended(&reason);
    }

    /// Whether this connection, which says that it is our screen, is or may turn out to be.
    pub(super) fn may_be_own_screen(&mut self, connection_id: &str) -> bool {
        // The room may hear of it before the second connection has had its own answer.
        !self.note_own_screen() || self.own_screens.iter().any(|id| id == connection_id)
    }

    /// Notes under which connection our screen is in the room. `false` while it has none yet, or is getting a new one.
    fn note_own_screen(&mut self) -> bool {
        let Some(call) = &self.screen_call else { return true };
        let view = call.view();
        let id = &view.me.connection_id;
        if !id.is_empty() && !self.own_screens.contains(id) {
            if self.own_screens.len() >= OWN_SCREENS {
                self.own_screens.remove(0);
            }
            self.own_screens.push(id.clone());
        }
        let open = matches!(view.connection, Connection::Idle | Connection::Joining(_) | Connection::Rejoining { .. });
        call.is_over() || !open
    }

    /// Whoever only says that it is our screen is shown like everybody else.
    pub(super) fn recognize_own_screen(&mut self) {
        if !self.note_own_screen() {
            return;
        }
        let wrong = |p: &&Person| p.claims_us && p.ours != self.own_screens.contains(&p.connection_id);
        let wrong: Vec<String> = self.people.iter().filter(wrong).map(|p| p.connection_id.clone()).collect();
        for connection_id in wrong {
            self.correct_ours(&connection_id);
        }
    }

    /// Ends the second connection if there is one; what it has sent is asked for when it is over.
    pub(super) fn leave_screen(&mut self) -> bool {
        let Some(call) = self.screen_call.take() else { return false };
        // Over already, or told to go now.
        let _ = call.send(Command::Leave);
        self.left_screens.push(call);
        true
    }

    fn collect_left_screens(&mut self) {
        let (over, left) = std::mem::take(&mut self.left_screens).into_iter().partition(|c: &CallHandle| c.is_over());
        self.left_screens = left;
        for call in over {
            for stream in call.last_report().iter().flat_map(|r| own_streams(r)) {
                self.push_ended(stream);
            }
        }
    }

    /// At the end: a second connection leaves at the same time as the first one.
    pub(super) async fn wait_for_screens(&mut self) {
        let left = self.left_screens.clone();
        let all = async {
            for call in &left {
                call.finished().await;
            }
        };
        // One that does not end has no figures.
        drop(tokio::time::timeout(SCREEN_PATIENCE, all).await);
        self.collect_left_screens();
    }

    /// Answers with the figures of both connections, without waiting for the second one here.
    pub(super) fn answer_report(&self, reply: oneshot::Sender<Report>) {
        let mut report = self.report();
        let Some(call) = self.screen_call.clone() else {
            // Whoever asked is gone.
            return drop(reply.send(report));
        };
        tokio::spawn(async move {
            if let Ok(Some(screen)) = tokio::time::timeout(SCREEN_PATIENCE, call.report()).await {
                report.streams.extend(own_streams(&screen));
            }
            drop(reply.send(report));
        });
    }

    pub(super) fn sharing(&self) -> bool {
        self.screen_call.is_some() || self.own.camera_before_share.is_some()
    }
}

fn own_streams(report: &Report) -> impl Iterator<Item = StreamReport> + '_ {
    report.streams.iter().filter(|s| s.direction == "send").cloned()
}
