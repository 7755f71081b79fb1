//! In the place of the crate `opus` in a build without it: what is used of that crate, as far as its compiler must see it. Nothing of it ever
//! comes into being, since neither an encoder nor a decoder can be had.

/// Why there is none.
#[derive(Debug, thiserror::Error)]
#[error("this program was built without it")]
pub(super) struct Error;

pub(super) enum Channels {
    Mono,
    Stereo,
}

pub(super) enum Application {
    Voip,
    Audio,
}

pub(super) enum Bitrate {
    Bits(i32),
}

pub(super) enum Signal {
    Voice,
    Music,
}

pub(super) enum Encoder {}

impl Encoder {
    pub(super) fn new(_rate_hz: u32, _channels: Channels, _application: Application) -> Result<Self, Error> {
        Err(Error)
    }

    pub(super) fn encode_float(&mut self, _samples: &[f32], _packet: &mut [u8]) -> Result<usize, Error> {
        match *self {}
    }

    pub(super) fn reset_state(&mut self) -> Result<(), Error> {
        match *self {}
    }

    pub(super) fn set_bitrate(&mut self, Bitrate::Bits(_bps): Bitrate) -> Result<(), Error> {
        match *self {}
    }

    pub(super) fn set_complexity(&mut self, _complexity: i32) -> Result<(), Error> {
        match *self {}
    }

    pub(super) fn set_inband_fec(&mut self, _on: bool) -> Result<(), Error> {
        match *self {}
    }

    pub(super) fn set_dtx(&mut self, _on: bool) -> Result<(), Error> {
        match *self {}
    }

    pub(super) fn set_packet_loss_perc(&mut self, _percent: i32) -> Result<(), Error> {
        match *self {}
    }

    pub(super) fn set_vbr(&mut self, _on: bool) -> Result<(), Error> {
        match *self {}
    }

    pub(super) fn set_signal(&mut self, _signal: Signal) -> Result<(), Error> {
        match *self {}
    }
}

pub(super) enum Decoder {}

impl Decoder {
    pub(super) fn new(_rate_hz: u32, _channels: Channels) -> Result<Self, Error> {
        Err(Error)
    }

    pub(super) fn decode_float(&mut self, _packet: &[u8], _samples: &mut [f32], _fec: bool) -> Result<usize, Error> {
        match *self {}
    }

    pub(super) fn reset_state(&mut self) -> Result<(), Error> {
        match *self {}
    }
}

pub(super) mod packet {
    pub(in super::super) fn get_nb_samples(_packet: &[u8], _rate_hz: u32) -> Result<usize, super::Error> {
        Err(super::Error)
    }
}
