//! What the node and its containers use of it: control groups of both versions, `/proc`, file systems.
//!
//! Read when somebody asks, never kept. What the system does not tell, or would tell of more than the container, is absent.

mod group;
mod node;

pub use group::{Cpu, Io, Memory, Network, Resources, resources};
pub use node::{CpuMeter, CpuTimes, FileSystem, Interface, Node, Shares, node};
