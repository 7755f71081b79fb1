//! The report of `--stats-json`: what a call was like, without names, tokens or secrets.

use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use super::event::Event;

/// Version of the report's form.
pub const SCHEMA: u32 = 1;

/// One participant's report. Absent values are `null`, never a made-up zero.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Version of the program.
    pub version: &'static str,
    /// `join`, `call` …
    pub command: &'static str,
    /// Whether it went as wished.
    pub ok: bool,
    /// Why not.
    pub error: Option<String>,
    /// The session.
    pub session: SessionReport,
    /// When what happened, in ms from process start.
    pub timeline_ms: Timeline,
    /// The connection.
    pub connection: ConnectionReport,
    /// Every stream sent or received.
    pub streams: Vec<StreamReport>,
    /// Everything that happened.
    pub events: Vec<Event>,
    /// Devices that were really opened.
    pub devices: DevicesReport,
    /// Cost of the process.
    pub process: ProcessReport,
}

impl Report {
    /// The report of a call that could not even be begun: the link was not one.
    pub fn not_begun(command: &'static str, error: &str, failure: Event, process: ProcessReport) -> Self {
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            command,
            ok: false,
            error: Some(error.to_owned()),
            session: SessionReport::default(),
            timeline_ms: Timeline::default(),
            connection: ConnectionReport { state: "failed".to_owned(), ..ConnectionReport::default() },
            streams: Vec::new(),
            events: vec![failure],
            devices: DevicesReport::default(),
            process,
        }
    }
}

/// The session.
#[derive(Debug, Clone, Default, Serialize)]
pub struct SessionReport {
    /// Session id.
    pub id: Option<String>,
    /// `openvidu` or `tertulia`.
    pub server: Option<&'static str>,
    /// `openvidu2`.
    pub dialect: Option<&'static str>,
    /// Own connection id.
    pub connection_id: Option<String>,
    /// Own role.
    pub role: Option<String>,
    /// Whether any certificate was accepted (`--insecure`).
    pub insecure: bool,
}

/// When what happened, in ms from process start.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Timeline {
    /// WebSocket open.
    pub socket_open: Option<u64>,
    /// Join answered.
    pub joined: Option<u64>,
    /// Own stream on air.
    pub published: Option<u64>,
    /// First audio packet of somebody else.
    pub first_remote_audio: Option<u64>,
    /// First picture of somebody else ready.
    pub first_remote_frame: Option<u64>,
    /// Left.
    pub left: Option<u64>,
}

/// The connection.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ConnectionReport {
    /// Name of the state.
    pub state: String,
    /// How often it was lost and came back.
    pub reconnects: u32,
    /// How long each took.
    pub reconnect_ms: Vec<u64>,
    /// Round trip to the media server.
    pub rtt_ms: Option<f64>,
    /// Kind of the path, for example `host/udp`.
    pub candidate: Option<String>,
}

/// One stream.
#[derive(Debug, Clone, Default, Serialize)]
pub struct StreamReport {
    /// Stream id.
    pub stream_id: String,
    /// Connection id.
    pub connection_id: String,
    /// Name, or `participant-N`.
    pub name: String,
    /// `send` or `recv`.
    pub direction: &'static str,
    /// `camera`, `screen`, `ipcam` or `custom`.
    pub source: String,
    /// Video, if the stream has it.
    pub video: Option<VideoReport>,
    /// Audio, if the stream has it.
    pub audio: Option<AudioReport>,
}

/// Video of one stream.
#[derive(Debug, Clone, Default, Serialize)]
pub struct VideoReport {
    /// Codec name.
    pub codec: Option<String>,
    /// Width of the last picture.
    pub width: Option<u32>,
    /// Height of the last picture.
    pub height: Option<u32>,
    /// Simulcast layer.
    pub layer: Option<String>,
    /// Mean pictures per second while live.
    pub fps: Option<f64>,
    /// Pictures encoded or decoded.
    pub frames: Option<u64>,
    /// Key frames among them.
    pub key_frames: Option<u64>,
    /// Pictures given up.
    pub frames_dropped: Option<u64>,
    /// Freezes.
    pub freezes: Option<u64>,
    /// Their length in all.
    pub freeze_ms: Option<u64>,
    /// Rate of what is transported: the mean over the stream's time, or of the last two seconds while it runs.
    pub bitrate_bps: Option<u64>,
    /// Rate asked of the encoder.
    pub target_bitrate_bps: Option<u64>,
    /// Packets.
    pub packets: Option<u64>,
    /// Packets that never came.
    pub packets_lost: Option<u64>,
    /// Packets that came after being asked for.
    pub packets_recovered: Option<u64>,
    /// Packets asked for again.
    pub nacks: Option<u64>,
    /// Key frames asked for.
    pub plis: Option<u64>,
    /// Inter-arrival jitter.
    pub jitter_ms: Option<f64>,
    /// Time from last packet to ready.
    pub playout_delay_ms: Option<f64>,
    /// From first frame to 720 lines.
    pub time_to_720p_ms: Option<u64>,
    /// The test picture, if it is one.
    pub pattern: Option<PatternReport>,
}

