//! One WebSocket: opened, read and written by a task of its own.

use std::sync::Arc;
use std::time::Duration;

use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error as WsError, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};
use url::Url;

use super::super::SignalingError;
use super::super::tls::{self, Trust};
use super::dial;
use super::rest::explain_connect;

/// Longest wait for TCP, TLS and the WebSocket handshake together, in ms.
pub(super) const OPEN_TIMEOUT_MS: u64 = 10_000;
/// Frames that may wait to be written: joining a room of a hundred makes some two thousand within a moment, and an uplink may be slow.
const WRITE_QUEUE: usize = 2_048;
/// A socket that takes nothing for so long is dead.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);
/// Longest frame taken from a server, in bytes: a join result with a thousand people fits.
const MAX_FRAME_BYTES: usize = 4 * 1024 * 1024;
/// How long a closing handshake may take, in ms.
const CLOSE_GRACE_MS: u64 = 1_000;

/// What a socket tells the driver.
#[derive(Debug)]
pub(super) enum SocketEvent {
    Open,
    Text(String),
    Closed { code: u16, reason: String },
    Failed(SignalingError),
}

enum Write {
    Text(String),
    Close(u16, &'static str),
}

/// The writing end. Dropping it closes the socket without ceremony.
pub(super) struct Socket {
    queue: mpsc::Sender<Write>,
}

impl Socket {
    /// Starts opening `url`; everything that happens is sent to `events` with `id`.
    pub(super) fn open(id: u32, url: String, trust: Trust, events: mpsc::Sender<(u32, SocketEvent)>) -> Self {
        let (queue, writes) = mpsc::channel(WRITE_QUEUE);
        tokio::spawn(run(id, url, trust, events, writes));
        Self { queue }
    }

    /// Queues a frame; `false` when the socket is dead or hopelessly behind.
    pub(super) fn send(&self, text: String) -> bool {
        self.queue.try_send(Write::Text(text)).is_ok()
    }

