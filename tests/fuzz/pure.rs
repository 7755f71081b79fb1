//! The rooms under test, compiled from the program's own sources and nothing else with them.
#![allow(dead_code, missing_docs, unused_imports)]

pub mod host;
pub mod media;
#[path = "../../src/protocol/mod.rs"]
pub mod protocol;
#[path = "../../src/rtp/mod.rs"]
pub mod rtp;
#[path = "../../src/wire/mod.rs"]
pub mod wire;
