//! A call behind the window, and the commands it has no room for yet.

use std::mem::discriminant;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::runtime::Handle;
use tracing::warn;

use crate::call::view::View;
use crate::call::{CallHandle, Command, SendError};
use crate::ui::bridge::Call;

/// Commands that may wait here. Beyond it tiles, then other commands of which there may be many, give way to newer ones.
const WAITING: usize = 256;

/// Commands in their order, of each kind of state the newest. What a person switches always finds room.
#[derive(Debug, Default)]
pub(super) struct Pending(Vec<Command>);

impl Pending {
    pub(super) fn keep(&mut self, command: Command) {
        self.0.retain(|old| !replaces(&command, old));
        if self.0.len() >= WAITING {
            let tile = self.0.iter().position(|c| matches!(c, Command::Tile { .. }));
            if let Some(at) = tile.or_else(|| self.0.iter().position(is_one_of_many)) {
                self.0.remove(at);
                warn!("too many commands wait for the call: one of them is dropped");
            }
        }
        self.0.push(command);
    }

    pub(super) fn next(&mut self) -> Option<Command> {
        if self.0.is_empty() { None } else { Some(self.0.remove(0)) }
    }
}

/// Whether there may be any number of them at a time: one for each stream, person or message.
fn is_one_of_many(command: &Command) -> bool {
    matches!(
        command,
        Command::Tile { .. }
            | Command::Subscribe { .. }
            | Command::Volume { .. }
            | Command::Pin { .. }
            | Command::Signal { .. }
            | Command::ForceDisconnect(_)
            | Command::ForceUnpublish(_)
    )
}

/// Whether the older one has no effect any more once the newer one is carried out.
fn replaces(new: &Command, old: &Command) -> bool {
    match (new, old) {
        (Command::Leave, _) => true,
        (Command::Publish | Command::Unpublish, Command::Publish | Command::Unpublish) => true,
        (Command::Tile { stream_id: a, .. }, Command::Tile { stream_id: b, .. })
        | (Command::Subscribe { stream_id: a, .. }, Command::Subscribe { stream_id: b, .. })
        | (Command::Volume { person: a, .. }, Command::Volume { person: b, .. })
        | (Command::Pin { person: a, .. }, Command::Pin { person: b, .. }) => a == b,
        (Command::Signal { .. }, _) => false,
        (Command::ForceDisconnect(_) | Command::ForceUnpublish(_), _) => new == old,
        _ => discriminant(new) == discriminant(old),
    }
}

#[derive(Debug, Default)]
struct Queue {
    pending: Pending,
    /// A task is passing on what waits: whatever comes now has to wait behind it.
    passing: bool,
}

/// A call that takes every command: one that comes when the call is busy waits for its turn.
pub(super) struct Running {
    call: CallHandle,
    runtime: Handle,
    queue: Arc<Mutex<Queue>>,
}

impl Running {
    pub(super) fn new(call: CallHandle, runtime: &Handle) -> Self {
        Self { call, runtime: runtime.clone(), queue: Arc::default() }
    }
}

impl Call for Running {
    fn send(&self, command: Command) {
        let mut queue = lock(&self.queue);
        if !queue.passing {
            match self.call.send(command.clone()) {
                // One to a call that is over has nothing left to change.
                Ok(()) | Err(SendError::Over) => return,
                Err(SendError::Busy) => queue.passing = true,
            }
            self.runtime.spawn(pass_on(self.call.clone(), Arc::clone(&self.queue)));
        }
        queue.pending.keep(command);
    }

    fn view(&self) -> Arc<View> {
        self.call.view()
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hands over what waits, as there is room for it, until nothing waits or the call is over.
async fn pass_on(call: CallHandle, queue: Arc<Mutex<Queue>>) {
    loop {
        let command = {
            let mut queue = lock(&queue);
            let command = queue.pending.next();
            queue.passing = command.is_some();
            command
        };
        let Some(command) = command else { return };
        if call.send_in_turn(command).await.is_err() {
            *lock(&queue) = Queue::default();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::super::args::{Cli, CommandLine};
    use super::super::super::common;
    use super::*;
    use clap::Parser as _;

    fn tile(stream: usize, width: u32) -> Command {
        Command::Tile { stream_id: format!("stream-{stream}"), size: (width, 90) }
    }

    fn all(mut pending: Pending) -> Vec<Command> {
        std::iter::from_fn(|| pending.next()).collect()
    }

    #[test]
    fn the_newest_state_wins_and_what_is_no_state_keeps_its_order() {
        let mut pending = Pending::default();
        let chat = |text: &str| Command::Signal { kind: "chat".to_owned(), data: text.to_owned(), to: Vec::new() };
        for command in [
            Command::MuteAudio(true),
            chat("a"),
            tile(1, 160),
            Command::Publish,
            tile(2, 160),
            chat("a"),
            Command::MuteVideo(true),
            tile(1, 320),
            Command::Unpublish,
            Command::MuteAudio(false),
        ] {
            pending.keep(command);
        }
        let rest = [
            chat("a"),
            tile(2, 160),
            chat("a"),
            Command::MuteVideo(true),
            tile(1, 320),
            Command::Unpublish,
            Command::MuteAudio(false),
        ];
        assert_eq!(all(pending), rest);
    }

    #[test]
    fn tiles_give_way_where_it_is_full_and_leaving_needs_nothing_else() {
        let mut pending = Pending::default();
        pending.keep(Command::MuteAudio(true));
        for stream in 0..2 * WAITING {
            pending.keep(tile(stream, 160));
        }
        pending.keep(Command::MuteVideo(true));
        assert_eq!(pending.0.len(), WAITING);
        assert_eq!(pending.0.first(), Some(&Command::MuteAudio(true)));
        assert_eq!(pending.0.last(), Some(&Command::MuteVideo(true)));
        pending.keep(Command::Leave);
        assert_eq!(all(pending), [Command::Leave]);
    }

    #[test]
    fn a_busy_call_is_muted_and_left_all_the_same() {
        crate::signaling::tls::install_crypto_provider();
        let line = ["tertulia", "join", "wss://127.0.0.1:9?sessionId=s&token=t", "--headless", "--microphone", "tone"];
        let Some(CommandLine::Join(args)) = Cli::parse_from(line).command else { panic!("a join") };
        let target = common::target(&args.target, None, None, "PUBLISHER", false).expect("a target");
        let media = common::media(&args.media).expect("media");
        let config = common::call_config(target, media, "me".to_owned(), "join", Instant::now()).expect("a call");
        // Nothing runs before it is waited for: the call takes no command out of its queue.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("threads");
        let call = {
            let _inside = runtime.enter();
            crate::call::start_listening(config).0
        };
        let running = Running::new(call.clone(), runtime.handle());
        for stream in 0..200 {
            running.send(tile(stream, 160));
        }
        assert_eq!(call.send(Command::MuteAudio(true)), Err(SendError::Busy));
        running.send(Command::MuteAudio(true));
        runtime.block_on(async {
            let muted = async {
                while call.view().me.microphone != crate::call::view::DeviceState::Muted {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(30), muted).await.expect("it is muted");
        });
        for stream in 0..200 {
            running.send(tile(stream, 160));
        }
        running.send(Command::Leave);
        let end = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(30), call.finished()).await });
        assert!(end.expect("it is left").is_some());
    }
}
