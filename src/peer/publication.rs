//! One stream on its way out.

use super::config::{PublishMedia, TransportConfig};
use super::connection::{Connection, limited, lock};
use super::engine;
use super::error::PeerError;
use super::event::PeerEvent;
use super::feedback;
use super::send::{self, Outbox, Route};
use super::stats::PublicationStats;
use super::transform::FrameTransform;
use crate::rtp::frame::{EncodedAudio, EncodedFrame, VideoCodec};
use crate::rtp::packetise::{AudioPacketizer, Start, VideoPacketizer};
use crate::rtp::sdp;
use crate::rtp::simulcast::RIDS;
use crate::wire::{self, WireHandle};
use rtc::media_stream::MediaStreamTrack;
use rtc::rtp_transceiver::rtp_sender::{
    RTCRtpCodec, RTCRtpCodingParameters, RTCRtpEncodingParameters, RTCRtpRtxParameters, RtpCodecKind,
};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock};
use tokio::sync::mpsc;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;
use webrtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit, RtpSender, RtpTransceiver};

/// Hands encoded media to a [`Publication`]. Cheap to clone, never blocks, usable from any thread.
///
/// Until the connection stands, frames are dropped and counted. When the packet tasks fall behind, the oldest video frames go until the next key
/// frame (which is asked for by [`PeerEvent::KeyFrameRequested`]); audio is never dropped for video.
#[derive(Debug, Clone)]
pub struct MediaSender {
    outbox: Arc<Outbox>,
}

impl MediaSender {
    /// Queues one access unit of a layer, 0 being the lowest. The layers of one picture have one timestamp.
    pub fn send_layer(&self, layer: usize, frame: EncodedFrame) {
        self.outbox.push_layer(layer, frame);
    }

    /// Queues one access unit. Its timestamps count from any origin of the caller's; the wire gets a random offset.
    pub fn send_video(&self, frame: EncodedFrame) {
        self.outbox.push_video(frame);
    }

    /// Whether pictures are large and may take their time: a page of text, not a film or a face.
    pub fn set_patient(&self, patient: bool) {
        self.outbox.patient.store(patient, Ordering::Relaxed);
    }

    /// More than this is of no use to the encoder, in bit/s: no more is looked for on the path.
    pub fn set_useful_bps(&self, bps: u64) {
        self.outbox.useful_bps.store(bps, Ordering::Relaxed);
    }

    /// Queues one Opus packet; an empty one (DTX silence) is not sent.
    pub fn send_audio(&self, packet: EncodedAudio) {
        self.outbox.push_audio(packet);
    }
}

/// One m-line of ours.
#[derive(Clone)]
struct Line {
    track: Arc<dyn TrackLocal>,
    sender: Arc<dyn RtpSender>,
    transceiver: Arc<dyn RtpTransceiver>,
    /// Sources of media and repairs, one pair per layer.
    sources: Vec<(u32, Option<u32>)>,
}

impl Line {
    /// Source of the only layer, or of the lowest one.
    fn ssrc(&self) -> u32 {
        self.sources.first().map_or(0, |(ssrc, _)| *ssrc)
    }
}

/// A stream that we send: one peer connection, an audio and/or a video m-line, we offer.
pub struct Publication {
    connection: Connection,
    sender: MediaSender,
    audio: Option<Line>,
    video: Option<Line>,
    audio_packets: Mutex<Option<mpsc::Receiver<EncodedAudio>>>,
    codec: OnceLock<VideoCodec>,
    transform: Option<Arc<dyn FrameTransform>>,
    stereo: bool,
}

impl std::fmt::Debug for Publication {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Publication")
            .field("connection", &self.connection)
            .field("codec", &self.codec.get())
            .finish_non_exhaustive()
    }
}

