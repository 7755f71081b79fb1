//! The window: draws a view, sends commands.
