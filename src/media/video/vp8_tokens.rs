//! Where libvpx's VP8 encoder keeps the tokens of a picture.
//!
//! It takes room for the most tokens that a picture could have, 24 bytes a pixel (22 MiB at 720p), and writes zeros to all of
//! it, while a picture that is not all noise needs little of that. Nothing in its interface names the place. It is found by following the
//! pointers from the encoder's own context, as a garbage collector does: each has to lead to a block that libvpx has
//! taken (it notes where the system's block begins in the word before its own, and the system notes the length before that),
//! and the room for tokens is the one block of exactly that length. A block that this encoder points to is this encoder's, so
//! nobody else's memory is ever named. Everything is read through the kernel's file of our own memory, for which a number that
//! is no address is an error like any other. A library or system that does it otherwise gives nothing.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

const WORD: usize = size_of::<usize>();
/// Tokens of a block of 16 × 16 pixels: 24 blocks of 16 coefficients, 16 bytes each.
const BYTES_PER_MACROBLOCK: usize = 24 * 16 * 16;
/// Less is not worth the search.
const LEAST_BYTES: usize = 1 << 20;
/// The system rounds a block up to whole pages, the largest of which are this, and libvpx to its alignment.
const PAGE_MAX: usize = 64 << 10;
/// The largest block in which pointers are looked for: libvpx's encoder is 190 kB.
const SEARCHED_BYTES_MAX: usize = 1 << 20;
/// libvpx aligns to 32 bytes at most, behind the word for the beginning.
const SHIFT_MAX: usize = WORD + 32;
/// glibc aligns blocks to two words, and keeps three flags in the lower bits of the length.
const ALIGNMENT: usize = 2 * WORD;
const FLAGS: usize = 7;
/// The flag of a block that is a mapping of its own.
const MAPPED: usize = 2;

/// The whole pages, of whatever size this system has them, of the room for tokens of an encoder for pictures of this size in
/// pixels. `private` is the address of the context's private part. `None` where it is small or cannot be told.
pub(super) fn find(private: usize, width: u32, height: u32) -> Option<Range<usize>> {
    let macroblocks = width.div_ceil(16) as usize * height.div_ceil(16) as usize;
    let bytes = macroblocks.checked_mul(BYTES_PER_MACROBLOCK).filter(|bytes| *bytes >= LEAST_BYTES)?;
    let memory = Memory(File::open("/proc/self/mem").ok()?);
    let is_it = |length: &usize| (bytes..bytes + PAGE_MAX + SHIFT_MAX).contains(length);
    let mut found: Option<usize> = None;
    for encoder in memory.pointers(private)? {
        for at in memory.pointers(encoder).unwrap_or_default() {
            if memory.block(at).is_some_and(|length| is_it(&length)) {
                if found.is_some_and(|other| other != at) {
                    return None;
                }
                found = Some(at);
            }
        }
    }
    let start = found?.checked_next_multiple_of(PAGE_MAX)?;
    let end = found?.checked_add(bytes)? / PAGE_MAX * PAGE_MAX;
    (start < end).then_some(start..end)
}

/// The memory of this process.
struct Memory(File);

impl Memory {
    fn word(&self, at: usize) -> Option<usize> {
        let mut word = [0; WORD];
        self.0.read_exact_at(&mut word, u64::try_from(at).ok()?).ok()?;
        Some(usize::from_ne_bytes(word))
    }

    /// Length in bytes of libvpx's block that begins at `at`, if one does.
    fn block(&self, at: usize) -> Option<usize> {
        if at < PAGE_MAX || !at.is_multiple_of(ALIGNMENT) {
            return None;
        }
        let beginning = self.word(at.checked_sub(WORD)?)?;
        let shift = at.checked_sub(beginning).filter(|shift| (WORD..=SHIFT_MAX).contains(shift))?;
        if !beginning.is_multiple_of(ALIGNMENT) {
            return None;
        }
        let length = self.word(beginning.checked_sub(WORD)?)?;
        let overhead = if length & MAPPED == 0 { WORD } else { 2 * WORD };
        (length & !FLAGS).checked_sub(overhead + shift)
    }

    /// What may be pointers in libvpx's block that begins at `at`.
    fn pointers(&self, at: usize) -> Option<Vec<usize>> {
        let length = self.block(at).filter(|length| *length <= SEARCHED_BYTES_MAX)?;
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, u64::try_from(at).ok()?).ok()?;
        let words = bytes.chunks_exact(WORD).filter_map(|word| Some(usize::from_ne_bytes(word.try_into().ok()?)));
        Some(words.filter(|word| *word >= PAGE_MAX && word.is_multiple_of(ALIGNMENT)).collect())
    }
}
