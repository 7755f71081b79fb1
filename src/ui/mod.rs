//! The window. Draws a [`crate::call::View`], sends [`crate::call::Command`]s; never blocks, never waits, knows no network and no codec.

pub mod bridge;
pub mod icons;
pub mod layout;
pub mod text;
pub mod theme;
pub mod widgets;
