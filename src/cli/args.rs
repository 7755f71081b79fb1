//! The command line as `docs/cli.md` fixes it.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Native desktop conferencing: joins OpenVidu 2 sessions, hosts its own.
#[derive(Debug, Parser)]
#[command(name = "tertulia", version, about, propagate_version = true, subcommand_precedence_over_arg = true)]
pub struct Cli {
    /// What to do; without it the app opens.
    #[command(subcommand)]
    pub command: Option<CommandLine>,
    /// An invitation to open in the app.
    pub link: Option<String>,
    /// Start without a window, in the tray.
    #[arg(long)]
    pub background: bool,
    /// Options of every command.
    #[command(flatten)]
    pub common: Common,
}

/// Reads a number of seconds; not more than a year, so that no clock overflows.
fn seconds(text: &str) -> Result<f64, String> {
    text.parse()
        .ok()
        .filter(|s: &f64| (0.0..=31_536_000.0).contains(s))
        .ok_or_else(|| "a number of seconds, 0 or more".to_owned())
}

/// Options of every command.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Impair our own media sockets: loss=%,burst=packets,delay=ms,jitter=ms,rate=kbit/s,queue=ms, prefixed up: or down: for one direction.
    #[arg(long, value_name = "SPEC", global = true)]
    pub simulate_network: Option<String>,
    /// Folder of the settings instead of the system's.
    #[arg(long, value_name = "DIR", global = true)]
    pub config: Option<PathBuf>,
    /// More log lines on stderr (repeatable).
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// No log lines at all.
    #[arg(long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,
    /// End as soon as the window can be used: for `bench start`.
    #[arg(long, global = true, hide = true)]
    pub exit_when_usable: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum CommandLine {
    /// Join a session.
    Join(JoinArgs),
    /// Be the server: sessions, signaling and media of others go through this computer.
    Host(HostArgs),
    /// A call of several participants on this computer, through the real stack.
    Demo(DemoArgs),
    /// Be found on the network and take calls.
    Available(AvailableArgs),
    /// Ring somebody.
    Call(CallArgs),
    /// People and rooms on this network.
    Lan(LanArgs),
    /// Check devices, network and a server.
    Doctor(DoctorArgs),
    /// Measure.
    Bench(BenchArgs),
}

/// Role asked for at an OpenVidu server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "UPPER")]
pub enum Role {
    /// May publish.
    Publisher,
    /// May only watch.
    Subscriber,
    /// May also remove others.
    Moderator,
}

impl Role {
    /// OpenVidu's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Publisher => "PUBLISHER",
            Self::Subscriber => "SUBSCRIBER",
            Self::Moderator => "MODERATOR",
        }
    }
}

/// Video codec to prefer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Codec {
    /// VP8 first, H264 where the server wants it.
    Auto,
    /// VP8 only.
    Vp8,
    /// H264 only.
    H264,
}

/// What a shared screen is tuned for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ScreenFor {
    /// Text, until a film is seen on it.
    Auto,
    /// Every pixel, up to 15 pictures a second.
    Text,
    /// Up to 1920x1080@30; details may be softer.
    Motion,
}

/// Echo, noise and gain stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Processing {
    /// On for devices, off for tone and file.
    Auto,
    /// Always on.
    On,
    /// Always off.
    Off,
}