fn media_track(
    kind: RtpCodecKind,
    stream: &str,
    sources: &[(u32, Option<u32>)],
    codec: &RTCRtpCodec,
) -> MediaStreamTrack {
    let name = if kind == RtpCodecKind::Audio { "audio" } else { "video" };
    let encoding = |rid: &str, (ssrc, rtx_ssrc): (u32, Option<u32>)| RTCRtpEncodingParameters {
        rtp_coding_parameters: RTCRtpCodingParameters {
            rid: rid.to_owned(),
            ssrc: Some(ssrc),
            rtx: rtx_ssrc.map(|ssrc| RTCRtpRtxParameters { ssrc }),
            ..RTCRtpCodingParameters::default()
        },
        active: true,
        codec: codec.clone(),
        ..RTCRtpEncodingParameters::default()
    };
    let encodings = match sources {
        [only] => vec![encoding("", *only)],
        // The lowest first, here and in the description.
        layers => rids(layers.len()).iter().zip(layers).map(|(rid, layer)| encoding(rid, *layer)).collect(),
    };
    MediaStreamTrack::new(stream.to_owned(), format!("{stream}-{name}"), name.to_owned(), kind, encodings)
}

/// Names of so many layers, the lowest first.
fn rids(count: usize) -> &'static [&'static str] {
    RIDS.get(RIDS.len().saturating_sub(count)..).unwrap_or(&RIDS)
}

/// A random SSRC, never 0.
fn random_ssrc() -> u32 {
    rand::random::<u32>().max(1)
}

impl Publication {
    /// Builds the connection. Must be called on a tokio runtime. The receiver's capacity is 512 events.
    ///
    /// # Errors
    /// Nothing to send, no usable address, or the stack refuses.
    pub async fn new(
        config: &TransportConfig,
        media: PublishMedia,
    ) -> Result<(Self, mpsc::Receiver<PeerEvent>), PeerError> {
        Self::layered(config, media, 1).await
    }

    /// As [`Publication::new`], with the picture in `layers` layers (1 to 3) where that is more than one: for hosts that
    /// announce that they take them, and for VP8 only, whatever `media` lists.
    ///
    /// # Errors
    /// As [`Publication::new`].
    pub async fn layered(
        config: &TransportConfig,
        media: PublishMedia,
        layers: usize,
    ) -> Result<(Self, mpsc::Receiver<PeerEvent>), PeerError> {
        let mut codecs = media.video.clone().unwrap_or_default();
        let layers = if codecs.contains(&VideoCodec::Vp8) { layers.clamp(1, RIDS.len()) } else { 1 };
        if layers > 1 {
            codecs = vec![VideoCodec::Vp8];
        }
        let mut seen = Vec::new();
        codecs.retain(|codec| {
            !seen.contains(codec) && {
                seen.push(*codec);
                true
            }
        });
        if !media.audio && codecs.is_empty() {
            return Err(PeerError::NoMedia);
        }
        let engine = engine::media_engine(media.audio, &codecs, layers > 1)?;
        let wire = WireHandle::new();
        let (connection, events, _tracks) =
            Connection::build(config, engine, wire::sending(&wire, Some(engine::BOUNDS))).await?;
        let stream = format!("{:016x}", rand::random::<u64>());
        let mut audio = None;
        let mut video = None;
        if media.audio {
            audio = Some(add_line(&connection, RtpCodecKind::Audio, &stream, &[(random_ssrc(), None)]).await?);
        }
        if !codecs.is_empty() {
            let sources: Vec<_> = (0..layers).map(|_| (random_ssrc(), Some(random_ssrc()))).collect();
            video = Some(add_line(&connection, RtpCodecKind::Video, &stream, &sources).await?);
        }
        let (outbox, audio_packets) = Outbox::new(Arc::clone(&connection.shared), wire, layers);
        let publication = Self {
            connection,
            sender: MediaSender { outbox },
            audio,
            video,
            audio_packets: Mutex::new(Some(audio_packets)),
            codec: OnceLock::new(),
            transform: config.transform.clone(),
            stereo: media.stereo,
        };
        Ok((publication, events))
    }

    /// The SDP offer (sendonly, audio before video). Local candidates follow as [`PeerEvent::LocalCandidate`]; those that come before the offer
    /// was sent have to wait in the caller's hands.
    ///
    /// # Errors
    /// Closed, or the stack refuses.
    pub async fn offer(&self) -> Result<String, PeerError> {
        let offer = self.connection.offer().await?;
        Ok(if self.stereo { sdp::announce_stereo(&offer) } else { offer })
    }

