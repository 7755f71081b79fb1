//! H264 constrained baseline by openh264: one slice a picture, one access unit a frame, parameter sets with every IDR.
#![allow(unsafe_code)]

use std::sync::Arc;

use bytes::Bytes;
use openh264::OpenH264API;
use openh264::decoder::{Decoder, DecoderConfig, Flush};
use openh264::encoder::{
    BitRate, Complexity, Encoder, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, Profile, RateControlMode,
    SpsPpsStrategy, UsageType,
};
use openh264::formats::{YUVSlices, YUVSource};
use openh264_sys2::{
    ENCODER_OPTION_BITRATE, ENCODER_OPTION_FRAME_RATE, ENCODER_OPTION_MAX_BITRATE, SBitrateInfo, SPATIAL_LAYER_0,
};

use super::codec::{
    CodecError, Content, EncodedPicture, EncoderSettings, FrameStamp, VideoCodec, VideoDecoder, VideoEncoder,
    check_frame, check_settings, copy_plane, fits,
};
use super::frame::{FramePool, VideoFrame};

fn setup(detail: impl std::fmt::Display) -> CodecError {
    CodecError::Setup { codec: VideoCodec::H264.name(), detail: detail.to_string() }
}

/// Encoder for one stream.
pub struct H264Encoder {
    encoder: Encoder,
    settings: EncoderSettings,
    /// The library takes options only after its first picture.
    started: bool,
}

impl H264Encoder {
    /// A new encoder; its first picture will be an IDR.
    pub fn new(settings: EncoderSettings) -> Result<Self, CodecError> {
        check_settings(&settings)?;
        let (long, short) = (settings.width.max(settings.height), settings.width.min(settings.height));
        if long > 3840 || short > 2160 {
            return Err(CodecError::Size(settings.width, settings.height));
        }
        let config = EncoderConfig::new()
            .bitrate(BitRate::from_bps(settings.bitrate_bps))
            .max_frame_rate(FrameRate::from_hz(settings.fps as f32))
            // Small text keeps more of its sharpness with the camera's tools than with the screen's (media notes 8).
            .usage_type(UsageType::CameraVideoRealTime)
            .rate_control_mode(RateControlMode::Bitrate)
            .complexity(if settings.content == Content::Screen { Complexity::Medium } else { Complexity::Low })
            .skip_frames(settings.content != Content::Screen)
            .profile(Profile::Baseline)
            .sps_pps_strategy(SpsPpsStrategy::ConstantId)
            .num_threads(1)
            .scene_change_detect(false)
            // 0: IDR on request only.
            .intra_frame_period(IntraFramePeriod::from_num_frames(0));
        let encoder = Encoder::with_api_config(OpenH264API::from_source(), config).map_err(setup)?;
        Ok(Self { encoder, settings, started: false })
    }

    fn set_bitrate(&mut self, bitrate_bps: u32) -> Result<(), CodecError> {
        let bitrate = i32::try_from(bitrate_bps).map_err(setup)?;
        // The upper limit first when rising and last when falling, or the library refuses a target above its limit. Both
        // for the one layer there is: the option for all layers leaves the layer's own limit where it was.
        let mut order = [ENCODER_OPTION_MAX_BITRATE, ENCODER_OPTION_BITRATE];
        if bitrate_bps < self.settings.bitrate_bps {
            order.reverse();
        }
        for option in order {
            let mut info = SBitrateInfo { iLayer: SPATIAL_LAYER_0, iBitrate: bitrate };
            // SAFETY: the encoder is initialised (it has encoded a picture); both options take a pointer to an
            // `SBitrateInfo`, which is read during the call only.
            let result = unsafe { self.encoder.raw_api().set_option(option, (&raw mut info).cast()) };
            if result != 0 {
                return Err(setup(format!("bitrate {bitrate_bps}: {result}")));
            }
        }
        Ok(())
    }

    fn set_fps(&mut self, fps: u32) -> Result<(), CodecError> {
        let mut fps = fps as f32;
        // SAFETY: the encoder is initialised; the option takes a pointer to a float, which is read during the call only.
        let result = unsafe { self.encoder.raw_api().set_option(ENCODER_OPTION_FRAME_RATE, (&raw mut fps).cast()) };
        if result == 0 { Ok(()) } else { Err(setup(format!("frame rate {fps}: {result}"))) }
    }
}

impl VideoEncoder for H264Encoder {
    fn codec(&self) -> VideoCodec {
        VideoCodec::H264
    }

    fn settings(&self) -> EncoderSettings {
        self.settings
    }

    fn configure(&mut self, settings: EncoderSettings) -> Result<(), CodecError> {
        let size = |s: &EncoderSettings| (s.width, s.height, s.content);
        if size(&settings) != size(&self.settings) || !self.started {
            *self = Self::new(settings)?;
            return Ok(());
        }
        if settings.fps != self.settings.fps {
            self.set_fps(settings.fps)?;
        }
        if settings.bitrate_bps != self.settings.bitrate_bps {
            self.set_bitrate(settings.bitrate_bps)?;
        }
        self.settings = settings;
        Ok(())
    }

