//! VP8 (RFC 6386) by libvpx: a small safe wrapper round what a call needs.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::mem::MaybeUninit;
#[cfg(all(target_os = "linux", target_env = "gnu"))]
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use vpx_sys::*;

use super::codec::{
    CodecError, Content, EncodedPicture, EncoderSettings, FrameStamp, Quality, VideoCodec, VideoDecoder, VideoEncoder,
    check_frame, check_settings, copy_plane, fits,
};
use super::frame::{FramePool, VideoFrame};

/// Pictures of this many pixels and more get a second thread, where the machine has cores to spare.
const SECOND_THREAD_PIXELS: u32 = 1280 * 720;
/// What a picture that takes less than it may saves up for later ones, as time at the target rate; and what is left of it when
/// the target falls to less than this share.
const BUFFER_MS: u32 = 1_000;
const SAVED_MS: u32 = 300;
const MUCH_LESS: f64 = 0.85;

/// A libvpx context. It is boxed because libvpx keeps pointers into it, and used by one thread at a time.
struct Context(Box<vpx_codec_ctx_t>);

// SAFETY: libvpx contexts have no thread affinity; `Context` is owned by one encoder or decoder whose methods take
// `&mut self`, so that two threads never use it at once.
unsafe impl Send for Context {}

impl Context {
    fn error(&self) -> String {
        // SAFETY: the context was initialised by a successful init call; both functions return null or a C string that
        // lives as long as the context, and it is copied at once.
        unsafe {
            let ctx = std::ptr::from_ref(&*self.0).cast_mut();
            let detail = vpx_codec_error_detail(ctx);
            let text = if detail.is_null() { vpx_codec_error(ctx) } else { detail };
            if text.is_null() { "unknown".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: a `Context` exists only after a successful init; it is destroyed exactly once.
        unsafe {
            vpx_codec_destroy(&raw mut *self.0);
        }
    }
}

fn setup(detail: impl Into<String>) -> CodecError {
    CodecError::Setup { codec: VideoCodec::Vp8.name(), detail: detail.into() }
}

fn result_text(result: vpx_codec_err_t) -> String {
    // SAFETY: libvpx returns a pointer to a static string for every value of the enum.
    unsafe {
        let text = vpx_codec_err_to_string(result);
        if text.is_null() { "unknown".into() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
    }
}

/// Whether a VP8 frame is a key frame, and its size if so (RFC 6386 9.1). `None` for an empty or cut off frame.
pub fn key_frame_size(data: &[u8]) -> Option<Option<(u32, u32)>> {
    let first = data.first()?;
    if first & 1 == 1 {
        return Some(None);
    }
    let [_, _, _, 0x9d, 0x01, 0x2a, w0, w1, h0, h1] = *data.first_chunk::<10>()? else { return None };
    let size = |low: u8, high: u8| u32::from(u16::from_le_bytes([low, high]) & 0x3fff);
    Some(Some((size(w0, w1), size(h0, h1))))
}

/// Encoder for one stream.
pub struct Vp8Encoder {
    context: Context,
    config: vpx_codec_enc_cfg_t,
    settings: EncoderSettings,
    quality: Quality,
    last_timestamp: Option<u64>,
    /// Whole pages of its room for the tokens of a picture.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    tokens: Option<Range<usize>>,
}

// SAFETY: the configuration holds raw pointers only to two-pass statistics, which are null and unused here.
unsafe impl Send for Vp8Encoder {}

/// Says once that a block of this many bytes and more is a mapping of its own, which the system has back when it is freed.
/// By itself glibc raises the limit to the largest block that was ever freed, up to 32 MiB: after the first change of an
/// encoder's size whatever is freed would stay with the process.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_large_blocks_apart() {
    const LARGE_BYTES: libc::c_int = 128 << 10;
    static ONCE: std::sync::Once = std::sync::Once::new();
    // SAFETY: `mallopt` takes the allocator's own lock and changes what later calls do; no block moves.
    ONCE.call_once(|| unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_TRIM_THRESHOLD, LARGE_BYTES);
    });
}

