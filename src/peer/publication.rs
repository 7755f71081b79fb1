//! One stream on its way out.

use super::config::{PublishMedia, TransportConfig};
use super::error::PeerError;
use super::event::PeerEvent;
use super::stats::PublicationStats;
use crate::rtp::frame::{EncodedAudio, EncodedFrame, VideoCodec};
use tokio::sync::mpsc;

/// A stream that we send: one peer connection, an audio and/or a video m-line, we offer.
#[derive(Debug)]
pub struct Publication {
    sender: MediaSender,
}

/// Hands encoded media to a [`Publication`]. Cheap to clone, never blocks, usable from any thread.
#[derive(Debug, Clone)]
pub struct MediaSender {}

impl MediaSender {
    /// Queues one access unit.
    pub fn send_video(&self, _frame: EncodedFrame) {}

    /// Queues one Opus packet.
    pub fn send_audio(&self, _packet: EncodedAudio) {}
}

impl Publication {
    /// Builds the connection. Must be called on a tokio runtime. The receiver's capacity is 512 events.
    pub async fn new(config: &TransportConfig, media: PublishMedia) -> Result<(Self, mpsc::Receiver<PeerEvent>), PeerError> {
        let _ = (config, media);
        Err(PeerError::Closed)
    }

    /// The SDP offer (sendonly, audio before video). Local candidates follow as [`PeerEvent::LocalCandidate`].
    pub async fn offer(&self) -> Result<String, PeerError> {
        Err(PeerError::Closed)
    }

    /// The other side's answer.
    pub async fn set_answer(&self, _sdp: &str) -> Result<(), PeerError> {
        Err(PeerError::Closed)
    }

    /// A candidate of the other side; kept until the answer is there. Those of component 2 are dropped.
    pub async fn add_candidate(&self, _candidate: &str, _sdp_mid: Option<String>, _sdp_mline_index: Option<u16>) -> Result<(), PeerError> {
        Err(PeerError::Closed)
    }

    /// The negotiated video codec: known after the answer, `None` when no video is sent.
    pub fn video_codec(&self) -> Option<VideoCodec> {
        None
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
        PublicationStats::default()
    }

    /// Ends the connection and its tasks; returns within 200 ms. Dropping the handle does the same without waiting.
    pub async fn close(&self) {}
}
