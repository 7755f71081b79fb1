//! A whole engine in virtual time: the audio thread's turns, the looks of what watches the devices, and their callbacks.

use super::devices::VirtualDevices;
use crate::media::audio::clock::Clock;
use crate::media::audio::device::{LOOK, LineRun, Supervisor, WATCH, Watch};
use crate::media::audio::host::SoundHost;
use crate::media::audio::stream::lock;
use crate::media::audio::worker::Worker;
use crate::media::audio::{AudioConfig, AudioEngine, AudioError, AudioEvent, EncodedAudioSink, PlayoutStream};
use crate::rtp::frame::{AudioPacket, EncodedAudio};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// From encoder to playout: a LAN.
const NETWORK: Duration = Duration::from_millis(2);

/// An engine and its devices.
pub(crate) struct Rig {
    pub(crate) engine: AudioEngine,
    /// What the engine told so far, and when.
    pub(crate) told: Vec<(Duration, AudioEvent)>,
    clock: Clock,
    origin: Instant,
    devices: Arc<VirtualDevices>,
    worker: Worker,
    lines: [LineRun; 2],
    watch: Watch,
    events: mpsc::Receiver<AudioEvent>,
    next_look: Instant,
    next_watch: Instant,
    next_turn: Instant,
    network: Arc<Mutex<VecDeque<(PlayoutStream, AudioPacket)>>>,
}

impl Rig {
    /// An engine whose devices are reached through `host`, which has this clock.
    ///
    /// # Errors
    /// Opus.
    pub(crate) fn new(host: SoundHost, devices: Arc<VirtualDevices>, config: AudioConfig) -> Result<Self, AudioError> {
        let clock = host.clock.clone();
        let origin = clock.now();
        let (engine, mut worker, events) = AudioEngine::assemble(host.clone(), config)?;
        let (supervisor, lines, watch) = Supervisor::standing(&worker.shared, &host);
        worker.supervisor = Some(supervisor);
        worker.open();
        Ok(Self {
            engine,
            told: Vec::new(),
            clock,
            origin,
            devices,
            worker,
            lines,
            watch,
            events,
            next_look: origin,
            next_watch: origin,
            next_turn: origin,
            network: Arc::default(),
        })
    }

    /// Time since the beginning.
    pub(crate) fn since(&self) -> Duration {
        self.clock.now().saturating_duration_since(self.origin)
    }

    /// Where packets go that are heard as `stream` on a LAN.
    pub(crate) fn wire(&self, stream: &PlayoutStream) -> EncodedAudioSink {
        let (network, clock, stream) = (Arc::clone(&self.network), self.clock.clone(), stream.clone());
        let sequence = std::sync::atomic::AtomicU16::new(1);
        Arc::new(move |packet: EncodedAudio| {
            if packet.data.is_empty() {
                return;
            }
            let packet = AudioPacket {
                sequence: sequence.fetch_add(1, std::sync::atomic::Ordering::Relaxed),
                rtp_timestamp: packet.rtp_timestamp,
                data: packet.data,
                at: clock.now() + NETWORK,
            };
            lock(&network).push_back((stream.clone(), packet));
        })
    }

    /// Goes on until so long after the beginning.
    pub(crate) fn run_until(&mut self, until: Duration) {
        loop {
            let packet = lock(&self.network).front().map(|(_, packet)| packet.at);
            let next = [self.devices.due(), packet].into_iter().flatten();
            let next = next.chain([self.next_look, self.next_watch, self.next_turn]).min().unwrap_or(self.origin);
            let since = next.saturating_duration_since(self.origin);
            if since > until {
                break;
            }
            self.clock.set(since.max(self.since()));
            self.step(self.clock.now());
        }
    }

    fn step(&mut self, now: Instant) {
        while let Some((stream, packet)) = lock(&self.network).pop_front_if(|(_, packet)| packet.at <= now) {
            stream.push(packet);
        }
        self.devices.run(now);
        if self.next_watch <= now {
            self.next_watch = now + WATCH;
            self.watch.step();
            // A new list wakes those who watch the devices.
            self.next_look = now;
        }
        if self.next_look <= now {
            self.next_look = now + LOOK;
            self.lines.iter_mut().for_each(|line| {
                line.step();
            });
        }
        // What the callbacks and packets wake.
        self.next_turn = now + self.worker.turn().max(Duration::from_micros(100));
        while let Ok(event) = self.events.try_recv() {
            self.told.push((now.saturating_duration_since(self.origin), event));
        }
    }

    /// Frames that the speaker had no sound for, of the stream that is open.
    pub(crate) fn speaker_missing(&self) -> u64 {
        self.worker.speaker_missing()
    }
}
