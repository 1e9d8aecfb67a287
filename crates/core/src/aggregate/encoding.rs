//! The one way in which values become bytes that another process or a later run reads.

use serde::Serialize;

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
/// If postcard cannot express the type: sequences of unknown length are the one case. That is a mistake in the type, which the
/// first test of it finds. Going on would write bytes without the value, with a checksum that says that they are whole.
#[must_use]
#[expect(clippy::expect_used, reason = "memory takes everything, so only a mistake in a type can fail")]
pub fn encode_after(bytes: Vec<u8>, value: &impl Serialize) -> Vec<u8> {
    postcard::to_extend(value, bytes).expect("a type that postcard can express")
}
