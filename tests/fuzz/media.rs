//! Of the media room only what needs no device.

#[path = "audio.rs"]
pub mod audio;
