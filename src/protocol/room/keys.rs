//! Room keys: what an invitation holds. A key is exchanged for a fresh token as often as it allows; the room outlives its OpenVidu session.

use super::random::IdSource;
use crate::protocol::Secret;
use crate::protocol::message::Role;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use subtle::ConstantTimeEq as _;

/// Keys of a room; one more takes the oldest one's place. A host that keeps its rooms makes a key at every start.
const KEYS_PER_ROOM: usize = 64;

/// What a key allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyRules {
    /// Highest role it gives.
    pub role: Role,
    /// UTC ms after which it is worth nothing.
    pub expires_at: Option<u64>,
    /// How many more tokens it gives.
    pub uses_left: Option<u32>,
}

impl Default for KeyRules {
    fn default() -> Self {
        Self { role: Role::Publisher, expires_at: None, uses_left: None }
    }
}

/// A key as it is kept: its digest, so that a stolen record opens nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Key {
    id: u64,
    digest: [u8; 32],
    rules: KeyRules,
}

/// A room.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Room {
    keys: Vec<Key>,
}

/// All rooms of a host, by name; the name is the id of the room's session.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Rooms {
    rooms: BTreeMap<String, Room>,
    next_key: u64,
}

/// Identifies a key for revoking it; says nothing about the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyId(u64);

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

impl Rooms {
    /// Makes a key of 192 bits for a room, which is made too if it is new.
    pub(super) fn add_key(&mut self, room: &str, rules: KeyRules, ids: &mut IdSource) -> (KeyId, Secret) {
        let key = URL_SAFE_NO_PAD.encode(ids.bytes::<24>());
        let id = self.next_key;
        self.next_key += 1;
        let keys = &mut self.rooms.entry(room.to_owned()).or_default().keys;
        if keys.len() >= KEYS_PER_ROOM {
            keys.remove(0);
        }
        keys.push(Key { id, digest: digest(&key), rules });
        (KeyId(id), Secret::new(key))
    }

    /// Takes a key back; `false` if there is none such.
    pub(super) fn revoke(&mut self, id: KeyId) -> bool {
        let before: usize = self.rooms.values().map(|r| r.keys.len()).sum();
        for room in self.rooms.values_mut() {
            room.keys.retain(|k| k.id != id.0);
        }
        before != self.rooms.values().map(|r| r.keys.len()).sum::<usize>()
    }

    /// Replaces every key of a room by one new one.
    pub(super) fn renew(&mut self, room: &str, rules: KeyRules, ids: &mut IdSource) -> Option<(KeyId, Secret)> {
        self.rooms.get_mut(room)?.keys.clear();
        Some(self.add_key(room, rules, ids))
    }

    /// Forgets a room and its keys.
    pub(super) fn remove(&mut self, room: &str) -> bool {
        self.rooms.remove(room).is_some()
    }

    /// Uses a key: the room and what the key gives. Every key of every room is compared, in constant time, whether one fits or not.
    pub(super) fn redeem(&mut self, key: &str, unix_ms: u64) -> Option<(String, KeyRules, KeyId)> {
        let given = digest(key);
        let mut found: Option<(&String, &mut Key)> = None;
        for (name, room) in &mut self.rooms {
            for k in &mut room.keys {
                if bool::from(k.digest.ct_eq(&given)) {
                    found = Some((name, k));
                }
            }
        }
        let (name, key) = found?;
        if key.rules.expires_at.is_some_and(|at| unix_ms >= at) {
            return None;
        }
        if let Some(left) = &mut key.rules.uses_left {
            *left = left.checked_sub(1)?;
        }
        Some((name.clone(), key.rules, KeyId(key.id)))
    }

    /// Gives a use back that led to nothing.
    pub(super) fn give_back(&mut self, id: KeyId) {
        let key = self.rooms.values_mut().flat_map(|room| &mut room.keys).find(|key| key.id == id.0);
        if let Some(left) = key.and_then(|key| key.rules.uses_left.as_mut()) {
            *left = left.saturating_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_limited_renewed_and_revoked() {
        let mut ids = IdSource::new([1; 32]);
        let mut rooms = Rooms::default();
        let (id, key) = rooms.add_key("a", KeyRules { uses_left: Some(2), ..KeyRules::default() }, &mut ids);
        assert_eq!(rooms.redeem("wrong", 0), None);
        assert_eq!(rooms.redeem(key.expose(), 0).map(|r| r.0), Some("a".into()));
        assert!(rooms.redeem(key.expose(), 0).is_some());
        assert_eq!(rooms.redeem(key.expose(), 0), None, "used up");
        let (_, timed) = rooms.add_key("a", KeyRules { expires_at: Some(100), ..KeyRules::default() }, &mut ids);
        assert!(rooms.redeem(timed.expose(), 99).is_some());
        assert!(rooms.redeem(timed.expose(), 100).is_none());
        assert!(rooms.revoke(id) && !rooms.revoke(id));
        let Some((_, renewed)) = rooms.renew("a", KeyRules::default(), &mut ids) else { panic!("no room") };
        assert!(rooms.redeem(timed.expose(), 0).is_none() && rooms.redeem(renewed.expose(), 0).is_some());
        assert!(rooms.renew("b", KeyRules::default(), &mut ids).is_none());
        assert!(rooms.remove("a") && rooms.redeem(renewed.expose(), 0).is_none());
    }
}
