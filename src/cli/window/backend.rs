//! The window's wishes, one by one. None of them waits.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Desk, Shown};
use crate::host::{self, HostConfig, HostError, Tls};
use crate::media::screen;
use crate::settings::{self, RecentSession, Theme};
use crate::ui::bridge::{
    Backend, Call, DeviceChoice, Devices, JoinRequest, Preferences, Preview, Recent, Repaint, RoomState, Screens,
    Server, ThemeChoice,
};

impl Backend for Desk {
    fn set_repaint(&mut self, repaint: Repaint) {
        self.shared.repaint.store(Some(Arc::new(repaint)));
    }

    fn preferences(&self) -> Preferences {
        let s = &self.settings;
        Preferences {
            name: s.name.clone(),
            room_name: if s.room_name.is_empty() { "my-room".to_owned() } else { s.room_name.clone() },
            servers: s
                .servers
                .iter()
                .map(|k| Server { url: k.url.clone(), own_certificate: k.own_certificate })
                .collect(),
            recent: s
                .recent
                .iter()
                .map(|r| Recent { session: r.session.clone(), host: r.host.clone(), at_unix_ms: r.at_unix_ms })
                .collect(),
            theme: match s.theme {
                Theme::System => ThemeChoice::System,
                Theme::Dark => ThemeChoice::Dark,
                Theme::Light => ThemeChoice::Light,
            },
            language: s.language.clone(),
            devices: DeviceChoice {
                camera: s.devices.camera.clone(),
                microphone: s.devices.microphone.clone(),
                speaker: s.devices.speaker.clone(),
            },
            join_muted: s.join_muted,
            join_without_camera: s.join_without_camera,
            mirror: s.mirror,
        }
    }

    fn set_preferences(&mut self, preferences: &Preferences) {
        let s = &mut self.settings;
        s.name.clone_from(&preferences.name);
        s.room_name.clone_from(&preferences.room_name);
        s.servers = preferences
            .servers
            .iter()
            .map(|server| settings::KnownServer { url: server.url.clone(), own_certificate: server.own_certificate })
            .collect();
        s.recent = preferences
            .recent
            .iter()
            .map(|r| RecentSession { session: r.session.clone(), host: r.host.clone(), at_unix_ms: r.at_unix_ms })
            .collect();
        s.theme = match preferences.theme {
            ThemeChoice::System => Theme::System,
            ThemeChoice::Dark => Theme::Dark,
            ThemeChoice::Light => Theme::Light,
        };
        s.language.clone_from(&preferences.language);
        s.devices = settings::Device {
            camera: preferences.devices.camera.clone(),
            microphone: preferences.devices.microphone.clone(),
            speaker: preferences.devices.speaker.clone(),
        };
        s.join_muted = preferences.join_muted;
        s.join_without_camera = preferences.join_without_camera;
        s.mirror = preferences.mirror;
        self.save();
    }

    fn set_secret(&mut self, server: &str, secret: String) {
        let (secrets, server) = (Arc::clone(&self.secrets), server.to_owned());
        self.runtime.spawn_blocking(move || secrets.set(&server, &secret));
    }

    fn refresh_devices(&mut self) {
        self.list_devices();
    }

    fn cameras(&self) -> Devices {
        self.shared.lock().cameras.clone()
    }

    fn microphones(&self) -> Devices {
        self.shared.lock().microphones.clone()
    }

    fn speakers(&self) -> Devices {
        self.shared.lock().speakers.clone()
    }

    fn set_preview(&mut self, choice: &DeviceChoice) {
        self.hold(choice);
    }

    fn preview(&self) -> Preview {
        self.preview_of()
    }

    fn test_speaker(&mut self) {
        self.play_test_tone();
    }

