//! Plays the kept fuzz corpus back, and each of its pieces many times with seeded mistakes.
//!
//! `cargo fuzz` (see `tests/fuzz/Cargo.toml`) looks for new pieces; what it ever found stays found by this test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "fuzz/bodies.rs"]
mod bodies;
#[path = "fuzz/host.rs"]
mod host;

// Under the names that the forwarder's files know.
use tertulia::rtp;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use std::path::{Path, PathBuf};

/// Mutations of every piece.
const MUTATIONS: usize = 2_000;

fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut pieces: Vec<_> = std::fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    pieces.sort();
    pieces
}

fn mutate(piece: &[u8], other: &[u8], random: &mut StdRng) -> Vec<u8> {
    let mut bytes = piece.to_vec();
    for _ in 0..random.random_range(1..8) {
        let at = random.random_range(0..=bytes.len());
        match random.random_range(0..5) {
            0 if at < bytes.len() => bytes[at] ^= 1 << random.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = [0, 1, 0x7f, 0x80, 0xff][random.random_range(0..5)],
            2 => bytes.truncate(at),
            3 => bytes.insert(at, random.random()),
            _ => {
                let from = random.random_range(0..=other.len());
                let piece: Vec<u8> = other[from..].iter().take(32).copied().collect();
                bytes.splice(at..at, piece);
            }
        }
    }
    bytes
}

fn play(target: &str, body: bodies::Body) {
    let pieces = corpus(target);
    assert!(pieces.len() >= 3, "{target} has no corpus");
    let began = std::time::Instant::now();
    let mut random = StdRng::seed_from_u64(0x7e_47);
    for (path, piece) in &pieces {
        let run = |bytes: &[u8], what: &str| {
            if std::panic::catch_unwind(|| body(bytes)).is_err() {
                panic!("{target}: {what} of {} fails: {bytes:?}", path.display());
            }
        };
        run(piece, "the piece");
        for _ in 0..MUTATIONS {
            let other = &pieces[random.random_range(0..pieces.len())].1;
            run(&mutate(piece, other, &mut random), "a mutation");
        }
    }
    println!("{target}: {} pieces, {:?}", pieces.len(), began.elapsed());
}

#[test]
fn the_corpus_and_its_neighborhood_break_nothing() {
    std::thread::scope(|scope| {
        for (target, body) in bodies::TARGETS.into_iter().chain(host::TARGETS) {
            scope.spawn(move || play(target, body));
        }
    });
}
