//! Closed windows from their entries. Each needs what its file said before of the container's series.

use std::collections::HashMap;

use super::entry::{Birth, ContainerKey};
use crate::aggregate::{KnownLayout, Window};
use crate::store::StoredWindow;

/// Vacant places that the layouts of one file may have together: 134 MB. Each takes no bytes of the file, so that a few forged
/// entries could take all memory. A thousand containers that have lost nearly all of 16,000 series each stay below it.
const VACANT: usize = 1 << 24;

/// What one file has said so far.
#[derive(Default, Debug)]
pub(super) struct WindowDecoder {
    layouts: HashMap<ContainerKey, KnownLayout>,
    /// Vacant places of the layouts.
    vacant: usize,
    /// What the next window added.
    added: Option<(ContainerKey, Birth, Window)>,
}

impl WindowDecoder {
    /// Applies how a container's series changed; `None` if that cannot be used.
    pub(super) fn apply_layout(&mut self, key: ContainerKey, change: &[u8]) -> Option<()> {
        let layout = self.layouts.entry(key).or_default();
        let changed = layout.apply_change(change).ok()?;
        let vacant = self.vacant.saturating_sub(layout.count_vacant()).saturating_add(changed.count_vacant());
        if vacant > VACANT {
            return None;
        }
        (*layout, self.vacant) = (changed, vacant);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::aggregate::Layout;
    use crate::model::{Allocation, MetricType, Series, TagSet, Timestamp};

    /// The change to a layout whose only series is the last of so many places.
    fn sparse_change(places: usize) -> Vec<u8> {
        let (name, tags, created) = ("c".into(), TagSet::default(), Timestamp::from_secs(0));
        let series = Arc::new(Series { name, tags, metric_type: MetricType::Counter, created });
        let layout: Layout = (1..places).map(|_| None).chain([Some(series)]).collect();
        KnownLayout::new(layout).encode_change_from(&KnownLayout::default())
    }

    #[test]
    fn vacant_places_of_all_containers_have_one_bound() {
        let key = |number| ContainerKey { epoch: 1, allocation: Allocation(number) };
        let (half, rest) = (sparse_change(VACANT / 2 + 1), sparse_change(2));
        let mut decoder = WindowDecoder::default();
        assert!(decoder.apply_layout(key(1), &half).is_some());
        assert!(decoder.apply_layout(key(2), &half).is_some());
        assert_eq!(decoder.vacant, VACANT);
        assert!(decoder.apply_layout(key(3), &rest).is_none());
        // Without vacant places there is no bound.
        assert!(decoder.apply_layout(key(4), &sparse_change(1)).is_some());
    }
}
