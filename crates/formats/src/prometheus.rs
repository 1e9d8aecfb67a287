//! Containers' metrics for Prometheus: one page of families from every container's ledger and last windows.
//!
//! A name keeps every character that Prometheus allows. Two names of a workload that would become one are told apart by
//! a mark on the later of them ([`Marks`]). Where families on a page could not be told apart by a parser, their declared
//! type gives way, never the name of a sample. Why: `docs/adr/0053-prometheus-names.md`.

mod blocks;
mod gathered;
mod identity;
mod marks;
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

pub use identity::{Level, SeriesIdentity};
pub use marks::{Marks, MarksOfAll, Name, NameKind, Spelled};
pub use name::{NameSpelling, Naming};
pub use page::{PageBuilder, PageSource, PageWindow, Sums};
pub use shape::Timers;
pub use total::Total;
pub use write::Page;
