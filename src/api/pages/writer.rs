//! Writing a page: in chunks, compressed where that is asked for, until it is done, late, or has no reader left.

use std::cell::Cell;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::page::BufferedPage;
use super::room::{CHUNK, HeldMemory, LOOK};
use crate::api::error::ApiError;
use crate::query::{self, Sink};

/// How long a build may wait for memory in all.
const SHORTAGE: Duration = Duration::from_mins(1);
/// [`PageWriter::goes_on`] reads the clock in one of this many calls.
const CALLS_PER_CLOCK_READ: u32 = 256;

/// Why a page was not finished.
#[derive(Clone, Debug)]
pub(in crate::api) enum Stop {
    /// The request cannot be answered.
    Error(ApiError),
    /// It took too long.
    Late,
    /// All readers have gone.
    Unread,
}

impl From<query::Error> for Stop {
    fn from(error: query::Error) -> Self {
        Self::Error(error.into())
    }
}

impl From<ApiError> for Stop {
    fn from(error: ApiError) -> Self {
        Self::Error(error)
    }
}

/// Takes a page's bytes as they are rendered.
#[derive(Debug)]
pub(in crate::api) struct PageWriter {
    page: Arc<BufferedPage>,
    out: Out,
    began: Instant,
    deadline: Duration,
    /// How long it has waited for memory.
    waited: Duration,
    calls: Cell<u32>,
    stopped: Cell<bool>,
    /// Memory of the build itself.
    held: Vec<HeldMemory>,
}

#[derive(Debug)]
enum Out {
    Plain(Vec<u8>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Out {
    fn bytes(&mut self) -> &mut Vec<u8> {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Gzip(encoder) => encoder.get_mut(),
        }
    }
}

impl PageWriter {
    pub(super) fn new(page: Arc<BufferedPage>, gzip: bool, deadline: Duration) -> Self {
        let out = match gzip {
            true => Out::Gzip(GzEncoder::new(Vec::new(), Compression::fast())),
            false => Out::Plain(Vec::new()),
        };
        Self {
            page,
            out,
            began: Instant::now(),
            deadline,
            waited: Duration::ZERO,
            calls: Cell::new(0),
            stopped: Cell::new(false),
            held: Vec::new(),
        }
    }

    /// Renders a page and ends it; returns whether that finished in time.
    pub(super) fn run(mut self, render: impl FnOnce(&mut Self) -> Result<(), Stop>) -> bool {
        let rendered = render(&mut self).and_then(|()| self.finish_output());
        let in_time = !matches!(rendered, Err(Stop::Late));
        match rendered {
            Ok(()) => self.page.finish(),
            Err(Stop::Error(error)) => self.page.fail_with(error),
            Err(Stop::Late | Stop::Unread) => self.page.fail_with(ApiError::unfinished_response()),
        };
        in_time
    }

    fn finish_output(&mut self) -> Result<(), Stop> {
        if let Out::Gzip(encoder) = &mut self.out {
            // Writing to memory cannot fail.
            let _infallible = encoder.try_finish();
        }
        self.push(true)
    }

    /// Sets the status, before anything is written; 200 unless this says otherwise.
    #[cfg_attr(not(feature = "dcos"), expect(dead_code, reason = "other routes have one status"))]
    pub(in crate::api) fn set_status(&self, status: u16) {
        self.page.change_head(|head| head.status = status);
    }

    /// Adds a header field, before anything is written.
    pub(in crate::api) fn add_header(&self, name: &'static str, value: String) {
        self.page.change_head(|head| head.headers.push((name, value)));
    }

    /// Writes an array of documents, each of them as it comes.
    ///
    /// # Errors
    /// When the build has to stop.
    pub(in crate::api) fn write_array<T: serde::Serialize>(
        &mut self,
        documents: impl Iterator<Item = T>,
    ) -> Result<(), Stop> {
        self.write_bytes(b"[")?;
        for (index, document) in documents.enumerate() {
            if index > 0 {
                self.write_bytes(b",")?;
            }
            self.write_json(&document)?;
        }
        self.write_bytes(b"]")
    }

    /// Passes the bytes rendered so far to the readers, once there is room.
    fn push(&mut self, last: bool) -> Result<(), Stop> {
        self.waited += self.page.room.wait_while_still();
        self.ensure_wanted()?;
        let mut chunk = std::mem::take(self.out.bytes());
        if chunk.is_empty() {
            return Ok(());
        }
        if chunk.capacity() > chunk.len() + CHUNK {
            chunk.shrink_to_fit();
        }
        let began = Instant::now();
        while !self.page.has_room() {
            if self.page.abandon_if_unread() {
                return Err(Stop::Unread);
            }
            if self.waited + began.elapsed() > SHORTAGE {
                return Err(Stop::Late);
            }
            self.page.room.free_memory();
            self.page.room.wait_until_freed(LOOK);
        }
        self.waited += began.elapsed();
        self.page.append_chunk(self.page.room.hold_chunk(chunk), last);
        Ok(())
    }
}

impl Sink for PageWriter {
    type Stop = Stop;

    fn hold_bytes(&mut self, bytes: usize) {
        self.held.push(self.page.room.hold_bytes(bytes));
    }

    fn goes_on(&self) -> bool {
        let calls = self.calls.get().wrapping_add(1);
        self.calls.set(calls);
        if calls.is_multiple_of(CALLS_PER_CLOCK_READ) {
            self.stopped.set(self.stopped.get() || self.ensure_wanted().is_err());
        }
        !self.stopped.get()
    }

    fn ensure_wanted(&self) -> Result<(), Stop> {
        if self.began.elapsed().saturating_sub(self.waited) > self.deadline {
            return Err(Stop::Late);
        }
        if self.page.abandon_if_unread() {
            return Err(Stop::Unread);
        }
        Ok(())
    }

    fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        // Split even large writes into chunks, which bound the memory of a slow reader and the turn of a fast one.
        for part in bytes.chunks(CHUNK) {
            match &mut self.out {
                Out::Plain(out) => out.extend_from_slice(part),
                Out::Gzip(encoder) => {
                    let _infallible = encoder.write_all(part);
                }
            }
            if self.out.bytes().len() >= CHUNK {
                self.push(false)?;
            }
        }
        Ok(())
    }

    fn write_json(&mut self, document: &impl serde::Serialize) -> Result<(), Stop> {
        // A document that cannot be serialised would be a bug; writing fails only when the build has to stop.
        serde_json::to_writer(&mut *self, document).map_err(|_| match self.ensure_wanted() {
            Err(stop) => stop,
            Ok(()) => Stop::Late,
        })
    }
}

impl Write for PageWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_bytes(bytes).map_err(|_| io::Error::other("the build stopped"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
