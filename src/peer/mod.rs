//! Media transport over `webrtc`: publish and subscribe handles.
