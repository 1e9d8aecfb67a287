//! Bytes that outlive a process: how they are framed, checked, and found again when a part of them is damaged.
//!
//! There are two shapes, and each format of the agent is a value of one of them:
//!
//! - A file of *frames* ([`FrameFormat`]) is appended to. A crash can cut off its last frame, and a disk can change any of them.
//!   Reading skips what is damaged and continues at the next frame whose checksum fits. The window log and the journal of
//!   containers are such files.
//! - A *document* ([`DocumentFormat`]) is written and read as a whole. Damage anywhere makes it unusable. Snapshots of aggregators,
//!   their changes, and images of histories are documents.
//!
//! [`SegmentWriter`] writes frames to numbered files, and [`RenewedLog`] keeps files of which the newest one alone is
//! needed. Both see the file system through [`Files`], so that tests can use one that fails at any call.
//!
//! Payloads are values in the format of postcard ([`encode`], [`decode`]). What they mean is left to their owners.

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        reason = "a test that panics fails, which is its purpose"
    )
)]

mod document;
mod error;
mod frame;
mod payload;
mod renewed;
mod segment;

pub use document::{DocumentFormat, checksum_of};
pub use error::FormatError;
pub use frame::{ChecksumPlace, FrameFormat, Frames, NextFrame};
pub use payload::{decode, encode, encode_after};
pub use renewed::RenewedLog;
pub use segment::{
    Appendable, Files, SegmentWriter, format_file_name, list_numbered, parse_number, remove_file,
};
