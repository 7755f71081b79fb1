//! Composition: which rooms are lit for which command.

mod args;
mod bench;
mod common;
mod control;
mod demands;
mod demo;
mod doctor;
mod host;
mod join;
mod picture;
mod window;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser as _;
use clap::error::ErrorKind;

use args::{Cli, CommandLine};

/// Exit code for "failed".
const FAILED: u8 = 1;
/// Exit code for "bad usage".
const USAGE: u8 = 2;

/// Why a command ended badly.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The command line cannot be carried out.
    #[error("{0}")]
    Usage(String),
    /// It was tried and failed; the text says why and what to do.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }

    fn host(error: &crate::host::HostError) -> Self {
        use crate::host::HostError;
        use crate::protocol::room::RoomError;
        let text = format!("{error}; {}", error.remedy());
        if matches!(error, HostError::Room(RoomError::Name)) { Self::Usage(text) } else { Self::Failed(text) }
    }
}

/// Entry point of the binary.
pub fn main() -> ExitCode {
    let started = Instant::now();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, though the parser reports them as such.
            let fine = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            drop(error.print());
            return ExitCode::from(if fine { 0 } else { USAGE });
        }
    };
    common::start_logging(cli.common.verbose, cli.common.quiet);
    crate::signaling::tls::install_crypto_provider();
    match run(cli, started) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            common::remark(&format!("tertulia: {failure}"));
            ExitCode::from(match failure {
                Failure::Usage(_) => USAGE,
                Failure::Failed(_) => FAILED,
            })
        }
    }
}

fn run(cli: Cli, started: Instant) -> Result<(), Failure> {
    let common = cli.common;
    // A specification with a mistake in it is bad usage of every command, also of those that send no media.
    common::impairments(&common)?;
    match cli.command {
        None => window::app(&common, cli.link, started),
        Some(CommandLine::Join(args)) => join::run(&common, args, started),
        Some(CommandLine::Host(args)) => host::run(&common, &args),
        Some(CommandLine::Demo(args)) => demo::run(&common, &args, started),
        Some(CommandLine::Doctor(args)) => doctor::run(&args),
        Some(CommandLine::Bench(args)) => bench::run(&common, &args, started),
        Some(CommandLine::Available(_) | CommandLine::Call(_) | CommandLine::Lan(_)) => Err(Failure::Failed(
            "calls without a room come with a later version; start a room with `tertulia host --session NAME` and send its invitation".to_owned(),
        )),
    }
}
