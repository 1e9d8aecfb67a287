//! The documents of the agent's HTTP API. The handlers write the same types that the commands, the load generator and the OCI
//! wrapper read, so a key is spelled in one place. `proto/openapi.json` describes the same documents for other programs.
//!
//! - The order of the fields is the order of the keys in the JSON text.
//! - A reader ignores keys that it does not know. A field with `#[serde(default)]` may be absent, because an agent of an earlier
//!   version does not send it or no reader needs it.
//! - The wrapper starts for every container and depends on this crate, so its dependencies stay small: no type of the core or
//!   of the agent. Where the agent holds a more precise type than its JSON text, the field is a [`Word`], text, or a type
//!   parameter.

mod container;
mod counts;
mod maintenance;
mod node;
mod record;
mod refusal;
mod reservation;
mod task;
#[cfg(test)]
mod tests;
pub mod v0;

use std::borrow::Cow;
use std::collections::BTreeMap;

pub use container::{ClientDocument, ContainerDocument, MountDocument, ReservedDocument, UnixSocketDocument};
pub use counts::{
    AccountingDocument, Counted, CountsDocument, DatagramsDocument, LinesDocument, ValuesDocument,
};
pub use maintenance::{Attachment, AttachmentAnswer, ReconciledDocument, ReloadedDocument, TailedLine};
pub use node::{
    DegradedDocument, FailingDocument, HealthDocument, MarkedNameDocument, NodeDocument, PagesDocument,
    PluginDocument, ReadyDocument, StateDamageDocument, TargetDocument, TargetLabels, TotalsEvicted,
    WindowLogDocument,
};
pub use record::{RecordDocument, RecordOrigin, TaskMetrics, WindowEvent};
pub use refusal::Refusal;
pub use reservation::{
    Attach, DcosContainer, DcosReservation, Network, OptionsDocument, ReservationDocument, TtlDocument,
};
pub use task::{
    CheckDocument, Checks, EventDocument, Events, FinishedDocument, Gap, RejectedLineDocument, Task,
    TaskChanges, TaskRow, TaskShort, WideTagDocument,
};

/// One of a fixed list of words, such as a state or a reason. The agent sends constants. A reader keeps the text, because an
/// agent of a later version can send words that it does not know.
pub type Word = Cow<'static, str>;

/// Counts by reason or code. Reasons that have not occurred are absent.
pub type TallyMap = BTreeMap<Word, u64>;

/// Labels of a container or task.
pub type LabelMap = BTreeMap<String, String>;
