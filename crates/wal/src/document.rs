//! Documents: one payload, with a mark, a version and a checksum, read as a whole or not at all.
//!
//! ```text
//! document = mark(4) version(u16) payload checksum(u64)
//! ```
//!
//! Numbers are little endian. The checksum is xxh3-64 of everything before it.

use serde::Serialize;
use serde::de::DeserializeOwned;
use xxhash_rust::xxh3::xxh3_64;

use super::error::FormatError;
use super::payload::{decode, encode_after};

/// A kind of document.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct DocumentFormat {
    /// What every document of the kind starts with.
    pub mark: [u8; 4],
    /// The version of the payload that is written, and the only one that is read.
    pub version: u16,
}

impl DocumentFormat {
    /// A document with this payload.
    #[must_use]
    pub fn encode_document(self, payload: &impl Serialize) -> Vec<u8> {
        let head = [self.mark.as_slice(), &self.version.to_le_bytes()].concat();
        let mut bytes = encode_after(head, payload);
        let checksum = xxh3_64(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// The payload of a document.
    ///
    /// # Errors
    /// `OtherMark` if the bytes are something else, `Version` if they come from another version, which is said even if they are
    /// damaged as well, and `Damaged` if they are cut off or changed, or the payload is of another type.
    pub fn decode_document<T: DeserializeOwned>(self, bytes: &[u8]) -> Result<T, FormatError> {
        decode(self.open_payload(bytes)?).ok_or(FormatError::Damaged)
    }

    fn open_payload(self, bytes: &[u8]) -> Result<&[u8], FormatError> {
        let rest = bytes.strip_prefix(&self.mark).ok_or(FormatError::OtherMark)?;
        let (version, rest) = rest.split_first_chunk::<2>().ok_or(FormatError::Damaged)?;
        let found = u16::from_le_bytes(*version);
        if found != self.version {
            return Err(FormatError::Version { found });
        }
        let (payload, checksum) = rest.split_last_chunk::<8>().ok_or(FormatError::Damaged)?;
        let covered = bytes.get(..bytes.len() - checksum.len()).ok_or(FormatError::Damaged)?;
        match xxh3_64(covered) == u64::from_le_bytes(*checksum) {
            true => Ok(payload),
            false => Err(FormatError::Damaged),
        }
    }
}

/// The checksum that a document ends with, by which others can name it. `None` for bytes that are too short for one. The document
/// itself is not checked.
#[must_use]
pub fn checksum_of(document: &[u8]) -> Option<u64> {
    document.last_chunk().map(|checksum| u64::from_le_bytes(*checksum))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kind of document that the agent has, with the bytes of the same payload.
    const KINDS: [(DocumentFormat, &str); 3] = [
        (DocumentFormat { mark: *b"TPAG", version: 8 }, "545041470800ac020454504147cc1c80e67adbb4ec"),
        (DocumentFormat { mark: *b"TPAC", version: 8 }, "545041430800ac020454504147e19d3db9002d3101"),
        (DocumentFormat { mark: *b"TPHI", version: 7 }, "545048490700ac0204545041473601bdcaaae9802f"),
    ];

    fn payload() -> (u64, String) {
        (300, "TPAG".to_owned())
    }

    #[test]
    fn the_bytes_of_documents_are_those_that_earlier_builds_read_and_write() {
        for (kind, golden) in KINDS {
            let document = kind.encode_document(&payload());
            let digits = |byte: &u8| format!("{byte:02x}");
            let hex: String = document.iter().map(digits).collect();
            assert_eq!(hex, golden);
            assert_eq!(kind.decode_document(&document), Ok(payload()));
        }
    }

    #[test]
    fn a_document_that_is_cut_off_or_changed_anywhere_is_refused() {
        for (kind, _) in KINDS {
            let document = kind.encode_document(&payload());
            let read = |bytes: &[u8]| kind.decode_document::<(u64, String)>(bytes);
            for length in 0..document.len() {
                assert!(read(&document[..length]).is_err(), "cut off at {length}");
            }
            for bit in 0..document.len() * 8 {
                let mut changed = document.clone();
                changed[bit / 8] ^= 1 << (bit % 8);
                let expected = match bit / 8 {
                    0..4 => FormatError::OtherMark,
                    4..6 => FormatError::Version { found: u16::from_le_bytes([changed[4], changed[5]]) },
                    _ => FormatError::Damaged,
                };
                assert_eq!(read(&changed), Err(expected), "bit {bit}");
            }
            assert_eq!(read(&[&document[..], &[0]].concat()), Err(FormatError::Damaged), "a byte more");
        }
    }

    #[test]
    fn a_payload_of_another_type_is_damage() {
        let (kind, _) = KINDS[0];
        let document = kind.encode_document(&payload());
        assert_eq!(kind.decode_document::<u64>(&document), Err(FormatError::Damaged));
    }

    #[test]
    fn a_document_is_named_by_its_last_bytes() {
        let document = KINDS[0].0.encode_document(&payload());
        let checksum = xxh3_64(&document[..document.len() - 8]);
        assert_eq!(checksum_of(&document), Some(checksum));
        assert_eq!(checksum_of(&document[..7]), None);
    }
}
