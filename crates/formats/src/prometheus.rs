//! Containers' metrics for Prometheus: one page of families from every container's ledger and last windows.
//!
//! A name keeps every character that Prometheus allows. If two names of a workload collide, the later one gets a mark
//! ([`Marks`]). If a parser could not distinguish families on a page, their type is not declared; names of samples
//! never change for that reason. Why: `docs/adr/0053-prometheus-names.md`.

mod exposed;
mod family;
mod gathered;
pub(crate) mod identity;
mod marks;
pub(crate) mod messages;
pub(crate) mod name;
mod page;
pub(crate) mod protobuf;
pub(crate) mod scraped;
pub(crate) mod shape;
pub(crate) mod stat;
mod text;
mod write;

pub use exposed::{ExposedName, Grouping, NameView, Statistic};
pub use family::{Sums, Total};
pub use identity::{Level, SeriesIdentity};
pub use marks::{Marks, MarksOfAll, Name, NameKind, Spelled};
pub use name::{NameSpelling, Naming};
pub use page::{PageBuilder, PageSource, PageWindow};
pub use shape::{SPAN_SECONDS, Timers};
pub use write::Page;
