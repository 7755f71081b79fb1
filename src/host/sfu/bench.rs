//! Placeholder until the forwarding path compiles.
