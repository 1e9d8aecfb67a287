//! Containers' metrics for Prometheus: one page of families from every container's ledger and last windows.
//!
//! Names depend on name and type alone, so a series is called the same whoever else reports. Where families that are
//! there together could not be told apart by a parser, what they are declared as gives way, never what their samples are
//! called. Why so: `docs/adr/0035-names-for-prometheus.md`.

mod blocks;
mod gathered;
mod identity;
mod messages;
mod name;
mod natives;
mod page;
mod protobuf;
mod shape;
mod stat;
mod text;
mod total;
mod write;

pub use identity::{Identity, Level};
pub use name::Naming;
pub use page::{Builder, Held, Source, Sums};
pub use shape::Timers;
pub use total::Total;
pub use write::Page;
