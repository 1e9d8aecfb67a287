//! A place in the node's sequence, as text.

use std::fmt;
use std::str::FromStr;

/// Everything up to this place has been read.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Cursor {
    /// The life of the agent.
    pub epoch: u64,
    /// The place in it; 0 is before everything.
    pub seq: u64,
}

/// A text that is no cursor.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("is not a cursor; use the one that an earlier answer gave, EPOCH-SEQ")]
pub struct CursorError;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.seq)
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (epoch, seq) = text.split_once('-').ok_or(CursorError)?;
        let number = |text: &str| text.parse().map_err(|_| CursorError);
        Ok(Self { epoch: number(epoch)?, seq: number(seq)? })
    }
}
