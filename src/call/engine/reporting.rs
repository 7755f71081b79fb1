//! What is shown and what is reported.

use std::time::Duration;

use super::Engine;
use super::figures::bitrate;
use super::people::Person;
use super::receiving::Stream;
use crate::call::report::{
    AudioReport, ConnectionReport, DevicesReport, PatternReport, Report, SCHEMA, SessionReport, StreamReport,
    VideoReport,
};
use crate::call::view::{Connection, DeviceState, Me, Person as PersonView, Tile, TileKind, View, Vouched};
use crate::peer::{ReceiveStats, SendStats};
use crate::rtp::simulcast::layer_name;
use crate::signaling::tls::Trust;

/// What the report calls us.
const OURSELVES: &str = "participant-1";

impl Engine {
    pub(super) fn build_view(&self) -> View {
        let joined = self.place.joined.as_ref();
        let mut tiles: Vec<Tile> =
            self.people.iter().filter(|p| !p.ours && !self.config.media.publish_only).map(tile).collect();
        if self.sound_only {
            tiles.iter_mut().for_each(|tile| tile.video_active = false);
        }
        tiles.push(self.own_tile());
        View {
            session: joined.map_or_else(String::new, |j| j.session.clone()),
            server: joined.map_or_else(String::new, |j| j.host.clone()),
            trust: if self.config.target.source.is_plain() {
                Vouched::Plain
            } else if self.config.target.trust == Trust::Anything {
                Vouched::Nobody
            } else {
                Vouched::Certificate
            },
            connection: self.connection.clone(),
            me: Me {
                name: self.config.name.clone(),
                connection_id: joined.map_or_else(String::new, |j| j.connection_id.clone()),
                may_publish: joined.is_some_and(|j| j.role.may_publish()) && !self.config.media.subscribe_only,
                moderator: joined.is_some_and(|j| j.role.may_moderate()),
                microphone: self.own.microphone_state.clone(),
                camera: self.own.camera_state.clone(),
                sharing: self.sharing(),
                tuning: self.config.media.tuning,
                level: self.own.level.clone(),
            },
            people: self
                .people
                .iter()
                .filter(|p| !p.ours && !p.screen)
                .map(|p| PersonView {
                    key: p.key.clone(),
                    name: p.name.clone(),
                    connection_id: p.connection_id.clone(),
                    gain: p.gain,
                })
                .collect(),
            tiles,
            chat: self.chat.clone(),
            notices: self.standing.clone(),
            joined_at: self.joined_at,
            rtt_ms: self.place.rtt_ms.map(|ms| ms as f32),
            sound_only: self.sound_only,
        }
    }

    fn own_tile(&self) -> Tile {
        Tile {
            key: "me/camera".to_owned(),
            person: "me".to_owned(),
            stream_id: self.own.publishing.as_ref().and_then(|p| p.stream_id.clone()).unwrap_or_default(),
            connection_id: self.place.joined.as_ref().map_or_else(String::new, |j| j.connection_id.clone()),
            name: self.config.name.clone(),
            own: true,
            kind: if self.own.source_word() == "screen" { TileKind::Screen } else { TileKind::Camera },
            audio_active: !self.own.audio_muted && self.own.microphone_state == DeviceState::On,
            video_active: !self.own.video_muted && self.own.camera_state == DeviceState::On,
            pinned: false,
            frames: self.own.slot.clone(),
            level: self.own.level.clone(),
            stalled_ms: None,
            bars: 4,
            failure: match &self.own.camera_state {
                DeviceState::Failed(failure) => Some(failure.clone()),
                _ => None,
            },
        }
    }

