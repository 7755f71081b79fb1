//! One peer connection of the server: the living stack of `peer_support` behind the recorded texts.

use std::net::UdpSocket;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rtc::rtcp::payload_feedbacks::full_intra_request::{FirEntry, FullIntraRequest};
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::media_stream::track_local::static_rtp::TrackLocalStaticRTP;

use super::media::{Feed, Packet};
use crate::peer_support::{Other, black_hole, dressed_up, opus, video};

const SOON: Duration = Duration::from_secs(10);
/// Kurento's own source in RTCP.
const OWN_SSRC: u32 = 5;

pub fn fixture(path: &str) -> String {
    std::fs::read_to_string(format!("tests/fixtures/{path}")).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A stream's wish for a key frame, which outlives the leg that publishes it.
#[derive(Default)]
pub struct KeyWish {
    number: AtomicU8,
    pending: AtomicBool,
    /// Requests that were answered by a key frame, with the time it took.
    pub answered: Mutex<Vec<Duration>>,
    since: Mutex<Option<Instant>>,
}

impl KeyWish {
    pub fn wish(&self) {
        self.number.fetch_add(1, Ordering::Relaxed);
        self.since.lock().unwrap().get_or_insert_with(Instant::now);
        self.pending.store(true, Ordering::Relaxed);
    }

    fn came(&self) {
        if self.pending.swap(false, Ordering::Relaxed)
            && let Some(since) = self.since.lock().unwrap().take()
        {
            self.answered.lock().unwrap().push(since.elapsed());
        }
    }
}

/// What RTCP a publisher gets.
#[derive(Default)]
pub struct Control {
    /// bit/s; 0 says nothing.
    pub remb_bps: AtomicU64,
    /// Key frames are asked for by PLI instead of FIR.
    pub by_pli: AtomicBool,
}

/// What becomes of a packet on its way to a subscriber.
pub enum Way {
    Clear,
    /// The whole frame is never sent.
    FrameLeftOut,
    /// It has a number and does not arrive, nor does any repeat.
    PacketLost,
}

/// One leg.
pub struct Leg {
    pub other: Arc<Other>,
    /// The UDP candidate of the living stack.
    candidate: String,
    /// What the candidates of component 2 lead to.
    hole: UdpSocket,
    mids: Vec<String>,
    audio: Option<Arc<TrackLocalStaticRTP>>,
    video: Option<Arc<TrackLocalStaticRTP>>,
    ssrcs: (u32, u32),
    payload_types: (u8, u8),
    video_ssrc_of_client: Option<u32>,
    pub closed: AtomicBool,
}

/// Which kinds an SDP has.
fn kinds(sdp: &str) -> (bool, bool) {
    (sdp.contains("m=audio"), sdp.contains("m=video"))
}

fn record(stem: &str, (audio, video): (bool, bool), role: &str) -> String {
    let kind = match (audio, video) {
        (true, true) => "",
        (true, false) => "-audio-only",
        _ => "-video-only",
    };
    // With one kind only, there is no record of a reconnection; it differs in nothing but random text.
    let stem = match (kind, stem) {
        ("", stem) => stem,
        (_, "reconnect-publisher") => "publish",
        (_, "reconnect-subscriber") => "subscribe",
        (_, stem) => stem,
    };
    fixture(&format!("sdp/kms-{stem}{kind}-{role}.sdp"))
}

/// What Kurento makes of its recorded answer for this offer: only payload types that were offered, and the offer's attributes of the session
/// copied, whatever they are.
fn adapted(record: &str, offer: &str) -> String {
    let offered: Vec<&str> = offer.lines().filter(|l| l.starts_with("m=")).collect();
    let session = offer.split("m=").next().unwrap_or_default();
    let copied: Vec<&str> =
        session.lines().map(str::trim_end).filter(|l| l.starts_with("a=") && !l.starts_with("a=group")).collect();
    let (mut out, mut line_of_offer, mut media) = (Vec::new(), "", 0);
    for line in record.lines().map(str::trim_end) {
        if let Some(rest) = line.strip_prefix("m=") {
            if media == 0 {
                out.extend(copied.iter().map(|l| (*l).to_owned()));
            }
            line_of_offer = offered.get(media).expect("as many m-lines as offered");
            media += 1;
            let mut fields: Vec<&str> = rest.split(' ').collect();
            let known: Vec<&str> = line_of_offer.split(' ').skip(3).map(str::trim_end).collect();
            fields.retain(|f| f.parse::<u8>().is_err() || *f == "1" || known.contains(f));
            out.push(format!("m={}", fields.join(" ")));
            continue;
        }
        let of_session = media == 0;
        if of_session && line.starts_with("a=") && !line.starts_with("a=group") {
            continue;
        }
        let about = ["a=rtpmap:", "a=fmtp:", "a=rtcp-fb:"].iter().find_map(|p| line.strip_prefix(p));
        // The parameters are those of the offer.
        if line.starts_with("a=fmtp:")
            && let Some(same) = offer.lines().find(|l| l.starts_with(line.split(' ').next().unwrap_or_default()))
        {
            out.push(same.trim_end().to_owned());
            continue;
        }
        if let Some(about) = about
            && !line_of_offer.split(' ').skip(3).any(|pt| Some(pt.trim_end()) == about.split(' ').next())
        {
            continue;
        }
        out.push(line.to_owned());
    }
    out.iter().map(|l| format!("{l}\r\n")).collect()
}

/// The recorded sources replaced by those of the living tracks, in the order of the m-lines.
fn with_ssrcs(sdp: &str, ssrcs: &[u32]) -> String {
    let mut left = ssrcs.iter();
    sdp.lines()
        .map(str::trim_end)
        .map(|line| match line.strip_prefix("a=ssrc:").and_then(|rest| rest.split_once(' ')) {
            Some((_, rest)) => format!("a=ssrc:{} {rest}\r\n", left.next().expect("one source per m-line")),
            None => format!("{line}\r\n"),
        })
        .collect()
}

fn random_ssrc() -> u32 {
    rand::random::<u32>() | 1
}

impl Leg {
    async fn finish(mut other: Other, mids: Vec<String>, client: Option<&str>) -> Self {
        let candidate = tokio::time::timeout(SOON, other.candidates.recv()).await.unwrap().unwrap();
        let video_ssrc_of_client = client.and_then(|offer| {
            let section = offer.split("m=video").nth(1)?;
            let line = section.lines().find_map(|l| l.strip_prefix("a=ssrc:"))?;
            line.split(' ').next()?.parse().ok()
        });
        Self {
            other: Arc::new(other),
            candidate,
            hole: black_hole().0,
            mids,
            audio: None,
            video: None,
            ssrcs: (0, 0),
            payload_types: (0, 0),
            video_ssrc_of_client,
            closed: AtomicBool::new(false),
        }
    }

    /// Answers a publisher's offer, or a subscriber's with `feed` behind it; `stem` names the record.
    pub async fn answering(offer: &str, stem: &str, codec: &str, sends: bool) -> (Self, String) {
        let has = kinds(offer);
        let payload_type = if codec == "H264" { 102 } else { 96 };
        let other = Other::new(111, codec, payload_type).await;
        let ssrcs = (random_ssrc(), random_ssrc());
        let (mut audio, mut picture) = (None, None);
        if sends && has.0 {
            audio = Some(other.add_track(opus(), ssrcs.0).await);
        }
        if sends && has.1 {
            picture = Some(other.add_track(video(codec), ssrcs.1).await);
        }
        let living = other.answer(offer).await;
        let stem = match (codec, stem) {
            ("H264", "publish" | "reconnect-publisher") => "publish-h264",
            ("H264", _) => "subscribe-h264",
            (_, stem) => stem,
        };
        let answer = dressed_up(&adapted(&record(stem, has, "answer"), offer), &living, None);
        let mine: Vec<u32> = [(has.0, ssrcs.0), (has.1, ssrcs.1)].iter().filter(|(h, _)| *h).map(|(_, s)| *s).collect();
        let answer = with_ssrcs(&answer, &mine);
        let mids = (0..mine.len()).map(|i| i.to_string()).collect();
        let mut leg = Self::finish(other, mids, Some(offer)).await;
        (leg.audio, leg.video, leg.ssrcs, leg.payload_types) = (audio, picture, ssrcs, (111, payload_type));
        (leg, answer)
    }

    /// Makes an offer of its own, under Kurento's numbers and names.
    pub async fn offering(has: (bool, bool)) -> (Self, String) {
        let other = Other::new(96, "VP8", 104).await;
        let ssrcs = (random_ssrc(), random_ssrc());
        let (mut audio, mut picture) = (None, None);
        if has.0 {
            audio = Some(other.add_track(opus(), ssrcs.0).await);
        }
        if has.1 {
            picture = Some(other.add_track(video("VP8"), ssrcs.1).await);
        }
        let living = other.offer().await;
        let whole = fixture("sdp/kms-subscribe-offer.sdp");
        // One m-line less and a shorter bundle, where the stream has one kind only.
        let (session, media) = whole.split_once("m=audio").unwrap();
        let (sound, sight) = media.split_once("m=video").unwrap();
        let mut text = session.to_owned();
        let mut mine = Vec::new();
        let mut mids = Vec::new();
        if has.0 {
            text.push_str(&format!("m=audio{sound}"));
            mine.push(ssrcs.0);
            mids.push("audio0".to_owned());
        }
        if has.1 {
            text.push_str(&format!("m=video{sight}"));
            mine.push(ssrcs.1);
            mids.push("video0".to_owned());
        }
        let text = text.replace("BUNDLE audio0 video0", &format!("BUNDLE {}", mids.join(" ")));
        let offer = with_ssrcs(&dressed_up(&text, &living, None), &mine);
        let mut leg = Self::finish(other, mids, None).await;
        (leg.audio, leg.video, leg.ssrcs, leg.payload_types) = (audio, picture, ssrcs, (96, 104));
        (leg, offer)
    }

    /// The answer to [`Self::offering`]. The other stack numbers its m-lines itself.
    pub async fn set_answer(&self, answer: &str) {
        let mut answer = answer.to_owned();
        for (i, mid) in self.mids.iter().enumerate() {
            answer = answer.replace(mid, &i.to_string());
        }
        self.other.set_answer(&answer).await;
    }

    /// Kurento's candidates as recorded, in their order: UDP, TCP, both components, once per m-line.
    pub fn candidates(&self, file: &str) -> Vec<(String, String, usize)> {
        let fields: Vec<&str> = self.candidate.trim_start_matches("candidate:").split(' ').collect();
        let (address, port) = (fields[4], fields[5]);
        let dead = self.hole.local_addr().unwrap().port().to_string();
        let recorded: Vec<Value> = serde_json::from_str(&fixture(&format!("sdp/{file}.json"))).unwrap();
        let mut out = Vec::new();
        for one in recorded.iter().filter(|c| c["from"] == "kms").take(12) {
            let index = one["sdpMLineIndex"].as_u64().unwrap() as usize;
            let Some(mid) = self.mids.get(index) else { continue };
            let mut line: Vec<&str> = one["candidate"].as_str().unwrap().split(' ').collect();
            line[4] = address;
            if line[2] == "UDP" {
                line[5] = if line[1] == "1" { port } else { &dead };
            }
            out.push((line.join(" "), mid.clone(), index));
        }
        assert!(out.iter().any(|(c, ..)| c.starts_with("candidate:1 2 UDP")), "the record has the trap");
        out
    }

    /// Whether a candidate of component 2 was tried.
    pub fn component_two_was_used(&self) -> bool {
        self.hole.set_nonblocking(true).unwrap();
        self.hole.recv(&mut [0; 2048]).is_ok()
    }

    pub async fn add_candidate(&self, candidate: &str) {
        self.other.add_candidate(candidate).await;
    }

    /// Closes without waiting.
    pub fn forget(self: Arc<Self>) {
        tokio::spawn(async move { self.close().await });
    }

    pub async fn close(&self) {
        if !self.closed.swap(true, Ordering::Relaxed) {
            drop(self.other.pc.close().await);
        }
    }

    /// Passes on what the client publishes, and tells it what Kurento tells: an empty report, FIR until a key frame comes, REMB.
    pub fn serve_publisher(self: &Arc<Self>, feed: Feed, wish: Arc<KeyWish>, control: Arc<Control>) {
        let leg = Arc::clone(self);
        tokio::spawn(async move {
            let (mut done, mut round, mut asked) = (0, 0u32, 0);
            while !leg.closed.load(Ordering::Relaxed) {
                tokio::time::sleep(Duration::from_millis(4)).await;
                let new: Vec<_> = {
                    let all = leg.other.packets.lock().unwrap();
                    all[done..].to_vec()
                };
                done += new.len();
                for (kind, packet) in new {
                    let packet = Packet {
                        kind,
                        timestamp: packet.header.timestamp,
                        marker: packet.header.marker,
                        payload: packet.payload,
                    };
                    if packet.begins_key_frame() {
                        wish.came();
                    }
                    drop(feed.send(packet));
                }
                round += 1;
                let track = leg.other.tracks.lock().unwrap().first().cloned();
                let (Some(track), Some(ssrc)) = (track, leg.video_ssrc_of_client) else { continue };
                let number = wish.number.load(Ordering::Relaxed);
                let pending = wish.pending.load(Ordering::Relaxed);
                let mut compound: Vec<Box<dyn rtc::rtcp::Packet>> =
                    vec![Box::new(ReceiverReport { ssrc: OWN_SSRC, ..Default::default() })];
                // The same request is repeated two or three times a second.
                if pending && (number != asked || round.is_multiple_of(100)) {
                    asked = number;
                    if control.by_pli.load(Ordering::Relaxed) {
                        compound.push(Box::new(PictureLossIndication { sender_ssrc: OWN_SSRC, media_ssrc: ssrc }));
                    } else {
                        let fir = vec![FirEntry { ssrc, sequence_number: number }];
                        compound.push(Box::new(FullIntraRequest { sender_ssrc: OWN_SSRC, media_ssrc: 0, fir }));
                    }
                }
                let bps = control.remb_bps.load(Ordering::Relaxed);
                if bps > 0 && round.is_multiple_of(200) {
                    compound.push(Box::new(ReceiverEstimatedMaximumBitrate {
                        sender_ssrc: OWN_SSRC,
                        bitrate: bps as f32,
                        ssrcs: vec![ssrc],
                    }));
                }
                if compound.len() > 1 {
                    drop(track.write_rtcp(compound).await);
                }
            }
        });
    }

    /// Sends a stream to the client once connected; a key frame is asked for then, and never again, whatever the client says.
    pub fn serve_subscriber(
        self: &Arc<Self>,
        feed: &Feed,
        ask_key_frame: impl Fn() + Send + 'static,
        on_the_way: impl Fn(bool) -> Way + Send + 'static,
    ) {
        let (leg, mut packets) = (Arc::clone(self), feed.subscribe());
        tokio::spawn(async move {
            let mut numbers: (u16, u16) = (rand::random(), rand::random());
            let mut connected = false;
            let mut without = None;
            while !leg.closed.load(Ordering::Relaxed) {
                let packet = match packets.recv().await {
                    Ok(packet) => packet,
                    Err(RecvError::Lagged(_)) => continue,
                    Err(RecvError::Closed) => return,
                };
                if !leg.other.connected() {
                    continue;
                }
                if !std::mem::replace(&mut connected, true) {
                    ask_key_frame();
                }
                let video = packet.kind == RtpCodecKind::Video;
                match on_the_way(packet.begins_key_frame()) {
                    Way::FrameLeftOut => without = Some(packet.timestamp),
                    Way::PacketLost if video => {
                        numbers.1 = numbers.1.wrapping_add(1);
                        continue;
                    }
                    _ => {}
                }
                if video && without == Some(packet.timestamp) {
                    continue;
                }
                let (track, ssrc, payload_type, number) = match video {
                    true => (&leg.video, leg.ssrcs.1, leg.payload_types.1, &mut numbers.1),
                    false => (&leg.audio, leg.ssrcs.0, leg.payload_types.0, &mut numbers.0),
                };
                let Some(track) = track else { continue };
                *number = number.wrapping_add(1);
                let header = rtc::rtp::Header {
                    version: 2,
                    marker: packet.marker,
                    payload_type,
                    sequence_number: *number,
                    timestamp: packet.timestamp,
                    ssrc,
                    ..Default::default()
                };
                drop(track.write_rtp(rtc::rtp::Packet { header, payload: packet.payload }).await);
            }
        });
    }
}
