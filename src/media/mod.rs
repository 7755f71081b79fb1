//! Devices, codecs, processing and playout. Knows no network and no window.

pub mod audio;
pub mod screen;
pub mod video;
