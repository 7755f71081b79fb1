//! The desktop's own picker of screens and windows (XDG `ScreenCast` portal), the only way to a picture under Wayland.
//!
//! The portal is asked once per share, before anything is announced to the room: what it grants waits here until the share's source is
//! opened ([`take`]). A cancelled dialog is a normal answer. Pictures come through PipeWire ([`super::pipewire`]). With the grant comes a
//! token by which the same choice can be had again without a dialog; whoever keeps it over the program's end is told by [`keep_choice_in`].

use std::os::fd::OwnedFd;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ashpd::desktop::screencast::{CursorMode, Screencast, SelectSourcesOptions, SourceType};
use ashpd::desktop::{PersistMode, ResponseError, Session};
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};
use tokio::sync::oneshot;

use super::{ChoiceStore, NotChosen, pipewire};
use crate::media::video::capture::{PictureSource, SourceEnd};

/// A portal that has not opened a session by then is none. Starting its service takes a moment.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(15);
/// A dialog that nobody has answered by then is closed.
const CHOICE_TIMEOUT: Duration = Duration::from_secs(300);
/// How soon a cancelled wait ends.
const LOOK: Duration = Duration::from_millis(50);

/// What the portal has granted, as long as it is held.
pub(super) struct Granted {
    /// Connection to PipeWire that sees nothing but the stream.
    pub(super) remote: OwnedFd,
    /// The stream's node.
    pub(super) node: u32,
    pub(super) session: Held,
}

/// Keeps the portal's session open; it is closed when this is dropped.
pub(super) struct Held {
    /// Dropped: the session's thread closes it.
    _finish: oneshot::Sender<()>,
    /// The desktop has ended the session.
    closed: Arc<AtomicBool>,
}

impl Held {
    /// Whether the desktop has ended it, by its own button for instance.
    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

#[derive(Default)]
struct Kept {
    /// Granted, and not yet taken by a source.
    granted: Option<Granted>,
    /// By which the last choice is had again.
    token: Option<String>,
    store: Option<Arc<dyn ChoiceStore>>,
}

static KEPT: Mutex<Kept> = Mutex::new(Kept { granted: None, token: None, store: None });

fn kept() -> MutexGuard<'static, Kept> {
    KEPT.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn keep_choice_in(store: Arc<dyn ChoiceStore>) {
    kept().store = Some(store);
}

pub(super) fn forget() {
    drop(kept().granted.take());
}

pub(super) fn choose(again: bool, cancelled: &dyn Fn() -> bool) -> Result<(), NotChosen> {
    let granted = ask(again, cancelled)?;
    drop(kept().granted.replace(granted));
    Ok(())
}

/// The source of what was granted; asks first where nothing waits.
pub(super) fn open(again: bool, cancelled: &dyn Fn() -> bool) -> Result<Box<dyn PictureSource>, SourceEnd> {
    let waiting = kept().granted.take();
    let granted = match waiting.filter(|g| !g.session.is_closed()) {
        Some(granted) => granted,
        None => ask(again, cancelled).map_err(|not| match not {
            NotChosen::Cancelled => SourceEnd::Ended,
            NotChosen::Failed(detail) => SourceEnd::Failed { key: "err.portal", detail },
        })?,
    };
    pipewire::open(granted).map_err(|detail| SourceEnd::Failed { key: "err.portal", detail })
}

/// The token of the last choice: this program's, else the stored one.
fn remembered() -> Option<String> {
    let (token, store) = {
        let kept = kept();
        (kept.token.clone(), kept.store.clone())
    };
    // A store may ask the system's keyring, which takes its time.
    token.or_else(|| store?.load())
}

fn remember(token: String) {
    let store = {
        let mut kept = kept();
        if kept.token.as_ref() == Some(&token) {
            return;
        }
        kept.token = Some(token.clone());
        kept.store.clone()
    };
    if let Some(store) = store {
        store.save(&token);
    }
}

/// Answer of the portal's thread.
struct Answer {
    remote: OwnedFd,
    node: u32,
    token: Option<String>,
}

enum Progress {
    /// The portal is there; now it is the user's turn.
    Asking,
    Done(Result<Answer, NotChosen>),
}

/// Asks the portal, which may ask the user: by a thread of its own, so that a portal that hangs holds nobody up.
fn ask(again: bool, cancelled: &dyn Fn() -> bool) -> Result<Granted, NotChosen> {
    let token = if again { remembered() } else { None };
    let (tell, progress) = sync_channel(2);
    let (finish, finished) = oneshot::channel();
    let closed = Arc::new(AtomicBool::new(false));
    let mark = Arc::clone(&closed);
    std::thread::Builder::new()
        .name("screen-portal".into())
        .spawn(move || ashpd::zbus::block_on(converse(token, finished, &tell, &mark)))
        .map_err(|e| NotChosen::Failed(e.to_string()))?;
    // From here on a return drops `finish`, which ends the conversation and its dialog.
    let Answer { remote, node, token } = wait(&progress, cancelled)?;
    if let Some(token) = token {
        remember(token);
    }
    Ok(Granted { remote, node, session: Held { _finish: finish, closed } })
}

fn wait(progress: &Receiver<Progress>, cancelled: &dyn Fn() -> bool) -> Result<Answer, NotChosen> {
    let started = Instant::now();
    let mut limit = ANSWER_TIMEOUT;
    loop {
        match progress.recv_timeout(LOOK) {
            Ok(Progress::Asking) => limit = CHOICE_TIMEOUT,
            Ok(Progress::Done(result)) => return result,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(NotChosen::Failed("the desktop's screen picker has gone".into()));
            }
            Err(RecvTimeoutError::Timeout) if cancelled() => return Err(NotChosen::Cancelled),
            Err(RecvTimeoutError::Timeout) if started.elapsed() < limit => {}
            Err(RecvTimeoutError::Timeout) => {
                let what = if limit == CHOICE_TIMEOUT { "nothing was chosen" } else { "it does not answer" };
                return Err(NotChosen::Failed(format!(
                    "the desktop's screen picker: {what} for {} s",
                    limit.as_secs()
                )));
            }
        }
    }
}

