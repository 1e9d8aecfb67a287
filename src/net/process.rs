//! Knowing when a container's process ends.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::unix::AsyncFd;

use super::sys;

/// A process that is watched.
#[derive(Debug)]
pub struct Watched(AsyncFd<OwnedFd>);

impl Watched {
    /// Watches a process, by a handle that never comes to mean another.
    ///
    /// # Errors
    /// `NotFound` where there is no such process.
    pub fn new(pid: i32) -> io::Result<Self> {
        // Zero and below mean groups to other calls; here they would be a mistake that opens nothing.
        if pid <= 0 {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(Self(sys::readable(sys::pidfd_open(pid)?)?))
    }

    /// Waits until it has ended.
    pub async fn ended(&self) {
        // An error means that the descriptor is no longer watched, which it is until `self` is dropped.
        let _ready = self.0.readable().await;
    }
}
