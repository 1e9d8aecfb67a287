//! Records that a backend refused for good, one a line, for a person to look at and to send again.
//!
//! The file has a bound. Beyond it the oldest half is given up: what was refused last says most about what is wrong now.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::files;
use crate::render::publish::EncodedRequest;
use crate::wire::{DeadLetterDocument, DeadRequestDocument};

/// The most bytes of dead letters that are kept for a publisher.
const MOST_BYTES: u64 = 16 << 20;

/// The dead letters of a publisher.
#[derive(Clone, Debug)]
pub(super) struct DeadLetters {
    path: PathBuf,
    most: u64,
}

impl DeadLetters {
    /// Those of a publisher, in the directory of publishers.
    #[must_use]
    pub(super) fn new(directory: &Path, name: &str) -> Self {
        Self { path: directory.join(format!("{name}.dead")), most: MOST_BYTES }
    }

    /// Adds letters. Returns how many older ones were given up for them.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn append_letters(&self, letters: &[DeadLetterDocument]) -> io::Result<u64> {
        let mut bytes = Vec::new();
        for letter in letters {
            serde_json::to_writer(&mut bytes, letter)?;
            bytes.push(b'\n');
        }
        let there = std::fs::metadata(&self.path).map_or(0, |metadata| metadata.len());
        let given_up = match there + bytes.len() as u64 > self.most {
            true => self.give_up_half()?,
            false => 0,
        };
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.path)?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        Ok(given_up)
    }

    /// Removes the older half.
    fn give_up_half(&self) -> io::Result<u64> {
        let lines = self.read_lines()?;
        let bytes: usize = lines.iter().map(|line| line.len() + 1).sum();
        let (mut given_up, mut freed) = (0, 0);
        let mut lines = lines.into_iter().peekable();
        while freed < bytes / 2
            && let Some(line) = lines.next()
        {
            freed += line.len() + 1;
            given_up += 1;
        }
        self.replace(lines.map(String::into_bytes))?;
        Ok(given_up)
    }

    /// Reads all letters, oldest first. Lines that are damaged are left out.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn read_letters(&self) -> io::Result<Vec<DeadLetterDocument>> {
        Ok(self.read_lines()?.iter().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// How many there are. 0 if the file cannot be read.
    #[must_use]
    pub(super) fn count(&self) -> u64 {
        files::read(&self.path).map_or(0, |bytes| memchr::memchr_iter(b'\n', &bytes).count() as u64)
    }

    fn read_lines(&self) -> io::Result<Vec<String>> {
        match files::read(&self.path) {
            Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Keeps these letters alone.
    ///
    /// # Errors
    /// When the file cannot be written; then all are still there.
    pub(super) fn keep_only(&self, letters: &[DeadLetterDocument]) -> io::Result<()> {
        let lines = letters.iter().map(serde_json::to_vec).collect::<Result<Vec<_>, _>>()?;
        self.replace(lines.into_iter())
    }

    fn replace(&self, lines: impl Iterator<Item = Vec<u8>>) -> io::Result<()> {
        let new = self.path.with_extension("dead-new");
        let mut file = io::BufWriter::new(files::create_private_file(&new)?);
        for line in lines {
            file.write_all(&line)?;
            file.write_all(b"\n")?;
        }
        file.into_inner()?.sync_all()?;
        std::fs::rename(&new, &self.path)
    }
}

/// A request as it is kept with a dead letter.
#[must_use]
pub(super) fn request_document(request: &EncodedRequest) -> DeadRequestDocument {
    let text = std::str::from_utf8(&request.body).ok().map(str::to_owned);
    let base64 = text.is_none().then(|| BASE64_STANDARD.encode(&request.body));
    DeadRequestDocument {
        content_type: request.content_type.to_owned(),
        content_encoding: request.content_encoding.map(str::to_owned),
        body: text,
        body_base64: base64,
    }
}

/// The body of a request that is kept. `None` if its base64 is damaged.
#[must_use]
pub(super) fn request_body(request: &DeadRequestDocument) -> Option<Vec<u8>> {
    match (&request.body, &request.body_base64) {
        (Some(text), _) => Some(text.clone().into_bytes()),
        (None, Some(base64)) => BASE64_STANDARD.decode(base64).ok(),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn letter(n: usize, body: &[u8]) -> DeadLetterDocument {
        let request = EncodedRequest {
            body: body.to_vec(),
            content_type: "text/plain",
            content_encoding: None,
            records: 0..1,
            held: 1,
        };
        DeadLetterDocument {
            at: Timestamp::from_secs(1_767_225_600),
            answer: "400 Bad Request".to_owned(),
            record: serde_json::json!({"name": format!("metric.{n}")}),
            request: request_document(&request),
        }
    }

    #[test]
    fn letters_are_kept_in_order_with_the_bytes_that_were_refused() {
        let directory = tempfile::tempdir().unwrap();
        let dead = DeadLetters::new(directory.path(), "influx");
        assert_eq!((dead.read_letters().unwrap(), dead.count()), (Vec::new(), 0));
        let letters = [letter(0, b"m value=1 0\n"), letter(1, &[0xff, 0, 0x80])];
        dead.append_letters(&letters[..1]).unwrap();
        dead.append_letters(&letters[1..]).unwrap();
        assert_eq!(dead.read_letters().unwrap(), letters);
        assert_eq!(dead.count(), 2);
        let bodies: Vec<_> = letters.iter().map(|letter| request_body(&letter.request).unwrap()).collect();
        assert_eq!(bodies, [b"m value=1 0\n".to_vec(), vec![0xff, 0, 0x80]]);
        dead.keep_only(&letters[1..]).unwrap();
        assert_eq!(dead.read_letters().unwrap(), letters[1..]);
    }

    #[test]
    fn beyond_the_bound_the_oldest_go() {
        let directory = tempfile::tempdir().unwrap();
        let dead = DeadLetters { most: 4096, ..DeadLetters::new(directory.path(), "influx") };
        let mut given_up = 0;
        for n in 0..100 {
            given_up += dead.append_letters(&[letter(n, b"x")]).unwrap();
        }
        let kept = dead.read_letters().unwrap();
        assert_eq!(kept.len() as u64 + given_up, 100);
        assert_eq!(kept.last(), Some(&letter(99, b"x")));
        assert!(std::fs::metadata(directory.path().join("influx.dead")).unwrap().len() <= 4096);
    }

    #[test]
    fn a_damaged_line_costs_itself_alone() {
        let directory = tempfile::tempdir().unwrap();
        let dead = DeadLetters::new(directory.path(), "influx");
        dead.append_letters(&[letter(0, b"x")]).unwrap();
        let path = directory.path().join("influx.dead");
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"{\"at\":\n\xff\xff\n");
        std::fs::write(&path, bytes).unwrap();
        dead.append_letters(&[letter(1, b"x")]).unwrap();
        assert_eq!(dead.read_letters().unwrap(), [letter(0, b"x"), letter(1, b"x")]);
    }
}
