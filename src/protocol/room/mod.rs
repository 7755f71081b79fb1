//! The session machine of a host.
