//! OpenVidu 2 messages and state machines, pure.
