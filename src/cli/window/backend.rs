//! The window's wishes, one by one. None of them waits.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Desk, Shown};
use crate::host::{self, HostConfig, HostError, Tls};
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
        self.shared.change(|s| s.room = RoomState::Starting);
        let port = if port == 0 { host::DEFAULT_PORT } else { port };
        let config = HostConfig {
            listen: ([0, 0, 0, 0], port).into(),
            tls: Tls::SelfSigned,
            data_dir: self.store.folder().join("host"),
            ..HostConfig::default()
        };
        let (shared, name) = (Arc::clone(&self.shared), name.to_owned());
        self.runtime.spawn_blocking(move || {
            let old = shared.lock().host.take();
            if let Some(old) = old {
                old.shutdown();
            }
            let opened = host::start(config).and_then(|handle| Ok((handle.create_room(&name)?, handle)));
            match opened {
                Ok((invitation, handle)) => shared.change(|s| {
                    let text = invitation.to_string();
                    s.room = RoomState::Open {
                        name,
                        invitation: text.clone(),
                        browser_link: None,
                        port: handle.listen_addr().port(),
                    };
                    s.hosted_invitation = Some(text);
                    s.host = Some(handle);
                }),
                Err(error) => shared.change(|s| s.room = RoomState::Failed(room_failure(&error))),
            }
        });
    }

    fn room(&self) -> RoomState {
        self.shared.lock().room.clone()
    }

    fn stop_room(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.runtime.spawn_blocking(move || {
            let host = {
                let mut state = shared.lock();
                state.room = RoomState::None;
                state.hosted_invitation = None;
                state.host.take()
            };
            if let Some(host) = host {
                host.shutdown();
            }
            shared.repaint();
        });
    }
    fn wants_close(&self) -> bool {
        self.shared.close.load(Ordering::Acquire)
    }

    fn window_file(&self) -> Option<PathBuf> {
        Some(self.store.folder().join("window.ron"))
    }

    fn can_share(&self) -> bool {
        // Under Wayland only the desktop's own dialog hands out a screen, and XWayland's root window is empty.
        cfg!(target_os = "linux")
            && std::env::var_os("DISPLAY").is_some_and(|d| !d.is_empty())
            && std::env::var_os("WAYLAND_DISPLAY").is_none_or(|d| d.is_empty())
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
