//! What a leg waits for, and what it hears meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::leg::LegInput;
use super::patience::Failures;
use crate::signaling::Signaling;

/// Subscriptions that are negotiated at once: in a large room all begin together, and each sends some twenty frames over one socket.
const AT_ONCE: usize = 8;
/// While the connection to the server is away, this long passes from one look to the next, unless somebody says that it is back.
const AWAY: Duration = Duration::from_secs(5);

/// What a leg is told that holds beyond one transport.
#[derive(Debug)]
pub(super) struct Told {
    /// What the publisher announces as active: sound, picture.
    pub(super) active: (bool, bool),
    /// The server's own offer of the next transport.
    pub(super) offered: Option<String>,
}

impl Default for Told {
    fn default() -> Self {
        Self { active: (true, true), offered: None }
    }
}

/// How waiting ended.
enum Heard<T> {
    Done(T),
    /// A new transport is wanted, by us or by the server.
    Wanted,
    /// Nobody wants the stream any more.
    Closed,
}

async fn hear<T>(what: impl Future<Output = T>, input: &mut mpsc::Receiver<LegInput>, told: &mut Told) -> Heard<T> {
    tokio::pin!(what);
    loop {
        tokio::select! {
            done = &mut what => return Heard::Done(done),
            heard = input.recv() => match heard {
                None => return Heard::Closed,
                Some(LegInput::Rebuild) => return Heard::Wanted,
                Some(LegInput::ServerOffers(offer)) => {
                    told.offered = Some(offer);
                    return Heard::Wanted;
                }
                Some(LegInput::ExpectActive { audio, video }) => told.active = (audio, video),
                // It belongs to a transport that is gone.
                Some(LegInput::Candidate { .. } | LegInput::NeedKeyFrame) => {}
            },
        }
    }
}

/// Waits as long as what went wrong asks for, and until the server answers: a transport that it does not hear of is built in vain. `false`
/// when the leg was closed meanwhile.
pub(super) async fn before_rebuild(
    failures: &mut Failures,
    signaling: &Arc<dyn Signaling>,
    input: &mut mpsc::Receiver<LegInput>,
    told: &mut Told,
) -> bool {
    let pause = failures.rest();
    if !pause.is_zero() {
        match hear(tokio::time::sleep(pause), input, told).await {
            Heard::Done(()) => {}
            Heard::Wanted => return true,
            Heard::Closed => return false,
        }
    }
    loop {
        match hear(signaling.probe(), input, told).await {
            Heard::Done(Ok(())) | Heard::Wanted => return true,
            Heard::Done(Err(_)) => {}
            Heard::Closed => return false,
        }
        // Away: whoever brings the connection back says so.
        match hear(tokio::time::sleep(AWAY), input, told).await {
            Heard::Done(()) => {}
            Heard::Wanted => return true,
            Heard::Closed => return false,
        }
    }
}

/// Lets so many subscriptions negotiate at once, the others in the order in which they came.
#[derive(Debug, Clone)]
pub(super) struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(AT_ONCE)))
    }
}

impl Gate {
    /// Waits to be let in, as long as the permit lives; `None` when the leg was closed meanwhile.
    pub(super) async fn enter(
        &self,
        input: &mut mpsc::Receiver<LegInput>,
        told: &mut Told,
    ) -> Option<OwnedSemaphorePermit> {
        let entering = Arc::clone(&self.0).acquire_owned();
        tokio::pin!(entering);
        loop {
            match hear(&mut entering, input, told).await {
                // It is never closed.
                Heard::Done(permit) => return permit.ok(),
                Heard::Wanted => {}
                Heard::Closed => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_so_many_negotiate_at_once_and_whoever_waits_still_listens() {
        let gate = Gate::default();
        let (input, mut queue) = mpsc::channel(4);
        let mut inside = Vec::new();
        for _ in 0..AT_ONCE {
            inside.push(gate.enter(&mut queue, &mut Told::default()).await.unwrap());
        }
        let mut told = Told::default();
        input.send(LegInput::ExpectActive { audio: false, video: true }).await.unwrap();
        input.send(LegInput::ServerOffers("v=0".to_owned())).await.unwrap();
        let full = tokio::time::timeout(Duration::from_millis(50), gate.enter(&mut queue, &mut told)).await;
        assert!(full.is_err());
        assert_eq!((told.active, told.offered.as_deref()), ((false, true), Some("v=0")));
        inside.pop();
        inside.push(gate.enter(&mut queue, &mut told).await.unwrap());
        drop(input);
        assert!(gate.enter(&mut queue, &mut told).await.is_none(), "closed");
    }
}