impl Vp8Encoder {
    /// A new encoder; its first picture will be a key frame.
    pub fn new(settings: EncoderSettings) -> Result<Self, CodecError> {
        check_settings(&settings)?;
        #[cfg(all(target_os = "linux", target_env = "gnu"))]
        keep_large_blocks_apart();
        let mut config = MaybeUninit::<vpx_codec_enc_cfg_t>::uninit();
        // SAFETY: on success libvpx has filled the whole structure with its defaults; its enums are Rust enums, so it must
        // not be zeroed by hand.
        let mut config = unsafe {
            let result = vpx_codec_enc_config_default(vpx_codec_vp8_cx(), config.as_mut_ptr(), 0);
            if result != VPX_CODEC_OK {
                return Err(setup(result_text(result)));
            }
            config.assume_init()
        };
        apply(&mut config, &settings, Quality::Rate);
        let mut context = Box::new(MaybeUninit::<vpx_codec_ctx_t>::zeroed());
        // SAFETY: the context is zeroed memory as the C macro `vpx_codec_enc_init` expects it (it has no Rust enum whose
        // zero is invalid: VPX_CODEC_OK is 0), the configuration is complete, the ABI version is that of the bindings.
        let context = unsafe {
            let result = vpx_codec_enc_init_ver(
                context.as_mut_ptr(),
                vpx_codec_vp8_cx(),
                &raw const config,
                0,
                VPX_ENCODER_ABI_VERSION as i32,
            );
            if result != VPX_CODEC_OK {
                return Err(setup(result_text(result)));
            }
            Context(Box::from_raw(Box::into_raw(context).cast::<vpx_codec_ctx_t>()))
        };
        let mut encoder = Self {
            #[cfg(all(target_os = "linux", target_env = "gnu"))]
            tokens: super::vp8_tokens::find(context.0.priv_.addr(), settings.width, settings.height),
            context,
            config,
            settings,
            quality: Quality::Rate,
            last_timestamp: None,
        };
        encoder.set_controls()?;
        encoder.release_tokens();
        Ok(encoder)
    }

    /// Gives the pages of the room for tokens back to the system; those that are needed again come by themselves, as zeros.
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    fn release_tokens(&mut self) {
        let Some(pages) = self.tokens.clone() else { return };
        // SAFETY: the pages lie within one block that this encoder's own structures point to, of the length that its tokens alone
        // have, and libvpx frees it with the encoder only, since a new size means a new encoder. Nobody else uses it: the
        // context is ours, and outside `vpx_codec_encode` libvpx's threads touch nothing but pictures. What is lost are the
        // tokens of a picture that is done: each writes its own before it reads them.
        let result = unsafe {
            libc::madvise(std::ptr::with_exposed_provenance_mut(pages.start), pages.len(), libc::MADV_DONTNEED)
        };
        if result != 0 {
            tracing::debug!(error = %std::io::Error::last_os_error(), "an encoder keeps its memory");
            self.tokens = None;
        }
    }

    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    fn release_tokens(&mut self) {}

    fn control(&mut self, id: vp8e_enc_control_id, value: i32) -> Result<(), CodecError> {
        // SAFETY: every control used here takes one C int; the context is initialised.
        let result = unsafe { vpx_codec_control_(&raw mut *self.context.0, id as i32, value) };
        if result == VPX_CODEC_OK { Ok(()) } else { Err(setup(format!("{id:?}: {}", self.context.error()))) }
    }

    fn set_controls(&mut self) -> Result<(), CodecError> {
        use vp8e_enc_control_id::*;
        let EncoderSettings { width, height, fps, content, .. } = self.settings;
        let pixels = width * height;
        // Negative: exactly this speed, in realtime mode; the measured table in the media notes is the reason.
        let speed = match pixels {
            0..=102_400 => -5,
            102_401..=307_200 => -6,
            307_201..=921_600 => -8,
            _ => -12,
        };
        let screen = content == Content::Screen;
        self.control(VP8E_SET_CPUUSED, if screen { speed.min(-8) } else { speed })?;
        self.control(VP8E_SET_NOISE_SENSITIVITY, 0)?;
        self.control(VP8E_SET_STATIC_THRESHOLD, if screen { 100 } else { 1 })?;
        self.control(VP8E_SET_TOKEN_PARTITIONS, i32::from(self.config.g_threads > 1))?;
        // A key frame may cost what a third of the rate buffer holds, in percent of an average frame: 200 ms of the path.
        let intra = (self.config.rc_buf_optimal_sz / 3 * fps / 10).max(300);
        self.control(VP8E_SET_MAX_INTRA_BITRATE_PCT, i32::try_from(intra).unwrap_or(900))?;
        // Not the library's own mode for screens: it leaves still blocks as they are, and a page would never become sharp.
        self.control(VP8E_SET_SCREEN_CONTENT_MODE, 0)
    }

