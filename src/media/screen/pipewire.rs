//! Pictures of a screen that another program puts into PipeWire, by the node that the portal names.
//!
//! A loop in a thread of its own takes every buffer, converts it at once and keeps the newest picture.

use std::cell::RefCell;
use std::io::Cursor;
use std::rc::Rc;
use std::sync::Arc;

use pipewire as pw;
use pw::spa::buffer::DataType;
use pw::spa::buffer::meta::MetaVideoCrop;
use pw::spa::param::ParamType;
use pw::spa::param::format::{FormatProperties, MediaSubtype, MediaType};
use pw::spa::param::video::{VideoFormat, VideoInfoRaw};
use pw::spa::pod::serialize::PodSerializer;
use pw::spa::pod::{self, ChoiceValue, Pod, Property, PropertyFlags, Value};
use pw::spa::utils::{Choice, ChoiceEnum, ChoiceFlags, Direction, Fraction, Rectangle, SpaTypes};
use pw::stream::{Stream, StreamFlags, StreamState};

use super::FPS;
use super::newest::{Filler, Newest, Reader};
use super::portal::{Granted, Held};
use crate::media::video::capture::{PictureSource, SourceEnd};
use crate::media::video::codec::MAX_DIMENSION;
use crate::media::video::convert::PixelFormat;
use crate::media::video::frame::{FramePool, VideoFrame};
use crate::media::video::source::VideoMode;

/// Opens the granted stream and waits until its pictures' size is known.
pub(super) fn open(granted: Granted) -> Result<Box<dyn PictureSource>, String> {
    let Granted { remote, node, session } = granted;
    let shared = Arc::new(Newest::default());
    let (stop, stopped) = pw::channel::channel();
    let inner = Arc::clone(&shared);
    std::thread::Builder::new()
        .name("screen-pipewire".into())
        .spawn(move || {
            if let Err(error) = run(remote, node, &inner, stopped) {
                inner.end(Some(error.to_string()));
            }
            inner.end(None);
        })
        .map_err(|e| e.to_string())?;
    let source = PipeWireSource { reader: Reader::new(shared), session, stop };
    source.reader.begin(&|| source.session.is_closed())?;
    Ok(Box::new(source))
}

struct PipeWireSource {
    reader: Reader,
    session: Held,
    stop: pw::channel::Sender<Stop>,
}

struct Stop;

impl Drop for PipeWireSource {
    fn drop(&mut self) {
        // A loop that is not there any more need not be told.
        drop(self.stop.send(Stop));
    }
}

impl PictureSource for PipeWireSource {
    fn name(&self) -> String {
        "portal".into()
    }

    fn mode(&self) -> VideoMode {
        let (width, height) = self.reader.size();
        VideoMode { width, height, fps: FPS }
    }

    fn next(&mut self, pool: &mut FramePool) -> Result<Arc<VideoFrame>, SourceEnd> {
        self.reader.next(pool, &|| self.session.is_closed())
    }
}

/// What the stream's callbacks know.
struct Taking {
    shared: Arc<Newest>,
    filler: Filler,
    format: Option<VideoInfoRaw>,
}

