//! Assembles the agent: everything is bound before anything runs, and stops in order.
//!
//! ```text
//! TERM ─▶ not ready ─▶ no new containers ─▶ sockets read until empty, open windows closed as partial
//!      ─▶ streams send what was closed, answers finish, listeners close ─▶ exit 0
//! ```
//!
//! A second TERM or the deadline cuts that short; then the exit code is 1. A second TERM also gives up a hand-over that is under
//! way. If a keeper or the service manager holds state between agents (`restart`), TERM
//! leaves the state there instead.

mod disk;
mod ending;
mod entrance;
mod error;
mod missed;
mod parts;
#[cfg_attr(not(feature = "nri"), path = "app/plugin/absent.rs")]
mod plugin;
mod reload;
mod run;
mod serve;
mod start;

pub use entrance::{EntranceError, check_entrance};
pub use error::StartError;
pub use reload::{ConfigSources, Loader};
pub use run::{BoundAgent, Ended};
pub use start::{bind, start};

pub use crate::query::setting_documents;
