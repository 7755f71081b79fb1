//! Settings on disk and secrets in the keyring.