/// The conversation with the portal, and then the session's life until `finished` or until the desktop ends it.
async fn converse(
    token: Option<String>,
    mut finished: oneshot::Receiver<()>,
    tell: &SyncSender<Progress>,
    closed: &AtomicBool,
) {
    // Two places in the channel, two messages: neither is ever refused for want of room.
    let say = |progress| drop(tell.try_send(progress));
    let opening = pin!(async {
        let portal = Screencast::new().await?;
        let session = portal.create_session(Default::default()).await?;
        Ok::<_, ashpd::Error>((portal, session))
    });
    let (portal, session) = match select(opening, &mut finished).await {
        Either::Left((Ok(both), _)) => both,
        Either::Left((Err(error), _)) => return say(Progress::Done(Err(not_chosen(&error)))),
        Either::Right(_) => return,
    };
    say(Progress::Asking);
    let mut ended = match session.receive_closed().await {
        Ok(ended) => pin!(ended),
        Err(error) => return say(Progress::Done(Err(not_chosen(&error)))),
    };
    let chosen = match select(pin!(start(&portal, &session, token.as_deref())), &mut finished).await {
        Either::Left((result, _)) => Some(result),
        Either::Right(_) => None,
    };
    match chosen {
        Some(Ok(answer)) => {
            say(Progress::Done(Ok(answer)));
            if let Either::Left(_) = select(ended.next(), &mut finished).await {
                closed.store(true, Ordering::Release);
                return;
            }
        }
        Some(Err(error)) => say(Progress::Done(Err(not_chosen(&error)))),
        None => {}
    }
    // Closes its dialog, too. Nobody waits for this.
    drop(session.close().await);
}

async fn start(portal: &Screencast, session: &Session<Screencast>, token: Option<&str>) -> ashpd::Result<Answer> {
    // Both are told since version 2 and 1; a portal that does not tell them has monitors, and cursors as it likes.
    let cursors = portal.available_cursor_modes().await.unwrap_or_default();
    let sources = portal.available_source_types().await.unwrap_or(SourceType::Monitor.into());
    let mut options = SelectSourcesOptions::default()
        .set_multiple(false)
        .set_sources(sources & (SourceType::Monitor | SourceType::Window))
        .set_persist_mode(PersistMode::ExplicitlyRevoked)
        .set_restore_token(token);
    if cursors.contains(CursorMode::Embedded) {
        options = options.set_cursor_mode(CursorMode::Embedded);
    }
    portal.select_sources(session, options).await?.response()?;
    let streams = portal.start(session, None, Default::default()).await?.response()?;
    let node = streams.streams().first().ok_or(ashpd::Error::NoResponse)?.pipe_wire_node_id();
    let remote = portal.open_pipe_wire_remote(session, Default::default()).await?;
    Ok(Answer { remote, node, token: streams.restore_token().map(str::to_owned) })
}

fn not_chosen(error: &ashpd::Error) -> NotChosen {
    match error {
        ashpd::Error::Response(ResponseError::Cancelled) => NotChosen::Cancelled,
        other => NotChosen::Failed(other.to_string()),
    }
}
