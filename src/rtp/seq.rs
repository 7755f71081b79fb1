//! Sequence numbers and timestamps that wrap.

/// Whether `a` comes after `b` on the 16 bit circle (RFC 3550 §A.1, RFC 1982).
pub fn is_newer(a: u16, b: u16) -> bool {
    let distance = a.wrapping_sub(b);
    distance != 0 && distance < 0x8000
}

/// Extends wrapping 16 bit numbers to 64 bits, following small steps in both directions.
///
/// The first number seen is mapped to itself plus one turn of the circle, so that packets from before it stay
/// representable.
#[derive(Debug, Clone, Default)]
pub struct Unwrapper {
    last: Option<u64>,
}

impl Unwrapper {
    /// An unwrapper whose highest number so far is `extended`.
    pub fn starting_at(extended: u64) -> Self {
        Self { last: Some(extended) }
    }

    /// The extended number nearest to the highest one so far, without moving the reference.
    pub fn peek(&self, number: u16) -> u64 {
        match self.last {
            None => u64::from(number) + 0x1_0000,
            Some(last) => {
                // The low 16 bits of the reference, truncated on purpose.
                let step = number.wrapping_sub(last as u16) as i16;
                last.saturating_add_signed(i64::from(step))
            }
        }
    }

    /// The extended number; the reference moves along when it is the highest so far.
    pub fn unwrap(&mut self, number: u16) -> u64 {
        let extended = self.peek(number);
        self.last = Some(self.last.map_or(extended, |last| last.max(extended)));
        extended
    }

    /// The highest extended number so far.
    pub fn highest(&self) -> Option<u64> {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn follows_wraps_and_reordering() {
        let mut u = Unwrapper::default();
        let a = u.unwrap(65_534);
        assert_eq!(u.unwrap(65_535), a + 1);
        assert_eq!(u.unwrap(1), a + 3);
        assert_eq!(u.unwrap(0), a + 2);
        assert_eq!(u.highest(), Some(a + 3));
        assert_eq!(u.unwrap(65_533), a - 1);
    }

    #[test]
    fn newer_on_the_circle() {
        assert!(is_newer(0, 65_535));
        assert!(!is_newer(65_535, 0));
        assert!(!is_newer(7, 7));
        assert!(is_newer(0x7fff, 0));
        assert!(!is_newer(0x8000, 0));
    }
}
