//! What the other programs of this computer play, for a shared screen: without our own playout, so that nobody hears themselves.
//!
//! Spoken is PulseAudio's protocol, which PipeWire serves as well. Each stream that somebody else plays is recorded by itself, and
//! what comes is added up: what we play is not taken out afterwards but never in it. `cpal` records whole devices only.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};
use std::io::{BufRead as _, Cursor, ErrorKind, Read as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pulseaudio::protocol::{
    self, ChannelMap, Command, CreateRecordStreamReply, Prop, Props, ProtocolError, RecordStreamParams, SampleFormat,
    SampleSpec, SinkInputInfo, SinkInputInfoList, SubscriptionEventFacility, SubscriptionMask,
};

use super::sound_server::{Connection, text};
use super::stream::lock;
use super::{BLOCK_SAMPLES, Block, SAMPLE_RATE_HZ};

/// How often it is looked whether the recording has ended; a message comes whole within this time.
const LOOK: Duration = Duration::from_millis(500);
/// A stream is begun when so much of it is there: packets come in bursts.
const BEGIN_SAMPLES: usize = 60 * SAMPLE_RATE_HZ as usize / 1000;
/// And never is more of it held than this.
const MOST_SAMPLES: usize = 200 * SAMPLE_RATE_HZ as usize / 1000;
/// Streams of others that are heard at once.
const MOST_STREAMS: usize = 32;
/// What the server sends at once.
const FRAGMENT: Duration = Duration::from_millis(10);
/// A longer message is none.
const LONGEST_MESSAGE: u32 = 4 << 20;
/// Channel of commands; the others carry sound.
const COMMANDS: u32 = u32::MAX;
/// Tags of the answers to our commands.
const ERROR: u32 = 0;
const REPLY: u32 = 2;

/// The sound of this computer. Dropping it ends the recording.
pub(crate) struct SystemSound {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    streams: Mutex<HashMap<u32, Queue>>,
    stop: AtomicBool,
}

/// What one program plays.
#[derive(Default)]
struct Queue {
    samples: VecDeque<f32>,
    begun: bool,
}

impl SystemSound {
    /// Begins to record everything that is not played by this process.
    ///
    /// # Errors
    /// A text when there is no sound server.
    pub(crate) fn open() -> Result<Self, String> {
        Self::without(std::process::id())
    }

    fn without(process: u32) -> Result<Self, String> {
        let server = Connection::open()?;
        let shared = Arc::new(Shared::default());
        let recorder = Recorder::begin(server, process, Arc::clone(&shared)).map_err(|e| e.to_string())?;
        std::thread::Builder::new()
            .name("system-sound".into())
            .spawn(move || recorder.run())
            .map_err(|e| e.to_string())?;
        Ok(Self { shared })
    }

    /// The next 10 ms of everything, silence where nobody plays.
    pub(crate) fn next_block(&self) -> Block {
        let mut block: Block = [0.0; BLOCK_SAMPLES];
        for queue in lock(&self.shared.streams).values_mut() {
            queue.begun |= queue.samples.len() >= BEGIN_SAMPLES;
            if !queue.begun {
                continue;
            }
            for sample in &mut block {
                let Some(next) = queue.samples.pop_front() else {
                    // Paused, or late: it begins anew.
                    queue.begun = false;
                    break;
                };
                *sample += next;
            }
        }
        for sample in &mut block {
            *sample = sample.clamp(-1.0, 1.0);
        }
        block
    }
}

impl Drop for SystemSound {
    fn drop(&mut self) {
        // The thread sees it when it looks next, and ends; nobody waits for that.
        self.shared.stop.store(true, Ordering::Release);
    }
}

/// What an answer belongs to.
enum Asked {
    List,
    Record { input: u32 },
    Other,
}

struct Recorder {
    server: Connection,
    /// Process whose streams are left out.
    own: u32,
    shared: Arc<Shared>,
    asked: HashMap<u32, Asked>,
    /// Streams that are recorded or about to be: channel by stream.
    inputs: HashMap<u32, Option<u32>>,
}

impl Recorder {
    fn begin(server: Connection, own: u32, shared: Arc<Shared>) -> Result<Self, ProtocolError> {
        server.socket.get_ref().set_read_timeout(Some(LOOK))?;
        let mut recorder = Self { server, own, shared, asked: HashMap::new(), inputs: HashMap::new() };
        recorder.ask(Asked::Other, &Command::Subscribe(SubscriptionMask::SINK_INPUT))?;
        recorder.ask(Asked::List, &Command::GetSinkInputInfoList)?;
        Ok(recorder)
    }

    fn ask(&mut self, what: Asked, command: &Command) -> Result<(), ProtocolError> {
        let number = self.server.send(command)?;
        self.asked.insert(number, what);
        Ok(())
    }

    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Acquire) {
            let ended = match self.server.socket.fill_buf() {
                Ok([]) => Err(std::io::Error::from(ErrorKind::UnexpectedEof).into()),
                Ok(_) => self.message(),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(()),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = ended {
                tracing::info!(%error, "the sound of this computer is not recorded any more");
                break;
            }
        }
        lock(&self.shared.streams).clear();
    }

    fn message(&mut self) -> Result<(), ProtocolError> {
        let about = protocol::read_descriptor(&mut self.server.socket)?;
        if about.length > LONGEST_MESSAGE {
            return Err(std::io::Error::other("a message that is too long").into());
        }
        let mut body = vec![0; about.length as usize];
        self.server.socket.read_exact(&mut body)?;
        if about.channel != COMMANDS {
            self.sound(about.channel, &body);
            return Ok(());
        }
        let Some((tag, number)) = head(&body) else { return Ok(()) };
        if tag == REPLY || tag == ERROR {
            let Some(asked) = self.asked.remove(&number) else { return Ok(()) };
            // The readers of the crate want the message whole.
            let mut whole = Vec::with_capacity(body.len() + protocol::DESCRIPTOR_SIZE);
            protocol::write_descriptor(&mut whole, &about)?;
            whole.extend_from_slice(&body);
            return self.answer(asked, &mut Cursor::new(whole));
        }
        // Commands that this version of the crate does not know are none of our business.
        if let Ok((_, Command::SubscribeEvent(event))) =
            Command::read_tag_prefixed(&mut Cursor::new(&body), self.server.version)
            && event.event_facility == SubscriptionEventFacility::SinkInput
            && !self.asked.values().any(|asked| matches!(asked, Asked::List))
        {
            self.ask(Asked::List, &Command::GetSinkInputInfoList)?;
        }
        Ok(())
    }

    fn answer(&mut self, asked: Asked, whole: &mut Cursor<Vec<u8>>) -> Result<(), ProtocolError> {
        match asked {
            Asked::List => {
                let (_, list) = protocol::read_reply_message::<SinkInputInfoList>(whole, self.server.version)?;
                self.follow(&list)?;
            }
            Asked::Record { input } => {
                match protocol::read_reply_message::<CreateRecordStreamReply>(whole, self.server.version) {
                    Ok((_, stream)) => {
                        self.inputs.insert(input, Some(stream.channel));
                        lock(&self.shared.streams).insert(stream.channel, Queue::default());
                    }
                    // It has ended meanwhile; or it may not be recorded, and is not asked for again while it plays.
                    Err(error) => tracing::debug!(%error, "a stream of another program is not recorded"),
                }
            }
            Asked::Other => {}
        }
        Ok(())
    }

    /// Records what is new, and lets go of what has ended.
    fn follow(&mut self, list: &[SinkInputInfo]) -> Result<(), ProtocolError> {
        let own = self.own.to_string();
        let others = list.iter().filter(|input| process(input).as_deref() != Some(own.as_str()));
        let there: HashSet<u32> = others.map(|input| input.index).collect();
        let gone: Vec<(u32, Option<u32>)> =
            self.inputs.iter().filter(|(input, _)| !there.contains(input)).map(|(i, c)| (*i, *c)).collect();
        for (input, channel) in gone {
            self.inputs.remove(&input);
            if let Some(channel) = channel {
                lock(&self.shared.streams).remove(&channel);
                self.ask(Asked::Other, &Command::DeleteRecordStream(channel))?;
            }
        }
        for input in there {
            if self.inputs.len() >= MOST_STREAMS {
                break;
            }
            if let Entry::Vacant(unknown) = self.inputs.entry(input) {
                unknown.insert(None);
                self.ask(Asked::Record { input }, &Command::CreateRecordStream(recording(input)))?;
            }
        }
        Ok(())
    }

    fn sound(&self, channel: u32, body: &[u8]) {
        let mut streams = lock(&self.shared.streams);
        let Some(queue) = streams.get_mut(&channel) else { return };
        queue.samples.extend(body.chunks_exact(4).filter_map(|b| Some(f32::from_le_bytes(b.try_into().ok()?))));
        let most = queue.samples.len().saturating_sub(MOST_SAMPLES);
        queue.samples.drain(..most);
    }
}

