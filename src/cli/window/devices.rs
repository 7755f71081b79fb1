//! Devices and screens for the window: listed, opened and closed in the background, so that a driver that hangs never hangs
//! the window.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::held::Held;
use super::{Desk, Shared, shown};
use crate::call::view::{DeviceState, Failure as Shown};
use crate::cli::common::within;
use crate::media::audio::{self, AudioConfig, AudioEngine, AudioError, AudioEvent, MicrophoneSource, SpeakerSink};
use crate::media::screen;
use crate::media::video::capture::{Capture, CaptureEvent};
use crate::media::video::device;
use crate::media::video::frame::FrameSlot;
use crate::media::video::source::CameraSource;
use crate::ui::bridge::{Device, DeviceChoice, Devices, Preview, Screen, Screens};

/// Time between two readings of the microphone's level: a meter moves fifteen times a second.
const METER: Duration = Duration::from_millis(66);

/// Longest wait for the list of cameras.
const CAMERA_PATIENCE: Duration = Duration::from_secs(10);

/// What the lobby holds open.
#[derive(Default)]
pub(super) struct Previews {
    choice: DeviceChoice,
    slot: FrameSlot,
    camera: Arc<Held<Capture>>,
    microphone: Arc<Held<AudioEngine>>,
}

impl Desk {
    pub(super) fn preview_of(&self) -> Preview {
        let state = self.shared.lock();
        Preview {
            frames: self.previews.slot.clone(),
            camera: state.camera.clone(),
            microphone: state.microphone.clone(),
            level: state.level.clone(),
        }
    }

    pub(super) fn hold(&mut self, choice: &DeviceChoice) {
        if *choice == self.previews.choice {
            return;
        }
        let before = std::mem::replace(&mut self.previews.choice, choice.clone());
        if before.camera != choice.camera {
            self.preview_camera(choice.camera.as_deref());
        }
        if before.microphone != choice.microphone || before.speaker != choice.speaker {
            self.preview_microphone(choice);
        }
    }

    pub(super) fn close_preview(&mut self) {
        self.previews.choice = DeviceChoice::default();
        self.previews.camera.glance(Capture::shut);
        drop(self.previews.camera.replace(&self.runtime, || None));
        drop(self.previews.microphone.replace(&self.runtime, || None));
        self.previews.slot.clear();
    }

    fn preview_camera(&mut self, source: Option<&str>) {
        // Closing takes its time; its pictures end now.
        self.previews.camera.glance(Capture::shut);
        self.previews.slot.clear();
        let (wanted, state) = match source.map(CameraSource::parse) {
            None | Some(Ok(CameraSource::None)) => (None, DeviceState::None),
            Some(Err(error)) => (None, DeviceState::Failed(shown("dev.cam_none", error.to_string()))),
            Some(Ok(source)) => (Some(source), DeviceState::Opening),
        };
        let held = Arc::clone(&self.previews.camera);
        let wish = held.wish();
        self.shared.set(|s| &mut s.camera, state);
        let (shared, slot) = (Arc::clone(&self.shared), self.previews.slot.clone());
        drop(self.previews.camera.carry_out(&self.runtime, wish, move || {
            let source = wanted?;
            let events = Box::new(move |event: CaptureEvent| {
                shared.set_if(|| held.is_newest(wish), |s| &mut s.camera, camera_state(event));
            });
            Some(Capture::open(&source, slot, events))
        }));
    }

