//! Containers' metrics for Prometheus: one page of families from every container's ledger and last windows.
//!
//! A name keeps every character that Prometheus allows. Two names of a workload that would become one are told apart by
//! a mark on the later of them ([`Marks`]). Where families on a page could not be told apart by a parser, their declared
//! type gives way, never the name of a sample. Why: `docs/adr/0053-prometheus-names.md`.

mod family;
mod gathered;
mod identity;
mod marks;
mod messages;
mod name;
mod page;
mod protobuf;
mod shape;
mod stat;
mod text;
mod write;

pub use family::{Sums, Total};
pub use identity::{Level, SeriesIdentity};
pub use marks::{Marks, MarksOfAll, Name, NameKind, Spelled};
pub use name::{NameSpelling, Naming};
pub use page::{PageBuilder, PageSource, PageWindow};
pub use shape::Timers;
pub use write::Page;
