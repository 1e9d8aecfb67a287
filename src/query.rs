//! Answers queries from the store, the container table and the shards.
//!
//! Functions take these parts and parameters, and return documents of [`crate::wire`] or write them to a [`Sink`]. They
//! do not depend on HTTP or on how responses are shared and bounded: `api` runs them on its threads and turns an
//! [`Error`] into a status.

mod changes;
mod data;
mod documents;
mod exposition;
mod history;
mod merged;
mod names;
mod parameters;
mod recent;
mod records;
mod settings;
mod sink;
mod tasks;
#[cfg(feature = "dcos")]
pub mod v0;

pub use changes::{RecordFormat, matches_task, write_changes, write_next};
pub use data::{Data, Error};
pub use documents::{
    accounting_document, counts_document, dcos_container, get_container_resources, reserved_document,
    task_document, task_short,
};
pub use exposition::{Wanted, build_page};
pub(crate) use history::HISTORY;
pub use history::{HistorySelection, HistoryTask, find_history, write_history};
pub use names::{WantedNames, write_names};
pub(crate) use parameters::{FILTERS, parse_duration};
pub use parameters::{Filters, Query, Selection, Windows};
pub use recent::RecentWindows;
pub use records::{RecordSource, collect_sources, write_task};
pub use settings::setting_documents;
pub(crate) use sink::to_json;
pub use sink::{Budget, Sink, format_event};
pub use tasks::{
    Look, Rows, Summaries, checks_document, choose_tasks, container_summaries, containers_of,
    events_document, widest_tags, write_rows,
};
