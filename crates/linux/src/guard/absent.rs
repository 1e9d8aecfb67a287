//! Takes the place of `guard.rs` in a build without the feature `guard`: no guard can be created.

mod error;

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

pub use error::{GuardError, Unguarded};

/// A guard. This build has none, so the type has no values.
#[derive(Debug)]
pub enum Guard {}

impl Guard {
    /// Fails.
    ///
    /// # Errors
    /// [`GuardError::NotBuiltIn`], always.
    pub fn new(_listeners: usize) -> Result<Self, GuardError> {
        Err(GuardError::NotBuiltIn)
    }

    /// Lets only a container send to its listener.
    ///
    /// # Errors
    /// Never returns: there is no guard to call this on.
    pub fn protect_listener(
        &mut self,
        _listener: SocketAddr,
        _pid: i32,
        _container: &str,
    ) -> Result<(), Unguarded> {
        match *self {}
    }

    /// Descriptors that keep the guard up.
    ///
    /// # Errors
    /// Never returns: there is no guard to call this on.
    pub fn share_links(&self) -> io::Result<Vec<OwnedFd>> {
        match *self {}
    }

    /// Takes the guard of a listener away. Never returns: there is no guard to call this on.
    pub fn unprotect_listener(&mut self, _listener: SocketAddr) {
        match *self {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_that_is_not_built_in_says_so() {
        let error = Guard::new(1).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("built without the guard"), "{error}");
    }
}
