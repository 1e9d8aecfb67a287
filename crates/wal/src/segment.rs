//! Numbered files of frames: the directory that they are in, and the one that is written.
//!
//! The directory is an interface, so that tests can have one that fails at any call.

use std::fmt;
use std::io;

use super::error::FormatError;
use super::frame::FrameFormat;

/// A directory of files that are created, appended to, renamed and removed, and never changed otherwise.
pub trait Files: Send + Sync + fmt::Debug {
    /// The names of all files.
    ///
    /// # Errors
    /// When the directory cannot be read.
    fn list_names(&self) -> io::Result<Vec<String>>;

    /// The whole of a file.
    ///
    /// # Errors
    /// When it cannot be read.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;

    /// The bytes that a file has.
    ///
    /// # Errors
    /// When it is not there, or cannot be looked at.
    fn byte_length(&self, name: &str) -> io::Result<u64>;

    /// A new file, whose name is on the disk when this returns.
    ///
    /// # Errors
    /// When the name is taken, or the file cannot be created.
    fn create(&self, name: &str) -> io::Result<Box<dyn Appendable>>;

    /// Removes a file.
    ///
    /// # Errors
    /// When it cannot be removed.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Gives a file another name, at once. A file that has the name already is replaced.
    ///
    /// # Errors
    /// When it is not there, or cannot be renamed.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
}

/// A file that is being written.
pub trait Appendable: Send + fmt::Debug {
    /// Writes these bytes at the end.
    ///
    /// # Errors
    /// When not everything could be written; a part of it may have been.
    fn append_bytes(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Waits until everything that was written is on the disk.
    ///
    /// # Errors
    /// When it may not be.
    fn sync_to_disk(&mut self) -> io::Result<()>;

    /// Cuts the file off.
    ///
    /// # Errors
    /// When it could not be cut off.
    fn truncate_to(&mut self, length: u64) -> io::Result<()>;
}

const SUFFIX: &str = ".log";

/// The name of a file with this prefix and number.
#[must_use]
pub fn format_file_name(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:010}{SUFFIX}")
}

/// The number in the name of a file with this prefix; `None` for other names.
#[must_use]
pub fn parse_number(prefix: &str, name: &str) -> Option<u64> {
    name.strip_prefix(prefix)?.strip_suffix(SUFFIX)?.parse().ok()
}

/// The files with this prefix among these names, with their numbers, oldest first.
#[must_use]
pub fn list_numbered<'n>(names: &'n [String], prefix: &str) -> Vec<(u64, &'n String)> {
    let numbered = names.iter().filter_map(|name| Some((parse_number(prefix, name)?, name)));
    let mut numbered: Vec<_> = numbered.collect();
    numbered.sort_unstable();
    numbered
}

/// Removes a file, which may be gone already.
///
/// # Errors
/// When it is there and cannot be removed.
pub fn remove_file(files: &dyn Files, name: &str) -> io::Result<()> {
    match files.remove(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Writes frames to a file. They gather in a buffer until [`SegmentWriter::write_buffer`], so that what belongs together
/// costs one call. Their checksums are seeded with the file's number.
#[derive(Debug)]
pub struct SegmentWriter {
    file: Box<dyn Appendable>,
    name: String,
    number: u64,
    format: FrameFormat,
    /// Bytes that are in the file.
    length: u64,
    /// Frames that are not in it yet.
    buffer: Vec<u8>,
}

impl SegmentWriter {
    /// Creates the file with this prefix and number.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(files: &dyn Files, prefix: &str, number: u64, format: FrameFormat) -> io::Result<Self> {
        let name = format_file_name(prefix, number);
        let file = files.create(&name).inspect_err(|_| {
            // The file may exist in spite of the error, and empty files must not pile up while the disk is full.
            let _best_effort = files.remove(&name);
        })?;
        Ok(Self { file, name, number, format, length: 0, buffer: Vec::new() })
    }

    /// Length in bytes, including what is not written yet.
    #[must_use]
    pub fn byte_length(&self) -> u64 {
        self.length + self.buffer.len() as u64
    }

    /// Bytes that wait to be written.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Adds a frame to the buffer. Returns its length in bytes.
    ///
    /// # Errors
    /// When the payload is too long for the format. The buffer then has no part of it, and the file can go on.
    pub fn put_frame(&mut self, payload: impl FnOnce(&mut Vec<u8>)) -> Result<usize, FormatError> {
        self.format.append_frame(&mut self.buffer, self.number, payload)
    }

    /// Writes the buffer to the file, and empties it.
    ///
    /// # Errors
    /// When it could not be written. The file must not be written to any more: a part of the buffer may be in it.
    pub fn write_buffer(&mut self) -> io::Result<()> {
        self.file.append_bytes(&self.buffer)?;
        self.length += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Waits until what was written is on the disk.
    ///
    /// # Errors
    /// When it may not be. The file must not be written to any more: what the kernel could not write it has forgotten.
    pub fn sync_file(&mut self) -> io::Result<()> {
        self.file.sync_to_disk()
    }

    /// Ends the file, possibly after an error. Returns its name and its length in bytes.
    #[must_use]
    pub fn seal(mut self) -> (String, u64) {
        if !self.buffer.is_empty() {
            // A torn frame is detected when the file is read; this only avoids a warning about it.
            let _best_effort = self.file.truncate_to(self.length);
        }
        (self.name, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_listed_by_number_and_others_left_out() {
        let names = ["open-0000000010.log", "windows-0000000001.log", "open-2.log", "open-x.log", "open-3"];
        let names = names.map(str::to_owned);
        let numbers: Vec<_> = list_numbered(&names, "open-").into_iter().map(|(number, _)| number).collect();
        assert_eq!(numbers, [2, 10]);
        assert_eq!(parse_number("open-", &format_file_name("open-", 10)), Some(10));
        assert_eq!(format_file_name("windows-", 1), names[1]);
    }
}
