//! What the agent and the wrapper need of Linux: clocks, sockets, network namespaces, processes, control groups, the
//! guard, and files that are opened with care.
//!
//! Only [`sys`] and the guard's `bpf` module contain `unsafe`, for system calls that no safe wrapper offers.

pub mod address;
pub mod cgroup;
pub mod clock;
pub mod files;
#[cfg_attr(not(feature = "guard"), path = "guard/absent.rs")]
pub mod guard;
pub mod host;
pub mod listener;
pub mod netns;
pub mod notify;
pub mod passing;
pub mod process;
pub mod process_identity;
pub mod sys;
pub mod unix;
pub mod unixgram;
pub mod variables;