    fn start_room(&mut self, name: &str, port: u16) {
        let wish = self.host.wish();
        self.shared.change(|s| {
            s.room = RoomState::Starting;
            s.hosted_invitation = None;
        });
        let port = if port == 0 { host::DEFAULT_PORT } else { port };
        let config = HostConfig {
            listen: ([0, 0, 0, 0], port).into(),
            tls: Tls::SelfSigned,
            data_dir: self.store.folder().join("host"),
            ..HostConfig::default()
        };
        let (shared, held, name) = (Arc::clone(&self.shared), Arc::clone(&self.host), name.to_owned());
        drop(self.host.carry_out(&self.runtime, wish, move || {
            let opened = host::start(config).and_then(|handle| Ok((handle.create_room(&name)?, handle)));
            let (room, invitation, handle) = match opened {
                Ok((invitation, handle)) => {
                    let invitation = invitation.to_string();
                    let port = handle.listen_addr().port();
                    let room = RoomState::Open { name, invitation: invitation.clone(), browser_link: None, port };
                    (room, Some(invitation), Some(handle))
                }
                Err(error) => (RoomState::Failed(room_failure(&error)), None, None),
            };
            shared.change(|s| {
                // Stopped meanwhile, or started anew: what becomes of this one is not shown any more.
                if held.is_newest(wish) {
                    s.room = room;
                    s.hosted_invitation = invitation;
                }
            });
            handle
        }));
    }

    fn room(&self) -> RoomState {
        self.shared.lock().room.clone()
    }

    fn stop_room(&mut self) {
        let wish = self.host.wish();
        self.shared.change(|s| {
            s.room = RoomState::None;
            s.hosted_invitation = None;
        });
        drop(self.host.carry_out(&self.runtime, wish, || None));
    }

    fn wants_close(&self) -> bool {
        self.shared.close.load(Ordering::Acquire)
    }

    fn window_file(&self) -> Option<PathBuf> {
        Some(self.store.folder().join("window.ron"))
    }

    fn can_share(&self) -> bool {
        // Under Wayland only the desktop's own dialog hands out a screen, and XWayland's root window is empty.
        screen::chosen_by_desktop()
            || cfg!(target_os = "linux")
                && std::env::var_os("DISPLAY").is_some_and(|d| !d.is_empty())
                && std::env::var_os("WAYLAND_DISPLAY").is_none_or(|d| d.is_empty())
    }

    fn desktop_picks_screen(&self) -> bool {
        screen::chosen_by_desktop()
    }

    fn refresh_screens(&mut self) {
        self.list_screens();
    }

    fn screens(&self) -> Screens {
        self.shared.lock().screens.clone()
    }

    fn join(&mut self, request: JoinRequest) -> Box<dyn Call> {
        self.enter(request)
    }
}

fn room_failure(error: &HostError) -> Shown {
    Shown { key: error.key(), values: error.values(), detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::time::{Duration, Instant};

    use clap::Parser as _;

    use super::super::super::args::Cli;
    use super::*;

    #[test]
    fn a_room_that_is_stopped_while_it_starts_does_not_open() {
        crate::signaling::tls::install_crypto_provider();
        let folder = tempfile::tempdir().expect("a folder");
        let arguments = ["tertulia".as_ref(), "--config".as_ref(), folder.path().as_os_str()];
        let mut desk = Desk::new(&Cli::parse_from(arguments).common, Instant::now()).expect("a desk");
        let port = TcpListener::bind("0.0.0.0:0").and_then(|l| l.local_addr()).expect("a port").port();
        let until = |what: &str, is_so: &dyn Fn() -> bool| {
            let began = Instant::now();
            while !is_so() {
                assert!(began.elapsed() < Duration::from_secs(30), "{what}");
                std::thread::sleep(Duration::from_millis(10));
            }
        };
        // From one that has not begun to start to one that is open.
        for wait_ms in [0, 2, 10, 50, 500] {
            desk.start_room("room", port);
            std::thread::sleep(Duration::from_millis(wait_ms));
            desk.stop_room();
            assert_eq!(desk.room(), RoomState::None);
            until("it stays open", &|| desk.host.lock().is_none() && TcpListener::bind(("0.0.0.0", port)).is_ok());
            assert_eq!(desk.room(), RoomState::None);
        }
        desk.start_room("room", port);
        until("it does not open", &|| matches!(desk.room(), RoomState::Open { .. }));
    }
}
