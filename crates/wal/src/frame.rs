//! Frames: payloads in a file, one after the other, each with a mark, its length and a checksum.
//!
//! ```text
//! file  = *frame
//! frame = mark length(u32) checksum(u64) payload        ChecksumPlace::BeforePayload; covers length and payload
//!       | mark length(u32) payload checksum(u64)        ChecksumPlace::AfterPayload; covers everything before it
//! ```
//!
//! Numbers are little endian. The checksum is xxh3-64 with a seed that the owner of the file chooses: the number of the
//! file, or the machine's boot. It keeps a block of another file from being read as a part of this one.

use std::ops::Range;

use memchr::memmem;
use xxhash_rust::xxh3::{Xxh3, xxh3_64_with_seed};

use super::error::FormatError;

/// Bytes of a length.
const LENGTH: usize = 4;
/// Bytes of a checksum.
const CHECKSUM: usize = 8;

/// How frames of one kind of file are laid out.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct FrameFormat {
    /// What every frame starts with. No byte may be in it twice, so that two marks cannot overlap. A format with a version
    /// has it as the last byte: frames of another version are then skipped like damage.
    pub mark: &'static [u8],
    /// Where the checksum is, and what it covers.
    pub checksum: ChecksumPlace,
    /// Bytes that a payload may have. Writing refuses longer ones, and reading takes them for damage, because a changed
    /// length must not make it hash a whole file for every mark.
    pub longest: usize,
}

/// Where a frame's checksum is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ChecksumPlace {
    /// Between length and payload. It covers these two.
    BeforePayload,
    /// At the end. It covers everything before it, the mark included.
    AfterPayload,
}

impl FrameFormat {
    /// Appends a frame around the payload that `payload` appends. Returns the bytes that the frame takes. Allocates nothing
    /// beside what `out` needs to grow.
    ///
    /// # Errors
    /// `TooLong` if the payload is longer than [`FrameFormat::longest`], or than a length can say. `out` is then what it was
    /// before.
    pub fn append_frame(
        &self,
        out: &mut Vec<u8>,
        seed: u64,
        payload: impl FnOnce(&mut Vec<u8>),
    ) -> Result<usize, FormatError> {
        let start = out.len();
        out.extend_from_slice(self.mark);
        out.extend_from_slice(&[0; LENGTH]);
        if self.checksum == ChecksumPlace::BeforePayload {
            out.extend_from_slice(&[0; CHECKSUM]);
        }
        let head = out.len();
        payload(out);
        let length = out.len() - head;
        let Some(count) = u32::try_from(length).ok().filter(|_| length <= self.longest) else {
            out.truncate(start);
            // What a refused payload needed is not kept: it may be gigabytes.
            out.shrink_to_fit();
            return Err(FormatError::TooLong { length, longest: self.longest });
        };
        let count = count.to_le_bytes();
        let at = start + self.mark.len();
        fill(out, at, &count);
        match self.checksum {
            ChecksumPlace::BeforePayload => {
                let checksum = hash_parts(seed, count, out.get(head..).unwrap_or_default());
                fill(out, at + LENGTH, &checksum.to_le_bytes());
            }
            ChecksumPlace::AfterPayload => {
                let checksum = xxh3_64_with_seed(out.get(start..).unwrap_or_default(), seed);
                out.extend_from_slice(&checksum.to_le_bytes());
            }
        }
        Ok(out.len() - start)
    }

    /// The bytes of a frame whose payload has this many.
    #[must_use]
    pub const fn frame_length(&self, payload: usize) -> usize {
        self.mark.len() + LENGTH + CHECKSUM + payload
    }

