//! One direction of sound: which device is open, how it fares, and what is opened in its place.
//!
//! No callback for 300 ms, an error, or a device that has left the list, make it lost: it is told, and opened anew at once.
//! One that was chosen by name is stayed with: while it is away the system's default serves, and it is taken again as soon
//! as it is back. One that was not there from the beginning is waited for, and nothing else is opened unasked.

use super::AudioError;
use super::device::{AudioDevice, AudioDevices, Choice, Port};
use super::engine::{AudioEvent, EngineShared};
use super::host::SoundHost;
use super::pulse::{CALLBACK_FRAMES, CALLBACK_MS, Pulse};
use super::rates::{RateWatch, Verdict};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::Thread;
use std::time::{Duration, Instant};

/// On a machine too busy for 5 ms, buffers are doubled up to this: 43 ms.
const CALLBACK_FRAMES_MAX: u32 = 2_048;
/// After this long without loss they come down again, at the price of a stream that is opened anew ...
const CALM: Duration = Duration::from_secs(60);
/// ... twice as long each time that it was too early, up to this.
const CALM_MAX: Duration = Duration::from_secs(16 * 60);
/// No device is provided for whose callbacks are longer than this, in ms.
const CALLBACK_MS_MAX: u32 = 1_000;
/// One long callback, as after a stall, is no reason to open the device anew; if they are still long after this, it is.
const LONG: Duration = Duration::from_secs(1);
/// No callback for this long, or for two and a half of its length, is a stall.
const STALL: Duration = Duration::from_millis(300);
/// The first callback may take longer.
const FIRST_CALLBACK: Duration = Duration::from_secs(3);
/// Callbacks before what they say is taken for true.
const SETTLED: u64 = 50;
/// Between two tries to open a device.
const RETRY: Duration = Duration::from_millis(500);
/// The later tries of a device that does not come.
const RETRY_LATER: Duration = Duration::from_secs(2);

/// An open stream and how it fares.
pub(crate) struct Open {
    /// Callbacks run as long as this lives.
    _stream: Box<dyn Send>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) name: String,
    pub(crate) id: String,
    pub(crate) rate_hz: u32,
    calls: u64,
    since: Option<Instant>,
    rates: RateWatch,
    /// Stands in for the one that was chosen.
    stands_in: bool,
}

impl Open {
    pub(crate) fn new(stream: Box<dyn Send>, pulse: Arc<Pulse>, name: String, id: String, rate_hz: u32) -> Self {
        let rates = RateWatch::default();
        Self { _stream: stream, pulse, name, id, rate_hz, calls: 0, since: None, rates, stands_in: false }
    }
}

impl Open {
    /// How long the longest callback of late is.
    fn callback(&self) -> Duration {
        let frames = self.pulse.too_long().unwrap_or(self.pulse.frames() as u32);
        Duration::from_secs_f64(f64::from(frames) / f64::from(self.rate_hz.max(1)))
    }
}

/// How much sound a callback is asked to move.
#[derive(Debug)]
struct Buffers {
    frames: u32,
    calm_since: Option<Instant>,
    calm: Duration,
}

impl Buffers {
    fn new() -> Self {
        Self { frames: CALLBACK_FRAMES, calm_since: None, calm: CALM }
    }

    /// Whether sound that is lost makes them larger: more delay, but the sound is whole, and the echo canceller keeps its
    /// alignment.
    fn lossy(&mut self) -> bool {
        self.calm_since = None;
        if self.frames >= CALLBACK_FRAMES_MAX {
            return false;
        }
        self.frames *= 2;
        true
    }

    /// Whether all has been well for long enough to make them smaller.
    fn well(&mut self, now: Instant) -> bool {
        if self.frames <= CALLBACK_FRAMES
            || now.saturating_duration_since(*self.calm_since.get_or_insert(now)) < self.calm
        {
            return false;
        }
        self.frames /= 2;
        self.calm_since = None;
        self.calm = (self.calm * 2).min(CALM_MAX);
        true
    }
}

/// One direction.
pub(crate) struct Line {
    host: SoundHost,
    capture: bool,
    choice: Choice,
    open: Option<Open>,
    retry_at: Option<Instant>,
    tries: u32,
    failure: Option<AudioError>,
    buffers: Buffers,
    /// Longest callback that the rings are made for, in ms, and since when callbacks are longer.
    callback_ms: u32,
    long_since: Option<Instant>,
    /// The device that is opened anew for buffers of another size: nobody needs to be told unless it is gone by then.
    rebuilt: Option<String>,
    /// The chosen device was here and went: the default serves meanwhile.
    went: bool,
    /// Id of the device that is open, or is opened anew, and its instance, as the system listed them last: some are there
    /// without being listed.
    listed: Option<(String, Option<u32>)>,
}

impl Line {
    pub(crate) fn new(capture: bool, host: SoundHost) -> Self {
        Self {
            host,
            capture,
            choice: None,
            open: None,
            retry_at: None,
            tries: 0,
            failure: None,
            buffers: Buffers::new(),
            callback_ms: CALLBACK_MS,
            long_since: None,
            rebuilt: None,
            went: false,
            listed: None,
        }
    }