/// The loop: until it is stopped, or the stream ends.
fn run(
    remote: std::os::fd::OwnedFd,
    node: u32,
    shared: &Arc<Newest>,
    stopped: pw::channel::Receiver<Stop>,
) -> Result<(), pw::Error> {
    pw::init();
    let main = pw::main_loop::MainLoopRc::new(None)?;
    let context = pw::context::ContextRc::new(&main, None)?;
    let core = context.connect_fd_rc(remote, None)?;
    let quit = main.clone();
    let _stopped = stopped.attach(main.loop_(), move |Stop| quit.quit());
    let (quit, ended) = (main.clone(), Arc::clone(shared));
    let _core = core
        .add_listener_local()
        .error(move |id, _, _, message| {
            if id == pw::core::PW_ID_CORE {
                ended.end(Some(message.to_owned()));
                quit.quit();
            }
        })
        .register();
    // The program that gives the pictures may go without a word.
    let registry = core.get_registry_rc()?;
    let (quit, ended) = (main.clone(), Arc::clone(shared));
    let _registry = registry
        .add_listener_local()
        .global_remove(move |id| {
            if id == node {
                ended.end(None);
                quit.quit();
            }
        })
        .register();
    let properties = pw::properties::properties! {
        *pw::keys::MEDIA_TYPE => "Video",
        *pw::keys::MEDIA_CATEGORY => "Capture",
        *pw::keys::MEDIA_ROLE => "Screen",
        // Another screen in its place was not chosen.
        *pw::keys::NODE_DONT_RECONNECT => "true",
    };
    let stream = pw::stream::StreamBox::new(&core, "tertulia-screen", properties)?;
    let taking = Rc::new(RefCell::new(Taking {
        shared: Arc::clone(shared),
        filler: Filler::new(Arc::clone(shared)),
        format: None,
    }));
    let (quit, ended) = (main.clone(), Arc::clone(shared));
    let was_on = RefCell::new(false);
    let _listener = stream
        .add_local_listener_with_user_data(taking)
        .state_changed(move |_, _, _, now| match now {
            StreamState::Streaming | StreamState::Paused => *was_on.borrow_mut() = true,
            StreamState::Error(error) => {
                ended.end(Some(error));
                quit.quit();
            }
            // The desktop took it away.
            StreamState::Unconnected if *was_on.borrow() => {
                ended.end(None);
                quit.quit();
            }
            StreamState::Unconnected | StreamState::Connecting => {}
        })
        .param_changed(|stream, taking, id, param| {
            if id == ParamType::Format.as_raw()
                && let Some(param) = param
            {
                taking.borrow_mut().use_format(stream, param);
            }
        })
        .process(|stream, taking| taking.borrow_mut().take(stream))
        .register()?;
    let offer = bytes(&formats()).ok_or(pw::Error::CreationFailed)?;
    let mut offer = [Pod::from_bytes(&offer).ok_or(pw::Error::CreationFailed)?];
    stream.connect(Direction::Input, Some(node), StreamFlags::AUTOCONNECT | StreamFlags::MAP_BUFFERS, &mut offer)?;
    main.run();
    drop(stream.disconnect());
    Ok(())
}

impl Taking {
    fn use_format(&mut self, stream: &Stream, param: &Pod) {
        let mut format = VideoInfoRaw::new();
        if format.parse(param).is_err() {
            return self.shared.end(Some("the format of the screen's pictures is not understood".into()));
        }
        self.shared.announce(format.size().width, format.size().height);
        self.format = Some(format);
        // Memory that can be read here, and the part of a buffer in which a window is.
        let buffers = object(
            SpaTypes::ObjectParamBuffers,
            ParamType::Buffers,
            vec![property(pw::spa::sys::SPA_PARAM_BUFFERS_dataType, flags(&[DataType::MemPtr, DataType::MemFd]))],
        );
        let crop = object(
            SpaTypes::ObjectParamMeta,
            ParamType::Meta,
            vec![
                property(
                    pw::spa::sys::SPA_PARAM_META_type,
                    Value::Id(pw::spa::utils::Id(pw::spa::sys::SPA_META_VideoCrop)),
                ),
                property(
                    pw::spa::sys::SPA_PARAM_META_size,
                    Value::Int(size_of::<pw::spa::sys::spa_meta_region>() as i32),
                ),
            ],
        );
        let params: Vec<Vec<u8>> = [buffers, crop].iter().filter_map(bytes).collect();
        let mut params: Vec<&Pod> = params.iter().filter_map(|p| Pod::from_bytes(p)).collect();
        if let Err(error) = stream.update_params(&mut params) {
            tracing::debug!(%error, "the screen's stream keeps its own parameters");
        }
    }

