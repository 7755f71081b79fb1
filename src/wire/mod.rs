//! The interceptor that both `peer` and `host` plug into the RTP stack.