    pub(crate) fn is_microphone(&self) -> bool {
        self.capture
    }

    /// Whether any device is.
    pub(crate) fn is_wanted(&self) -> bool {
        self.choice.is_some()
    }

    /// Takes a wish, also one for what is open already: whoever has it waits for a port.
    pub(crate) fn choose(&mut self, choice: Choice) {
        self.discard();
        let retry_at = choice.is_some().then(|| self.host.clock.now());
        *self = Self { retry_at, choice, ..Self::new(self.capture, self.host.clone()) };
    }

    /// Closes the stream without waiting: a sound server that hangs makes closing hang, too. There is at most one such
    /// thread per lost stream, and the next stream is opened only when the server answers again.
    fn discard(&mut self) {
        let Some(open) = self.open.take() else { return };
        let dropped = std::thread::Builder::new().name("audio-close".to_owned()).spawn(move || drop(open));
        if let Err(error) = dropped {
            tracing::warn!(%error, "thread for closing a sound device");
        }
    }

    /// Closes the stream and opens what is then due.
    fn reopen(&mut self, now: Instant) {
        self.discard();
        self.tries = 0;
        self.retry_at = Some(now);
    }

    /// As [`Self::reopen`], for other buffers. If the device is gone by then, it has gone like any other.
    fn rebuild(&mut self, now: Instant) {
        self.went |= self.open.as_ref().is_some_and(|open| !open.stands_in);
        self.rebuilt = self.open.as_ref().map(|open| open.name.clone());
        self.reopen(now);
    }

    /// As [`Self::reopen`], for a device that is no longer there.
    fn lose(&mut self, why: &str, engine: &EngineShared, now: Instant) {
        let Some(open) = &self.open else { return };
        let name = open.name.clone();
        tracing::warn!(device = name, why, "sound device lost, rebuilding");
        self.went |= !open.stands_in;
        self.rebuilt = None;
        self.tell_lost(name, engine);
        self.reopen(now);
    }

    fn tell_lost(&self, name: String, engine: &EngineShared) {
        engine.tell(if self.capture { AudioEvent::MicrophoneLost(name) } else { AudioEvent::SpeakerLost(name) });
    }

    /// Checks the open stream, opens what is due.
    pub(crate) fn look(&mut self, engine: &EngineShared, audio: &Thread) -> Option<Port> {
        let now = self.host.clock.now();
        self.check(engine, now);
        self.check_length(now);
        self.check_rate(engine, now);
        if self.retry_at.is_none_or(|at| at > now) {
            return None;
        }
        let id = self.choice.as_ref()?.clone();
        let open = |id: Option<&str>| self.host.open(self.capture, id, audio, self.buffers.frames, self.callback_ms);
        let built = open(id.as_deref()).or_else(|error| match (&id, self.went) {
            (Some(_), true) => {
                let (mut other, port) = open(None).map_err(|_| error)?;
                other.stands_in = true;
                Ok((other, port))
            }
            _ => Err(error),
        });
        match built {
            Ok((open, port)) => {
                let stands_in = open.stands_in;
                tracing::info!(device = open.name, stands_in, capture = self.capture, "sound device opened");
                let name = open.name.clone();
                let rebuilt = self.rebuilt.take();
                if rebuilt.as_ref() != Some(&name) {
                    rebuilt.into_iter().for_each(|gone| self.tell_lost(gone, engine));
                    engine.tell(if self.capture {
                        AudioEvent::MicrophoneOpened(name)
                    } else {
                        AudioEvent::SpeakerOpened(name)
                    });
                }
                self.open = Some(open);
                self.retry_at = None;
                self.tries = 0;
                self.failure = None;
                Some(port)
            }
            Err(error) => {
                self.tries += 1;
                // Whoever is told that it failed is told when it is open again.
                self.rebuilt = None;
                self.retry_at = Some(self.host.clock.now() + if self.tries > 4 { RETRY_LATER } else { RETRY });
                // The same failure is told once.
                if self.failure.as_ref().map(AudioError::key) != Some(error.key()) {
                    tracing::warn!(%error, "sound device");
                    self.failure = Some(error.clone());
                    engine.tell(if self.capture {
                        AudioEvent::MicrophoneFailed(error)
                    } else {
                        AudioEvent::SpeakerFailed(error)
                    });
                }
                None
            }
        }
    }

    fn check(&mut self, engine: &EngineShared, now: Instant) {
        let Some(open) = &mut self.open else { return };
        let calls = open.pulse.calls.load(Ordering::Relaxed);
        let since = *open.since.get_or_insert(now);
        let since = if calls == open.calls { since } else { now };
        (open.calls, open.since) = (calls, Some(since));
        let patience = if open.calls == 0 { FIRST_CALLBACK } else { STALL.max(open.callback() * 5 / 2) };
        if now.duration_since(since) > patience {
            self.lose("stalled", engine, now);
        } else if open.pulse.failed.load(Ordering::Relaxed) {
            self.lose("failed", engine, now);
        }
    }

