//! The window. Draws a [`crate::call::View`], sends [`crate::call::Command`]s; never blocks, never waits, knows no network and no codec.

pub mod app;
pub mod bridge;
pub mod call;
pub mod commands;
pub mod ended;
pub mod failure;
pub mod home;
pub mod icons;
pub mod input;
pub mod layout;
pub mod lobby;
pub mod notices;
pub mod order;
pub mod pace;
pub mod raster;
pub mod snapshot;
pub mod text;
pub mod theme;
pub mod tile;
pub mod video;
pub mod video_gl;
mod video_rgb;
pub mod widgets;
