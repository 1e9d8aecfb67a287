//! Interprets annotations and labels of containers, for the agent, its NRI plugin and the OCI wrapper.
//!
//! [`pod`] derives the origin of a pod's containers, [`annotation`] has the names of annotations, and [`read_switch`] reads
//! yes and no. Nothing here depends on another crate, because the wrapper starts with every container and has to stay small.

pub mod annotation;
pub mod pod;

pub use annotation::read_switch;
