//! The encoding in which values become bytes that another process or a later run reads.

pub use tallyport_wal::{encode, encode_after};
