//! The picture of `--snapshot`: of half time, or of the last moment of the call where that never comes.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::common;
use crate::call::view::Connection;
use crate::call::{CallHandle, View};

/// How often the view is kept for the last picture.
const VIEW_INTERVAL: Duration = Duration::from_millis(500);

/// A picture that is being waited for, if one is wanted.
pub(super) struct Picture(Option<JoinHandle<Result<(), String>>>);

impl Picture {
    /// Watches the call from now on. Must be called on a runtime.
    pub(super) fn of(call: &CallHandle, path: Option<&Path>, seconds: Option<f64>) -> Self {
        let half = seconds.map(|s| Duration::from_secs_f64(s / 2.0));
        Self(path.map(|path| tokio::spawn(take(call.clone(), path.to_owned(), half))))
    }

    /// Where the call is over: whether it was drawn and written.
    pub(super) async fn taken(self) -> Result<(), String> {
        let Some(taking) = self.0 else { return Ok(()) };
        let taken = tokio::time::timeout(common::GOOD_BYE, taking).await;
        taken.ok().and_then(Result::ok).unwrap_or_else(|| Err("the picture could not be drawn".to_owned()))
    }
}

async fn take(call: CallHandle, path: PathBuf, half: Option<Duration>) -> Result<(), String> {
    let half = async {
        match half {
            Some(half) => tokio::time::sleep(half).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(half);
    let mut view = call.view();
    let mut tick = tokio::time::interval(VIEW_INTERVAL);
    loop {
        tokio::select! {
            () = &mut half => {
                view = call.view();
                break;
            }
            _ = call.finished() => break,
            // Who has left or is removed has nobody in the view any more: the picture is of the moment before.
            _ = tick.tick() => {
                let now = call.view();
                if !matches!(now.connection, Connection::Ended { .. } | Connection::Failed(_)) {
                    view = now;
                }
            }
        }
    }
    save(view, &path).await
}

/// Draws without holding up the network.
pub(super) async fn save(view: Arc<View>, path: &Path) -> Result<(), String> {
    let path = path.to_owned();
    let drawn = tokio::task::spawn_blocking(move || common::save_snapshot(&path, &view)).await;
    drawn.unwrap_or_else(|_| Err("the picture could not be drawn".to_owned()))
}