    fn preview_microphone(&mut self, choice: &DeviceChoice) {
        let (wanted, state) = match choice.microphone.as_deref().map(str::parse::<MicrophoneSource>) {
            None | Some(Ok(MicrophoneSource::None)) => (None, DeviceState::None),
            Some(Err(error)) => (None, DeviceState::Failed(shown("dev.mic_none", error.to_string()))),
            Some(Ok(source)) => (Some(source), DeviceState::Opening),
        };
        let held = Arc::clone(&self.previews.microphone);
        let wish = held.wish();
        self.shared.lock().level.set_dbfs(f32::NEG_INFINITY);
        self.shared.set(|s| &mut s.microphone, state);
        let speaker = choice.speaker.as_deref().and_then(|s| s.parse().ok()).unwrap_or(SpeakerSink::Null);
        let (shared, runtime) = (Arc::clone(&self.shared), Handle::clone(&self.runtime));
        drop(self.previews.microphone.carry_out(&self.runtime, wish, move || {
            // Without a microphone the speaker stays open all the same, to be tried.
            let microphone = wanted.unwrap_or(MicrophoneSource::None);
            if microphone == MicrophoneSource::None && speaker == SpeakerSink::Null {
                return None;
            }
            // Nothing is encoded or sent in a lobby: the engine has no sink.
            match AudioEngine::start(AudioConfig { microphone, speaker, ..AudioConfig::default() }) {
                Ok((engine, events)) => {
                    runtime.spawn(follow_microphone(shared, held, wish, events));
                    Some(engine)
                }
                Err(error) => {
                    let failed = DeviceState::Failed(sound_failure(&error));
                    shared.set_if(|| held.is_newest(wish), |s| &mut s.microphone, failed);
                    None
                }
            }
        }));
    }

    pub(super) fn play_test_tone(&self) {
        let held = Arc::clone(&self.previews.microphone);
        self.runtime.spawn_blocking(move || {
            let rate = audio::SAMPLE_RATE_HZ as f32;
            let tone: Vec<f32> = (0..audio::SAMPLE_RATE_HZ / 2)
                .map(|i| 0.1 * (i as f32 * 440.0 * std::f32::consts::TAU / rate).sin())
                .collect();
            if let Some(engine) = &*held.lock() {
                engine.play_sound(tone.into());
            }
        });
    }

    pub(super) fn list_devices(&self) {
        self.list_cameras();
        let shared = Arc::clone(&self.shared);
        if shared.listing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.runtime.spawn_blocking(move || {
            let devices = audio::list_devices();
            shared.set(|s| &mut s.microphones, known(devices.microphones));
            shared.set(|s| &mut s.speakers, known(devices.speakers));
            shared.listing.store(false, Ordering::Release);
        });
    }

    /// Apart from the rest: cameras are tried, and a driver that hangs keeps its thread for ever.
    fn list_cameras(&self) {
        let shared = Arc::clone(&self.shared);
        if shared.listing_cameras.swap(true, Ordering::AcqRel) {
            return;
        }
        let asked = Arc::clone(&shared);
        let ask = move || {
            let cameras = device::list_cameras();
            let cameras = cameras.into_iter().map(|c| Device::new(c.source(), c.name)).collect();
            asked.set(|s| &mut s.cameras, Devices::Known(cameras));
            asked.listing_cameras.store(false, Ordering::Release);
        };
        self.runtime.spawn_blocking(move || {
            if within(CAMERA_PATIENCE, ask).is_none() {
                // It may still answer; until then nobody is told to wait.
                shared.change(|s| {
                    if s.cameras == Devices::Looking {
                        s.cameras = Devices::Known(Vec::new());
                    }
                });
            }
        });
    }

    pub(super) fn list_screens(&self) {
        let shared = Arc::clone(&self.shared);
        if shared.listing_screens.swap(true, Ordering::AcqRel) {
            return;
        }
        self.runtime.spawn_blocking(move || {
            let screens: Vec<Screen> = screen::list()
                .into_iter()
                .map(|s| Screen {
                    source: s.source,
                    title: s.title,
                    size: (s.width, s.height),
                    frames: FrameSlot::new(),
                })
                .collect();
            shared.change(|s| s.screens = Screens::Known(screens.clone()));
            // The small pictures follow: each may take its time.
            for screen in &screens {
                if let Some(picture) = screen::picture(&screen.source) {
                    screen.frames.put(picture);
                    shared.repaint();
                }
            }
            shared.listing_screens.store(false, Ordering::Release);
        });
    }
}

