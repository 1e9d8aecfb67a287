/// Why bytes cannot be written in a format, or are not in it.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// They start with another mark: they are something else.
    #[error("the bytes start with another mark")]
    OtherMark,
    /// They were written in another version of the format.
    #[error("version {found} of the format is unknown")]
    Version {
        /// The version found.
        found: u16,
    },
    /// They are cut off or changed, or the payload is not a value of the expected type.
    #[error("the bytes are damaged")]
    Damaged,
    /// The payload is longer than readers of the format accept.
    #[error("the payload has {length} bytes and may have {longest}")]
    TooLong {
        /// Bytes of the payload.
        length: usize,
        /// The most that a payload may have.
        longest: usize,
    },
}
