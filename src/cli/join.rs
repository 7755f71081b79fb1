//! `tertulia join`: one participant, with or without a window.

use std::io::BufRead;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;

use super::Failure;
use super::args::{Common, JoinArgs, MediaArgs};
use super::common;
use super::control::{self, Line};
use crate::call::process::ProcessMeter;
use crate::call::report::Report;
use crate::call::view::Connection;
use crate::call::{CallConfig, CallHandle, Command, Event, SendError, View, start};

/// Longest line taken from standard input, in bytes.
const LINE_LIMIT: usize = 64 * 1024;
/// Grace for the report after a leave.
const END_TIMEOUT: Duration = Duration::from_secs(8);

pub(super) fn run(global: &Common, args: JoinArgs, started: Instant) -> Result<(), Failure> {
    let media = common::media(&args.media)?;
    let understood = read_target(&args).and_then(|text| {
        let target = common::target(
            &text,
            args.session.as_deref(),
            args.secret_env.as_deref(),
            args.media.role.name(),
            args.media.insecure,
        )?;
        Ok((text, target))
    });
    let (text, target) = match understood {
        Ok(understood) => understood,
        Err(Failure::Failed(error)) => return Err(not_begun(&args.media, error, started)),
        Err(usage) => return Err(usage),
    };
    let name = args.media.name.clone().unwrap_or_else(common::default_name);
    let mut config = common::call_config(target, media, name, "join", started)?;
    config.impairments = common::impairments(global)?;
    config.report_names = args.media.report_names;
    if !args.media.headless {
        let place = super::window::place(&text, args.session.as_deref());
        return super::window::call(global, config, &args.media, place);
    }
    let quiet = global.quiet;
    common::runtime()?.block_on(headless(config, &args.media, quiet))
}

fn read_target(args: &JoinArgs) -> Result<String, Failure> {
    if args.target == "-" { first_line_of_input() } else { Ok(args.target.clone()) }
}

/// A link that is none fails like any other call: event, report, one line.
fn not_begun(args: &MediaArgs, error: String, started: Instant) -> Failure {
    let t_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let event = Event::new(t_ms, "error").with("key", "err.link").with("message", error.clone());
    if args.headless {
        print(&event);
    }
    let report = Report::not_begun("join", &error, event, ProcessMeter::new(started).report());
    match common::save_report(args.stats_json.as_deref(), &report) {
        Ok(()) => Failure::Failed(error),
        Err(unwritten) => unwritten,
    }
}

fn first_line_of_input() -> Result<String, Failure> {
    let mut line = String::new();
    std::io::stdin()
        .read_line(&mut line)
        .map_err(|e| Failure::Failed(format!("standard input cannot be read: {e}")))?;
    let line = line.trim();
    if line.is_empty() {
        return Err(Failure::Failed(
            "nothing came on standard input: give a token or an invitation on its first line".to_owned(),
        ));
    }
    Ok(line.to_owned())
}

/// Runs one participant to its end.
async fn headless(config: CallConfig, args: &MediaArgs, quiet: bool) -> Result<(), Failure> {
    let call = start(config);
    let printing = tokio::spawn(print_events(call.clone()));
    let reading = tokio::spawn(read_commands(call.clone()));
    let telling = (!quiet).then(|| tokio::spawn(tell_state(call.clone())));
    let half = args.seconds.map(|s| Duration::from_secs_f64(s / 2.0));
    let picture = tokio::spawn(snapshot_at(call.clone(), args.snapshot.clone(), half));
    let mut snapshot_view = call.view();
    let limit = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs_f64(seconds)).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = call.finished() => {}
        () = limit => snapshot_view = leave(&call),
        () = common::asked_to_end() => snapshot_view = leave(&call),
        () = given_up(&call) => snapshot_view = leave(&call),
    }
    let report = end(&call).await?;
    reading.abort();
    picture.abort();
    if let Some(telling) = telling {
        telling.abort();
    }
    // The last events are still on their way to standard output; the channel closes with the engine.
    drop(tokio::time::timeout(Duration::from_secs(1), printing).await);
    if let (Some(path), None) = (&args.snapshot, half) {
        common::save_snapshot(path, &snapshot_view).map_err(Failure::Failed)?;
    }
    common::save_report(args.stats_json.as_deref(), &report)?;
    match report.error {
        None => Ok(()),
        Some(error) => Err(Failure::Failed(error)),
    }
}

