//! The encoding of all values that another process or a later run reads.

use serde::Serialize;
use serde::de::Deserialize;

/// A value as bytes, in the format of postcard.
///
/// # Panics
/// If postcard cannot express the type, as [`encode_after`] says.
#[must_use]
pub fn encode(value: &impl Serialize) -> Vec<u8> {
    encode_after(Vec::new(), value)
}

/// Bytes, followed by a value in the format of postcard.
///
/// # Panics
/// If postcard cannot express the type; the only case is sequences of unknown length. That is a mistake in the type,
/// which any test of it finds. Continuing would write bytes without the value, with a valid checksum.
#[must_use]
#[expect(clippy::expect_used, reason = "memory takes everything, so only a mistake in a type can fail")]
pub fn encode_after(bytes: Vec<u8>, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, bytes).expect("a type that postcard can express")
}

/// The value that all of these bytes are. `None` if they are not one, or if bytes are left after it: then they are another
/// type's.
#[must_use]
pub fn decode<'b, T: Deserialize<'b>>(bytes: &'b [u8]) -> Option<T> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Some(value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_comes_back_and_bytes_after_it_are_refused() {
        let mut bytes = encode_after(b"head".to_vec(), &(7_u64, "seven"));
        assert_eq!(bytes, b"head\x07\x05seven");
        assert_eq!(decode(&bytes[4..]), Some((7_u64, "seven")));
        assert_eq!(encode(&(7_u64, "seven")), bytes[4..]);
        bytes.push(0);
        assert_eq!(decode::<(u64, &str)>(&bytes[4..]), None);
        assert_eq!(decode::<(u64, &str)>(&bytes[4..8]), None);
    }
}
