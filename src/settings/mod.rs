//! Settings on disk and secrets in the keyring. Knows nothing else.
//!
//! One TOML file, written as a whole or not at all; members of newer versions survive. Secrets never stand in it: they go to
//! the system's keyring, or, where there is none, stay in memory for this run, which the caller can tell.

mod secrets;
mod store;

pub use secrets::{SecretPlace, Secrets};
pub use store::{Device, KnownServer, RecentSession, Settings, SettingsError, Store, Theme};
