//! Connections: accepting, limiting and draining them, and TLS. What Linux itself offers is `tallyport-linux`.

pub use tallyport_linux::{
    address, cgroup, clock, guard, listener, netns, notify, passing, process, process_identity, sys, unix,
    unixgram, variables,
};

pub mod http;
pub mod tls;
