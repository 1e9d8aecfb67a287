//! Files of which the newest one alone is needed: it starts with everything, and continues with what changes.
//!
//! When changes have made it long, the next file is begun, again with everything, and then the old one is removed. A crash
//! between the two leaves both, which does no harm: the newer one comes later.

use std::io;
use std::sync::Arc;

use super::segment::{Files, SegmentWriter, remove_file};

/// The files, and the newest of them while it is written. `S` is a [`SegmentWriter`] with what its owner knows of the file.
#[derive(Debug)]
pub struct RenewedLog<S> {
    files: Arc<dyn Files>,
    next: u64,
    current: Option<S>,
    /// Bytes of everything when the current file was begun. `None` while that is being written.
    whole: Option<u64>,
    /// Files that are removed as soon as the current one has everything.
    old: Vec<String>,
}

impl<S: AsRef<SegmentWriter> + AsMut<SegmentWriter> + Into<SegmentWriter>> RenewedLog<S> {
    /// Continues in files with numbers greater than `last`. `old` ones were left by an earlier process.
    #[must_use]
    pub fn new(files: Arc<dyn Files>, last: u64, old: Vec<String>) -> Self {
        Self { files, next: last, current: None, whole: None, old }
    }

    /// The number of the file that is written, or was last.
    #[must_use]
    pub fn file_number(&self) -> u64 {
        self.next
    }

