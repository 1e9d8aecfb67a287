//! Numbers and documents as text.

use serde::Serialize;

use crate::number::Whole;

/// Appends a document.
///
/// # Panics
/// If JSON cannot express the type, which any test of it finds.
#[expect(clippy::expect_used, reason = "memory takes everything, so only a mistake in a type can fail")]
pub(super) fn push_json(out: &mut Vec<u8>, document: &impl Serialize) {
    serde_json::to_writer(out, document).expect("a type that JSON can express");
}

/// Appends a finite number, without a decimal point if it is whole.
pub(super) fn push_number(out: &mut Vec<u8>, value: f64) {
    push_json(out, &Whole(value));
}
