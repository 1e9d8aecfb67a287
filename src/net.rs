//! Connections: accepting, limiting and draining them, and TLS. Linux-specific code is in `tallyport-linux`.

pub use tallyport_linux::{
    address, cgroup, clock, guard, listener, netns, notify, passing, process, process_identity, sys, unix,
    unixgram, variables,
};

pub mod http;
pub mod tls;