    fn set_config(&mut self) -> Result<(), CodecError> {
        // SAFETY: context and configuration are initialised and have the size the encoder was started with.
        let result = unsafe { vpx_codec_enc_config_set(&raw mut *self.context.0, &raw const self.config) };
        if result == VPX_CODEC_OK { Ok(()) } else { Err(setup(self.context.error())) }
    }
}

/// Best and worst quantizer of the rate control, 0 to 63.
fn quantizers(settings: &EncoderSettings, quality: Quality) -> (u32, u32) {
    match (quality, settings.content, settings.bitrate_bps) {
        (Quality::Quantizer(q), ..) => (u32::from(q.min(63)), u32::from(q.min(63))),
        (_, Content::Camera | Content::Motion, _) => (2, 56),
        // The first look at a new page comes soon, and is made sharp afterwards: the rate control alone would send a page
        // after a still time at its best, a second long.
        (_, Content::Screen, 6_000_000..) => (12, 52),
        (_, Content::Screen, 3_000_000..) => (26, 54),
        (_, Content::Screen, 2_000_000..) => (42, 56),
        (_, Content::Screen, _) => (54, 58),
    }
}

fn apply(config: &mut vpx_codec_enc_cfg_t, settings: &EncoderSettings, quality: Quality) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let big = settings.width * settings.height >= SECOND_THREAD_PIXELS;
    config.g_w = settings.width;
    config.g_h = settings.height;
    config.g_threads = if big && cores > 2 { 2 } else { 1 };
    config.g_timebase = vpx_rational { num: 1, den: 90_000 };
    // Losses are repaired by retransmission and key frames: resilience would cost quality on every good link.
    config.g_error_resilient = 0;
    config.g_pass = vpx_enc_pass::VPX_RC_ONE_PASS;
    config.g_lag_in_frames = 0;
    config.rc_end_usage = vpx_rc_mode::VPX_CBR;
    config.rc_target_bitrate = (settings.bitrate_bps / 1000).max(1);
    (config.rc_min_quantizer, config.rc_max_quantizer) = quantizers(settings, quality);
    config.rc_undershoot_pct = 100;
    config.rc_overshoot_pct = 15;
    config.rc_buf_sz = BUFFER_MS;
    config.rc_buf_initial_sz = 500;
    config.rc_buf_optimal_sz = 600;
    // A screen must not lose the last picture before it stands still.
    config.rc_dropframe_thresh = if settings.content == Content::Screen { 0 } else { 20 };
    config.rc_resize_allowed = 0;
    // Key frames come on request only.
    config.kf_mode = vpx_kf_mode::VPX_KF_DISABLED;
}

impl VideoEncoder for Vp8Encoder {
    fn codec(&self) -> VideoCodec {
        VideoCodec::Vp8
    }

    fn settings(&self) -> EncoderSettings {
        self.settings
    }

    fn configure(&mut self, settings: EncoderSettings) -> Result<(), CodecError> {
        let size = |s: &EncoderSettings| (s.width, s.height, s.content);
        if size(&settings) != size(&self.settings) {
            // libvpx cannot grow beyond its first size, and a new size needs a key frame anyway: start anew.
            *self = Self::new(settings)?;
            return Ok(());
        }
        apply(&mut self.config, &settings, self.quality);
        if f64::from(settings.bitrate_bps) < f64::from(self.settings.bitrate_bps) * MUCH_LESS {
            // What was saved up would go on at the old rate until it is used up, into a path that has just become narrow.
            self.config.rc_buf_sz = SAVED_MS;
            self.set_config()?;
            self.config.rc_buf_sz = BUFFER_MS;
        }
        self.set_config()?;
        self.settings = settings;
        Ok(())
    }

    fn set_quality(&mut self, quality: Quality) -> Result<bool, CodecError> {
        if quality != self.quality {
            apply(&mut self.config, &self.settings, quality);
            self.set_config()?;
            self.quality = quality;
        }
        Ok(true)
    }

