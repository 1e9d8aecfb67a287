//! Types shared by all other modules: time, identity, series.
//!
//! Nothing here reads a clock or uses a socket; times are arguments.

pub mod glob;
pub mod id;
pub mod series;
pub mod setting_name;
pub mod shared_map;

pub use glob::Glob;
pub use id::{Allocation, ContainerId, Generation, IdError, Labels, Origin, TaskId};
pub use series::{ByIdentity, MetricType, Series, SeriesId, SeriesKey, TagSet};
pub use shared_map::SharedMap;
pub use tallyport_time as time;
pub use time::{Moment, Timestamp};
