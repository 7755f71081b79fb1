//! `tertulia join`: one participant, with or without a window.

use std::io::BufRead;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::Failure;
use super::args::{Common, JoinArgs, MediaArgs, Role};
use super::common;
use super::control::{self, Line};
use super::demands;
use super::picture::{self, Picture};
use crate::call::process::ProcessMeter;
use crate::call::report::Report;
use crate::call::view::Connection;
use crate::call::{CallConfig, CallHandle, Event, View, start_listening};
use crate::settings::Secrets;
use crate::signaling::target::TokenSource;
use crate::signaling::tls::Trust;

/// Longest line taken from standard input, in bytes.
const LINE_LIMIT: usize = 64 * 1024;

pub(super) fn run(global: &Common, args: JoinArgs, started: Instant) -> Result<(), Failure> {
    let media = common::media(&args.media)?;
    let understood = read_target(&args).and_then(|text| {
        let mut target = common::target(
            &text,
            args.session.as_deref(),
            args.secret_env.as_deref(),
            args.media.role.unwrap_or(Role::Publisher).name(),
            args.media.insecure,
        )?;
        if let TokenSource::RoomKey { role, .. } = &mut target.source {
            *role = args.media.role.map(|r| r.name().to_owned());
        }
        Ok((text, target))
    });
    let (text, target) = match understood {
        Ok(understood) => understood,
        Err(Failure::Failed(error)) => return Err(not_begun(&args.media, error, started)),
        Err(usage) => return Err(usage),
    };
    common::keep_screen_choice(Secrets::default());
    let name = args.media.name.clone().unwrap_or_else(common::default_name);
    let mut config = common::call_config(target, media, name, "join", started)?;
    config.impairments = common::impairments(global)?;
    config.report_names = args.media.report_names;
    if !args.media.headless {
        let place = super::window::place(&text, args.session.as_deref());
        return super::window::call(global, config, &args.media, place);
    }
    let quiet = global.quiet;
    if !quiet {
        warn_of(&config);
    }
    common::runtime()?.block_on(headless(config, &args.media, quiet))
}

/// What the shield of a window says.
fn warn_of(config: &CallConfig) {
    if config.target.source.is_plain() {
        common::remark("warning: messages to this server are not encrypted; whoever is on the way can read them");
    } else if config.target.trust == Trust::Anything {
        common::remark(
            "warning: any certificate of this server is accepted (--insecure); whoever is on the way could listen",
        );
    }
}

fn read_target(args: &JoinArgs) -> Result<String, Failure> {
    if args.target == "-" {
        return first_line_of_input();
    }
    common::no_secret_in(&args.target)?;
    Ok(args.target.clone())
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
    let mut line = Vec::new();
    read_limited(&mut std::io::stdin().lock(), &mut line)
        .map_err(|e| Failure::Failed(format!("standard input cannot be read: {e}")))?;
    let line = String::from_utf8_lossy(&line).trim().to_owned();
    if line.is_empty() {
        return Err(Failure::Failed(
            "nothing came on standard input: give a token or an invitation on its first line".to_owned(),
        ));
    }
    Ok(line)
}

/// Runs one participant to its end.
async fn headless(config: CallConfig, args: &MediaArgs, quiet: bool) -> Result<(), Failure> {
    let (call, events) = start_listening(config);
    let printed = print_events(events);
    let reading = tokio::spawn(read_commands(call.clone()));
    let telling = (!quiet).then(|| tokio::spawn(tell_state(call.clone())));
    let outcome = to_the_end(&call, args, given_up(&call)).await;
    reading.abort();
    if let Some(telling) = telling {
        telling.abort();
    }
    // The last events are still on their way to standard output.
    drop(tokio::time::timeout(Duration::from_secs(1), printed).await);
    outcome
}

