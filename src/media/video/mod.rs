//! Camera to encoded frames, encoded frames to tiles.

pub mod frame;