    /// The other side's answer. Starts the packet tasks.
    ///
    /// # Errors
    /// [`PeerError::BadDescription`] for text that cannot be used, [`PeerError::NoCommonCodec`] when a kind was refused.
    pub async fn set_answer(&self, sdp: &str) -> Result<(), PeerError> {
        let summary = sdp::Summary::parse(sdp);
        if let Some(line) = &self.video {
            let codec = accepted_codec(&summary).ok_or(PeerError::NoCommonCodec("video"))?;
            // The stack binds its interceptors by the codec of the track: it must be the negotiated one before the answer is applied.
            // A track with layers has it from the beginning.
            if line.sources.len() == 1 {
                let stream = line.track.stream_id().await;
                let track = media_track(RtpCodecKind::Video, &stream, &line.sources, &engine::video_codec(codec));
                limited(line.sender.replace_track(Arc::new(TrackLocalStaticRTP::new(track)))).await?;
            }
            let _ = self.codec.set(codec);
        }
        if self.audio.is_some() && !accepts_opus(&summary) {
            return Err(PeerError::NoCommonCodec("audio"));
        }
        self.connection.set_answer(sdp).await?;
        self.start_audio().await?;
        self.start_video().await
    }

    async fn start_audio(&self) -> Result<(), PeerError> {
        let Some(line) = self.audio.clone() else { return Ok(()) };
        let Some(packets) = lock(&self.audio_packets).take() else { return Ok(()) };
        // Payload types belong to the negotiation, not to us: read them again.
        let parameters = limited(line.sender.get_parameters()).await?.rtp_parameters;
        let payload_type = parameters
            .codecs
            .iter()
            .find(|codec| codec.rtp_codec.mime_type.eq_ignore_ascii_case("audio/opus"))
            .map(|codec| codec.payload_type)
            .ok_or(PeerError::NoCommonCodec("audio"))?;
        let level_id = parameters
            .header_extensions
            .iter()
            .find(|extension| extension.uri == wire::AUDIO_LEVEL_URI)
            .and_then(|extension| u8::try_from(extension.id).ok());
        let route = self.route(level_id, line.ssrc());
        let packetizer = AudioPacketizer::new(line.ssrc(), payload_type, rand::random());
        let outbox = Arc::clone(&self.sender.outbox);
        lock(&outbox.audio_sent).stats.codec = Some("opus");
        self.connection.spawn(send::audio_task(
            Arc::clone(&outbox),
            packets,
            Arc::clone(&line.track),
            packetizer,
            route,
        ));
        self.connection.spawn(feedback::sender_task(
            outbox,
            Arc::clone(&self.connection.shared),
            line.track,
            line.sources.iter().map(|(ssrc, _)| *ssrc).collect(),
            super::MediaKind::Audio,
        ));
        Ok(())
    }

    fn route(&self, level_id: Option<u8>, ssrc: u32) -> Route {
        Route { transform: self.transform.clone(), level_id, timestamp_offset: rand::random(), ssrc }
    }

    async fn start_video(&self) -> Result<(), PeerError> {
        let (Some(line), Some(codec)) = (self.video.clone(), self.codec.get().copied()) else { return Ok(()) };
        let parameters = limited(line.sender.get_parameters()).await?.rtp_parameters;
        let payload_type = parameters
            .codecs
            .iter()
            .find(|candidate| engine::codec_of(&candidate.rtp_codec) == Some(codec))
            .map(|codec| codec.payload_type)
            .ok_or(PeerError::NoCommonCodec("video"))?;
        // One offset for all layers: those of one picture have one timestamp.
        let route = self.route(None, line.ssrc());
        let outbox = Arc::clone(&self.sender.outbox);
        if line.sources.len() > 1 {
            let mid = limited(line.transceiver.mid()).await?.unwrap_or_default();
            for (rid, (ssrc, _)) in rids(line.sources.len()).iter().zip(&line.sources) {
                outbox.wire.set_mid(*ssrc, &mid);
                outbox.wire.set_rid(*ssrc, rid);
            }
        }
        let packetizers = line
            .sources
            .iter()
            .map(|(ssrc, _)| {
                let start = Start { sequence: rand::random(), picture_id: rand::random() };
                VideoPacketizer::new(codec, *ssrc, payload_type, start)
            })
            .collect();
        let ssrcs: Vec<u32> = line.sources.iter().map(|(ssrc, _)| *ssrc).collect();
        lock(&outbox.video_sent).stats.codec = Some(codec.name());
        self.connection.spawn(send::video_task(
            Arc::clone(&outbox),
            Arc::clone(&line.track),
            packetizers,
            codec,
            route,
        ));
        let shared = Arc::clone(&self.connection.shared);
        self.connection.spawn(feedback::estimate_task(Arc::clone(&outbox), Arc::clone(&shared), ssrcs.clone()));
        self.connection.spawn(feedback::sender_task(outbox, shared, line.track, ssrcs, super::MediaKind::Video));
        Ok(())
    }

