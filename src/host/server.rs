//! TCP, TLS, HTTP and WebSocket of the host.
//!
//! Bounded against the hostile: connections in all and per address, the time for the TLS handshake, for headers and for bodies, the size of bodies and
//! messages, the queue towards a socket that does not read.

use super::control::{Message, Outgoing, SocketFrames, outgoing};
use crate::protocol::room::{RestRequest, RestResponse, SocketId};
use axum::body::{Body, to_bytes};
use axum::extract::ws::{CloseFrame, Message as Ws, WebSocket, WebSocketUpgrade};
use axum::extract::{FromRequestParts as _, Request};
use axum::http::{HeaderName, HeaderValue, Response, StatusCode, header};
use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::rt::{TokioIo, TokioTimer};
use rand::RngCore as _;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_rustls::TlsAcceptor;

/// TCP connections in all; more are closed at once.
const CONNECTIONS: usize = 2_500;
/// TCP connections of one address.
const CONNECTIONS_PER_ADDRESS: usize = 600;
const TLS_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
const BODY_BYTES: usize = 128 << 10;
/// Largest message read at all; those above the 50 KiB of the protocol are answered with 1009.
const WS_MESSAGE_BYTES: usize = 128 << 10;
const WS_WRITE_TIMEOUT: Duration = Duration::from_secs(15);
/// A socket that says nothing, not even to a WebSocket ping, for this long is dead.
const WS_SILENCE: Duration = Duration::from_secs(60);
const WS_PING: Duration = Duration::from_secs(20);
/// How soon after a frame its reader is asked for a receipt.
const RECEIPT_DELAY: Duration = Duration::from_millis(100);
/// How long the other end may take to answer a close.
const WS_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const COOKIE: &str = "OVJSESSIONID";

/// What every connection needs.
#[derive(Clone)]
pub(super) struct Shared {
    pub(super) control: mpsc::Sender<Message>,
    next_socket: Arc<AtomicU64>,
    secure: bool,
}

impl Shared {
    pub(super) fn new(control: mpsc::Sender<Message>, secure: bool) -> Self {
        Self { control, next_socket: Arc::new(AtomicU64::new(1)), secure }
    }
}

/// Counts connections per address; the guard gives its place back.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<HashMap<IpAddr, usize>>>);

struct Place(Addresses, IpAddr);

impl Addresses {
    fn take(&self, ip: IpAddr) -> Option<Place> {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let n = map.entry(ip).or_default();
        if *n >= CONNECTIONS_PER_ADDRESS {
            return None;
        }
        *n += 1;
        Some(Place(self.clone(), ip))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut map = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = map.get_mut(&self.1) {
            *n = n.saturating_sub(1);
            if *n == 0 {
                map.remove(&self.1);
            }
        }
    }
}

/// Accepts connections until the task is dropped.
pub(super) async fn accept(listener: TcpListener, tls: Option<TlsAcceptor>, shared: Shared) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    let addresses = Addresses::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, most likely: wait for some to come back.
                tracing::warn!(%error, "accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&places).try_acquire_owned() else { continue };
        let Some(place) = addresses.take(peer.ip()) else { continue };
        let (tls, shared) = (tls.clone(), shared.clone());
        tokio::spawn(async move {
            connection(stream, peer, tls, shared).await;
            drop((permit, place));
        });
    }
}

async fn connection(stream: TcpStream, peer: SocketAddr, tls: Option<TlsAcceptor>, shared: Shared) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "nodelay");
    }
    match tls {
        None => http(stream, peer, shared).await,
        Some(tls) => match tokio::time::timeout(TLS_TIMEOUT, tls.accept(stream)).await {
            Ok(Ok(stream)) => http(stream, peer, shared).await,
            Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        },
    }
}