/// Media options shared by `join`, `call` and `available`.
#[derive(Debug, Clone, Args)]
pub struct MediaArgs {
    /// The name others see.
    #[arg(long, value_name = "NICK")]
    pub name: Option<String>,
    /// No window; commands on standard input, events on standard output.
    #[arg(long)]
    pub headless: bool,
    /// Where our picture comes from.
    #[arg(
        long,
        value_name = "SOURCE",
        help = "pattern[+sync][:ID[:WxH@FPS]], file:PATH, device[:INDEX or NAME[:WxH@FPS]] or none"
    )]
    pub camera: Option<String>,
    /// Where our sound comes from.
    #[arg(long, value_name = "SOURCE", help = "tone[:HZ], file:PATH, device[:ID] or none")]
    pub microphone: Option<String>,
    /// Where the others' sound goes.
    #[arg(long, value_name = "SINK", help = "device[:ID], file:PATH or null")]
    pub speaker: Option<String>,
    /// Which screen is shared.
    #[arg(
        long,
        value_name = "SOURCE",
        help = "pattern[:ID[:WxH@FPS]], file:PATH, monitor[:N], window:TITLE or portal"
    )]
    pub screen: Option<String>,
    /// What the shared screen is tuned for: text is sharp, motion is smooth.
    #[arg(long, value_enum, default_value = "auto")]
    pub screen_for: ScreenFor,
    /// Share the sound of this computer with the screen, without the voices of the call.
    #[arg(long)]
    pub screen_sound: bool,
    /// Watch and listen only.
    #[arg(long)]
    pub subscribe_only: bool,
    /// Role asked for when the token is fetched from a server: PUBLISHER by default, the highest of an invitation.
    #[arg(long, value_enum, ignore_case = true)]
    pub role: Option<Role>,
    /// Video codec.
    #[arg(long, value_enum, default_value = "auto")]
    pub codec: Codec,
    /// Echo, noise and gain stages.
    #[arg(long, value_enum, default_value = "auto")]
    pub processing: Processing,
    /// Join with the microphone muted.
    #[arg(long)]
    pub audio_off: bool,
    /// Join with the camera off.
    #[arg(long)]
    pub video_off: bool,
    /// Accept any certificate from this one server.
    #[arg(long)]
    pub insecure: bool,
    /// Leave by itself after so many seconds.
    #[arg(long, value_name = "N", value_parser = seconds)]
    pub seconds: Option<f64>,
    /// Write the report there.
    #[arg(long, value_name = "PATH")]
    pub stats_json: Option<PathBuf>,
    /// Write the picture of the grid there.
    #[arg(long, value_name = "PNG")]
    pub snapshot: Option<PathBuf>,
    /// Keep people's names in the report.
    #[arg(long)]
    pub report_names: bool,
}

/// Arguments of `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// A token, an invitation, a server's address with --session, or - to read either from standard input.
    #[arg(value_name = "TOKEN-URL | tertulia://INVITATION | https://SERVER | -")]
    pub target: String,
    /// Session name on a server.
    #[arg(long, value_name = "NAME")]
    pub session: Option<String>,
    /// Environment variable that holds the OpenVidu server's secret.
    #[arg(long, value_name = "VAR")]
    pub secret_env: Option<String>,
    /// Media options.
    #[command(flatten)]
    pub media: MediaArgs,
}

/// Rule of a room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Rule {
    /// Everybody may publish.
    Conference,
    /// One presenter, many viewers.
    Broadcast,
    /// Talkers and watchers.
    TalkWatch,
}

/// Arguments of `host`.
#[derive(Debug, Args)]
pub struct HostArgs {
    /// Address and TCP port.
    #[arg(long, value_name = "ADDR:PORT", default_value = "0.0.0.0:4443")]
    pub listen: SocketAddr,
    /// UDP port of all media; the TCP port's number by default.
    #[arg(long, value_name = "N")]
    pub udp_port: Option<u16>,
    /// Environment variable that holds the REST secret; a random one by default.
    #[arg(long, value_name = "VAR")]
    pub secret_env: Option<String>,
    /// Open a room and print its invitation.
    #[arg(long, value_name = "NAME")]
    pub session: Option<String>,
    /// Plain HTTP and WebSocket, for loopback and tests.
    #[arg(long)]
    pub no_tls: bool,
    /// Be found on the network under this name.
    #[arg(long, value_name = "NAME")]
    pub advertise: Option<String>,
    /// Rule of the rooms.
    #[arg(long, value_enum, default_value = "conference")]
    pub rule: Rule,
    /// Where certificate and rooms are kept.
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// End by itself after so many seconds.
    #[arg(long, value_name = "N", value_parser = seconds)]
    pub seconds: Option<f64>,
    /// Write the report there.
    #[arg(long, value_name = "PATH")]
    pub stats_json: Option<PathBuf>,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// How many take part.
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub participants: u32,
    /// How long; without it until the window closes (15 s with --headless).
    #[arg(long, value_name = "N", value_parser = seconds)]
    pub seconds: Option<f64>,
    /// Picture size and rate.
    #[arg(long, value_name = "WxH@FPS", default_value = "640x360@30")]
    pub size: String,
    /// No window: a live table instead.
    #[arg(long)]
    pub headless: bool,
    /// Write the report there.
    #[arg(long, value_name = "PATH")]
    pub stats_json: Option<PathBuf>,
    /// Write the picture of the grid there.
    #[arg(long, value_name = "PNG")]
    pub snapshot: Option<PathBuf>,
}

