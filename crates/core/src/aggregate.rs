//! Aggregates samples into closed windows, without clocks, sockets or locks.
//!
//! An [`Aggregator`] takes one container's datagrams and closes its windows; everything downstream reads [`Window`]s.
//! Aggregates can be merged: a coarser window is the merge of finer ones, so a p99 over an hour comes from merged bins,
//! never from averaged p99s. Counts, bins, extremes and set members merge exactly, sums and second moments to 1e-9,
//! first and last by time.

mod accounting;
mod aggregator;
mod distribution;
mod fingerprint;
mod gauge;
mod histogram;
mod limits;
mod record;
pub mod set;
pub mod sketch;
mod state;
mod table;
mod varint;
mod weight;
mod window;

pub use accounting::{Accounting, Dropped, DroppedTally, KERNEL_DROPS_FIX, RejectedTally};
pub use aggregator::{
    Aggregator, AggregatorSettings, CheckpointContents, ClosedWindow, ContainerSummary, GaugeSign, Habits,
    LastCheck, Ledger, LedgerEntry, LedgerRow, LineTap, NAMED, OVERFLOW, PersistentValue, REVISED_TOGETHER,
    ReadGap, SNAPSHOT_VERSION, SnapshotError, TimerUnit, checksum_of,
};
pub use distribution::{Distribution, DistributionSummary};
pub use gauge::Gauge;
pub use histogram::{
    Bounds, BoundsError, Buckets, COARSEST_SCHEMA, Classic, Counting, FINEST_SCHEMA, Histogram, MOST_BOUNDS,
    MOST_BUCKETS, Native, Scale, ZERO_THRESHOLD,
};
pub use limits::{LimitMode, Limits, TokenBucket, WideTag, widest_tags};
pub use record::{EVENTS, EventRecord, REJECTED_BYTES, REJECTED_LINES, RejectedLine, RejectedLines};
pub use sketch::{PERCENTILES, Percentiles};
pub use state::{CheckOutcome, CheckState, Counter, SeriesState};
pub use tallyport_wal::{encode, encode_after};
pub use weight::Weight;
pub use window::{
    CodecError, KnownLayout, Layout, Record, View, Window, WindowBuilder, WindowFold, WindowSpan,
};