    /// Whether the current file has everything, so that changes can follow.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.current.is_some() && self.whole.is_some()
    }

    /// Whether files wait to be removed.
    #[must_use]
    pub fn has_old_files(&self) -> bool {
        !self.old.is_empty()
    }

    /// Ends the current file if it is longer than `smallest` bytes and `factor` times what it began with.
    pub fn retire_grown_file(&mut self, factor: u64, smallest: u64) {
        let largest = self.whole.map_or(u64::MAX, |whole| (factor * whole).max(smallest));
        if self.current.as_ref().is_some_and(|current| current.as_ref().byte_length() > largest) {
            self.retire_file();
        }
    }

    /// Ends the current file. It is removed once another has everything.
    pub fn retire_file(&mut self) {
        self.old.extend(self.current.take().map(|current| current.into().seal().0));
        self.whole = None;
    }

    /// The current file; `create` makes one with a new number if there is none.
    ///
    /// # Errors
    /// When none could be created.
    pub fn current_or_create(
        &mut self,
        create: impl FnOnce(&dyn Files, u64) -> io::Result<S>,
    ) -> io::Result<&mut S> {
        let current = match self.current.take() {
            Some(current) => current,
            None => {
                // Also after a failure: the file may exist, so its name is not reused.
                self.next += 1;
                create(&*self.files, self.next)?
            }
        };
        Ok(self.current.insert(current))
    }

    /// The current file, if there is one.
    pub fn current_mut(&mut self) -> Option<&mut S> {
        self.current.as_mut()
    }

    /// Writes what is buffered for the current file. Returns the bytes.
    ///
    /// # Errors
    /// When it could not be written; then [`RenewedLog::retire_file`] or [`RenewedLog::handle_failure`] is due.
    pub fn write_buffer(&mut self) -> io::Result<u64> {
        let Some(current) = &mut self.current else { return Ok(0) };
        let segment = current.as_mut();
        let waiting = segment.buffered_bytes() as u64;
        segment.write_buffer()?;
        Ok(waiting)
    }

    /// Waits until the current file is on the disk.
    ///
    /// # Errors
    /// When it may not be.
    pub fn sync_file(&mut self) -> io::Result<()> {
        self.current.as_mut().map_or(Ok(()), |current| current.as_mut().sync_file())
    }

    /// Notes that the current file has everything, and removes the files before it.
    ///
    /// # Errors
    /// When one could not be removed; the next call tries again.
    pub fn complete_file(&mut self) -> io::Result<()> {
        self.whole = self.current.as_ref().map(|current| current.as_ref().byte_length());
        self.remove_old()
    }

    /// After a failure, nothing can follow in the current file. If it has everything, it is kept until the next one has;
    /// otherwise it is removed at once, so that a disk that stays full does not fill up with such files.
    pub fn handle_failure(&mut self) {
        if self.whole.is_some() {
            return self.retire_file();
        }
        if let Some(current) = self.current.take() {
            let _best_effort = self.files.remove(&current.into().seal().0);
        }
    }

    /// Removes every file.
    ///
    /// # Errors
    /// When one could not be removed.
    pub fn clear(&mut self) -> io::Result<()> {
        self.retire_file();
        self.remove_old()
    }

    fn remove_old(&mut self) -> io::Result<()> {
        while let Some(name) = self.old.last() {
            remove_file(&*self.files, name)?;
            self.old.pop();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::frame::{ChecksumPlace, FrameFormat};
    use crate::segment::Appendable;

    const FORMAT: FrameFormat =
        FrameFormat { mark: b"AB", checksum: ChecksumPlace::AfterPayload, longest: 64 };

    /// A directory in memory, which can refuse to be written to.
    #[derive(Clone, Default, Debug)]
    struct Memory(Arc<Mutex<(Vec<String>, bool)>>);

    #[derive(Debug)]
    struct MemoryFile(Memory);

    impl AsRef<Self> for SegmentWriter {
        fn as_ref(&self) -> &Self {
            self
        }
    }

    impl AsMut<Self> for SegmentWriter {
        fn as_mut(&mut self) -> &mut Self {
            self
        }
    }

    impl Memory {
        fn names(&self) -> Vec<String> {
            self.0.lock().unwrap().0.clone()
        }

        fn set_full(&self, full: bool) {
            self.0.lock().unwrap().1 = full;
        }

        fn check_room(&self) -> io::Result<()> {
            match self.0.lock().unwrap().1 {
                true => Err(io::ErrorKind::StorageFull.into()),
                false => Ok(()),
            }
        }
    }

    impl Files for Memory {
        fn list_names(&self) -> io::Result<Vec<String>> {
            Ok(self.names())
        }

        fn read(&self, _: &str) -> io::Result<Vec<u8>> {
            Ok(Vec::new())
        }

        fn byte_length(&self, _: &str) -> io::Result<u64> {
            Ok(0)
        }

        fn create(&self, name: &str) -> io::Result<Box<dyn Appendable>> {
            self.0.lock().unwrap().0.push(name.to_owned());
            Ok(Box::new(MemoryFile(self.clone())))
        }

        fn remove(&self, name: &str) -> io::Result<()> {
            self.0.lock().unwrap().0.retain(|other| other != name);
            Ok(())
        }

        fn rename(&self, _: &str, _: &str) -> io::Result<()> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    impl Appendable for MemoryFile {
        fn append_bytes(&mut self, _: &[u8]) -> io::Result<()> {
            self.0.check_room()
        }

        fn sync_to_disk(&mut self) -> io::Result<()> {
            self.0.check_room()
        }

        fn truncate_to(&mut self, _: u64) -> io::Result<()> {
            Ok(())
        }
    }

    /// Writes a frame of everything or of a change. A file that is begun for it has everything afterwards.
    fn write(log: &mut RenewedLog<SegmentWriter>) -> io::Result<u64> {
        let create = |files: &dyn Files, number| SegmentWriter::create(files, "n-", number, FORMAT);
        let segment = log.current_or_create(create)?;
        segment.put_frame(|out| out.extend_from_slice(&[7; 50])).unwrap();
        let written = log.write_buffer()?;
        log.sync_file()?;
        if !log.is_whole() {
            log.complete_file()?;
        }
        Ok(written)
    }

    #[test]
    fn an_old_file_goes_once_the_new_one_has_everything_and_not_before() {
        let memory = Memory::default();
        let mut log = RenewedLog::new(Arc::new(memory.clone()), 3, Vec::new());
        assert_eq!(write(&mut log).unwrap(), 64);
        log.retire_grown_file(2, 10);
        write(&mut log).unwrap();
        write(&mut log).unwrap();
        assert_eq!((memory.names(), log.is_whole()), (vec!["n-0000000004.log".to_owned()], true));
        log.retire_grown_file(2, 1000);
        assert!(log.is_whole(), "it has not grown to the smallest size");
        log.retire_grown_file(2, 10);
        assert!(!log.is_whole() && log.has_old_files(), "three times what it began with");
        assert_eq!(memory.names().len(), 1);
        write(&mut log).unwrap();
        assert_eq!((memory.names(), log.has_old_files()), (vec!["n-0000000005.log".to_owned()], false));
        log.clear().unwrap();
        assert!(memory.names().is_empty());
    }

    #[test]
    fn a_failure_keeps_the_last_whole_file_and_leaves_no_others() {
        let memory = Memory::default();
        let mut log = RenewedLog::new(Arc::new(memory.clone()), 0, Vec::new());
        write(&mut log).unwrap();
        memory.set_full(true);
        for _ in 0..5 {
            assert!(write(&mut log).is_err());
            log.handle_failure();
            assert_eq!(memory.names(), ["n-0000000001.log"]);
        }
        memory.set_full(false);
        write(&mut log).unwrap();
        assert_eq!((memory.names(), log.file_number()), (vec!["n-0000000006.log".to_owned()], 6));
    }
}
