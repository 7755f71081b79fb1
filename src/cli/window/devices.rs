//! Devices and screens for the window: listed, opened and closed in the background, so that a driver that hangs never hangs
//! the window.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Desk, Shared, shown};
use crate::call::view::{DeviceState, Failure as Shown};
use crate::media::audio::{self, AudioConfig, AudioEngine, AudioError, AudioEvent, MicrophoneSource, SpeakerSink};
use crate::media::screen;
use crate::media::video::capture::{Capture, CaptureEvent};
use crate::media::video::device;
use crate::media::video::frame::FrameSlot;
use crate::media::video::source::CameraSource;
use crate::ui::bridge::{Device, DeviceChoice, Devices, Preview, Screen, Screens};

/// Time between two readings of the microphone's level: a meter moves fifteen times a second.
const METER: Duration = Duration::from_millis(66);

/// What the lobby holds open.
#[derive(Default)]
pub(super) struct Previews {
    choice: DeviceChoice,
    slot: FrameSlot,
    camera: Arc<Held<Capture>>,
    microphone: Arc<Held<AudioEngine>>,
}

/// A device that only background tasks open and close. The newest wish wins; one that was overtaken does nothing.
struct Held<T> {
    wish: AtomicU64,
    device: Mutex<Option<T>>,
}

impl<T> Default for Held<T> {
    fn default() -> Self {
        Self { wish: AtomicU64::new(0), device: Mutex::new(None) }
    }
}

impl<T: Send + 'static> Held<T> {
    /// Waits for a device that is being opened or closed: never on the window's thread.
    fn lock(&self) -> MutexGuard<'_, Option<T>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_newest(&self, wish: u64) -> bool {
        self.wish.load(Ordering::SeqCst) == wish
    }

    /// Closes what is open, then opens what is wanted now: a driver gives a device to one reader only.
    fn replace(self: &Arc<Self>, runtime: &Handle, open: impl FnOnce(u64) -> Option<T> + Send + 'static) {
        let wish = self.wish.fetch_add(1, Ordering::SeqCst) + 1;
        let held = Arc::clone(self);
        runtime.spawn_blocking(move || {
            let mut device = held.lock();
            if held.is_newest(wish) {
                *device = None;
            }
            if held.is_newest(wish) {
                *device = open(wish);
            }
        });
    }
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
        self.previews.camera.replace(&self.runtime, |_| None);
        self.previews.microphone.replace(&self.runtime, |_| None);
        self.previews.slot.clear();
    }

    fn preview_camera(&mut self, source: Option<&str>) {
        self.previews.slot.clear();
        let (wanted, state) = match source.map(CameraSource::parse) {
            None | Some(Ok(CameraSource::None)) => (None, DeviceState::None),
            Some(Err(error)) => (None, DeviceState::Failed(shown("dev.cam_none", error.to_string()))),
            Some(Ok(source)) => (Some(source), DeviceState::Opening),
        };
        self.shared.set(|s| &mut s.camera, state);
        let (shared, slot) = (Arc::clone(&self.shared), self.previews.slot.clone());
        let held = Arc::clone(&self.previews.camera);
        self.previews.camera.replace(&self.runtime, move |wish| {
            let source = wanted?;
            let events = Box::new(move |event: CaptureEvent| {
                if held.is_newest(wish) {
                    shared.set(|s| &mut s.camera, camera_state(event));
                }
            });
            Some(Capture::open(&source, slot, events))
        });
    }

    fn preview_microphone(&mut self, choice: &DeviceChoice) {
        let (wanted, state) = match choice.microphone.as_deref().map(str::parse::<MicrophoneSource>) {
            None | Some(Ok(MicrophoneSource::None)) => (None, DeviceState::None),
            Some(Err(error)) => (None, DeviceState::Failed(shown("dev.mic_none", error.to_string()))),
            Some(Ok(source)) => (Some(source), DeviceState::Opening),
        };
        self.shared.lock().level.set_dbfs(f32::NEG_INFINITY);
        self.shared.set(|s| &mut s.microphone, state);
        let speaker = choice.speaker.as_deref().and_then(|s| s.parse().ok()).unwrap_or(SpeakerSink::Null);
        let (shared, runtime) = (Arc::clone(&self.shared), Handle::clone(&self.runtime));
        let held = Arc::clone(&self.previews.microphone);
        self.previews.microphone.replace(&self.runtime, move |wish| {
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
                    shared.set(|s| &mut s.microphone, DeviceState::Failed(sound_failure(&error)));
                    None
                }
            }
        });
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
        let shared = Arc::clone(&self.shared);
        if shared.listing.swap(true, Ordering::AcqRel) {
            return;
        }
        self.runtime.spawn_blocking(move || {
            let cameras = device::list_cameras()
                .into_iter()
                .map(|c| Device { source: format!("device:{}", c.index), name: c.name })
                .collect();
            shared.set(|s| &mut s.cameras, Devices::Known(cameras));
            let devices = audio::list_devices();
            let known = |list: Vec<audio::AudioDevice>| {
                Devices::Known(
                    list.into_iter().map(|d| Device { source: format!("device:{}", d.id), name: d.name }).collect(),
                )
            };
            shared.set(|s| &mut s.microphones, known(devices.microphones));
            shared.set(|s| &mut s.speakers, known(devices.speakers));
            shared.listing.store(false, Ordering::Release);
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
                let level = match held.device.try_lock() {
                    Ok(engine) => engine.as_ref().map(|e| e.levels().captured_dbfs),
                    Err(TryLockError::Poisoned(_) | TryLockError::WouldBlock) => None,
                };
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
            _ => continue,
        };
        if held.is_newest(wish) {
            shared.set(|s| &mut s.microphone, state);
        }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.close_preview();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// A device whose driver takes its time to close: until it is told to go on.
    struct Hanging(mpsc::Receiver<()>);

    impl Drop for Hanging {
        fn drop(&mut self) {
            let _ = self.0.recv_timeout(Duration::from_secs(20));
        }
    }

    #[test]
    fn a_hanging_driver_holds_nobody_up_and_the_newest_wish_wins() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().expect("threads");
        let held: Arc<Held<Hanging>> = Arc::default();
        let (go_on, waits) = mpsc::sync_channel(1);
        let (opened, seen) = mpsc::sync_channel(8);
        let open = |name: &'static str, device: Hanging| {
            let opened = opened.clone();
            move |_| {
                opened.send(name).expect("listened to");
                Some(device)
            }
        };
        let quick = || Hanging(mpsc::sync_channel(1).1);
        held.replace(runtime.handle(), open("first", Hanging(waits)));
        assert_eq!(seen.recv_timeout(Duration::from_secs(20)), Ok("first"));
        // The first does not close; both wishes return all the same, and neither has been carried out.
        held.replace(runtime.handle(), open("second", quick()));
        held.replace(runtime.handle(), open("third", quick()));
        assert!(seen.try_recv().is_err());
        go_on.send(()).expect("it waits");
        assert_eq!(seen.recv_timeout(Duration::from_secs(20)), Ok("third"));
        drop(runtime);
        // The second was overtaken before it was opened, unless it was the one that waited for the close.
        assert!(seen.try_iter().all(|name| name != "second"));
        assert!(held.lock().is_some());
    }
}
