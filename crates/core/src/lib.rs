//! The pure core: parsing of StatsD lines, and aggregation into closed windows.
//!
//! Nothing here reads a clock, opens a file or a socket, or runs a thread. Bytes and times are arguments, so everything
//! can be fuzzed, and a day of windows is tested in a millisecond. The modules depend on each other in this order:
//! [`model`], [`statsd`], [`aggregate`].
#![cfg_attr(test, allow(clippy::float_cmp, reason = "tests compare numbers that are exact by construction"))]

pub mod aggregate;
pub mod model;
pub mod statsd;
