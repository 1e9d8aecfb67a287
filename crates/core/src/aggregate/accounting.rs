//! Counts of everything that arrives, each datagram, line and value exactly once.
//!
//! ```text
//! arrived   = received + kernel drops                     datagrams
//! received  = read + dropped{reason}                      datagrams
//! lines     = accepted + rejected{code}
//! values    = in records + open + dropped{reason}
//! ```

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::setting_name::setting_name;
use crate::statsd::Rejected;

/// Why accepted values were not kept, or datagrams not read.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Dropped {
    /// Datagrams: more a second than the container may send.
    DatagramRate,
    /// Datagrams: more bytes a second than the container may send.
    ByteRate,
    /// Datagrams: longer than the buffer, which is impossible with UDP.
    Truncated,
    /// Datagrams: by a Unix socket, from a process that does not belong to the container.
    ForeignSender,
    /// Datagrams: by a Unix socket, from a process that ended before it could be checked whether it belongs to the container.
    EndedSender,
    /// Values: the container has as many series as it may have.
    SeriesLimit,
    /// Values: the name is too long.
    NameTooLong,
    /// Values: the line's tags are too long.
    TagsTooLong,
    /// Values: the container uses as much memory as it may.
    MemoryLimit,
    /// Values: the node uses as much memory as it may.
    NodeMemory,
    /// Values: the timestamp is older than every window kept.
    Late,
    /// Values: the timestamp is more than ten minutes ahead.
    Future,
    /// Values: they were in the open window, or in a closed one that was not published yet, when the shard panicked
    /// while working on this container.
    ShardFailed,
    /// Values: their timestamps would revise more records of closed windows than the container may.
    LateQuota,
}

impl Dropped {
    /// Every reason.
    pub const ALL: [Self; 14] = [
        Self::DatagramRate,
        Self::ByteRate,
        Self::Truncated,
        Self::ForeignSender,
        Self::EndedSender,
        Self::SeriesLimit,
        Self::NameTooLong,
        Self::TagsTooLong,
        Self::MemoryLimit,
        Self::NodeMemory,
        Self::Late,
        Self::Future,
        Self::ShardFailed,
        Self::LateQuota,
    ];

    /// The stable name of the reason.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DatagramRate => "datagram_rate",
            Self::ByteRate => "byte_rate",
            Self::Truncated => "truncated",
            Self::ForeignSender => "foreign_sender",
            Self::EndedSender => "ended_sender",
            Self::SeriesLimit => "series_limit",
            Self::NameTooLong => "name_too_long",
            Self::TagsTooLong => "tags_too_long",
            Self::MemoryLimit => "memory_limit",
            Self::NodeMemory => "node_memory",
            Self::Late => "late",
            Self::Future => "future",
            Self::ShardFailed => "shard_failed",
            Self::LateQuota => "late_quota",
        }
    }

    /// Whether this counts whole datagrams, whose lines were not read, instead of values.
    #[must_use]
    pub const fn counts_datagrams(self) -> bool {
        matches!(
            self,
            Self::DatagramRate | Self::ByteRate | Self::Truncated | Self::ForeignSender | Self::EndedSender
        )
    }

    /// What to change, in a few words. A setting is named with the command that shows where it is set; [`name_places`] puts the
    /// place there.
    ///
    /// [`name_places`]: crate::model::setting_name::name_places
    #[must_use]
    pub const fn suggested_fix(self) -> &'static str {
        match self {
            Self::DatagramRate => concat!(
                "send fewer or fuller datagrams, or raise ",
                setting_name!("limits.datagrams_per_second")
            ),
            Self::ByteRate => concat!("send less, or raise ", setting_name!("limits.bytes_per_second")),
            Self::Truncated => "send datagrams of at most 64 KiB",
            Self::ForeignSender => {
                "find out which other process of the node opens the container's Unix socket"
            }
            Self::EndedSender => {
                "have the process end a moment after it sends, not at once; not needed with a cgroup of the container's own on kernel 6.16 or later"
            }
            Self::SeriesLimit => {
                concat!("use fewer different names and tag values, or raise ", setting_name!("limits.series"))
            }
            Self::NameTooLong => concat!("use shorter names, or raise ", setting_name!("limits.name_bytes")),
            Self::TagsTooLong => {
                concat!("use fewer or shorter tags, or raise ", setting_name!("limits.tags_bytes"))
            }
            Self::MemoryLimit => concat!("use fewer series, or raise ", setting_name!("limits.memory")),
            Self::NodeMemory => {
                concat!("use fewer series on this node, or raise ", setting_name!("limits.node_memory"))
            }
            Self::Late => concat!("send timestamps sooner, or raise ", setting_name!("windows.keep")),
            Self::LateQuota => {
                concat!(
                    "send samples before their window ends, or with fewer different timestamps, or raise ",
                    setting_name!("limits.late_records")
                )
            }
            Self::Future => "set the clock that the timestamps come from",
            Self::ShardFailed => {
                "this is a defect of tallyport; please report it with the agent's log, which says where it failed"
            }
        }
    }
}