    fn encode(
        &mut self,
        frame: &VideoFrame,
        timestamp: u64,
        key_frame: bool,
    ) -> Result<Option<EncodedPicture>, CodecError> {
        check_frame(&self.settings, frame)?;
        let (width, height) = (frame.width as usize, frame.height as usize);
        let source = YUVSlices::new((&frame.y, &frame.u, &frame.v), (width, height), (width, width / 2, width / 2));
        if key_frame && self.started {
            self.encoder.force_intra_frame();
        }
        let at = openh264::Timestamp::from_millis(timestamp / 90);
        let stream = self.encoder.encode_at(&source, at).map_err(|e| CodecError::Encode(e.to_string()))?;
        self.started = true;
        let key_frame = match stream.frame_type() {
            FrameType::IDR => true,
            FrameType::I | FrameType::P | FrameType::IPMixed => false,
            FrameType::Skip => return Ok(None),
            FrameType::Invalid => return Err(CodecError::Encode("invalid frame".into())),
        };
        let mut data = Vec::new();
        stream.write_vec(&mut data);
        if data.is_empty() {
            return Ok(None);
        }
        Ok(Some(EncodedPicture { data: Bytes::from(data), key_frame }))
    }
}

/// Decoder for one stream.
pub struct H264Decoder {
    decoder: Decoder,
    need_key_frame: bool,
}

impl H264Decoder {
    /// A new decoder; it begins with an IDR and its parameter sets.
    pub fn new() -> Result<Self, CodecError> {
        Ok(Self { decoder: new_library()?, need_key_frame: true })
    }

    fn corrupt(&mut self, detail: impl std::fmt::Display) -> CodecError {
        self.need_key_frame = true;
        CodecError::Corrupt(detail.to_string())
    }
}

fn new_library() -> Result<Decoder, CodecError> {
    // Baseline has no reordering: a flush would only hand out pictures that were shown already.
    let config = DecoderConfig::new().flush_after_decode(Flush::NoFlush);
    Decoder::with_api_config(OpenH264API::from_source(), config).map_err(setup)
}

/// The types of the NAL units of an access unit in Annex B (RFC 6184 5.2, low five bits).
pub fn nal_types(annex_b: &[u8]) -> impl Iterator<Item = u8> + '_ {
    annex_b.windows(4).filter_map(|w| match w {
        [0, 0, 1, header] => Some(header & 0x1f),
        _ => None,
    })
}

fn has_idr(data: &[u8]) -> bool {
    nal_types(data).any(|t| t == 5)
}

impl VideoDecoder for H264Decoder {
    fn codec(&self) -> VideoCodec {
        VideoCodec::H264
    }

    fn decode(
        &mut self,
        data: &[u8],
        pool: &mut FramePool,
        stamp: FrameStamp,
    ) -> Result<Option<Arc<VideoFrame>>, CodecError> {
        if data.is_empty() {
            // The library takes this for the end of the stream.
            return Err(self.corrupt("empty"));
        }
        let key_frame = has_idr(data);
        if self.need_key_frame {
            if !key_frame {
                return Err(self.corrupt("a key frame must come first"));
            }
            if nal_types(data).any(|t| t == 7) {
                // After damage the library may go on concealing from broken references: begin clean.
                self.decoder = new_library()?;
            }
        }
        let picture = match self.decoder.decode(data) {
            Ok(Some(picture)) => picture,
            // There is no reordering here: a key frame without a picture is one that was not understood.
            Ok(None) if key_frame => {
                self.need_key_frame = true;
                return Err(CodecError::Corrupt("a key frame without a picture".into()));
            }
            Ok(None) => return Ok(None),
            Err(error) => {
                self.need_key_frame = true;
                return Err(CodecError::Corrupt(error.to_string()));
            }
        };
        let (width, height) = picture.dimensions();
        let (y_stride, u_stride, v_stride) = picture.strides();
        let size = |d: usize| u32::try_from(d).unwrap_or(u32::MAX);
        let (width, height) = (size(width), size(height));
        if !fits(width, height) {
            return Err(self.corrupt(format!("size {width}x{height}")));
        }
        let frame = pool.draw(width, height, |frame| {
            let width = frame.width as usize;
            copy_plane(&mut frame.y, picture.y(), width, y_stride);
            copy_plane(&mut frame.u, picture.u(), width / 2, u_stride);
            copy_plane(&mut frame.v, picture.v(), width / 2, v_stride);
            frame.at = stamp.at;
            frame.rtp_timestamp = stamp.rtp_timestamp;
            Ok::<_, CodecError>(())
        })?;
        self.need_key_frame = false;
        Ok(Some(frame))
    }
}

#[cfg(test)]
#[path = "h264_tests.rs"]
mod tests;
