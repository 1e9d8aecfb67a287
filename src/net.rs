//! Connections: accepting, limiting and draining them, and TLS. What Linux itself offers is `tallyport-linux`.

pub use tallyport_linux::{
    address, buffers, cgroup, clock, guard, holder, listener, netns, notify, passing, process,
    process_identity, run_dir, sys, unix, unixgram, variables,
};

pub mod http;
pub mod tls;