    /// Looks at the path to the media server; the report keeps the last one known.
    pub(super) fn note_path(&mut self) {
        let own = self.own.publishing.as_ref().and_then(|p| p.line.handle()).map(|p| p.stats().transport);
        let others = self
            .people
            .iter()
            .filter_map(|p| Some(p.stream.as_ref()?.subscribed.as_ref()?.line.handle()?.stats().transport));
        for transport in own.into_iter().chain(others) {
            if transport.candidate.is_some() {
                self.place.candidate = transport.candidate;
                self.place.rtt_ms = transport.rtt_ms.or(self.place.rtt_ms);
                return;
            }
        }
    }

    pub(super) fn report(&self) -> Report {
        let joined = self.place.joined.as_ref();
        let mut streams: Vec<StreamReport> = self.ended_streams.clone();
        streams.extend(self.own_stream_report(false));
        streams.extend(
            self.people
                .iter()
                .filter(|p| !p.ours)
                .filter_map(|p| Some(self.stream_report(p, p.stream.as_ref()?, false))),
        );
        Report {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            command: self.config.command,
            ok: self.error.is_none(),
            error: self.error.clone(),
            session: SessionReport {
                id: joined.map(|j| j.session.clone()),
                server: joined.map(|j| j.server.name()),
                dialect: joined.map(|_| "openvidu2"),
                connection_id: joined.map(|j| j.connection_id.clone()),
                role: joined.map(|j| j.role.as_str().to_owned()),
                insecure: self.config.target.trust == Trust::Anything,
            },
            timeline_ms: self.timeline.clone(),
            connection: ConnectionReport {
                state: self.place.left_in.unwrap_or_else(|| state_word(&self.connection)).to_owned(),
                reconnects: self.place.reconnects,
                reconnect_ms: self.place.reconnect_ms.clone(),
                rtt_ms: self.place.rtt_ms,
                candidate: self.place.candidate.clone(),
            },
            streams,
            events: self.log.clone(),
            devices: DevicesReport {
                camera: self.own.camera_name.clone(),
                microphone: self.own.microphone_name.clone(),
                speaker: self.own.speaker_name.clone(),
            },
            process: self.config.meter.report(),
        }
    }

    fn report_name(&self, person: &Person) -> String {
        if self.config.report_names { person.name.clone() } else { format!("participant-{}", person.number) }
    }

    pub(super) fn collect_own_stream(&mut self) {
        if let Some(report) = self.own_stream_report(true) {
            self.push_ended(report);
        }
    }

    /// At the end: everything that still runs is reported as it stood.
    pub(super) fn collect_all_streams(&mut self) {
        self.collect_own_stream();
        let reports: Vec<StreamReport> = self
            .people
            .iter()
            .filter(|p| !p.ours)
            .filter_map(|p| Some(self.stream_report(p, p.stream.as_ref()?, true)))
            .collect();
        for report in reports {
            self.push_ended(report);
        }
        self.own.close();
        self.people.clear();
    }