/// Tag and number of a message.
fn head(body: &[u8]) -> Option<(u32, u32)> {
    // Each number has a letter before it.
    let number = |from: usize| Some(u32::from_be_bytes(body.get(from..from + 4)?.try_into().ok()?));
    Some((number(1)?, number(6)?))
}

/// Number of the process that plays a stream, as it says itself.
fn process(input: &SinkInputInfo) -> Option<String> {
    let bytes = input.props.get(Prop::ApplicationProcessId)?;
    Some(String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned())
}

fn recording(input: u32) -> RecordStreamParams {
    let bytes = FRAGMENT.as_millis() as u32 * SAMPLE_RATE_HZ / 1000 * 4;
    let mut props = Props::new();
    props.set(Prop::MediaName, text("Sound of a shared screen"));
    RecordStreamParams {
        sample_spec: SampleSpec { format: SampleFormat::Float32Le, channels: 1, sample_rate: SAMPLE_RATE_HZ },
        channel_map: ChannelMap::mono(),
        buffer_attr: protocol::stream::BufferAttr { fragment_size: bytes, ..Default::default() },
        flags: protocol::stream::StreamFlags { adjust_latency: true, ..Default::default() },
        direct_on_input_index: Some(input),
        props,
        ..RecordStreamParams::default()
    }
}
