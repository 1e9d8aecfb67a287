//! tallyport: a StatsD socket for every container on the node.
//!
//! This package is the agent and its commands. Modules that do not need the rest of the agent are in separate crates,
//! and are re-exported here. `scripts/ci/layers` lists which module may use which; ARCHITECTURE.md explains it.

#![allow(missing_docs, reason = "only the programs, tests and benchmarks of this package use it")]
#![cfg_attr(test, allow(clippy::float_cmp, reason = "tests compare numbers that are exact by construction"))]

pub use tallyport_client as client;
pub use tallyport_core::{aggregate, model, statsd};
pub use tallyport_formats as render;
pub use tallyport_identity as identity;
pub use tallyport_linux::{files, host};
pub use tallyport_oci as oci;
pub use tallyport_wal as wal;
pub use tallyport_wire as wire;

pub mod api;
pub mod app;
#[cfg_attr(not(feature = "archive"), path = "archive/absent.rs")]
pub mod archive;
pub mod cli;
pub mod config;
pub mod containers;
#[cfg(feature = "install")]
pub mod install;
pub mod net;
#[cfg_attr(not(feature = "nri"), path = "nri/absent.rs")]
pub mod nri;
pub mod parallel;
pub mod products;
pub mod publish;
pub mod query;
pub mod restart;
pub mod shard;
pub mod shutdown;
pub mod stats;
pub mod store;
pub mod telemetry;
pub mod window_log;
