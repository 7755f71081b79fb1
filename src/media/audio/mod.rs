//! Microphone to Opus, Opus to speaker.