    fn own_stream_report(&self, ended: bool) -> Option<StreamReport> {
        let publishing = self.own.publishing.as_ref()?;
        let stream_id = publishing.stream_id.clone()?;
        let stats = publishing.line.figures();
        let encoder = self.own.encoder.as_ref().map(|e| e.stats());
        let connected = publishing.connected_at.map_or(Duration::ZERO, |at| at.elapsed());
        let live_s = self.own.live().map(|d| d.as_secs_f64()).filter(|s| *s > 0.5);
        let video = publishing.has_video.then(|| {
            let send = stats.video.clone().unwrap_or_default();
            VideoReport {
                codec: send.codec.map(str::to_owned),
                width: encoder.as_ref().map(|e| e.width).filter(|w| *w > 0),
                height: encoder.as_ref().map(|e| e.height).filter(|h| *h > 0),
                layer: self.own.encoder.as_ref().and_then(|e| e.layers_sent()),
                fps: encoder.as_ref().zip(live_s).map(|(e, s)| e.frames as f64 / s),
                frames: encoder.as_ref().map(|e| e.frames),
                key_frames: encoder.as_ref().map(|e| e.key_frames),
                frames_dropped: encoder.as_ref().map(|e| e.dropped + send.frames_dropped),
                bitrate_bps: bitrate(ended, send.bytes, connected, send.bitrate_bps),
                target_bitrate_bps: self
                    .own
                    .target_bps
                    .or_else(|| encoder.as_ref().map(|e| u64::from(e.target_bitrate_bps))),
                time_to_720p_ms: self.own.sent_720p_after_ms,
                ..sent_packets(&send)
            }
        });
        let audio = publishing.has_audio.then(|| {
            let send = stats.audio.clone().unwrap_or_default();
            AudioReport {
                codec: send.codec.map(str::to_owned),
                packets: Some(send.packets),
                packets_lost: send.packets_lost,
                bitrate_bps: bitrate(ended, send.bytes, connected, send.bitrate_bps),
                jitter_ms: send.jitter_ms,
                muted: Some(self.own.audio_muted),
                level_dbfs: self.audio.as_ref().map(|a| f64::from(a.levels().processed_dbfs)),
                captured_dbfs: self.audio.as_ref().map(|a| f64::from(a.levels().captured_dbfs)),
                ..AudioReport::default()
            }
        });
        Some(StreamReport {
            stream_id,
            connection_id: self.place.joined.as_ref().map_or_else(String::new, |j| j.connection_id.clone()),
            name: if self.config.report_names { self.config.name.clone() } else { OURSELVES.to_owned() },
            direction: "send",
            source: self.own.source_word().to_owned(),
            video,
            audio,
        })
    }

    /// Of somebody's stream, as it is now or over all its time.
    pub(super) fn stream_report(&self, person: &Person, stream: &Stream, ended: bool) -> StreamReport {
        let joined = self.place.joined.as_ref();
        let all = stream.all_received();
        let video = stream.has_video.then(|| {
            // What was never subscribed to has no figures.
            let Some(video) = all.video else { return VideoReport::default() };
            let (receive, decoder) = (video.wire, video.decoder);
            let live_s = Some(decoder.live.as_secs_f64()).filter(|s| *s > 0.5);
            // Which layer the host has chosen shows in the size of the picture only.
            let layered = joined.is_some_and(|joined| joined.simulcast) && stream.source == "camera";
            let layer = stream.size.filter(|_| layered).and_then(|full| layer_name(full, decoder.width));
            VideoReport {
                layer: layer.map(str::to_owned),
                codec: receive.codec.map(str::to_owned),
                width: Some(decoder.width).filter(|w| *w > 0),
                height: Some(decoder.height).filter(|h| *h > 0),
                fps: live_s.map(|s| decoder.gaps as f64 / s),
                frames: Some(decoder.decoded),
                key_frames: Some(decoder.key_frames),
                frames_dropped: Some(decoder.dropped + receive.frames_dropped),
                freezes: Some(decoder.freezes),
                freeze_ms: Some(decoder.freeze_ms),
                bitrate_bps: bitrate(ended, receive.bytes, video.connected, receive.bitrate_bps),
                playout_delay_ms: video.held_ms,
                time_to_720p_ms: video.to_720p_ms,
                pattern: video.pattern.map(|p| PatternReport {
                    id: p.id,
                    frames_read: p.frames_read,
                    crc_errors: p.crc_errors,
                    latency_ms_p50: p.latency_ms_p50,
                    latency_ms_p95: p.latency_ms_p95,
                    skipped: p.skipped,
                }),
                ..received_packets(&receive)
            }
        });
        let audio = stream.has_audio.then(|| {
            let muted = Some(!stream.audio_active);
            let Some(audio) = all.audio else { return AudioReport { muted, ..AudioReport::default() } };
            let (receive, playout) = (audio.wire, audio.playout);
            let figure = |f: fn(&crate::media::audio::PlayoutStats) -> f32| playout.as_ref().map(|p| f64::from(f(p)));
            let heard = playout.as_ref().filter(|_| stream.subscribed.is_some() && stream.wants_audio);
            AudioReport {
                codec: receive.codec.map(str::to_owned),
                packets: playout.as_ref().map(|p| p.packets),
                packets_lost: playout.as_ref().map(|p| p.packets_lost),
                bitrate_bps: bitrate(ended, receive.bytes, audio.connected, receive.bitrate_bps),
                jitter_ms: figure(|p| p.jitter_ms),
                playout_delay_ms: figure(|p| p.playout_delay_ms),
                concealed_ms: playout.as_ref().map(|p| p.concealed_ms),
                target_delay_ms: figure(|p| p.target_delay_ms),
                playout_delay_history_ms: playout.as_ref().map(|p| p.delays_ms.clone()),
                target_delay_history_ms: playout.as_ref().map(|p| p.targets_ms.clone()),
                corrected_ms: playout.as_ref().map(|p| p.fec_ms),
                accelerated_ms: playout.as_ref().map(|p| p.accelerated_ms),
                decelerated_ms: playout.as_ref().map(|p| p.decelerated_ms),
                captured_dbfs: None,
                muted,
                level_dbfs: heard.and_then(|p| p.level_dbfs).map(f64::from),
                tone_hz: heard.and_then(|p| p.tone_hz).map(f64::from),
                av_offset_ms: audio.offset_ms,
            }
        });
        StreamReport {
            stream_id: stream.id.clone(),
            connection_id: person.connection_id.clone(),
            name: self.report_name(person),
            direction: "recv",
            source: if stream.screen { "screen".to_owned() } else { stream.source.clone() },
            video,
            audio,
        }
    }
}