    /// Takes the newest buffer; older ones go back unseen.
    fn take(&mut self, stream: &Stream) {
        let Some(mut buffer) = stream.dequeue_buffer() else { return };
        while let Some(newer) = stream.dequeue_buffer() {
            buffer = newer;
        }
        let Some(format) = &self.format else { return };
        let whole = (format.size().width, format.size().height);
        let crop =
            buffer.find_meta::<MetaVideoCrop>().map(|crop| crop.meta_region()).filter(|r| r.is_valid()).map(|r| {
                let at = |v: i32| u32::try_from(v).unwrap_or(0);
                ((at(r.position().x), at(r.position().y)), (r.size().width, r.size().height))
            });
        let ((x, y), (width, height)) = crop.unwrap_or(((0, 0), whole));
        let fits = x.saturating_add(width) <= whole.0 && y.saturating_add(height) <= whole.1;
        if !fits || width < 2 || height < 2 || width > MAX_DIMENSION || height > MAX_DIMENSION {
            return;
        }
        let Some(data) = buffer.datas_mut().first_mut() else { return };
        let (offset, size, stride) = (data.chunk().offset(), data.chunk().size(), data.chunk().stride());
        // A buffer without content only brings news of the cursor, and a damaged one nothing.
        if size == 0 || data.chunk().flags().contains(pw::spa::buffer::ChunkFlags::CORRUPTED) {
            return;
        }
        let stride = u32::try_from(stride).ok().filter(|s| *s >= whole.0 * 4).unwrap_or(whole.0 * 4);
        let begin = offset as usize + y as usize * stride as usize + x as usize * 4;
        let layout = match format.format() {
            VideoFormat::BGRx | VideoFormat::BGRA => PixelFormat::Bgra,
            _ => PixelFormat::Rgba,
        };
        let Some(pixels) = data.data().and_then(|d| d.get(begin..)) else { return };
        self.filler.fill(layout, (width, height), stride, pixels);
    }
}

/// What we understand: four bytes a pixel, of any size, in memory (without a modifier no one gives textures of a graphics card).
fn formats() -> Value {
    let known = [VideoFormat::BGRx, VideoFormat::BGRA, VideoFormat::RGBx, VideoFormat::RGBA];
    let ids: Vec<_> = known.iter().map(|f| pw::spa::utils::Id(f.as_raw())).collect();
    let format = ChoiceEnum::Enum { default: pw::spa::utils::Id(VideoFormat::BGRx.as_raw()), alternatives: ids };
    let (least, most) = (Rectangle { width: 1, height: 1 }, Rectangle { width: 16_384, height: 16_384 });
    let sizes = ChoiceEnum::Range { default: Rectangle { width: 1920, height: 1080 }, min: least, max: most };
    let rates = ChoiceEnum::Range {
        default: Fraction { num: FPS, denom: 1 },
        min: Fraction { num: 0, denom: 1 },
        max: Fraction { num: FPS, denom: 1 },
    };
    let choice = ChoiceFlags::empty();
    object(
        SpaTypes::ObjectParamFormat,
        ParamType::EnumFormat,
        vec![
            property(FormatProperties::MediaType.as_raw(), Value::Id(pw::spa::utils::Id(MediaType::Video.as_raw()))),
            property(
                FormatProperties::MediaSubtype.as_raw(),
                Value::Id(pw::spa::utils::Id(MediaSubtype::Raw.as_raw())),
            ),
            property(FormatProperties::VideoFormat.as_raw(), Value::Choice(ChoiceValue::Id(Choice(choice, format)))),
            property(
                FormatProperties::VideoSize.as_raw(),
                Value::Choice(ChoiceValue::Rectangle(Choice(choice, sizes))),
            ),
            property(
                FormatProperties::VideoFramerate.as_raw(),
                Value::Choice(ChoiceValue::Fraction(Choice(choice, rates))),
            ),
        ],
    )
}

fn object(kind: SpaTypes, id: ParamType, properties: Vec<Property>) -> Value {
    Value::Object(pod::Object { type_: kind.as_raw(), id: id.as_raw(), properties })
}

fn property(key: u32, value: Value) -> Property {
    Property { key, flags: PropertyFlags::empty(), value }
}

/// Any of these kinds of memory.
fn flags(kinds: &[DataType]) -> Value {
    let bits = kinds.iter().fold(0i32, |bits, kind| bits | 1 << kind.as_raw());
    let any = ChoiceEnum::Flags { default: bits, flags: vec![bits] };
    Value::Choice(ChoiceValue::Int(Choice(ChoiceFlags::empty(), any)))
}

fn bytes(value: &Value) -> Option<Vec<u8>> {
    PodSerializer::serialize(Cursor::new(Vec::new()), value).ok().map(|(cursor, _)| cursor.into_inner())
}