/// What to change about datagrams that the kernel drops because a socket's buffer is full.
pub const KERNEL_DROPS_FIX: &str =
    concat!("send fewer and fuller datagrams, or raise ", setting_name!("listeners.receive_buffer"));

/// Counters for a fixed set of reasons or codes.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(bound = "[u64; N]: Serialize + for<'a> Deserialize<'a>")]
pub struct Tally<const N: usize>([u64; N]);

impl<const N: usize> Default for Tally<N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const N: usize> Tally<N> {
    fn add(&mut self, index: usize, n: u64) {
        if let Some(count) = self.0.get_mut(index) {
            *count += n;
        }
    }

    fn get(&self, index: usize) -> u64 {
        self.0.get(index).copied().unwrap_or(0)
    }

    /// All together.
    #[must_use]
    pub fn total_count(&self) -> u64 {
        self.0.iter().sum()
    }

    fn largest_count(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or(0)
    }

    fn merge(&mut self, other: &Self) {
        for (mine, other) in self.0.iter_mut().zip(other.0) {
            *mine += other;
        }
    }
}

/// How many lines were rejected, by code.
pub type RejectedTally = Tally<{ Rejected::ALL.len() }>;
/// How much was dropped, by reason.
pub type DroppedTally = Tally<{ Dropped::ALL.len() }>;

impl RejectedTally {
    /// The number of lines rejected with this code.
    #[must_use]
    pub fn count_for(&self, code: Rejected) -> u64 {
        self.get(code as usize)
    }

    /// Counts one line.
    pub fn count(&mut self, code: Rejected) {
        self.add(code as usize, 1);
    }

    /// The codes that have occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Rejected, u64)> {
        Rejected::ALL.into_iter().map(|code| (code, self.get(code as usize))).filter(|(_, n)| *n > 0)
    }
}

impl DroppedTally {
    /// The number of values or datagrams dropped for this reason.
    #[must_use]
    pub fn count_for(&self, reason: Dropped) -> u64 {
        self.get(reason as usize)
    }

    /// Counts `n` values or datagrams.
    pub fn count(&mut self, reason: Dropped, n: u64) {
        self.add(reason as usize, n);
    }

    /// The reasons that have occurred, with their counts.
    pub fn iter(&self) -> impl Iterator<Item = (Dropped, u64)> {
        Dropped::ALL.into_iter().map(|reason| (reason, self.get(reason as usize))).filter(|(_, n)| *n > 0)
    }

    /// Datagrams that were not read.
    #[must_use]
    pub fn datagram_count(&self) -> u64 {
        self.iter().filter(|(reason, _)| reason.counts_datagrams()).map(|(_, n)| n).sum()
    }

    /// Values that were not kept.
    #[must_use]
    pub fn value_count(&self) -> u64 {
        self.iter().filter(|(reason, _)| !reason.counts_datagrams()).map(|(_, n)| n).sum()
    }
}

