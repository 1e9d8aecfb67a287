//! What readers ask for, from the store, the container table and the shards.
//!
//! Functions take these parts and parameters, and return documents of [`crate::wire`] or write them to a [`Sink`]. They do not know HTTP,
//! nor how answers are shared and bounded: `api` runs them on its threads and turns an [`Error`] into a status.

mod accounting;
mod changes;
mod data;
mod documents;
mod error;
mod exposition;
mod overview;
mod parameters;
mod records;
mod sink;
mod stream;
mod tasks;
pub mod v0;

pub use accounting::accounting;
pub use changes::write_changes;
pub use data::{Data, StatsByContainer};
pub use documents::{container, counts, dcos_container, reserved, task, task_short};
pub use error::Error;
pub use exposition::{Wanted, gather};
pub use overview::{Look, Rows, write_rows};
pub(crate) use parameters::{FILTERS, SELECTION, duration};
pub use parameters::{Filters, Query, Selection, Windows};
pub use records::{Source, sources, write_task};
pub(crate) use sink::to_json;
pub use sink::{Budget, Sink, event};
pub use stream::{follows, write_next};
pub use tasks::{Summaries, checks, chosen, containers_of, events, summaries, widest};