    /// The payload of the frame that these bytes start with, and the bytes after the frame; `None` if they do not start with
    /// a good one.
    #[must_use]
    pub fn split_frame<'b>(&self, bytes: &'b [u8], seed: u64) -> Option<(&'b [u8], &'b [u8])> {
        let (count, rest) = bytes.strip_prefix(self.mark)?.split_first_chunk::<LENGTH>()?;
        let length = usize::try_from(u32::from_le_bytes(*count)).ok().filter(|it| *it <= self.longest)?;
        let (payload, rest, found, expected) = match self.checksum {
            ChecksumPlace::BeforePayload => {
                let (expected, rest) = rest.split_first_chunk::<CHECKSUM>()?;
                let (payload, rest) = rest.split_at_checked(length)?;
                (payload, rest, hash_parts(seed, *count, payload), expected)
            }
            ChecksumPlace::AfterPayload => {
                let (payload, rest) = rest.split_at_checked(length)?;
                let (expected, rest) = rest.split_first_chunk::<CHECKSUM>()?;
                let covered = bytes.get(..self.mark.len() + LENGTH + length)?;
                (payload, rest, xxh3_64_with_seed(covered, seed), expected)
            }
        };
        (found == u64::from_le_bytes(*expected)).then_some((payload, rest))
    }

    /// The frames of a file.
    #[must_use]
    pub const fn iter_frames<'b>(&self, bytes: &'b [u8], seed: u64) -> Frames<'b> {
        self.resume_frames(bytes, seed, 0)
    }

    /// The frames of a file from an offset on, which [`Frames::byte_offset`] has returned: for a reader that keeps the bytes
    /// and takes some frames at a time.
    #[must_use]
    pub const fn resume_frames<'b>(&self, bytes: &'b [u8], seed: u64, offset: usize) -> Frames<'b> {
        Frames { format: *self, bytes, seed, at: offset }
    }
}

/// Puts a number into the head of a frame, which was reserved for it.
fn fill(out: &mut [u8], at: usize, number: &[u8]) {
    if let Some(place) = out.get_mut(at..at + number.len()) {
        place.copy_from_slice(number);
    }
}

fn hash_parts(seed: u64, length: [u8; LENGTH], payload: &[u8]) -> u64 {
    let mut hasher = Xxh3::with_seed(seed);
    hasher.update(&length);
    hasher.update(payload);
    hasher.digest()
}

/// The frames of a file in order, and the damage between them.
#[derive(Debug)]
pub struct Frames<'b> {
    format: FrameFormat,
    bytes: &'b [u8],
    seed: u64,
    at: usize,
}

impl Frames<'_> {
    /// Where the next frame begins, or the damage before it.
    #[must_use]
    pub const fn byte_offset(&self) -> usize {
        self.at
    }
}

/// What comes next in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum NextFrame<'b> {
    /// The payload of a valid frame.
    Payload(&'b [u8]),
    /// These bytes are not a good frame. They end where the next good one starts, or with the file.
    Damaged(Range<usize>),
}

impl<'b> Iterator for Frames<'b> {
    type Item = NextFrame<'b>;

