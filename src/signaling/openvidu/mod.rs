//! The OpenVidu 2 dialect: sockets and REST round [`crate::protocol::client`].

mod changes;
mod dial;
mod driver;
mod handle;
pub mod rest;
mod socket;
mod told;

pub use handle::{ConnectConfig, OpenVidu, connect};
