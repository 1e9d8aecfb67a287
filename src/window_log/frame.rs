//! Frames: how entries lie in a file, and how they are found again when a part of it is damaged.
//!
//! ```text
//! file  = *frame
//! frame = mark(4) length(u32, little endian) check(u64, little endian) payload
//! check = xxh3-64 of length and payload, seeded with the file's number
//! ```
//!
//! A frame that is cut off or changed does not pass its check; reading goes on at the next mark whose frame does. The
//! seed keeps a block of another file from being taken for one of this.

use std::ops::Range;

use memchr::memmem;
use xxhash_rust::xxh3::Xxh3;

/// What each frame starts with: no text, and no byte of it twice.
const MARK: [u8; 4] = [0xf1, b'T', b'p', b'w'];
/// Bytes before the payload.
const HEAD: usize = 16;
/// A longer payload is a mistake: a container's memory limit bounds its windows.
const LONGEST: usize = 1 << 30;

/// Appends a frame around what `payload` appends. Answers the bytes it takes.
#[expect(clippy::expect_used, reason = "a frame with another length would hide all frames after it")]
pub(super) fn write(out: &mut Vec<u8>, seed: u64, payload: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = out.len();
    out.extend_from_slice(&MARK);
    out.extend_from_slice(&[0; HEAD - MARK.len()]);
    payload(out);
    let length =
        u32::try_from(out.len() - start - HEAD).expect("a payload is shorter than 4 GiB").to_le_bytes();
    let check = frame_checksum(seed, length, out.get(start + HEAD..).unwrap_or_default());
    let head = [length.as_slice(), &check.to_le_bytes()].concat();
    if let Some(place) = out.get_mut(start + MARK.len()..start + HEAD) {
        place.copy_from_slice(&head);
    }
    out.len() - start
}

fn frame_checksum(seed: u64, length: [u8; 4], payload: &[u8]) -> u64 {
    let mut hasher = Xxh3::with_seed(seed);
    hasher.update(&length);
    hasher.update(payload);
    hasher.digest()
}

/// The frames of a file, and what between them is none.
#[derive(Debug)]
pub(super) struct LogFrames<'b> {
    bytes: &'b [u8],
    seed: u64,
    at: usize,
}

/// What is next in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum NextFrame<'b> {
    /// The payload of a good frame.
    Payload(&'b [u8]),
    /// These bytes are no good frame.
    Damaged(Range<usize>),
}

impl<'b> LogFrames<'b> {
    pub(super) fn new(bytes: &'b [u8], seed: u64) -> Self {
        Self { bytes, seed, at: 0 }
    }

    /// The payload of a frame at a place, if there is a good one.
    fn payload_at(&self, at: usize) -> Option<&'b [u8]> {
        let rest = self.bytes.get(at..)?.strip_prefix(&MARK)?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let (expected, rest) = rest.split_first_chunk::<8>()?;
        let payload = rest.get(..usize::try_from(u32::from_le_bytes(*length)).ok()?)?;
        let good = payload.len() <= LONGEST
            && frame_checksum(self.seed, *length, payload) == u64::from_le_bytes(*expected);
        good.then_some(payload)
    }
}

impl<'b> Iterator for LogFrames<'b> {
    type Item = NextFrame<'b>;

    fn next(&mut self) -> Option<NextFrame<'b>> {
        let start = self.at;
        let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        if let Some(payload) = self.payload_at(start) {
            self.at = start + HEAD + payload.len();
            return Some(NextFrame::Payload(payload));
        }
        let marks = memmem::find_iter(rest, &MARK).map(|at| start + at);
        let good = marks.filter(|at| *at > start).find(|at| self.payload_at(*at).is_some());
        self.at = good.unwrap_or(self.bytes.len());
        Some(NextFrame::Damaged(start..self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for payload in payloads {
            write(&mut out, 7, |out| out.extend_from_slice(payload));
        }
        out
    }

    fn payloads(bytes: &[u8], seed: u64) -> (Vec<&[u8]>, usize) {
        let mut damaged = 0;
        let good = LogFrames::new(bytes, seed).filter_map(|next| match next {
            NextFrame::Payload(payload) => Some(payload),
            NextFrame::Damaged(range) => {
                damaged += range.len();
                None
            }
        });
        (good.collect(), damaged)
    }

    const THREE: [&[u8]; 3] = [b"one", b"", b"three \xf1Tpw has a mark in it"];

    #[test]
    fn frames_read_back() {
        assert_eq!(payloads(&file(&THREE), 7), (THREE.to_vec(), 0));
        assert_eq!(payloads(&[], 7), (vec![], 0));
    }

    #[test]
    fn a_changed_byte_costs_its_frame_and_no_other() {
        let whole = file(&THREE);
        let ends = [19, 35, whole.len()];
        for place in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[place] ^= 0x10;
            let hit = ends.iter().position(|end| place < *end).unwrap();
            let rest: Vec<_> = (0..3).filter(|n| *n != hit).map(|n| THREE[n]).collect();
            let (found, damaged) = payloads(&bytes, 7);
            assert_eq!(found, rest, "byte {place}");
            assert!(damaged > 0);
        }
    }

    #[test]
    fn a_file_that_is_cut_off_has_the_frames_before() {
        let whole = file(&THREE);
        for length in 0..whole.len() {
            let (found, damaged) = payloads(&whole[..length], 7);
            let before = [19, 35].iter().filter(|end| **end <= length).count();
            assert_eq!(found, THREE[..before]);
            assert_eq!(damaged, length - [0, 19, 35][before]);
        }
    }

    #[test]
    fn a_block_of_another_file_is_no_frame() {
        assert_eq!(payloads(&file(&THREE), 8).0, Vec::<&[u8]>::new());
    }
}
