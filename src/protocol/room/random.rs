//! Identifiers and secrets, from one seeded generator.

use rand::rngs::StdRng;
use rand::{Rng, RngCore, SeedableRng};

const ALNUM: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
const UPPER: &[u8; 26] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ";
const BASE32: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// Source of everything that must be unique or secret.
pub(super) struct IdSource(StdRng);

impl IdSource {
    pub(super) fn new(seed: [u8; 32]) -> Self {
        Self(StdRng::from_seed(seed))
    }

    fn pick(&mut self, alphabet: &[u8], n: usize) -> String {
        (0..n).filter_map(|_| alphabet.get(self.0.random_range(0..alphabet.len())).map(|b| char::from(*b))).collect()
    }

    /// `prefix`, one upper-case letter and `tail` more characters of `[0-9A-Za-z]`.
    pub(super) fn id(&mut self, prefix: &str, tail: usize) -> String {
        format!("{prefix}{}{}", self.pick(UPPER, 1), self.pick(ALNUM, tail))
    }

    /// A JSON-RPC session id: 130 bits in base 32.
    pub(super) fn rpc_session(&mut self) -> String {
        self.pick(BASE32, 26)
    }

    /// `n` characters of `[0-9A-Za-z]`.
    pub(super) fn alnum(&mut self, n: usize) -> String {
        self.pick(ALNUM, n)
    }

    /// Bytes of a room key.
    pub(super) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut out = [0; N];
        self.0.fill_bytes(&mut out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ids::is_random_id;

    #[test]
    fn forms_of_the_identifiers() {
        let mut ids = IdSource::new([7; 32]);
        for _ in 0..200 {
            assert!(is_random_id(&ids.id("con_", 9), "con_", 9));
            assert!(is_random_id(&ids.id("tok_", 15), "tok_", 15));
            let rpc = ids.rpc_session();
            assert!(rpc.len() == 26 && rpc.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'v').contains(&b)));
        }
        assert_ne!(ids.bytes::<32>(), ids.bytes::<32>());
        assert_ne!(ids.alnum(8), ids.alnum(8));
    }
}
