//! What touches the kernel: clocks, sockets, processes, connections.

pub mod address;
pub mod buffers;
pub mod cgroup;
pub mod clock;
pub mod guard;
pub mod holder;
pub mod http;
pub mod kin;
pub mod listener;
pub mod netns;
pub mod notify;
pub mod passing;
pub mod process;
pub mod run_dir;
pub mod sys;
pub mod tls;
pub mod unix;
pub mod unixgram;
pub mod variables;
