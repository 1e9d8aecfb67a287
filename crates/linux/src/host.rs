//! What the node and its containers use of it: control groups of both versions, `/proc`, file systems.
//!
//! Read when somebody asks, never kept. What the system does not tell, or would tell of more than the container, is absent.

mod group;
mod node;

pub use group::{ContainerResources, Cpu, Io, Memory, NetworkCounters, read_container_resources};
pub use node::{CpuMeter, CpuTimes, FileSystem, Interface, NodeResources, Shares, read_node_resources};
