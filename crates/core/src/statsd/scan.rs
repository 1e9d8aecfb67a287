//! Looking for one of a few bytes, nearby.
//!
//! A name or a field of a line is a few dozen bytes long. The `memchr` crate finds its way to the processor's widest
//! vectors at each call, which takes longer than to look at so few bytes sixteen at a time.

use wide::u8x16;

const BLOCK: usize = 16;

/// Where in `text` the first of the needles is.
#[inline]
pub(super) fn find<const N: usize>(needles: [u8; N], text: &[u8]) -> Option<usize> {
    let found = |block: &[u8; BLOCK]| {
        let block = u8x16::new(*block);
        let hits =
            needles.iter().fold(u8x16::ZERO, |hits, needle| hits | block.simd_eq(u8x16::splat(*needle)));
        hits.to_bitmask()
    };
    let mut at = 0;
    while let Some((block, _)) = text.get(at..)?.split_first_chunk() {
        let hits = found(block);
        if hits != 0 {
            return Some(at + hits.trailing_zeros() as usize);
        }
        at += BLOCK;
    }
    // The last block lies over the one before it, of which nothing is a hit.
    if let Some((before, block)) = text.split_last_chunk() {
        let hits = found(block);
        return (hits != 0).then(|| before.len() + hits.trailing_zeros() as usize);
    }
    text.iter().position(|byte| needles.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_needle_is_found_wherever_it_is() {
        for length in 0..70 {
            let mut text = vec![b'x'; length];
            assert_eq!(find([b':', b'|'], &text), None);
            for at in (0..length).rev() {
                for needle in [b':', b'|'] {
                    text[at] = needle;
                    assert_eq!(find([b':', b'|'], &text), Some(at), "{at} of {length}");
                }
            }
        }
    }

    #[test]
    fn nothing_beyond_the_text_is_found() {
        let text = [b':'; 64];
        assert_eq!(find([b'|'], &text), None);
        assert_eq!(find([b':'], &text[..0]), None);
    }
}
