//! A Kubernetes node without Kubernetes: a real containerd, pods created as the kubelet does, and the real agent.

pub mod agent;
pub mod containerd;
pub mod cri;
pub mod messages;

use std::time::{Duration, Instant};

/// The time limit for every step of a test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) -> Duration {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
    started.elapsed()
}

/// A variable that `scripts/e2e-nri` sets.
pub fn given(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; run scripts/e2e-nri"))
}
