//! A file that records are appended to.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::publish::answer::Answer;

/// How long a write may take before the publisher repeats it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How far from the end of a file its last whole line is looked for.
const LONGEST_LINE: u64 = 1 << 20;

/// A file that records are appended to. It is opened by the first write.
#[derive(Debug)]
pub(super) struct FileWriter {
    path: PathBuf,
    /// Not there while it is written to.
    file: Mutex<Option<File>>,
}

impl FileWriter {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: Mutex::default() }
    }

    /// Opens the file again at the next write.
    pub(super) fn close_file(&self) {
        *self.lock_file() = None;
    }

    // Poisoning is ignored: the file is only ever put there or taken.
    fn lock_file(&self) -> MutexGuard<'_, Option<File>> {
        self.file.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends whole lines: all of them, or none.
    pub(super) async fn append_body(&self, body: &[u8]) -> Answer {
        // A disk may take long, and a network one for ever.
        let (path, file, body) = (self.path.clone(), self.lock_file().take(), body.to_vec());
        let written = tokio::task::spawn_blocking(move || append_lines(&path, file, &body));
        match tokio::time::timeout(TIMEOUT, written).await {
            Ok(Ok(Ok(file))) => {
                *self.lock_file() = Some(file);
                Answer::Ok
            }
            Ok(Ok(Err(error))) => judge_error(&self.path, &error),
            Ok(Err(failed)) => {
                Answer::Retry { after: None, why: failed.to_string(), of_content: false, in_doubt: false }
            }
            Err(_) => {
                let why = format!("{} was not written within {} s", self.path.display(), TIMEOUT.as_secs());
                Answer::Retry { after: None, why, of_content: false, in_doubt: false }
            }
        }
    }
}

fn append_lines(path: &Path, file: Option<File>, body: &[u8]) -> io::Result<File> {
    let mut file = match file {
        Some(file) => file,
        None => open_at_last_line(path)?,
    };
    let before = file.metadata()?;
    if let Err(error) = file.write_all(body) {
        if before.is_file() {
            // The whole is written again, so a part of it must not stay.
            file.set_len(before.len())?;
        }
        return Err(error);
    }
    Ok(file)
}

/// Opens a file for appending. A line that a killed agent has not finished is removed: its record is written again.
fn open_at_last_line(path: &Path) -> io::Result<File> {
    let mut file = OpenOptions::new().read(true).append(true).create(true).mode(0o640).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() || metadata.len() == 0 {
        return Ok(file);
    }
    let tail_length = metadata.len().min(LONGEST_LINE);
    let mut tail = Vec::new();
    file.seek(SeekFrom::Start(metadata.len() - tail_length))?;
    (&file).take(tail_length).read_to_end(&mut tail)?;
    let whole = memchr::memrchr(b'\n', &tail).map_or(0, |at| at + 1);
    if whole > 0 && whole < tail.len() {
        file.set_len(metadata.len() - (tail.len() - whole) as u64)?;
    }
    Ok(file)
}

/// What an error means: a full disk passes, a missing directory or a mode has to be changed.
fn judge_error(path: &Path, error: &io::Error) -> Answer {
    let why = format!("{}: {error}", path.display());
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Answer::Auth { why },
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory => {
            Answer::Gone { why }
        }
        _ => Answer::Retry { after: None, why, of_content: false, in_doubt: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_appended_and_an_unfinished_one_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("records.ndjson");
        let writer = FileWriter::new(path.clone());
        assert_eq!(writer.append_body(b"{\"a\":1}\n").await, Answer::Ok);
        std::fs::write(&path, b"{\"a\":1}\n{\"b\":").unwrap();
        let writer = FileWriter::new(path.clone());
        assert_eq!(writer.append_body(b"{\"b\":2}\n").await, Answer::Ok);
        assert_eq!(writer.append_body(b"{\"c\":3}\n").await, Answer::Ok);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"a\":1}\n{\"b\":2}\n{\"c\":3}\n");
        // Moved away, as by logrotate: a reload opens a new one.
        std::fs::rename(&path, directory.path().join("old")).unwrap();
        writer.close_file();
        assert_eq!(writer.append_body(b"{\"d\":4}\n").await, Answer::Ok);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"d\":4}\n");
    }

    #[tokio::test]
    async fn what_cannot_be_written_is_held_or_repeated() {
        let directory = tempfile::tempdir().unwrap();
        let answer = |path: PathBuf| async move { FileWriter::new(path).append_body(b"{}\n").await };
        assert!(matches!(answer(directory.path().join("missing/file")).await, Answer::Gone { .. }));
        assert!(matches!(answer(directory.path().to_owned()).await, Answer::Gone { .. }));
        assert!(matches!(answer(PathBuf::from("/dev/full")).await, Answer::Retry { .. }));
    }
}
