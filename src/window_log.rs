//! The window log: closed windows on disk, and what open ones hold, so that an agent that is killed comes back with them.
//!
//! ```text
//! Store ─▶ writer ─▶ windows-N.log    closed windows, synced as soon as they are written
//! shards ─▶ writer ─▶ open-N.log      what changed in open windows since the last checkpoint
//! Store ─▶ writer ─▶ names-N.log      which name is called what on a page, before the windows that have it
//! ```
//!
//! One thread writes. It follows the store's sequence and asks the shards by turns, and nobody waits for it: where the disk
//! is slow, full or gone, it falls behind, says so, and goes on where it was when it can. A window can be read as soon as it
//! is closed, and is written some hundredths of a second later; between the two, a crash brings it back as of the last
//! checkpoint.
//!
//! What a crash leaves is read at the next start ([`recover_windows`]). Damaged parts are found by their checksums, reported and
//! left out.

mod checkpoint;
mod entry;
mod files;
mod frame;
mod lasting;
mod log;
mod names;
mod open;
mod read;
mod recover;
mod segment;
mod status;
mod survey;
#[cfg(test)]
mod tests;
mod writer;

use std::time::Duration;

pub use entry::{VERSION, Who};
pub use files::{Appendable, Files, LogDirectory};
pub use read::LogDamage;
pub use recover::{Recovered, RecoveryReport, RestoredContainer, recover_windows};
pub use status::{LogStatus, LogStatusSnapshot};
pub use survey::{Survey, survey_log};
pub use writer::{LogWriter, WriterSources};

/// How the log is to be kept.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct WindowLogSettings {
    /// How often open windows are written; never where it is zero.
    pub checkpoint: Duration,
    /// Bytes of open windows to be written a second, at most; where they are more, checkpoints are rarer.
    pub checkpoint_rate: u64,
    /// Bytes of all files of closed windows, at most.
    pub size: u64,
}