fn sound_failure(error: &AudioError) -> Shown {
    Shown { key: error.key(), values: error.values(), detail: error.to_string() }
}

fn camera_state(event: CaptureEvent) -> DeviceState {
    match event {
        CaptureEvent::Opened { .. } | CaptureEvent::Recovered => DeviceState::On,
        CaptureEvent::Failed { key, device, detail } => {
            DeviceState::Failed(Shown { key, values: vec![("dev", device)], detail })
        }
        CaptureEvent::Stalled { device, for_ms } => DeviceState::Failed(Shown {
            key: "dev.cam_lost",
            values: vec![("dev", device)],
            detail: format!("no picture for {for_ms} ms"),
        }),
        CaptureEvent::Ended => DeviceState::None,
    }
}

/// Keeps the lobby's microphone state and level until the engine is closed.
async fn follow_microphone(
    shared: Arc<Shared>,
    held: Arc<Held<AudioEngine>>,
    wish: u64,
    mut events: mpsc::Receiver<AudioEvent>,
) {
    let mut meter = tokio::time::interval(METER);
    meter.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            event = events.recv() => event,
            _ = meter.tick() => {
                let level = held.glance(|engine| engine.levels().captured_dbfs);
                if let Some(dbfs) = level.filter(|_| held.is_newest(wish)) {
                    let shown = shared.lock().level.clone();
                    // Drawn only when a mark of the meter changes.
                    if shown.set_dbfs(dbfs) {
                        shared.repaint();
                    }
                }
                continue;
            }
        };
        let Some(event) = event else { return };
        let state = match event {
            AudioEvent::MicrophoneOpened(_) | AudioEvent::MicrophoneAudible => DeviceState::On,
            AudioEvent::MicrophoneFailed(error) => DeviceState::Failed(sound_failure(&error)),
            AudioEvent::MicrophoneSilent => DeviceState::Failed(shown("dev.mic_silent", String::new())),
            AudioEvent::DevicesChanged(devices) => {
                shared.set(|s| &mut s.microphones, known(devices.microphones));
                shared.set(|s| &mut s.speakers, known(devices.speakers));
                continue;
            }
            _ => continue,
        };
        shared.set_if(|| held.is_newest(wish), |s| &mut s.microphone, state);
    }
}

/// Sound devices as a picker lists them: the system's choice first, whatever that is at the moment.
fn known(list: Vec<audio::AudioDevice>) -> Devices {
    let usable = |d: &&audio::AudioDevice| !d.is_monitor;
    let default = list.iter().filter(usable).find(|d| d.is_default).map_or("", |d| d.name.as_str());
    let system = list.iter().any(|d| !d.is_monitor).then(|| Device::new(Device::SYSTEM, default));
    let rows =
        list.iter().map(|d| Device { monitor: d.is_monitor, ..Device::new(format!("device:{}", d.id), &d.name) });
    Devices::Known(system.into_iter().chain(rows).collect())
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.close_preview();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(id: &str, is_default: bool) -> audio::AudioDevice {
        audio::AudioDevice {
            id: id.to_owned(),
            name: id.to_uppercase(),
            is_default,
            is_monitor: id.ends_with(".monitor"),
            instance: None,
        }
    }

    #[test]
    fn a_picker_of_sound_devices_begins_with_what_the_system_says() {
        let rows = known(vec![device("usb", true), device("pci", false), device("out.monitor", false)]);
        let rows: Vec<_> = rows.list().iter().map(|d| (d.source.as_str(), d.name.as_str(), d.monitor)).collect();
        let expected = [
            ("device", "USB", false),
            ("device:usb", "USB", false),
            ("device:pci", "PCI", false),
            ("device:out.monitor", "OUT.MONITOR", true),
        ];
        assert_eq!(rows, expected);
        // Where there is no microphone, the system offers what a speaker plays.
        let rows = known(vec![device("out.monitor", true)]);
        assert!(rows.list().iter().all(|d| d.monitor && !d.follows_system()));
        assert!(known(Vec::new()).list().is_empty());
    }
}
