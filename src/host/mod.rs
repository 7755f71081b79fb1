//! The embedded OpenVidu-compatible server.
