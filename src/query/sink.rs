//! Where documents are written to, and how long the work may take.

use std::fmt::Write as _;

use serde::Serialize;

use super::data::Error;
use crate::store::Cursor;

/// How long a computation may go on.
pub trait Budget {
    /// Whether to go on. Cheap enough to be called for every name.
    fn goes_on(&self) -> bool;

    /// Whether [`Budget::goes_on`] has answered no.
    fn has_passed(&self) -> bool;

    /// The items that are wanted.
    ///
    /// # Errors
    /// With [`Error::Unfinished`] where the computation is to end before all were looked at.
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
        // `wanted` may have called `goes_on` as well, and skipped something because of the answer.
        if self.has_passed() { Err(Error::Unfinished) } else { Ok(chosen) }
    }
}

/// Takes a document while it is written.
pub trait Sink {
    /// Why a document is not finished.
    type Stop: From<Error>;

    /// Takes rendered bytes.
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

    /// Stops a document that is not wanted any more.
    ///
    /// # Errors
    /// Then.
    fn ensure_wanted(&self) -> Result<(), Self::Stop>;
}

/// Writes a document.
///
/// # Panics
/// If JSON cannot express the type: maps whose keys are not strings are the one case. That is a mistake in the type, which the first
/// test of it finds. The connection then ends without an answer, which no reader can take for an empty one.
#[expect(clippy::expect_used, reason = "memory takes everything, so only a mistake in a type can fail")]
pub(crate) fn append_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("a type that JSON can express");
}

/// A document as JSON.
///
/// # Panics
/// As [`write`].
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
    // A JSON text has no line end outside its strings, and none inside them.
    let _infallible = write!(text, "data: {}\n\n", String::from_utf8_lossy(&to_json(data)));
    text
}