    fn next(&mut self) -> Option<NextFrame<'b>> {
        let start = self.at;
        let rest = self.bytes.get(start..).filter(|rest| !rest.is_empty())?;
        if let Some((payload, after)) = self.format.split_frame(rest, self.seed) {
            self.at = self.bytes.len() - after.len();
            return Some(NextFrame::Payload(payload));
        }
        let is_good = |at: &usize| {
            rest.get(*at..).is_some_and(|rest| self.format.split_frame(rest, self.seed).is_some())
        };
        let good = memmem::find_iter(rest, self.format.mark).filter(|at| *at > 0).find(is_good);
        self.at = good.map_or(self.bytes.len(), |at| start + at);
        Some(NextFrame::Damaged(start..self.at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Every layout that a file of the agent has, with the bytes of the same three payloads.
    const LAYOUTS: [(FrameFormat, &str); 2] = [
        (
            FrameFormat { mark: b"\xf1Tpw", checksum: ChecksumPlace::BeforePayload, longest: 1 << 30 },
            "f1547077030000001980f911feb3703d6f6e65f15470770000000025fef340119e06c6f15470771f000000ac3d104394\
             6d43ca746872656520f15470772054504a0220686173206d61726b7320696e206974",
        ),
        (
            FrameFormat { mark: b"TPJ\x02", checksum: ChecksumPlace::AfterPayload, longest: 4 << 20 },
            "54504a02030000006f6e65131fb3e33cd89b3e54504a0200000000cbbec796e086209c54504a021f0000007468726565\
             20f15470772054504a0220686173206d61726b7320696e206974bcb679016cb4deda",
        ),
    ];

    fn file(format: FrameFormat, payloads: &[&[u8]]) -> Vec<u8> {
        let mut out = Vec::new();
        for payload in payloads {
            let length = out.len();
            let taken = format.append_frame(&mut out, 7, |out| out.extend_from_slice(payload)).unwrap();
            assert_eq!((taken, taken), (out.len() - length, format.frame_length(payload.len())));
        }
        out
    }

    fn payloads(format: FrameFormat, bytes: &[u8], seed: u64) -> (Vec<&[u8]>, usize) {
        let mut damaged = 0;
        let good = format.iter_frames(bytes, seed).filter_map(|next| match next {
            NextFrame::Payload(payload) => Some(payload),
            NextFrame::Damaged(range) => {
                damaged += range.len();
                None
            }
        });
        (good.collect(), damaged)
    }

    const THREE: [&[u8]; 3] = [b"one", b"", b"three \xf1Tpw TPJ\x02 has marks in it"];

    /// Where each of the three frames ends.
    fn ends(format: FrameFormat) -> [usize; 3] {
        let first = format.frame_length(3);
        let second = first + format.frame_length(0);
        [first, second, second + format.frame_length(THREE[2].len())]
    }

    #[test]
    fn frames_read_back() {
        for (format, _) in LAYOUTS {
            let whole = file(format, &THREE);
            assert_eq!(payloads(format, &whole, 7), (THREE.to_vec(), 0));
            assert_eq!(whole.len(), ends(format)[2]);
            assert_eq!(payloads(format, &[], 7), (vec![], 0));
        }
    }

    #[test]
    fn the_bytes_of_frames_are_those_that_earlier_builds_read_and_write() {
        for (format, golden) in LAYOUTS {
            let digits = |byte: &u8| format!("{byte:02x}");
            let hex: String = file(format, &THREE).iter().map(digits).collect();
            assert_eq!(hex, golden);
        }
    }

    #[test]
    fn a_changed_byte_costs_its_frame_and_no_other() {
        for (format, _) in LAYOUTS {
            let whole = file(format, &THREE);
            for place in 0..whole.len() {
                let mut bytes = whole.clone();
                bytes[place] ^= 0x10;
                let hit = ends(format).iter().position(|end| place < *end).unwrap();
                let rest: Vec<_> = (0..3).filter(|n| *n != hit).map(|n| THREE[n]).collect();
                let (found, damaged) = payloads(format, &bytes, 7);
                assert_eq!(found, rest, "byte {place}");
                assert!(damaged > 0);
            }
        }
    }

    #[test]
    fn a_file_that_is_cut_off_has_the_frames_before() {
        for (format, _) in LAYOUTS {
            let (whole, [first, second, _]) = (file(format, &THREE), ends(format));
            for length in 0..whole.len() {
                let (found, damaged) = payloads(format, &whole[..length], 7);
                let before = [first, second].iter().filter(|end| **end <= length).count();
                assert_eq!(found, THREE[..before]);
                assert_eq!(damaged, length - [0, first, second][before]);
            }
        }
    }

    #[test]
    fn a_block_of_another_file_is_no_frame() {
        for (format, _) in LAYOUTS {
            assert_eq!(payloads(format, &file(format, &THREE), 8).0, Vec::<&[u8]>::new());
        }
    }

    #[test]
    fn a_payload_that_is_too_long_is_refused_and_leaves_what_was_written_before() {
        for (format, _) in LAYOUTS {
            let format = FrameFormat { longest: 5, ..format };
            let mut out = file(format, &[b"four", b"fives"]);
            let before = out.clone();
            let refused = format.append_frame(&mut out, 7, |out| out.extend_from_slice(b"sixsix"));
            assert_eq!(refused, Err(FormatError::TooLong { length: 6, longest: 5 }));
            assert_eq!(out, before);
            // A reader takes such a frame for damage, so writing it would lose it without a word.
            let longer = file(FrameFormat { longest: 6, ..format }, &[b"sixsix"]);
            assert_eq!(payloads(format, &longer, 7), (vec![], longer.len()));
        }
    }

    proptest! {
        #[test]
        fn whatever_replaces_a_part_of_a_file_every_whole_frame_is_found(
            noise: Vec<u8>, at in 0_usize..200, n in 0_usize..200,
        ) {
            for (format, _) in LAYOUTS {
                let mut bytes = file(format, &THREE);
                let (at, end) = (at.min(bytes.len()), (at + n).min(bytes.len()));
                let ends = ends(format);
                let starts = [0, ends[0], ends[1]];
                bytes.splice(at..end, noise.iter().copied());
                let (found, damaged) = payloads(format, &bytes, 7);
                let whole: Vec<_> = (0..3).filter(|n| ends[*n] <= at || starts[*n] >= end).map(|n| THREE[n]).collect();
                prop_assert!(whole.iter().all(|payload| found.contains(payload)), "{found:?}");
                let good: usize = found.iter().map(|payload| format.frame_length(payload.len())).sum();
                prop_assert_eq!(good + damaged, bytes.len());
            }
        }
    }
}
