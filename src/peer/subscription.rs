//! One stream on its way in.

use super::config::{Sinks, SubscribeMedia, TransportConfig};
use super::connection::{Connection, limited, lock};
use super::engine;
use super::error::PeerError;
use super::event::PeerEvent;
use super::inbound::{self, AudioIn, Repair, VideoIn};
use super::net::RttProbe;
use super::receive;
use super::stats::SubscriptionStats;
use crate::rtp::frame::VideoCodec;
use crate::rtp::rtx::RtxMap;
use crate::rtp::sdp;
use crate::wire::{self, WireHandle};
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;
use webrtc::media_stream::track_remote::TrackRemote;
use webrtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};

/// A stream that we receive: one peer connection; either we offer (`offer`, `set_answer`) or the server does (`answer`).
pub struct Subscription {
    connection: Connection,
    media: SubscribeMedia,
    audio: Option<Arc<AudioIn>>,
    video: Option<Arc<VideoIn>>,
    wire: WireHandle,
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription")
            .field("connection", &self.connection)
            .field("media", &self.media)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    /// Builds the connection. Must be called on a tokio runtime. The receiver's capacity is 512 events.
    ///
    /// # Errors
    /// Nothing to receive, no usable address, or the stack refuses.
    pub async fn new(
        config: &TransportConfig,
        media: SubscribeMedia,
        sinks: Sinks,
    ) -> Result<(Self, mpsc::Receiver<PeerEvent>), PeerError> {
        if !media.audio && !media.video {
            return Err(PeerError::NoMedia);
        }
        let codecs = if media.video { VideoCodec::BUILT } else { &[] };
        let engine = engine::media_engine(media.audio, codecs, false)?;
        let wire = WireHandle::new();
        let (connection, events, tracks) = Connection::build(config, engine, wire::receiving(&wire)).await?;
        let shared = Arc::clone(&connection.shared);
        let audio =
            media.audio.then(|| Arc::new(AudioIn::new(Arc::clone(&shared), sinks.audio, config.transform.clone())));
        let video =
            media.video.then(|| Arc::new(VideoIn::new(Arc::clone(&shared), sinks.video, config.transform.clone())));
        let kinds = audio
            .iter()
            .map(|a| Arc::clone(&a.incoming))
            .chain(video.iter().map(|v| Arc::clone(&v.incoming)))
            .collect();
        connection.spawn(receive::watch_arrivals(shared, kinds));
        let subscription = Self { connection, media, audio, video, wire };
        subscription.connection.spawn(take_tracks(
            tracks,
            subscription.audio.clone(),
            subscription.video.clone(),
            subscription.connection.probe(),
        ));
        Ok((subscription, events))
    }

    /// The SDP offer (recvonly, audio before video) for servers that want one.
    ///
    /// # Errors
    /// Closed, or the stack refuses.
    pub async fn offer(&self) -> Result<String, PeerError> {
        for (kind, wanted) in [(RtpCodecKind::Audio, self.media.audio), (RtpCodecKind::Video, self.media.video)] {
            if wanted {
                let init = RTCRtpTransceiverInit {
                    direction: RTCRtpTransceiverDirection::Recvonly,
                    ..RTCRtpTransceiverInit::default()
                };
                limited(self.connection.pc.add_transceiver_from_kind(kind, Some(init))).await?;
            }
        }
        self.connection.offer().await
    }

    /// The other side's answer to our offer.
    ///
    /// # Errors
    /// [`PeerError::BadDescription`] for text that cannot be used, [`PeerError::OutOfOrder`] without an offer.
    pub async fn set_answer(&self, sdp: &str) -> Result<(), PeerError> {
        self.note_description(sdp);
        self.connection.set_answer(sdp).await
    }

    /// Our answer (recvonly) to the other side's offer.
    ///
    /// # Errors
    /// [`PeerError::BadDescription`] for text that cannot be used.
    pub async fn answer(&self, offer: &str) -> Result<String, PeerError> {
        self.note_description(offer);
        self.connection.answer(offer).await
    }

    /// Remembers what the other side is able to repair.
    fn note_description(&self, text: &str) {
        self.wire.add_rtx(RtxMap::from_sdp(text));
        let summary = sdp::Summary::parse(text);
        let repeats = |kind, name: &str| {
            let lines = summary.media.iter().filter(|media| media.kind == kind);
            lines.filter_map(|media| media.codec(name)).any(|codec| codec.has_feedback("nack", ""))
        };
        if let Some(audio) = &self.audio {
            audio.set_nack(repeats(sdp::MediaKind::Audio, "opus"));
        }
        if let Some(video) = &self.video {
            let nack = repeats(sdp::MediaKind::Video, "VP8") || repeats(sdp::MediaKind::Video, "H264");
            let kurento = text.lines().any(|line| line.trim_end() == "s=Kurento Media Server");
            video.set_repair(Repair { nack, kurento });
            if kurento {
                // It passes on to the publisher what its subscribers can take; our own host watches every leg itself.
                self.wire.tell_rate();
            }
        }
    }

    /// A candidate of the other side; kept until its description is there. Those of component 2 are dropped.
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

    /// The decoder lost its references: asks the sender for a key frame (PLI, at most one in 500 ms) and holds frames back until it comes.
    /// `false` when the other side is known to pass no request on, so that only a new connection brings one.
    pub fn request_key_frame(&self) -> bool {
        self.video.as_ref().is_none_or(|video| video.request_key_frame())
    }

    /// What the sender has announced: [`PeerEvent::Stalled`] is only raised for active kinds. Both are active at the start.
    pub fn set_expected_active(&self, audio: bool, video: bool) {
        let now = Instant::now();
        if let Some(track) = &self.audio {
            lock(&track.incoming.arrivals).expect(audio, now);
        }
        if let Some(track) = &self.video {
            lock(&track.incoming.arrivals).expect(video, now);
            if !video {
                track.note_pause();
            }
        }
    }

    /// Whether the picture may stand still for as long as it likes, as a shared page does: then silence is no stall.
    pub fn set_may_rest(&self, may_rest: bool) {
        if let Some(track) = &self.video {
            lock(&track.incoming.arrivals).set_may_rest(may_rest);
        }
    }

    /// Figures of now.
    pub fn stats(&self) -> SubscriptionStats {
        SubscriptionStats {
            transport: self.connection.transport_stats(),
            video: self.video.as_ref().map(|video| video.stats()),
            audio: self.audio.as_ref().map(|audio| audio.stats()),
        }
    }

    /// Ends the connection and its tasks; returns within 200 ms. Dropping the handle does the same without waiting.
    pub async fn close(&self) {
        self.connection.close().await;
    }
}

/// Serves each track in a task of its own: the stack drops packets of a track that nobody empties.
async fn take_tracks(
    mut tracks: mpsc::Receiver<Arc<dyn TrackRemote>>,
    audio: Option<Arc<AudioIn>>,
    video: Option<Arc<VideoIn>>,
    rtt: Arc<RttProbe>,
) {
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(track) = tracks.recv().await {
        match track.kind().await {
            RtpCodecKind::Audio => {
                tasks.spawn(inbound::audio_task(track, audio.clone()));
            }
            RtpCodecKind::Video => {
                tasks.spawn(inbound::video_task(track, video.clone(), Arc::clone(&rtt)));
            }
            _ => {}
        }
    }
    // The stack is gone; its tracks end by themselves.
    while tasks.join_next().await.is_some() {}
}