/// The test picture.
#[derive(Debug, Clone, Default, Serialize)]
pub struct PatternReport {
    /// Source id, once a strip was whole.
    pub id: Option<u8>,
    /// Pictures in which it was found.
    pub frames_read: u64,
    /// Strips with a wrong check sum.
    pub crc_errors: u64,
    /// Capture to ready, median.
    pub latency_ms_p50: Option<f64>,
    /// Capture to ready, 95th percentile.
    pub latency_ms_p95: Option<f64>,
    /// Pictures whose time ran backwards or stood still.
    pub skipped: u64,
}

/// Audio of one stream.
#[derive(Debug, Clone, Default, Serialize)]
pub struct AudioReport {
    /// Codec name.
    pub codec: Option<String>,
    /// Packets.
    pub packets: Option<u64>,
    /// Packets that never came.
    pub packets_lost: Option<u64>,
    /// Rate of what is transported: the mean over the stream's time, or of the last two seconds while it runs.
    pub bitrate_bps: Option<u64>,
    /// Inter-arrival jitter.
    pub jitter_ms: Option<f64>,
    /// Delay of the jitter buffer.
    pub playout_delay_ms: Option<f64>,
    /// Delay that the jitter buffer steers to.
    pub target_delay_ms: Option<f64>,
    /// Its delay after each five seconds of sound, oldest first, of the last hour.
    pub playout_delay_history_ms: Option<Vec<u16>>,
    /// What the delay was steered to at the same moments.
    pub target_delay_history_ms: Option<Vec<u16>>,
    /// Sound made up for lost packets.
    pub concealed_ms: Option<u64>,
    /// Sound regained from the error correction in later packets.
    pub corrected_ms: Option<u64>,
    /// Sound shortened to catch up.
    pub accelerated_ms: Option<u64>,
    /// Sound lengthened to fall back.
    pub decelerated_ms: Option<u64>,
    /// Muted, by announcement or by us.
    pub muted: Option<bool>,
    /// Level over the last second; of our own microphone after processing.
    pub level_dbfs: Option<f64>,
    /// Level of our own microphone before processing.
    pub captured_dbfs: Option<f64>,
    /// Strongest frequency over the last second.
    pub tone_hz: Option<f64>,
    /// How far pictures are shown after (+) or before (−) their sound; by flashes and clicks where there are any.
    pub av_offset_ms: Option<f64>,
}

/// Devices that were really opened.
#[derive(Debug, Clone, Default, Serialize)]
pub struct DevicesReport {
    /// Camera, as its driver names it.
    pub camera: Option<String>,
    /// Microphone.
    pub microphone: Option<String>,
    /// Speaker.
    pub speaker: Option<String>,
}

/// Cost of the process.
#[derive(Debug, Clone, Default, Serialize)]
pub struct ProcessReport {
    /// Since start.
    pub wall_s: f64,
    /// User and system time.
    pub cpu_s: Option<f64>,
    /// Peak memory.
    pub rss_peak_bytes: Option<u64>,
    /// Most threads seen.
    pub threads_peak: Option<u64>,
    /// Most open files seen.
    pub fds_peak: Option<u64>,
}

/// Writes `value` to `path` as a whole or not at all.
///
/// # Errors
/// The folder is missing or not writable.
pub fn write_json(path: &Path, value: &impl Serialize) -> std::io::Result<()> {
    let value: Value = serde_json::to_value(value).map_err(std::io::Error::other)?;
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let file = tempfile::Builder::new().prefix(".tertulia-report").tempfile_in(folder)?;
    serde_json::to_writer_pretty(&file, &value).map_err(std::io::Error::other)?;
    file.as_file().sync_all()?;
    // A temporary file is private; a report is read by other tools.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.persist(path).map_err(|e| e.error)?;
    Ok(())
}
