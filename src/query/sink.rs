//! The output of documents, and the time limit for building them.

use std::fmt::Write as _;

use serde::Serialize;

use super::data::Error;
use crate::store::Cursor;

/// The time limit of a computation.
pub trait Budget {
    /// Whether to continue. Cheap enough to be called for every name.
    fn goes_on(&self) -> bool;

    /// Whether [`Budget::goes_on`] has returned false.
    fn has_passed(&self) -> bool;

    /// The items for which `wanted` returns true.
    ///
    /// # Errors
    /// With [`Error::Unfinished`] if the time is up before all items were checked.
    fn choose_items<T>(
        &self,
        items: impl IntoIterator<Item = T>,
        wanted: impl Fn(&T) -> bool,
    ) -> Result<Vec<T>, Error> {
        let mut chosen = Vec::new();
        for item in items {
            if !self.goes_on() {
                return Err(Error::Unfinished);
            }
            if wanted(&item) {
                chosen.push(item);
            }
        }
        // `wanted` may also have called `goes_on`, and skipped items because it returned false.
        if self.has_passed() { Err(Error::Unfinished) } else { Ok(chosen) }
    }
}

/// The output of a document.
pub trait Sink {
    /// Why a document is not finished.
    type Stop: From<Error>;

    /// Writes rendered bytes.
    ///
    /// # Errors
    /// When the document is not wanted any more.
    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Self::Stop>;

    /// Writes a value as JSON.
    ///
    /// # Errors
    /// As [`Sink::write_bytes`].
    fn write_json(&mut self, value: &impl Serialize) -> Result<(), Self::Stop>;

    /// Counts memory that is needed to write the document, until the document is finished.
    fn hold_bytes(&mut self, bytes: usize);

    /// Whether the document is still wanted. Cheap enough to be called for every series.
    fn goes_on(&self) -> bool;

    /// Fails if the document is no longer wanted.
    ///
    /// # Errors
    /// In that case.
    fn ensure_wanted(&self) -> Result<(), Self::Stop>;
}

/// Writes a document.
///
/// # Panics
/// If JSON cannot express the type: maps whose keys are not strings are the one case. That is a bug in the
/// type, which any test of it finds. The connection then ends without a response, so that no reader mistakes it for an
/// empty one.
#[expect(clippy::expect_used, reason = "memory takes everything, so only a mistake in a type can fail")]
pub(crate) fn append_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("a type that JSON can express");
}

/// A document as JSON.
///
/// # Panics
/// As [`append_json`].
pub(crate) fn to_json(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    append_json(&mut out, value);
    out
}

/// A server-sent event.
#[must_use]
pub fn format_event(name: &str, id: Option<Cursor>, data: &impl Serialize) -> String {
    let mut text = format!("event: {name}\n");
    if let Some(id) = id {
        let _infallible = writeln!(text, "id: {id}");
    }
    // Compact JSON contains no line breaks: strings escape them.
    let _infallible = write!(text, "data: {}\n\n", String::from_utf8_lossy(&to_json(data)));
    text
}
