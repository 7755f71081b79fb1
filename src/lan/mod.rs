//! Calls on the local network (discovery and ringing come with a later slice).
