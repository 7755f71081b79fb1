//! The engine's other end: what windows, the control channel and tests hold.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::command::Command;
use super::config::CallConfig;
use super::engine::Engine;
use super::event::Event;
use super::report::Report;
use super::view::View;

/// Commands that may wait for the engine. When it is full the sender is told; nothing is dropped in silence.
const COMMAND_QUEUE: usize = 64;
/// Events that a slow listener may fall behind; the report keeps them all.
const EVENT_BACKLOG: usize = 1024;

/// What is asked of the engine.
pub(super) enum Ask {
    Command(Command),
    /// A wish that was not even understood: its name and why, for the events.
    Refused(String, String),
    Report(oneshot::Sender<Report>),
}

/// The engine does not take commands any more, or not so many at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Too many commands wait.
    #[error("too many commands at once")]
    Busy,
    /// The call is over.
    #[error("the call is over")]
    Over,
}

/// A running call. Cheap to clone; the call leaves when the last clone is dropped.
#[derive(Clone)]
pub struct CallHandle {
    asks: mpsc::Sender<Ask>,
    view: Arc<ArcSwap<View>>,
    /// Weak, so that listeners see the end of the events with the end of the call.
    events: broadcast::WeakSender<Event>,
    last: watch::Receiver<Option<Arc<Report>>>,
}

impl std::fmt::Debug for CallHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("CallHandle")
    }
}

/// Starts a call; must be called on a tokio runtime. It joins at once, what becomes of it is in the view and the events.
pub fn start(config: CallConfig) -> CallHandle {
    start_listening(config).0
}

/// Like [`start`], with every event from the very first on.
pub fn start_listening(config: CallConfig) -> (CallHandle, broadcast::Receiver<Event>) {
    let (asks, ask_queue) = mpsc::channel(COMMAND_QUEUE);
    let (events, listener) = broadcast::channel(EVENT_BACKLOG);
    let weak_events = events.downgrade();
    let (last_report, last) = watch::channel(None);
    let view = Arc::new(ArcSwap::from_pointee(View::default()));
    let engine = Engine::new(config, ask_queue, Arc::clone(&view), events);
    tokio::spawn(async move {
        let report = engine.run().await;
        last_report.send_replace(Some(Arc::new(report)));
    });
    (CallHandle { asks, view, events: weak_events, last }, listener)
}

impl CallHandle {
    /// Hands a command over; never waits.
    ///
    /// # Errors
    /// The engine is over or hopelessly busy.
    pub fn send(&self, command: Command) -> Result<(), SendError> {
        self.asks.try_send(Ask::Command(command)).map_err(|e| match e {
            mpsc::error::TrySendError::Full(_) => SendError::Busy,
            mpsc::error::TrySendError::Closed(_) => SendError::Over,
        })
    }

    /// Hands a command over, and waits for room where many are waiting already.
    ///
    /// # Errors
    /// The engine is over.
    pub async fn send_in_turn(&self, command: Command) -> Result<(), SendError> {
        self.asks.send(Ask::Command(command)).await.map_err(|_| SendError::Over)
    }

    /// Puts a wish that was not understood among the events, after those handed over before it.
    pub async fn refuse(&self, command: &str, message: &str) {
        // After the end nobody is there to be told.
        let _ = self.asks.send(Ask::Refused(command.to_owned(), message.to_owned())).await;
    }

    /// The newest snapshot.
    pub fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Everything that happens from now on; closed when the call is over.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        match self.events.upgrade() {
            Some(events) => events.subscribe(),
            None => broadcast::channel(1).1,
        }
    }

    /// The report as of now; the final one when the call is over.
    pub async fn report(&self) -> Option<Report> {
        let (reply, answer) = oneshot::channel();
        if self.asks.send(Ask::Report(reply)).await.is_ok()
            && let Ok(report) = answer.await
        {
            return Some(report);
        }
        self.last.borrow().as_deref().cloned()
    }

    /// Waits until the call is over and gives its report.
    pub async fn finished(&self) -> Option<Arc<Report>> {
        let mut last = self.last.clone();
        last.wait_for(Option::is_some).await.ok()?.clone()
    }

    /// Its report, if it is over.
    pub(super) fn last_report(&self) -> Option<Arc<Report>> {
        self.last.borrow().clone()
    }

    /// Whether the call is over.
    pub fn is_over(&self) -> bool {
        self.last.borrow().is_some()
    }
}
