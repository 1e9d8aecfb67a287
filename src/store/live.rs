//! Bytes that shards hold for containers, counted together with what the store holds for them.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::Store;

/// Bytes that a shard holds for one container: its aggregator, or a closed window that is not published yet. They count as held by
/// the store for as long as this value exists, so a shard that fails cannot leave them counted.
///
/// Where such bytes become windows of the store, both counts change under the store's lock: a reader never sees them twice, or not
/// at all.
#[derive(Debug)]
pub struct LiveBytes {
    all: Arc<AtomicUsize>,
    bytes: usize,
}

impl LiveBytes {
    /// Sets how many bytes there are now.
    pub fn set(&mut self, bytes: usize) {
        // Adding the difference modulo 2^64 also subtracts.
        self.all.fetch_add(bytes.wrapping_sub(self.bytes), Ordering::Relaxed);
        self.bytes = bytes;
    }

    /// How many bytes there are.
    #[must_use]
    pub fn get(&self) -> usize {
        self.bytes
    }
}

impl Drop for LiveBytes {
    fn drop(&mut self) {
        self.set(0);
    }
}

impl Store {
    /// A count of bytes held outside the store, which starts at zero.
    #[must_use]
    pub fn live_bytes(&self) -> LiveBytes {
        LiveBytes { all: Arc::clone(&self.live), bytes: 0 }
    }
}