    fn last_quantizer(&mut self) -> Option<u8> {
        let mut quantizer: i32 = -1;
        // SAFETY: this control takes a pointer to a C int; the context is initialised.
        let result = unsafe {
            vpx_codec_control_(
                &raw mut *self.context.0,
                vp8e_enc_control_id::VP8E_GET_LAST_QUANTIZER_64 as i32,
                &raw mut quantizer,
            )
        };
        u8::try_from(quantizer).ok().filter(|_| result == VPX_CODEC_OK)
    }

    fn encode(
        &mut self,
        frame: &VideoFrame,
        timestamp: u64,
        key_frame: bool,
    ) -> Result<Option<EncodedPicture>, CodecError> {
        check_frame(&self.settings, frame)?;
        // libvpx refuses a timestamp that does not rise.
        let timestamp = self.last_timestamp.map_or(timestamp, |last| timestamp.max(last + 1));
        self.last_timestamp = Some(timestamp);
        let nominal = 90_000 / u64::from(self.settings.fps.max(1));
        let mut image = MaybeUninit::<vpx_image_t>::zeroed();
        let flags = if key_frame { i64::from(VPX_EFLAG_FORCE_KF) } else { 0 };
        let mut out: Option<EncodedPicture> = None;
        // SAFETY: `vpx_img_wrap` fills the descriptor for the given size; then the plane pointers and strides are those of
        // `frame`, whose plane lengths `check_frame` has verified and which outlives the call. libvpx only reads from the
        // planes. The packets of `vpx_codec_get_cx_data` are valid until the next call on the context; they are copied.
        unsafe {
            let data = frame.y.as_ptr().cast_mut();
            if vpx_img_wrap(image.as_mut_ptr(), vpx_img_fmt::VPX_IMG_FMT_I420, frame.width, frame.height, 1, data)
                .is_null()
            {
                return Err(CodecError::Size(frame.width, frame.height));
            }
            let mut image = image.assume_init();
            let stride = frame.width as i32;
            image.planes = [data, frame.u.as_ptr().cast_mut(), frame.v.as_ptr().cast_mut(), std::ptr::null_mut()];
            image.stride = [stride, stride / 2, stride / 2, 0];
            let result = vpx_codec_encode(
                &raw mut *self.context.0,
                &raw const image,
                timestamp as i64,
                nominal as _,
                flags as _,
                u64::from(VPX_DL_REALTIME) as _,
            );
            if result != VPX_CODEC_OK {
                return Err(CodecError::Encode(self.context.error()));
            }
            let mut iter: vpx_codec_iter_t = std::ptr::null();
            loop {
                let packet = vpx_codec_get_cx_data(&raw mut *self.context.0, &raw mut iter);
                let Some(packet) = packet.as_ref() else { break };
                if packet.kind != vpx_codec_cx_pkt_kind::VPX_CODEC_CX_FRAME_PKT {
                    continue;
                }
                let encoded = packet.data.frame;
                if encoded.buf.is_null() || encoded.sz == 0 {
                    continue;
                }
                let bytes = std::slice::from_raw_parts(encoded.buf.cast::<u8>().cast_const(), encoded.sz as usize);
                out = Some(EncodedPicture { data: Bytes::copy_from_slice(bytes), key_frame: encoded.flags & 1 != 0 });
            }
        }
        // A key frame has many times the tokens of what follows.
        if out.as_ref().is_some_and(|picture| picture.key_frame) {
            self.release_tokens();
        }
        Ok(out)
    }
}

/// Decoder for one stream.
pub struct Vp8Decoder {
    context: Context,
    /// Only a key frame may come next: at the start and after damage.
    need_key_frame: bool,
}

impl Vp8Decoder {
    /// A new decoder; it begins with a key frame.
    pub fn new() -> Result<Self, CodecError> {
        let config = vpx_codec_dec_cfg { threads: 1, w: 0, h: 0 };
        let mut context = Box::new(MaybeUninit::<vpx_codec_ctx_t>::zeroed());
        // SAFETY: as for the encoder: zeroed context, complete configuration (copied by libvpx at init), version of the
        // bindings.
        let context = unsafe {
            let result = vpx_codec_dec_init_ver(
                context.as_mut_ptr(),
                vpx_codec_vp8_dx(),
                &raw const config,
                0,
                VPX_DECODER_ABI_VERSION as i32,
            );
            if result != VPX_CODEC_OK {
                return Err(setup(result_text(result)));
            }
            Context(Box::from_raw(Box::into_raw(context).cast::<vpx_codec_ctx_t>()))
        };
        Ok(Self { context, need_key_frame: true })
    }