fn sent_packets(send: &SendStats) -> VideoReport {
    VideoReport {
        packets: Some(send.packets),
        packets_lost: send.packets_lost,
        nacks: Some(send.nacks),
        plis: Some(send.plis),
        jitter_ms: send.jitter_ms,
        ..VideoReport::default()
    }
}

fn received_packets(receive: &ReceiveStats) -> VideoReport {
    VideoReport {
        packets: Some(receive.packets),
        packets_lost: Some(receive.packets_lost),
        packets_recovered: Some(receive.packets_recovered),
        nacks: Some(receive.nacks),
        plis: Some(receive.plis),
        jitter_ms: receive.jitter_ms,
        ..VideoReport::default()
    }
}

fn tile(person: &Person) -> Tile {
    let stream = person.stream.as_ref();
    Tile {
        key: format!("{}/{}", person.key, if person.screen { "screen" } else { "camera" }),
        person: person.key.clone(),
        stream_id: stream.map_or_else(String::new, |s| s.id.clone()),
        connection_id: person.connection_id.clone(),
        name: person.name.clone(),
        own: false,
        kind: if stream.is_some_and(|s| s.screen) { TileKind::Screen } else { TileKind::Camera },
        audio_active: stream.is_some_and(|s| s.has_audio && s.audio_active),
        video_active: stream.is_some_and(|s| s.has_video && s.video_active),
        pinned: person.pinned,
        frames: stream.map(|s| s.slot.clone()).unwrap_or_default(),
        level: stream.map(|s| s.level.clone()).unwrap_or_default(),
        stalled_ms: stream.and_then(|s| s.stalled_ms()),
        bars: stream.map_or(4, |s| s.bars),
        failure: stream.and_then(|s| s.failure.clone()),
    }
}

/// The word of the report for a state.
pub(super) fn state_word(connection: &Connection) -> &'static str {
    match connection {
        Connection::Idle => "idle",
        Connection::Joining(_) => "joining",
        Connection::Connected => "connected",
        Connection::Checking => "checking",
        Connection::Reconnecting { .. } => "reconnecting",
        Connection::Rejoining { .. } => "rejoining",
        Connection::Ended { .. } => "ended",
        Connection::Failed(_) => "failed",
    }
}
