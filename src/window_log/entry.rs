//! The entries of the log.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::aggregate::{CheckOutcome, EventRecord, Habits, PersistentValue};
use crate::model::{Allocation, Origin, Series, TaskId, Timestamp};
use crate::store::{Cursor, NameChange};
use crate::wal::{ChecksumPlace, FormatError, FrameFormat, decode, encode_after};

/// The version of entries; other versions are not read.
pub const VERSION: u16 = 2;
/// How entries lie in a file. The limit is far above what a container's memory limit lets its windows take.
pub(super) const FORMAT: FrameFormat =
    FrameFormat { mark: b"\xf1Tpw", checksum: ChecksumPlace::BeforePayload, longest: 1 << 30 };

/// Identifies a container across runs of the agent: the epoch in which it was reserved, and its number in that epoch.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(super) struct ContainerKey {
    pub(super) epoch: u64,
    pub(super) allocation: Allocation,
}

/// Identifies a window: the epoch in which it was first published, and its sequence number there. It stays the same
/// when the window is written again.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub(super) struct Birth {
    pub(super) epoch: u64,
    pub(super) first: u64,
}

/// Births from here on are of windows that were open when a run ended. No sequence reaches it.
const OPEN_BIRTHS: u64 = 1 << 63;
/// The distance of two such births: more than a window has records, so that a cursor can stand after each.
const OPEN_DISTANCE: u64 = 1 << 32;

impl Birth {
    /// The birth of the `number`th window that was open when the run of this epoch ended.
    pub(super) const fn of_open(epoch: u64, number: u64) -> Self {
        Self { epoch, first: OPEN_BIRTHS.saturating_add(number.saturating_mul(OPEN_DISTANCE)) }
    }

    /// The number of such a window; `None` for one that was closed.
    pub(super) const fn open_number(self) -> Option<u64> {
        match self.first.checked_sub(OPEN_BIRTHS) {
            Some(after) => Some(after / OPEN_DISTANCE),
            None => None,
        }
    }
}

/// Whether a window with this birth was open when the run of the agent that received it was killed.
#[must_use]
pub fn was_open_at_kill(birth: Cursor) -> bool {
    Birth::from(birth).open_number().is_some()
}

impl From<Cursor> for Birth {
    fn from(Cursor { epoch, seq }: Cursor) -> Self {
        Self { epoch, first: seq }
    }
}

impl From<Birth> for Cursor {
    fn from(Birth { epoch, first }: Birth) -> Self {
        Self { epoch, seq: first }
    }
}

/// The description of a container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Who {
    /// Where its samples come from.
    pub origin: Arc<Origin>,
    /// Another name by which its task can be read.
    pub alias: Option<TaskId>,
    /// When it was reserved.
    pub opened: Timestamp,
    /// When it had ended, if it has.
    pub finished: Option<Timestamp>,
}

/// One entry. New variants are added at the end; any other change needs a new version.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub(super) enum LogEntry<'a> {
    /// The first entry of each file.
    File { version: u16, epoch: u64 },
    /// A container; before any other entry about it in this file, and again when it has ended.
    Container { key: ContainerKey, who: Who },
    /// How the series of a container changed since the last such entry in this file.
    Layout {
        key: ContainerKey,
        #[serde(borrow)]
        change: Cow<'a, [u8]>,
    },
    /// A closed window, or a revision of one.
    Window {
        key: ContainerKey,
        birth: Birth,
        revs: Cow<'a, [u32]>,
        #[serde(borrow)]
        window: Cow<'a, [u8]>,
    },
    /// What has changed in an open window since the last such entry.
    Open {
        key: ContainerKey,
        #[serde(borrow)]
        window: Cow<'a, [u8]>,
    },
    /// Events received since the last such entry.
    Events { key: ContainerKey, events: Vec<Arc<EventRecord>> },
    /// A container was forgotten: earlier entries about it are void.
    Forgotten { key: ContainerKey },
    /// The agent is alive.
    Alive { at: Timestamp },
    /// The agent shut down cleanly; no entries follow.
    Ended { at: Timestamp },
    /// State of a container that outlasts its windows, as far as it has changed since the last such entry in this file:
    /// levels and totals, the last outcomes of checks, and habits of its client.
    Lasting {
        key: ContainerKey,
        lasting: Vec<PersistentValue>,
        checks: Vec<(Arc<Series>, Timestamp, Arc<CheckOutcome>)>,
        habits: Habits,
    },
    /// Changes of names since the last such entry; the first entries of a file have all names.
    Names { changes: Vec<NameChange> },
    /// What the window with this birth, which follows, added to earlier records of its interval.
    Added {
        key: ContainerKey,
        birth: Birth,
        #[serde(borrow)]
        window: Cow<'a, [u8]>,
    },
    /// Beside checkpoints: windows of the container that start at this time or before are closed, and are in a file of closed
    /// windows or no longer needed.
    Closed { key: ContainerKey, start: Timestamp },
    /// So many records, the first of them published here, are in no file: they left memory before they could be written, or were
    /// too long for the log. Where the sequence alone would not tell, as at its end, publishers count them by this.
    Lost { birth: Birth, records: u64 },
}

impl LogEntry<'_> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        *out = encode_after(std::mem::take(out), self);
    }

    /// The container that the entry is about; `None` where it is about the agent or about names.
    pub(super) const fn key(&self) -> Option<ContainerKey> {
        match self {
            Self::Container { key, .. }
            | Self::Layout { key, .. }
            | Self::Window { key, .. }
            | Self::Added { key, .. }
            | Self::Open { key, .. }
            | Self::Events { key, .. }
            | Self::Forgotten { key }
            | Self::Closed { key, .. }
            | Self::Lasting { key, .. } => Some(*key),
            Self::File { .. }
            | Self::Alive { .. }
            | Self::Ended { .. }
            | Self::Names { .. }
            | Self::Lost { .. } => None,
        }
    }

    /// What the entry holds, for a message.
    pub(super) const fn describe_content(&self) -> &'static str {
        match self {
            Self::Container { .. } => "the description",
            Self::Layout { .. } => "the list of series",
            Self::Window { .. } => "a closed window",
            Self::Added { .. } => "what was added to a closed window",
            Self::Open { .. } => "the open window",
            Self::Events { .. } => "events",
            Self::Lasting { .. } => "levels and last checks",
            Self::Names { .. } => "a batch of metric names",
            Self::File { .. }
            | Self::Forgotten { .. }
            | Self::Closed { .. }
            | Self::Alive { .. }
            | Self::Ended { .. }
            | Self::Lost { .. } => "a mark",
        }
    }
}

impl<'a> LogEntry<'a> {
    pub(super) fn decode(payload: &'a [u8]) -> Option<Self> {
        decode(payload)
    }
}

/// An entry that is not written, because readers of the log would take it for damage.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub(super) struct RefusedEntry {
    /// What it held, and of which container.
    pub(super) what: String,
    pub(super) why: FormatError,
}

/// Entries that are not written, and the closed windows that are lost with them.
#[derive(Default, Debug)]
pub(super) struct Refusals {
    pub(super) entries: Vec<RefusedEntry>,
    /// Closed windows that are not in the log, because they or the series that they refer to are not.
    pub(super) windows: u64,
    /// Records that were gone before they could be written.
    pub(super) late: u64,
}

impl Refusals {
    /// Adds others.
    pub(super) fn append_refusals(&mut self, other: Self) {
        self.entries.extend(other.entries);
        self.windows += other.windows;
        self.late += other.late;
    }
}