async fn http(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static, peer: SocketAddr, shared: Shared) {
    let service = hyper::service::service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let shared = shared.clone();
        async move { Ok::<_, std::convert::Infallible>(respond(request.map(Body::new), peer, shared).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(64 << 10)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades()
        .await;
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection");
    }
}

async fn respond(request: Request, peer: SocketAddr, shared: Shared) -> Response<Body> {
    if request.uri().path() == "/openvidu" && is_upgrade(&request) {
        return upgrade(request, peer, shared).await;
    }
    let (parts, body) = request.into_parts();
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let body = match tokio::time::timeout(BODY_TIMEOUT, to_bytes(body, BODY_BYTES)).await {
        Ok(Ok(body)) => body.to_vec(),
        Ok(Err(_)) => return status(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => return status(StatusCode::REQUEST_TIMEOUT),
    };
    let request = RestRequest {
        method: parts.method.as_str().to_owned(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers.iter().map(|(n, v)| (n.as_str().to_owned(), text(v))).collect(),
        body,
    };
    let (reply, response) = oneshot::channel();
    if shared.control.send(Message::Rest { request, reply }).await.is_err() {
        return status(StatusCode::SERVICE_UNAVAILABLE);
    }
    match response.await {
        Ok(response) => written(response),
        Err(_) => status(StatusCode::SERVICE_UNAVAILABLE),
    }
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

fn written(response: RestResponse) -> Response<Body> {
    let mut out = Response::new(Body::from(response.body));
    *out.status_mut() = StatusCode::from_u16(response.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    for (name, value) in response.headers {
        if let Ok(value) = HeaderValue::from_str(&value) {
            out.headers_mut().insert(HeaderName::from_static(name), value);
        }
    }
    out
}

fn is_upgrade(request: &Request) -> bool {
    request.headers().get(header::UPGRADE).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Accepts a WebSocket of any query and origin.
async fn upgrade(request: Request, peer: SocketAddr, shared: Shared) -> Response<Body> {
    let (mut parts, _) = request.into_parts();
    let known = parts
        .headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(';'))
        .filter_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
        .find(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()))
        .map(str::to_owned);
    let (cookie, is_new) = match known {
        Some(id) => (id, false),
        None => (new_cookie(), true),
    };
    let handshake = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(handshake) => handshake,
        Err(rejection) => return axum::response::IntoResponse::into_response(rejection),
    };
    let socket = SocketId(shared.next_socket.fetch_add(1, Ordering::Relaxed));
    let secure = if shared.secure { " Secure;" } else { "" };
    let set_cookie = format!("{COOKIE}={cookie}; Path=/;{secure} HttpOnly");
    let mut response = handshake
        .max_message_size(WS_MESSAGE_BYTES)
        .max_frame_size(WS_MESSAGE_BYTES)
        .max_write_buffer_size(1 << 20)
        // The library's default of 128 KiB would be kept for every idle socket.
        .read_buffer_size(8 << 10)
        .on_upgrade(move |ws| serve_socket(ws, socket, peer, cookie, shared));
    if is_new && let Ok(value) = HeaderValue::from_str(&set_cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
    response
}

fn new_cookie() -> String {
    let mut bytes = [0; 16];
    rand::rng().fill_bytes(&mut bytes);
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

async fn serve_socket(ws: WebSocket, socket: SocketId, peer: SocketAddr, cookie: String, shared: Shared) {
    let (out, frames) = outgoing();
    let control = shared.control;
    if control.send(Message::Opened { socket, peer: peer.ip(), cookie, out }).await.is_err() {
        return;
    }
    let (code, reason) = pump(ws, socket, frames, &control).await;
    // The control task is gone only when the whole host is.
    let _ = control.send(Message::Closed { socket, code, reason }).await;
}

/// What the other end has read, by its pongs: each carries back how many frames stood in front of its ping.
#[derive(Default)]
struct Receipts {
    written: u64,
    asked: u64,
    read: u64,
    ask_at: Option<tokio::time::Instant>,
}

impl Receipts {
    fn wrote(&mut self) {
        self.written += 1;
        self.ask_if_idle();
    }

    /// One question at a time, for all that was written meanwhile.
    fn ask_if_idle(&mut self) {
        if self.written > self.asked && self.asked == self.read && self.ask_at.is_none() {
            self.ask_at = Some(tokio::time::Instant::now() + RECEIPT_DELAY);
        }
    }

    fn ping(&mut self) -> Ws {
        self.asked = self.written;
        self.ask_at = None;
        Ws::Ping(self.written.to_be_bytes().to_vec().into())
    }

    /// How many frames have been read, when that is news.
    fn pong(&mut self, payload: &[u8]) -> Option<u64> {
        let frames = u64::from_be_bytes(payload.try_into().ok()?);
        if frames <= self.read || frames > self.asked {
            return None;
        }
        self.read = frames;
        self.ask_if_idle();
        Some(frames)
    }

    async fn due(&self) {
        match self.ask_at {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }
}

/// Moves frames both ways until one side closes; returns the close as the host saw it.
async fn pump(
    ws: WebSocket,
    socket: SocketId,
    mut frames: SocketFrames,
    control: &mpsc::Sender<Message>,
) -> (u16, String) {
    let (mut to_peer, mut from_peer) = ws.split();
    let mut receipts = Receipts::default();
    let mut ping = tokio::time::interval(WS_PING);
    ping.reset();
    let mut heard = tokio::time::Instant::now();
    let lost = |what: &str| (1006, what.to_owned());
    loop {
        tokio::select! {
            incoming = from_peer.next() => {
                heard = tokio::time::Instant::now();
                match incoming {
                    Some(Ok(Ws::Text(text))) => {
                        if control.send(Message::Text { socket, text: text.as_str().to_owned() }).await.is_err() {
                            return lost("the host has ended");
                        }
                    }
                    Some(Ok(Ws::Binary(_))) => return finish(&mut to_peer, &mut from_peer, 1003, "Binary messages not supported").await,
                    Some(Ok(Ws::Pong(payload))) => {
                        if let Some(frames) = receipts.pong(&payload)
                            && control.send(Message::Delivered { socket, frames }).await.is_err()
                        {
                            return lost("the host has ended");
                        }
                    }
                    Some(Ok(Ws::Ping(_))) => {}
                    Some(Ok(Ws::Close(frame))) => {
                        // The library has queued the answer (RFC 6455 §5.5.1); it has to get out before the connection goes.
                        let _ = tokio::time::timeout(WS_CLOSE_TIMEOUT, to_peer.close()).await;
                        return frame.map_or((1005, String::new()), |f| (f.code, f.reason.as_str().to_owned()));
                    }
                    Some(Err(error)) if is_too_big(&error) => {
                        let reason = "The decoded text message was too big for the output buffer and the endpoint does not support partial messages";
                        return finish(&mut to_peer, &mut from_peer, 1009, reason).await;
                    }
                    Some(Err(error)) => {
                        let text = error.to_string();
                        if let Some(code) = violation(&text) {
                            let _ = finish(&mut to_peer, &mut from_peer, code, "").await;
                        }
                        return lost(&text);
                    }
                    None => return lost("end of stream"),
                }
            }
            frame = frames.next() => {
                match frame {
                    Some(Outgoing::Text(text)) => {
                        match tokio::time::timeout(WS_WRITE_TIMEOUT, to_peer.send(Ws::Text(text.into()))).await {
                            Ok(Ok(())) => receipts.wrote(),
                            _ => return lost("the socket does not take what it is sent"),
                        }
                    }
                    Some(Outgoing::Close(code, reason)) => return finish(&mut to_peer, &mut from_peer, code, reason).await,
                    None => return lost("closed by the host"),
                }
            }
            () = receipts.due() => {
                if !matches!(tokio::time::timeout(WS_WRITE_TIMEOUT, to_peer.send(receipts.ping())).await, Ok(Ok(()))) {
                    return lost("the socket does not take what it is sent");
                }
            }
            _ = ping.tick() => {
                if heard.elapsed() > WS_SILENCE {
                    return lost("silence");
                }
                if !matches!(tokio::time::timeout(WS_WRITE_TIMEOUT, to_peer.send(receipts.ping())).await, Ok(Ok(()))) {
                    return lost("the socket does not take what it is sent");
                }
            }
        }
    }
}

/// The close code of what the other end has done wrong (RFC 6455 §7.4.1); none when the connection is simply gone.
fn violation(error: &str) -> Option<u16> {
    let error = error.to_ascii_lowercase();
    if error.contains("utf-8") {
        Some(1007)
    } else {
        (error.contains("protocol error") && !error.contains("without closing handshake")).then_some(1002)
    }
}

fn is_too_big(error: &axum::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(e) = source {
        if e.to_string().to_ascii_lowercase().contains("too large") || e.to_string().contains("too long") {
            return true;
        }
        source = e.source();
    }
    false
}

/// Closes from this side and waits a moment for the other, so that the close frame is not lost behind a reset.
async fn finish(
    to_peer: &mut futures_util::stream::SplitSink<WebSocket, Ws>,
    from_peer: &mut futures_util::stream::SplitStream<WebSocket>,
    code: u16,
    reason: &str,
) -> (u16, String) {
    let close = Ws::Close(Some(CloseFrame { code, reason: reason.into() }));
    let _ = tokio::time::timeout(WS_CLOSE_TIMEOUT, async {
        if to_peer.send(close).await.is_ok() {
            while let Some(Ok(frame)) = from_peer.next().await {
                if matches!(frame, Ws::Close(_)) {
                    break;
                }
            }
        }
    })
    .await;
    (code, reason.to_owned())
}