    /// Asks for larger rings where a callback moves more than they were made for.
    fn check_length(&mut self, now: Instant) {
        let Some(open) = &self.open else { return };
        if open.pulse.too_long().is_none() || self.callback_ms >= CALLBACK_MS_MAX {
            self.long_since = None;
            return;
        }
        if now.saturating_duration_since(*self.long_since.get_or_insert(now)) < LONG {
            return;
        }
        let length_ms = open.callback().as_millis() as u32;
        tracing::info!(device = open.name, length_ms, "long callbacks, larger rings");
        self.callback_ms = (length_ms + length_ms / 4).clamp(2 * self.callback_ms, CALLBACK_MS_MAX);
        self.long_since = None;
        self.rebuild(now);
    }

    /// Corrects a rate that is not what the device says, and asks for larger buffers where sound is lost all the time.
    fn check_rate(&mut self, engine: &EngineShared, now: Instant) {
        let Some(open) = &mut self.open else { return };
        if open.calls < SETTLED {
            return;
        }
        let (told_hz, name) = (open.pulse.rate_hz(open.rate_hz), &open.name);
        let rebuild = match open.rates.look(open.pulse.mark(), told_hz) {
            Some(Verdict::Rate(hz)) => {
                tracing::warn!(device = name, told_hz, hz, "the device runs at another rate than it says");
                open.pulse.true_rate_hz.store(hz, Ordering::Relaxed);
                engine.tell(AudioEvent::RateCorrected { device: name.clone(), told_hz: open.rate_hz, true_hz: hz });
                false
            }
            Some(Verdict::Lossy(share)) => {
                let larger = self.buffers.lossy();
                if larger {
                    tracing::warn!(device = name, share, frames = self.buffers.frames, "sound is lost, larger buffers");
                }
                larger
            }
            Some(Verdict::True) => {
                let smaller = self.buffers.well(now);
                if smaller {
                    tracing::info!(device = name, frames = self.buffers.frames, "no sound is lost, smaller buffers");
                }
                smaller
            }
            Some(Verdict::Unclear) | None => false,
        };
        if rebuild {
            self.rebuild(now);
        }
    }

    /// Takes a new list: follows the system's default where no device is chosen, notices that the open one has gone (a
    /// sound server moves its streams to another one without a word), and that the chosen one is back.
    pub(crate) fn follow(&mut self, devices: &AudioDevices, engine: &EngineShared) {
        let now = self.host.clock.now();
        // A server that does not answer says nothing about its devices.
        if devices.microphones.is_empty() && devices.speakers.is_empty() {
            return;
        }
        let list = if self.capture { &devices.microphones } else { &devices.speakers };
        let is = |d: &AudioDevice, id: &str| {
            d.id == *id || d.name == *id || d.id.split_once(':').is_some_and(|(_, bare)| bare == id)
        };
        let chosen_is_there = |id: &String| list.iter().any(|d| is(d, id));
        let default = list.iter().find(|d| d.is_default && !(self.capture && d.is_monitor));
        let Some(choice) = &self.choice else { return };
        let Some(open) = &self.open else {
            if choice.as_ref().map_or(default.is_some(), chosen_is_there) {
                self.retry_at = Some(now);
            }
            return;
        };
        let there = list.iter().find(|d| d.id == open.id);
        let was = self.listed.take().filter(|(id, _)| *id == open.id).map(|(_, instance)| instance);
        // Also where it is back already: what we had open was moved to another device, without a word. A stream opened on
        // what is about to go is moved, too.
        let gone = match (was, there.map(|d| d.instance)) {
            (Some(_), None) => true,
            (Some(Some(was)), Some(Some(is))) => was != is,
            _ => false,
        };
        self.listed = there.map(|d| (d.id.clone(), d.instance.or(was.flatten())));
        let back = open.stands_in && choice.as_ref().is_some_and(chosen_is_there);
        let follows = choice.is_none() || open.stands_in;
        if gone {
            self.lose("not listed any more", engine, now);
        } else if back || follows && default.is_some_and(|d| d.id != open.id) {
            self.reopen(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_grow_with_loss_and_come_down_after_calm() {
        let (start, mut buffers) = (Instant::now(), Buffers::new());
        let at = |s: u64| start + Duration::from_secs(s);
        assert!(!buffers.well(at(0)) && !buffers.well(at(100)), "there is nothing smaller");
        assert!(buffers.lossy() && buffers.lossy() && buffers.lossy() && !buffers.lossy());
        assert_eq!(buffers.frames, CALLBACK_FRAMES_MAX);
        assert!(!buffers.well(at(200)) && !buffers.well(at(259)) && buffers.well(at(260)));
        assert_eq!(buffers.frames, CALLBACK_FRAMES_MAX / 2);
        // It was too early: the next time is later.
        assert!(buffers.lossy());
        assert!(!buffers.well(at(300)) && !buffers.well(at(419)) && buffers.well(at(420)));
        // Loss in between begins the wait anew.
        assert!(!buffers.well(at(500)));
        assert!(buffers.lossy() && !buffers.well(at(700)) && !buffers.well(at(900)));
    }
}