    /// Closes with a code; what is queued goes out first.
    pub(super) fn close(self, code: u16, reason: &'static str) {
        // A full queue means a dead peer: dropping the sender ends the task all the same.
        drop(self.queue.try_send(Write::Close(code, reason)));
    }
}

async fn run(
    id: u32,
    url: String,
    trust: Trust,
    events: mpsc::Sender<(u32, SocketEvent)>,
    mut writes: mpsc::Receiver<Write>,
) {
    let opening = tokio::time::timeout(Duration::from_millis(OPEN_TIMEOUT_MS), open(&url, trust));
    let stream = tokio::select! {
        opened = opening => match opened {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => return drop(events.send((id, SocketEvent::Failed(error))).await),
            Err(_) => {
                let (host, port) = host_and_port(&url);
                let error = SignalingError::Silent { host, port, after_ms: OPEN_TIMEOUT_MS };
                return drop(events.send((id, SocketEvent::Failed(error))).await);
            }
        },
        // Closed before it was open: nobody wants it any more.
        () = abandoned(&mut writes) => return,
    };
    if events.send((id, SocketEvent::Open)).await.is_err() {
        return;
    }
    let event = pump(stream, &mut writes, |text| {
        let (events, id) = (events.clone(), id);
        async move { events.send((id, SocketEvent::Text(text))).await.is_ok() }
    })
    .await;
    drop(events.send((id, event)).await);
}

async fn abandoned(writes: &mut mpsc::Receiver<Write>) {
    while let Some(write) = writes.recv().await {
        if matches!(write, Write::Close(..)) {
            return;
        }
    }
}

/// Reads and writes, neither waiting for the other, until one of them ends.
async fn pump<F, R>(
    stream: WebSocketStream<Box<dyn Wire>>,
    writes: &mut mpsc::Receiver<Write>,
    deliver: F,
) -> SocketEvent
where
    F: FnMut(String) -> R,
    R: Future<Output = bool>,
{
    let (sink, source) = stream.split();
    tokio::select! {
        event = read(source, deliver) => event,
        event = write(sink, writes) => event,
    }
}

fn lost(reason: impl Into<String>) -> SocketEvent {
    SocketEvent::Closed { code: 1006, reason: reason.into() }
}

async fn read<S, F, R>(mut source: S, mut deliver: F) -> SocketEvent
where
    S: Stream<Item = Result<Message, WsError>> + Unpin,
    F: FnMut(String) -> R,
    R: Future<Output = bool>,
{
    loop {
        match source.next().await {
            Some(Ok(Message::Text(text))) => {
                if !deliver(text.as_str().to_owned()).await {
                    return lost("");
                }
            }
            Some(Ok(Message::Close(frame))) => {
                // The answer to the close frame goes out while the end is read.
                drop(tokio::time::timeout(Duration::from_millis(CLOSE_GRACE_MS), source.next()).await);
                return match frame {
                    Some(frame) => {
                        SocketEvent::Closed { code: frame.code.into(), reason: frame.reason.as_str().to_owned() }
                    }
                    None => SocketEvent::Closed { code: 1005, reason: String::new() },
                };
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => return lost(error.to_string()),
            None => return lost("closed"),
        }
    }
}

async fn write<S>(mut sink: S, writes: &mut mpsc::Receiver<Write>) -> SocketEvent
where
    S: Sink<Message, Error = WsError> + Unpin,
{
    while let Some(write) = writes.recv().await {
        match write {
            Write::Text(text) => match tokio::time::timeout(WRITE_PATIENCE, sink.send(Message::text(text))).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return lost(error.to_string()),
                Err(_) => return lost("nothing could be written"),
            },
            Write::Close(code, reason) => {
                let frame = CloseFrame { code: CloseCode::from(code), reason: reason.into() };
                let close = async {
                    sink.send(Message::Close(Some(frame))).await?;
                    sink.close().await
                };
                drop(tokio::time::timeout(Duration::from_millis(CLOSE_GRACE_MS), close).await);
                return SocketEvent::Closed { code, reason: reason.to_owned() };
            }
        }
    }
    lost("dropped")
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

fn host_and_port(url: &str) -> (String, u16) {
    let parsed = Url::parse(url).ok();
    let host = parsed.as_ref().and_then(Url::host_str).unwrap_or("the server").to_owned();
    let port = parsed.as_ref().and_then(|u| u.port_or_known_default()).unwrap_or(443);
    (host, port)
}

async fn open(url: &str, trust: Trust) -> Result<WebSocketStream<Box<dyn Wire>>, SignalingError> {
    let (host, port) = host_and_port(url);
    let explain = |text: &str| explain_connect(text, &host, port);
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let tcp = dial::connect(address, port).await.map_err(|e| explain(&e.to_string()))?;
    // Small frames that somebody waits for.
    drop(tcp.set_nodelay(true));
    let wire: Box<dyn Wire> = if url.starts_with("wss:") {
        let config = tls::client_config(trust).map_err(|e| explain(&e.to_string()))?;
        let name =
            ServerName::try_from(address.to_owned()).map_err(|_| SignalingError::UnknownHost { host: host.clone() })?;
        Box::new(TlsConnector::from(Arc::new(config)).connect(name, tcp).await.map_err(|e| explain(&e.to_string()))?)
    } else {
        Box::new(tcp)
    };
    let config =
        WebSocketConfig::default().max_message_size(Some(MAX_FRAME_BYTES)).max_frame_size(Some(MAX_FRAME_BYTES));
    match client_async_with_config(url, wire, Some(config)).await {
        Ok((stream, _)) => Ok(stream),
        Err(WsError::Http(response)) => Err(SignalingError::NotOpenVidu {
            host,
            detail: format!("it answers {} instead of opening a WebSocket", response.status()),
        }),
        Err(WsError::Io(error)) => Err(explain(&error.to_string())),
        Err(error) => Err(SignalingError::NotOpenVidu { host, detail: error.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio_tungstenite::tungstenite::protocol::Role;

    /// Both ends of a socket over a pipe that holds so many bytes.
    async fn pair(bytes: usize) -> (WebSocketStream<Box<dyn Wire>>, WebSocketStream<tokio::io::DuplexStream>) {
        let (near, far) = tokio::io::duplex(bytes);
        let near: Box<dyn Wire> = Box::new(near);
        (
            WebSocketStream::from_raw_socket(near, Role::Client, None).await,
            WebSocketStream::from_raw_socket(far, Role::Server, None).await,
        )
    }

    #[tokio::test]
    async fn a_burst_on_a_slow_way_is_written_and_what_comes_is_read_meanwhile() {
        let (near, mut far) = pair(256).await;
        let (queue, mut writes) = mpsc::channel(WRITE_QUEUE);
        let socket = Socket { queue };
        for n in 0..1_000 {
            assert!(socket.send(format!("{n:0>60}")), "frame {n}");
        }
        let (heard, mut hears) = mpsc::channel(4);
        let pumping = tokio::spawn(async move {
            pump(near, &mut writes, |text| {
                let heard = heard.clone();
                async move { heard.send(text).await.is_ok() }
            })
            .await
        });
        // Nobody takes what is written; what the other side says arrives all the same.
        far.send(Message::text("pong")).await.unwrap();
        let got = tokio::time::timeout(Duration::from_secs(3), hears.recv()).await.unwrap();
        assert_eq!(got.as_deref(), Some("pong"));
        for n in 0..1_000 {
            let text = far.next().await.unwrap().unwrap().into_text().unwrap();
            assert_eq!(text.as_str(), format!("{n:0>60}"));
        }
        socket.close(4102, "bye");
        let end = far.next().await.unwrap().unwrap();
        assert!(matches!(end, Message::Close(Some(frame)) if u16::from(frame.code) == 4102), "the close comes last");
        assert!(matches!(pumping.await.unwrap(), SocketEvent::Closed { code: 4102, .. }));
    }
}