    /// A candidate of the other side; kept until the answer is there. Those of component 2 are dropped.
    ///
    /// # Errors
    /// [`PeerError::BadCandidate`] for a line that cannot be read.
    pub async fn add_candidate(
        &self,
        candidate: &str,
        sdp_mid: Option<String>,
        sdp_mline_index: Option<u16>,
    ) -> Result<(), PeerError> {
        self.connection.add_candidate(candidate, sdp_mid, sdp_mline_index).await
    }

    /// The negotiated video codec: known after the answer, `None` when no video is sent.
    pub fn video_codec(&self) -> Option<VideoCodec> {
        self.codec.get().copied()
    }

    /// The sending end, to be handed to encoder threads.
    pub fn sender(&self) -> MediaSender {
        self.sender.clone()
    }

    /// See [`MediaSender::send_video`].
    pub fn send_video(&self, frame: EncodedFrame) {
        self.sender.send_video(frame);
    }

    /// See [`MediaSender::send_audio`].
    pub fn send_audio(&self, packet: EncodedAudio) {
        self.sender.send_audio(packet);
    }

    /// Figures of now.
    pub fn stats(&self) -> PublicationStats {
        let outbox = &self.sender.outbox;
        let target = outbox.target_bps.load(Ordering::Relaxed);
        PublicationStats {
            transport: self.connection.transport_stats(),
            video: self.video.as_ref().map(|_| lock(&outbox.video_sent).snapshot()),
            audio: self.audio.as_ref().map(|_| lock(&outbox.audio_sent).snapshot()),
            target_bitrate_bps: (target > 0).then_some(target),
        }
    }

    /// Ends the connection and its tasks; returns within 200 ms. Dropping the handle does the same without waiting.
    pub async fn close(&self) {
        self.connection.close().await;
    }
}

async fn add_line(
    connection: &Connection,
    kind: RtpCodecKind,
    stream: &str,
    sources: &[(u32, Option<u32>)],
) -> Result<Line, PeerError> {
    // Without a codec in the track the offer lists every registered one; Opus is the only one of its kind, and VP8 with layers.
    let codec = match (kind, sources.len()) {
        (RtpCodecKind::Audio, _) => engine::audio_codec(),
        (_, 1) => RTCRtpCodec::default(),
        _ => engine::video_codec(VideoCodec::Vp8),
    };
    let track: Arc<dyn TrackLocal> = Arc::new(TrackLocalStaticRTP::new(media_track(kind, stream, sources, &codec)));
    let init = RTCRtpTransceiverInit {
        direction: RTCRtpTransceiverDirection::Sendonly,
        streams: vec![stream.to_owned()],
        ..RTCRtpTransceiverInit::default()
    };
    let transceiver = limited(connection.pc.add_transceiver_from_track(Arc::clone(&track), Some(init))).await?;
    let sender = limited(transceiver.sender()).await?.ok_or(PeerError::Build("no sender".to_owned()))?;
    Ok(Line { track, sender, transceiver, sources: sources.to_vec() })
}

/// The first codec of an answer's video m-line that we can send.
fn accepted_codec(answer: &sdp::Summary) -> Option<VideoCodec> {
    let media = answer.media.iter().find(|media| media.kind == sdp::MediaKind::Video && media.port != 0)?;
    media.codecs.iter().find_map(|codec| match codec.name.to_ascii_uppercase().as_str() {
        "VP8" => Some(VideoCodec::Vp8),
        "H264" if codec.fmtp_parameter("packetization-mode") == Some("1") => Some(VideoCodec::H264),
        _ => None,
    })
}

fn accepts_opus(answer: &sdp::Summary) -> bool {
    answer
        .media
        .iter()
        .any(|media| media.kind == sdp::MediaKind::Audio && media.port != 0 && media.codec("opus").is_some())
}
