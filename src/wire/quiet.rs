//! Transport-wide feedback while packets come, and no timer while none do.
//!
//! The stack's receiver asks to be woken twenty times a second for ever; a call in which nobody sends should sleep.

use std::time::Instant;

use rtc::interceptor::{Interceptor, Packet, StreamInfo, TaggedPacket, TwccReceiverInterceptor};
use rtc::sansio::Protocol;
use rtc::shared::error::Error;

/// Wakes the receiver only when there is something to tell.
pub struct Quiet {
    inner: TwccReceiverInterceptor,
    /// Something came since the last feedback.
    fresh: bool,
}

impl Quiet {
    /// Over the stack's receiver.
    pub fn new(inner: TwccReceiverInterceptor) -> Self {
        Self { inner, fresh: false }
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Quiet {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.fresh |= matches!(message.message.packet, Packet::Rtp(_));
        self.inner.handle_read(message)
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.inner.poll_read()
    }

    fn handle_write(&mut self, message: TaggedPacket) -> Result<(), Error> {
        self.inner.handle_write(message)
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.inner.poll_write()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        if self.fresh && self.inner.poll_timeout().is_some_and(|due| due <= now) {
            self.fresh = false;
            self.inner.handle_timeout(now)?;
        }
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.inner.poll_timeout().filter(|_| self.fresh)
    }
}

impl Interceptor for Quiet {
    fn bind_local_stream(&mut self, info: &StreamInfo) {
        self.inner.bind_local_stream(info);
    }

    fn unbind_local_stream(&mut self, info: &StreamInfo) {
        self.inner.unbind_local_stream(info);
    }

    fn bind_remote_stream(&mut self, info: &StreamInfo) {
        self.inner.bind_remote_stream(info);
    }

    fn unbind_remote_stream(&mut self, info: &StreamInfo) {
        self.inner.unbind_remote_stream(info);
    }
}
