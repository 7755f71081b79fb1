//! Joining through loss: a lost handshake datagram must never hang a connection.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod sfu_support;

use std::time::{Duration, Instant};

use sfu_support::{Publisher, answering_subscriber, subscriber};
use tertulia::host::sfu::{self, Impairment, LegId, SfuConfig};

/// Joins in all, at 10 % loss in each direction.
const JOINS: u64 = 200;
/// Joins at the same time.
const AT_ONCE: u64 = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_join_connects_at_ten_percent_loss() {
    let (sfu, _events) = sfu::start(SfuConfig::new("127.0.0.1:0".parse().unwrap())).unwrap();
    let _publisher = Publisher::publish(&sfu, 1, "one").await;
    let loss = Impairment { loss_in: 0.1, loss_out: 0.1, seed: 42 };
    sfu.set_impairment(None, Some(loss)).await.unwrap();
    let mut times = Vec::new();
    let mut failed = Vec::new();
    for batch in 0..JOINS / AT_ONCE {
        let tasks: Vec<_> = (0..AT_ONCE)
            .map(|index| {
                let sfu = sfu.clone();
                let leg = 10 + batch * AT_ONCE + index;
                tokio::spawn(async move {
                    let begin = Instant::now();
                    // Every fifth one answers our offer: there the forwarder is the DTLS server.
                    let mut client = if index % 5 == 4 {
                        answering_subscriber(&sfu, leg, "one").await
                    } else {
                        subscriber(&sfu, leg, "one", 96).await
                    };
                    let connected = client.connected(Duration::from_secs(14)).await;
                    // Our side must agree: keys on one end only would be no call.
                    let mut ours = false;
                    for _ in 0..100 {
                        let stats = sfu.stats().await.unwrap();
                        ours = stats.legs.iter().any(|l| l.leg == LegId(leg) && l.connected);
                        if ours {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    let took = begin.elapsed();
                    client.pc.close().await.unwrap();
                    let _ = sfu.close(LegId(leg)).await;
                    (leg, index % 5 == 4, connected.is_some() && ours, took)
                })
            })
            .collect();
        for task in tasks {
            let (leg, answering, connected, took) = task.await.unwrap();
            if connected {
                times.push(took);
            } else {
                failed.push((leg, answering));
            }
        }
    }
    times.sort();
    let stats = sfu.stats().await.unwrap();
    println!(
        "{} joins, median {:?}, p95 {:?}, longest {:?}, {} datagrams lost on purpose",
        times.len(),
        times[times.len() / 2],
        times[times.len() * 95 / 100],
        times[times.len() - 1],
        stats.impaired
    );
    assert!(failed.is_empty(), "not connected (leg, answering): {failed:?}");
    assert!(stats.impaired > JOINS, "loss happened");
    assert_eq!(stats.legs.len(), 1, "closed legs are gone");
    sfu.shutdown().await.unwrap();
}