/// Waits until the engine has found no way back: without a window nobody is there to ask for another try.
async fn given_up(call: &CallHandle) {
    let mut events = call.events();
    loop {
        match events.recv().await {
            Ok(event) if event.event == "givenUp" => return,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Leaves, and gives the view of the last moment.
fn leave(call: &CallHandle) -> std::sync::Arc<View> {
    let view = call.view();
    // A call that is over already is what was wanted.
    let _ = call.send(Command::Leave);
    view
}

async fn end(call: &CallHandle) -> Result<Report, Failure> {
    let report = tokio::time::timeout(END_TIMEOUT, call.finished()).await.ok().flatten();
    report.map(|r| (*r).clone()).ok_or_else(|| Failure::Failed("the call did not end in time".to_owned()))
}

async fn snapshot_at(call: CallHandle, path: Option<std::path::PathBuf>, after: Option<Duration>) {
    let (Some(path), Some(after)) = (path, after) else { return };
    tokio::time::sleep(after).await;
    if let Err(error) = draw(&call, &path).await {
        common::remark(&format!("tertulia: {error}"));
    }
}

async fn draw(call: &CallHandle, path: &Path) -> Result<(), String> {
    let (view, path) = (call.view(), path.to_owned());
    let drawn = tokio::task::spawn_blocking(move || common::save_snapshot(&path, &view)).await;
    drawn.unwrap_or_else(|_| Err("the picture could not be drawn".to_owned()))
}

async fn print_events(call: CallHandle) {
    let mut events = call.events();
    drop(call);
    loop {
        match events.recv().await {
            Ok(event) => print(&event),
            Err(RecvError::Lagged(missed)) => print(&Event::new(0, "missed").with("count", missed)),
            Err(RecvError::Closed) => return,
        }
    }
}

fn print(event: &Event) {
    if let Ok(line) = serde_json::to_string(event) {
        common::say(&line);
    }
}

/// Standard input is read on a thread of its own: a blocked read must not hold the runtime's end up.
fn input_lines() -> mpsc::Receiver<Vec<u8>> {
    let (lines, queue) = mpsc::channel(16);
    let reading = std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut input = std::io::stdin().lock();
        let mut line = Vec::new();
        // The end of standard input means nothing: the call goes on.
        while matches!(read_limited(&mut input, &mut line), Ok(1..)) {
            if lines.blocking_send(std::mem::take(&mut line)).is_err() {
                return;
            }
        }
    });
    if let Err(error) = reading {
        common::remark(&format!("tertulia: no commands can be read: {error}"));
    }
    queue
}

async fn read_commands(call: CallHandle) {
    let mut lines = input_lines();
    while let Some(line) = lines.recv().await {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let refused = |message: &str| common::say(&control::refusal(text, message).to_string());
        if line.len() >= LINE_LIMIT {
            refused("this line is too long");
            continue;
        }
        match control::parse(text) {
            Err(message) => refused(&message),
            Ok(Line::Engine(commands)) => {
                for command in commands {
                    match call.send(command) {
                        Ok(()) => {}
                        Err(error @ (SendError::Busy | SendError::Over)) => refused(&error.to_string()),
                    }
                }
            }
            Ok(Line::Snapshot(path)) => {
                if let Err(error) = draw(&call, &path).await {
                    refused(&error);
                }
            }
            Ok(Line::Report(path)) => {
                if let Some(report) = call.report().await
                    && let Err(error) = common::save_report(Some(&path), &report)
                {
                    refused(&error.to_string());
                }
            }
        }
    }
}

/// Reads up to the next line end, keeping at most [`LINE_LIMIT`] bytes of it; gives the number of bytes read.
fn read_limited(reader: &mut impl BufRead, line: &mut Vec<u8>) -> std::io::Result<usize> {
    let mut total = 0;
    loop {
        let available = reader.fill_buf()?;
        if available.is_empty() {
            return Ok(total);
        }
        let (part, done) = match available.iter().position(|b| *b == b'\n') {
            Some(at) => (available.get(..=at).unwrap_or_default(), true),
            None => (available, false),
        };
        let room = LINE_LIMIT.saturating_sub(line.len());
        line.extend(part.iter().take(room));
        let used = part.len();
        total += used;
        reader.consume(used);
        if done {
            return Ok(total);
        }
    }
}

async fn tell_state(call: CallHandle) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    loop {
        tick.tick().await;
        let view = call.view();
        common::remark(&state_line(&view));
        if call.is_over() {
            return;
        }
    }
}

fn state_line(view: &View) -> String {
    let state: Value = match &view.connection {
        Connection::Idle => "idle".into(),
        Connection::Joining(step) => format!("joining ({step:?})").into(),
        Connection::Connected => "connected".into(),
        Connection::Checking => "checking the connection".into(),
        Connection::Reconnecting { attempt, place_kept_ms, .. } => {
            format!("connection lost, attempt {attempt}, place kept for {} s", place_kept_ms / 1000).into()
        }
        Connection::Rejoining { attempt } => format!("joining again, attempt {attempt}").into(),
        Connection::Ended { reason } => format!("ended: {reason}").into(),
        Connection::Failed(failure) => format!("failed: {}", failure.detail).into(),
    };
    let pictures = view.tiles.iter().filter(|t| !t.own && t.frames.latest().is_some()).count();
    format!("{} | {} people, {pictures} pictures", state.as_str().unwrap_or_default(), view.people.len())
}
