//! Which columns matter most.

/// What a column says. On a terminal that is too narrow for all columns those that come last here give way first, in every table
/// and on the screen of `top`. Columns without content go before all others.
///
/// First comes what a row is about: its value, and the tags and the container that tell it from others of its name. Then what
/// arrived and what was lost of it, whether anything can arrive, and how much there is; then the spread of values; then what is
/// for a closer look at one row.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[cfg_attr(not(feature = "top"), allow(dead_code, reason = "only `top` leaves every column out"))]
pub(in crate::cli) enum ColumnRank {
    Value,
    Tags,
    Container,
    Unit,
    /// Values or records that arrived, or how many in a second.
    Rate,
    /// What was lost by the kernel, by a limit, or while it waited.
    Dropped,
    /// What could not be read, or was refused.
    Rejected,
    /// What waits.
    Pending,
    State,
    Series,
    /// Values that are counted, but not in series of their own.
    Folded,
    P99,
    P95,
    P50,
    Count,
    Max,
    Behind,
    /// When something arrived last, or a window ended.
    Last,
    Datagrams,
    Containers,
    Address,
    Pid,
    Generation,
    /// The last values as bars.
    Trend,
    Type,
    /// Where a setting comes from.
    Source,
}
