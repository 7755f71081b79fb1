//! Secrets of servers: in the system's keyring, else in memory.

use std::collections::HashMap;
use std::sync::Mutex;

use keyring::Entry;

/// Where a secret ended up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretPlace {
    /// The system's keyring.
    Keyring,
    /// Memory, until the program ends: the system has no keyring.
    Memory,
}

/// Secrets by server address. The calls may talk to another program (the keyring): not for the window's thread.
#[derive(Default)]
pub struct Secrets {
    memory: Mutex<HashMap<String, String>>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(…)")
    }
}

impl Secrets {
    /// Keeps a secret and says where.
    pub fn set(&self, server: &str, secret: &str) -> SecretPlace {
        // In memory first: whoever asks while the keyring is still being opened gets the new one.
        self.memory().insert(server.to_owned(), secret.to_owned());
        if entry(server).is_some_and(|e| e.set_password(secret).is_ok()) {
            self.memory().remove(server);
            return SecretPlace::Keyring;
        }
        SecretPlace::Memory
    }

    /// The secret of a server, if one is known.
    pub fn get(&self, server: &str) -> Option<String> {
        if let Some(secret) = self.memory().get(server) {
            return Some(secret.clone());
        }
        entry(server)?.get_password().ok()
    }

    /// Forgets it in both places.
    pub fn forget(&self, server: &str) {
        self.memory().remove(server);
        if let Some(entry) = entry(server) {
            // Nothing there to delete is what was wanted.
            drop(entry.delete_credential());
        }
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn entry(server: &str) -> Option<Entry> {
    Entry::new("tertulia", server).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_kept_somewhere_and_never_printed() {
        let secrets = Secrets::default();
        let server = "https://secrets-test.invalid";
        secrets.set(server, "hush");
        assert_eq!(secrets.get(server).as_deref(), Some("hush"));
        assert!(!format!("{secrets:?}").contains("hush"));
        secrets.forget(server);
        assert_eq!(secrets.get(server), None);
    }
}
