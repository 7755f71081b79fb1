//! An input taken apart.

/// Takes numbers and pieces off the front of the input; at its end everything is zero or empty.
pub struct Bits<'a>(pub &'a [u8]);

impl<'a> Bits<'a> {
    pub fn u8(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.u8(), self.u8()])
    }
    pub fn u32(&mut self) -> u32 {
        u32::from(self.u16()) << 16 | u32::from(self.u16())
    }
    pub fn take(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
    /// A piece that says its length first, in two bytes.
    pub fn piece(&mut self) -> &'a [u8] {
        let length = usize::from(self.u16());
        self.take(length)
    }
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
