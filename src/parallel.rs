//! Maps values on several cores, for operations that everything else waits for.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

/// Maximum number of threads, including the caller's: a hand-over must not occupy a large node.
const MAX_THREADS: usize = 8;
/// Minimum number of values for each thread.
const MIN_PER_THREAD: usize = 32;

/// Maps all values on several threads and keeps their order. If a thread cannot be started, fewer are used.
///
/// # Panics
/// When the function does.
pub fn map_values<T: Send, R: Send>(values: Vec<T>, function: impl Fn(T) -> R + Sync) -> Vec<R> {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let helpers = cores.min(MAX_THREADS).min(values.len() / MIN_PER_THREAD).saturating_sub(1);
    let queue = Mutex::new(values.into_iter().enumerate());
    // Values differ in size, so each thread takes the next value when it is done with the last.
    let work = || {
        let mut mapped = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some((place, value)) = next else { return mapped };
            mapped.push((place, function(value)));
        }
    };
    let mut mapped = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..helpers).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
        let mut mapped = work();
        for thread in threads {
            match thread.join() {
                Ok(part) => mapped.extend(part),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        mapped
    });
    mapped.sort_unstable_by_key(|(place, _)| *place);
    mapped.into_iter().map(|(_, value)| value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_mapped_once_and_in_order() {
        for many in [0, 1, MIN_PER_THREAD, 10 * MIN_PER_THREAD + 3] {
            let doubled = map_values((0..many).collect(), |n| 2 * n);
            assert_eq!(doubled, (0..many).map(|n| 2 * n).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        let failing = || {
            map_values((0..10 * MIN_PER_THREAD).collect(), |n| {
                assert_ne!(n, 7 * MIN_PER_THREAD, "this one fails");
            })
        };
        assert!(std::panic::catch_unwind(failing).is_err());
    }
}
