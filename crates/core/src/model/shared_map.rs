//! A map with cheap snapshots.
//!
//! Entries are distributed over a fixed number of shelves. Cloning the map copies a pointer to each shelf. A writer
//! that changes an entry first copies its shelf if a clone shares it. So neither readers nor writers ever copy the
//! whole map.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

/// The number of shelves: with 10,000 entries, a writer copies 160 of them if a reader holds a clone.
const SHELVES: usize = 64;

/// A map whose clones are cheap.
#[derive(Debug)]
pub struct SharedMap<K, V> {
    shelves: Box<[Arc<HashMap<K, V>>]>,
    len: usize,
}

impl<K, V> Default for SharedMap<K, V> {
    fn default() -> Self {
        Self { shelves: (0..SHELVES).map(|_| Arc::default()).collect(), len: 0 }
    }
}

impl<K, V> Clone for SharedMap<K, V> {
    fn clone(&self) -> Self {
        Self { shelves: self.shelves.clone(), len: self.len }
    }
}

fn shelf_of<Q: Hash + ?Sized>(key: &Q) -> usize {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    usize::try_from(hasher.finish() % SHELVES as u64).unwrap_or(0)
}

impl<K: Hash + Eq + Clone, V: Clone> SharedMap<K, V> {
    /// The value of a key.
    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        self.shelves.get(shelf_of(key))?.get(key)
    }

    /// The value of a key, to change. Nothing is copied for a key that is missing.
    pub fn get_mut<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<&mut V>
    where
        K: Borrow<Q>,
    {
        let shelf = self.shelves.get_mut(shelf_of(key))?;
        if !shelf.contains_key(key) {
            return None;
        }
        Arc::make_mut(shelf).get_mut(key)
    }

    /// Whether a clone of this map exists, so that changing the value of a key copies other entries.
    pub fn is_shared<Q: Hash + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.shelves.get(shelf_of(key)).is_some_and(|shelf| Arc::strong_count(shelf) > 1)
    }

    /// Whether the map contains a key.
    pub fn contains_key<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.get(key).is_some()
    }

    /// The value of a key, to change; inserted with `new` if the key is missing.
    pub fn get_or_insert_with(&mut self, key: K, new: impl FnOnce() -> V) -> Option<&mut V> {
        let shelf = Arc::make_mut(self.shelves.get_mut(shelf_of(&key))?);
        self.len += usize::from(!shelf.contains_key(&key));
        Some(shelf.entry(key).or_insert_with(new))
    }

    /// Sets the value of a key; returns the previous one.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        let shelf = Arc::make_mut(self.shelves.get_mut(shelf_of(&key))?);
        let before = shelf.insert(key, value);
        self.len += usize::from(before.is_none());
        before
    }

    /// Removes a key; returns its value. Nothing is copied for a key that is missing.
    pub fn remove<Q: Hash + Eq + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let shelf = self.shelves.get_mut(shelf_of(key))?;
        if !shelf.contains_key(key) {
            return None;
        }
        let removed = Arc::make_mut(shelf).remove(key);
        self.len -= usize::from(removed.is_some());
        removed
    }
}

impl<K, V> SharedMap<K, V> {
    /// All entries, in arbitrary order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.shelves.iter().flat_map(|shelf| shelf.iter())
    }

    /// Every key.
    pub fn keys(&self) -> impl Iterator<Item = &K> {
        self.iter().map(|(key, _)| key)
    }

    /// Every value.
    pub fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }

    /// How many entries there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<K: Hash + Eq + Clone, V: Clone> FromIterator<(K, V)> for SharedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut map = Self::default();
        for (key, value) in entries {
            map.insert(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_stays_as_it_was_and_a_change_copies_one_shelf() {
        let mut map: SharedMap<u64, u64> = (0..1000).map(|n| (n, n)).collect();
        let before = map.clone();
        assert_eq!((map.insert(7, 70), map.remove(&8)), (Some(7), Some(8)));
        *map.get_or_insert_with(1000, || 1).unwrap() += 1;
        let some = |map: &SharedMap<u64, u64>| [7, 8, 1000].map(|key| map.get(&key).copied());
        assert_eq!((map.len(), some(&map)), (1000, [Some(70), None, Some(2)]));
        assert_eq!((before.len(), some(&before)), (1000, [Some(7), Some(8), None]));
        assert_eq!((map.iter().count(), before.values().sum::<u64>()), (1000, (0..1000).sum()));
        let shared = map.shelves.iter().zip(&before.shelves).filter(|(a, b)| Arc::ptr_eq(a, b)).count();
        assert!((SHELVES - 3..SHELVES).contains(&shared), "{shared}");
    }

    #[test]
    fn nothing_is_copied_for_a_key_that_is_missing() {
        let mut map: SharedMap<u64, u64> = (0..10).map(|n| (n, n)).collect();
        let before = map.clone();
        assert!(map.get_mut(&11).is_none() && map.remove(&11).is_none());
        assert!(map.shelves.iter().zip(&before.shelves).all(|(a, b)| Arc::ptr_eq(a, b)));
        assert!(map.is_shared(&1));
        drop(before);
        assert!(!map.is_shared(&1));
    }
}