/// Goes with the call until it is over, its time is up, the program is to end, or `stopped` resolves, with what went wrong if
/// anything did. Then it is left, and the picture and the report are written.
pub(super) async fn to_the_end(
    call: &CallHandle,
    args: &MediaArgs,
    stopped: impl Future<Output = Option<String>>,
) -> Result<(), Failure> {
    let picture = Picture::of(call, args.snapshot.as_deref(), args.seconds);
    let limit = async {
        match args.seconds {
            Some(seconds) => tokio::time::sleep(Duration::from_secs_f64(seconds)).await,
            None => std::future::pending().await,
        }
    };
    let (mut time_is_up, mut problem) = (false, None);
    tokio::select! {
        _ = call.finished() => {}
        () = limit => time_is_up = true,
        () = common::asked_to_end() => {}
        error = stopped => problem = error,
    }
    let mut report = left(call).await?;
    if time_is_up && report.timeline_ms.joined.is_none() {
        problem.get_or_insert_with(|| {
            "the time of --seconds was up before the call was joined; give it more, or try again later".to_owned()
        });
    }
    if let Some(error) = demands::unmet(args, &report) {
        problem.get_or_insert(error);
    }
    if let Err(error) = picture.taken().await {
        problem.get_or_insert(error);
    }
    if let Some(problem) = problem {
        report.ok = false;
        report.error.get_or_insert(problem);
    }
    common::save_report(args.stats_json.as_deref(), &report)?;
    match report.error {
        None => Ok(()),
        Some(error) => Err(Failure::Failed(error)),
    }
}

/// Has it leave, unless it is over already, and gives its report.
async fn left(call: &CallHandle) -> Result<Report, Failure> {
    let report = common::leave(std::slice::from_ref(call), common::GOOD_BYE).await.pop().flatten();
    report.map(|r| (*r).clone()).ok_or_else(|| Failure::Failed("the call did not end in time".to_owned()))
}

/// Waits until the engine has found no way back: without a window nobody is there to ask for another try.
async fn given_up(call: &CallHandle) -> Option<String> {
    let mut events = call.events();
    loop {
        match events.recv().await {
            // The report says why.
            Ok(event) if event.event == "givenUp" => return None,
            Ok(_) | Err(RecvError::Lagged(_)) => {}
            Err(RecvError::Closed) => std::future::pending().await,
        }
    }
}

/// Standard output is written by a thread of its own: a reader that does not read must not hold the network up. Resolves when
/// the last event is out.
fn print_events(mut events: broadcast::Receiver<Event>) -> oneshot::Receiver<()> {
    let (done, printed) = oneshot::channel();
    let printing = std::thread::Builder::new().name("stdout".to_owned()).spawn(move || {
        loop {
            match events.blocking_recv() {
                Ok(event) => print(&event),
                Err(RecvError::Lagged(missed)) => print(&Event::new(0, "missed").with("count", missed)),
                Err(RecvError::Closed) => break,
            }
        }
        // Nobody waits any longer where it took too long.
        let _ = done.send(());
    });
    if let Err(error) = printing {
        common::remark(&format!("tertulia: no events can be written: {error}"));
    }
    printed
}

fn print(event: &Event) {
    if let Ok(line) = serde_json::to_string(event) {
        // A closed pipe on the other side is no reason to leave the call.
        drop(common::say(&line));
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

/// Carries the lines out, one after the other: where the engine is behind, the next one waits in the pipe.
async fn read_commands(call: CallHandle) {
    let mut lines = input_lines();
    while let Some(line) = lines.recv().await {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim();
        if text.is_empty() {
            continue;
        }
        let done = if line.len() >= LINE_LIMIT {
            Err("this line is too long".to_owned())
        } else {
            carry_out(&call, control::parse(text)).await
        };
        if let Err(message) = done {
            call.refuse(&control::name(text), &message).await;
        }
    }
}

async fn carry_out(call: &CallHandle, line: Result<Line, String>) -> Result<(), String> {
    match line? {
        Line::Engine(commands) => {
            for command in commands {
                call.send_in_turn(command).await.map_err(|e| e.to_string())?;
            }
            Ok(())
        }
        Line::Snapshot(path) => picture::save(call.view(), &path).await,
        Line::Report(path) => match call.report().await {
            Some(report) => common::save_report(Some(&path), &report).map_err(|e| e.to_string()),
            None => Err("there is no report".to_owned()),
        },
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
