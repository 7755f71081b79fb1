//! TCP to a host of several addresses: none of them holds up the others (RFC 8305).

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// So long after one address the next is tried as well.
const STAGGER: Duration = Duration::from_millis(250);
/// Most addresses tried.
const MOST: usize = 8;

/// The first address of a host to answer. The caller limits the time.
pub(super) async fn connect(host: &str, port: u16) -> io::Result<TcpStream> {
    let found = tokio::net::lookup_host((host, port)).await?;
    first(alternating(found.collect()), STAGGER, TcpStream::connect).await
}

/// IPv6 and IPv4 by turns, beginning with the kind that the system put first.
fn alternating(found: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let six_first = found.first().is_some_and(SocketAddr::is_ipv6);
    let (six, four): (VecDeque<_>, VecDeque<_>) = found.into_iter().partition(SocketAddr::is_ipv6);
    let (mut now, mut then) = if six_first { (six, four) } else { (four, six) };
    let mut order = Vec::new();
    while let Some(address) = now.pop_front() {
        order.push(address);
        if !then.is_empty() {
            std::mem::swap(&mut now, &mut then);
        }
    }
    order.truncate(MOST);
    order
}

/// Tries addresses one after the other, each a moment after the last or when that has failed, and gives what succeeds first.
async fn first<T, F>(addresses: Vec<SocketAddr>, stagger: Duration, dial: impl Fn(SocketAddr) -> F) -> io::Result<T>
where
    T: Send + 'static,
    F: Future<Output = io::Result<T>> + Send + 'static,
{
    // Dropped with the function: whoever is slower is called off.
    let mut dialling = JoinSet::new();
    let mut waiting = addresses.into_iter();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "no address");
    loop {
        match waiting.next() {
            Some(address) => drop(dialling.spawn(dial(address))),
            None if dialling.is_empty() => return Err(failure),
            None => {}
        }
        tokio::select! {
            Some(done) = dialling.join_next() => match done {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = error,
                Err(_) => {}
            },
            () = tokio::time::sleep(stagger) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn address(n: u8) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, n], 443))
    }

    /// What dialling this address comes to; 1 never answers, 2 refuses.
    async fn dial(to: SocketAddr) -> io::Result<SocketAddr> {
        match to {
            _ if to == address(1) => std::future::pending().await,
            _ if to == address(2) => Err(io::ErrorKind::ConnectionRefused.into()),
            _ => Ok(to),
        }
    }

    #[tokio::test]
    async fn an_address_that_does_not_answer_holds_up_nobody() {
        let stagger = Duration::from_millis(30);
        let begun = Instant::now();
        let got = first(vec![address(1), address(2), address(3)], stagger, dial).await;
        assert_eq!(got.unwrap(), address(3));
        // One pause for the silent one; the refusal is followed at once.
        assert!(begun.elapsed() >= stagger && begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        let refused = first(vec![address(2)], stagger, dial).await;
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        assert_eq!(first(Vec::new(), stagger, dial).await.unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn both_kinds_of_addresses_come_by_turns() {
        let six = |n: u16| SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, n], 443));
        let order = alternating(vec![six(1), six(2), six(3), address(1)]);
        assert_eq!(order, [six(1), address(1), six(2), six(3)]);
        assert_eq!(alternating(vec![address(1), six(1), address(2)]), [address(1), six(1), address(2)]);
    }
}