    fn corrupt(&mut self, detail: impl Into<String>) -> CodecError {
        self.need_key_frame = true;
        CodecError::Corrupt(detail.into())
    }
}

impl VideoDecoder for Vp8Decoder {
    fn codec(&self) -> VideoCodec {
        VideoCodec::Vp8
    }

    fn decode(
        &mut self,
        data: &[u8],
        pool: &mut FramePool,
        stamp: FrameStamp,
    ) -> Result<Option<Arc<VideoFrame>>, CodecError> {
        match key_frame_size(data) {
            None => return Err(self.corrupt("no VP8 frame header")),
            Some(None) if self.need_key_frame => return Err(self.corrupt("a key frame must come first")),
            Some(Some((w, h))) if !fits(w, h) => {
                return Err(self.corrupt(format!("size {w}x{h}")));
            }
            Some(_) => {}
        }
        let length = u32::try_from(data.len()).map_err(|_| CodecError::Corrupt("too long".into()))?;
        let context = &raw mut *self.context.0;
        // SAFETY: the context is initialised; `data` is valid for `length` bytes during the call and libvpx keeps no
        // pointer to it (no frame threading, no fragments).
        let result = unsafe { vpx_codec_decode(context, data.as_ptr(), length, std::ptr::null_mut(), 0) };
        if result != VPX_CODEC_OK {
            let detail = self.context.error();
            return Err(self.corrupt(detail));
        }
        let mut corrupted: i32 = 0;
        // SAFETY: this control takes a pointer to a C int.
        let result = unsafe {
            vpx_codec_control_(context, vp8_dec_control_id::VP8D_GET_FRAME_CORRUPTED as i32, &raw mut corrupted)
        };
        if result == VPX_CODEC_OK && corrupted != 0 {
            return Err(self.corrupt("references are missing"));
        }
        self.need_key_frame = false;
        let mut iter: vpx_codec_iter_t = std::ptr::null();
        // SAFETY: the image returned is owned by the context and valid until the next decode; its planes hold
        // `stride × rows` bytes for the displayed size, of which only those bytes are read.
        unsafe {
            let image = vpx_codec_get_frame(context, &raw mut iter);
            let Some(image) = image.as_ref() else { return Ok(None) };
            if image.fmt != vpx_img_fmt::VPX_IMG_FMT_I420 || image.planes.iter().take(3).any(|p| p.is_null()) {
                return Err(self.corrupt("not I420"));
            }
            let [y_stride, u_stride, v_stride, _] = image.stride.map(|s| usize::try_from(s).unwrap_or(0));
            let [y, u, v, _] = image.planes;
            let (rows, chroma_rows) = (image.d_h as usize, (image.d_h as usize).div_ceil(2));
            let (w, half) = (image.d_w as usize, (image.d_w as usize).div_ceil(2));
            if y_stride < w || u_stride < half || v_stride < half || w < 2 || rows < 2 {
                return Err(self.corrupt("strides"));
            }
            // The last row has no padding that may be read.
            let plane = |p: *mut u8, stride: usize, rows: usize, width: usize| {
                std::slice::from_raw_parts(p.cast_const(), stride * (rows - 1) + width)
            };
            let y = plane(y, y_stride, rows, w);
            let u = plane(u, u_stride, chroma_rows, half);
            let v = plane(v, v_stride, chroma_rows, half);
            pool.draw(image.d_w, image.d_h, |frame| {
                let width = frame.width as usize;
                copy_plane(&mut frame.y, y, width, y_stride);
                copy_plane(&mut frame.u, u, width / 2, u_stride);
                copy_plane(&mut frame.v, v, width / 2, v_stride);
                frame.at = stamp.at;
                frame.rtp_timestamp = stamp.rtp_timestamp;
                Ok(())
            })
            .map(Some)
        }
    }
}

#[cfg(test)]
#[path = "vp8_tests.rs"]
mod tests;