/// What to do with an incoming call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum OnCall {
    /// Take it.
    Accept,
    /// Turn it down.
    Decline,
    /// Ask on the screen or by event.
    Ask,
}

/// Arguments of `available`.
#[derive(Debug, Args)]
pub struct AvailableArgs {
    /// What to do with a call.
    #[arg(long, value_enum, default_value = "ask")]
    pub on_call: OnCall,
    /// Address and TCP port.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// UDP port.
    #[arg(long, value_name = "N")]
    pub udp_port: Option<u16>,
    /// Plain WebSocket.
    #[arg(long)]
    pub no_tls: bool,
    /// Media options.
    #[command(flatten)]
    pub media: MediaArgs,
}

/// Arguments of `call`.
#[derive(Debug, Args)]
pub struct CallArgs {
    /// Whom: a name, an address or an invitation.
    pub who: String,
    /// Address and TCP port.
    #[arg(long, value_name = "ADDR:PORT")]
    pub listen: Option<SocketAddr>,
    /// UDP port.
    #[arg(long, value_name = "N")]
    pub udp_port: Option<u16>,
    /// Plain WebSocket.
    #[arg(long)]
    pub no_tls: bool,
    /// Media options.
    #[command(flatten)]
    pub media: MediaArgs,
}

/// Arguments of `lan`.
#[derive(Debug, Args)]
pub struct LanArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: LanCommand,
}

/// Commands of `lan`.
#[derive(Debug, Subcommand)]
pub enum LanCommand {
    /// People and rooms on this network.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
        /// How long to look.
        #[arg(long, value_name = "N", value_parser = seconds)]
        seconds: Option<f64>,
    },
}

/// Arguments of `doctor`.
#[derive(Debug, Args)]
pub struct DoctorArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    /// Check this server too.
    #[arg(long, value_name = "URL")]
    pub server: Option<String>,
}

/// Arguments of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Which: sfu, join, latency, network, audio, client, start, tiles.
    pub what: String,
    /// Write the figures there.
    #[arg(long, value_name = "PATH")]
    pub json: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_options_of_the_documented_command_line_are_understood() {
        Cli::try_parse_from(["tertulia", "host", "--help"]).unwrap_err();
        for line in [
            "",
            "--background",
            "tertulia://h:4443/room#key=k",
            "--background tertulia://h:4443/room#key=k --config /x -vv",
            "join - --session s --secret-env V --name n --headless --camera pattern+sync:3:640x360@15 --microphone tone:500 \
             --speaker null --screen portal --screen-for motion --screen-sound --subscribe-only --role MODERATOR --codec h264 --processing off --audio-off \
             --video-off --insecure --seconds 2.5 --stats-json r --snapshot p --report-names --simulate-network up:loss=5 --quiet",
            "host --listen 127.0.0.1:0 --udp-port 0 --secret-env V --session s --no-tls --advertise n --rule conference \
             --data-dir d --seconds 3 --stats-json r --simulate-network loss=1,burst=2,delay=3,jitter=4,rate=5,queue=6",
            "host --rule broadcast",
            "host --rule talk-watch",
            "demo --participants 2 --seconds 3 --size 640x360@30 --headless --stats-json r --snapshot p",
            "available --name n --on-call accept --listen 0.0.0.0:1 --udp-port 2 --no-tls --headless",
            "call somebody --listen 0.0.0.0:1 --udp-port 2 --no-tls --headless",
            "lan list --json --seconds 1",
            "doctor --json --server https://h",
            "bench sfu --json p",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("tertulia").chain(line.split_whitespace()));
            assert!(parsed.is_ok(), "{line}: {}", parsed.unwrap_err());
        }
        for wrong in [
            "join",
            "join x --seconds inf",
            "join x --seconds -1",
            "join x --secret s",
            "host --udp-port 70000",
            "dance x",
        ] {
            let parsed = Cli::try_parse_from(std::iter::once("tertulia").chain(wrong.split_whitespace()));
            assert!(parsed.is_err(), "{wrong}");
        }
    }
}
