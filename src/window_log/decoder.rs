//! Closed windows from their entries. Each needs what its file said before of the container's series.

use std::collections::HashMap;

use super::entry::{Birth, ContainerKey};
use crate::aggregate::{KnownLayout, Window};
use crate::store::StoredWindow;

/// What one file has said so far.
#[derive(Default, Debug)]
pub(super) struct WindowDecoder {
    layouts: HashMap<ContainerKey, KnownLayout>,
    /// What the next window added.
    added: Option<(ContainerKey, Birth, Window)>,
}

impl WindowDecoder {
    /// Applies how a container's series changed; `None` if that cannot be used.
    pub(super) fn apply_layout(&mut self, key: ContainerKey, change: &[u8]) -> Option<()> {
        let layout = self.layouts.entry(key).or_default();
        *layout = layout.apply_change(change).ok()?;
        Some(())
    }

    /// Notes what the next window added.
    pub(super) fn note_added(&mut self, key: ContainerKey, birth: Birth, bytes: &[u8]) -> Option<()> {
        self.added = Some((key, birth, self.decode_window(key, bytes)?));
        Some(())
    }

    /// A closed window.
    pub(super) fn read_window(
        &mut self,
        key: ContainerKey,
        birth: Birth,
        revs: &[u32],
        bytes: &[u8],
    ) -> Option<StoredWindow> {
        let added = self.added.take().filter(|(of, born, _)| (*of, *born) == (key, birth));
        let window = self.decode_window(key, bytes)?;
        if !(revs.is_empty() || revs.len() == window.len()) || window.is_empty() {
            return None;
        }
        let added = added.map(|(.., added)| Box::new(added));
        Some(StoredWindow { window, revs: revs.into(), added, born: Some(birth.into()) })
    }

    /// A window of any kind.
    pub(super) fn decode_window(&self, key: ContainerKey, bytes: &[u8]) -> Option<Window> {
        Window::decode(bytes, self.layouts.get(&key)?).ok()
    }
}
