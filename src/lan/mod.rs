//! Invitations, and with a later slice discovery and ringing on the local network. Knows protocol only.

pub mod invitation;