/// Counts of what one container sent, and what happened to it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
pub struct Accounting {
    /// Datagrams taken from the socket.
    pub received: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Datagrams the kernel dropped because the socket's buffer was full.
    pub kernel_drops: u64,
    /// Non-empty lines of datagrams that were read.
    pub lines: u64,
    /// Valid lines.
    pub accepted: u64,
    /// Invalid lines, by code.
    pub rejected: RejectedTally,
    /// Values of accepted lines. An event is a line without values.
    pub values: u64,
    /// Values in closed records.
    pub in_records: u64,
    /// Dropped values and datagrams, by reason.
    pub dropped: DroppedTally,
    /// Values and datagrams that would have been dropped if limits were enforced.
    pub over_limit: DroppedTally,
    /// Events kept, one for each accepted line.
    pub events: u64,
    /// Values added to the overflow series; they are also counted in records.
    pub folded: u64,
    /// Idle series that were evicted to make room for new ones.
    pub evicted: u64,
    /// Lines in which bytes that are not UTF-8 were replaced with U+FFFD.
    pub invalid_utf8: u64,
    /// Tags of series that were renamed because they could forge the origin.
    pub renamed_tags: u64,
    /// When the last datagram arrived.
    pub last_datagram: Option<Timestamp>,
}

impl Accounting {
    /// Datagrams that reached the socket, including those that the kernel dropped.
    #[must_use]
    pub fn arrived_datagrams(&self) -> u64 {
        self.received + self.kernel_drops
    }

    /// Data that was dropped, folded or rejected: how much is wrong, in whatever units.
    #[must_use]
    pub fn problem_count(&self) -> u64 {
        self.kernel_drops + self.dropped.total_count() + self.folded + self.rejected.total_count()
    }

    /// Whether the identities hold, with `open` values in the open window.
    #[must_use]
    pub fn is_balanced(&self, open: u64) -> bool {
        self.lines == self.accepted + self.rejected.total_count()
            && self.values == self.in_records + open + self.dropped.value_count()
    }

    /// Corrects the counts after a panic: a line that was neither accepted nor rejected no longer counts as a line, and
    /// values that are in no record count as dropped. Returns the number of these values.
    pub(super) fn give_up_open(&mut self) -> u64 {
        self.lines = self.accepted + self.rejected.total_count();
        let lost = self.values.saturating_sub(self.in_records + self.dropped.value_count());
        self.dropped.count(Dropped::ShardFailed, lost);
        lost
    }

    /// Counts values of closed records that could not be published as dropped.
    pub(super) fn give_up_closed(&mut self, values: u64) {
        let lost = values.min(self.in_records);
        self.in_records -= lost;
        self.dropped.count(Dropped::ShardFailed, lost);
    }

    /// Whether all counts are below `many`, so that adding to them cannot overflow.
    pub(super) fn is_plausible(&self, many: u64) -> bool {
        let counts = [
            self.received,
            self.bytes,
            self.kernel_drops,
            self.lines,
            self.accepted,
            self.values,
            self.in_records,
            self.events,
            self.folded,
            self.evicted,
            self.invalid_utf8,
            self.renamed_tags,
        ];
        let tallies =
            [self.dropped.largest_count(), self.over_limit.largest_count(), self.rejected.largest_count()];
        counts.into_iter().chain(tallies).all(|count| count < many)
    }

    /// Adds another container's.
    pub fn merge(&mut self, other: &Self) {
        self.received += other.received;
        self.bytes += other.bytes;
        self.kernel_drops += other.kernel_drops;
        self.lines += other.lines;
        self.accepted += other.accepted;
        self.rejected.merge(&other.rejected);
        self.values += other.values;
        self.in_records += other.in_records;
        self.dropped.merge(&other.dropped);
        self.over_limit.merge(&other.over_limit);
        self.events += other.events;
        self.folded += other.folded;
        self.evicted += other.evicted;
        self.invalid_utf8 += other.invalid_utf8;
        self.renamed_tags += other.renamed_tags;
        self.last_datagram = self.last_datagram.max(other.last_datagram);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_its_own_place_and_name() {
        let mut tally = DroppedTally::default();
        for (n, reason) in (1..).zip(Dropped::ALL) {
            tally.count(reason, n);
        }
        let counts: Vec<_> = tally.iter().map(|(_, n)| n).collect();
        assert_eq!(counts, (1..=14).collect::<Vec<_>>());
        assert_eq!((tally.datagram_count(), tally.value_count(), tally.total_count()), (15, 90, 105));
        let mut names: Vec<_> = Dropped::ALL.iter().map(|reason| reason.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Dropped::ALL.len());
    }

    #[test]
    fn codes_are_counted_at_the_place_of_their_declaration() {
        for (index, code) in Rejected::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index);
        }
        for (index, reason) in Dropped::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }
}
