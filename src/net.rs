//! Connections: accepting, limiting and draining them, and TLS. What Linux itself offers is `tallyport-linux`.

pub use tallyport_linux::{
    address, buffers, cgroup, clock, guard, holder, kin, listener, netns, notify, passing, process, run_dir,
    sys, unix, unixgram, variables,
};

pub mod http;
pub mod tls;
