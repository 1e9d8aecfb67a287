//! Reading what an earlier life of the agent has written.
//!
//! Whatever the bytes, reading returns the windows that are whole, and counts what is not. A window whose layout is lost
//! is not used, so no number ever gets another series' name.

use std::collections::{BTreeMap, VecDeque};
use std::io;

use super::decoder::WindowDecoder;
use super::entry::{Birth, ContainerKey, FORMAT, LogEntry, VERSION, Who};
use super::found::{FoundContainer, Lasts, OpenWindow};
use super::segment::{NAMES, OPEN, WINDOWS};
use super::spool::{SpoolFileName, list_spool_files};
use super::status::LogDamage;
use crate::aggregate::EVENTS;
use crate::model::Timestamp;
use crate::store::NameChange;
use crate::wal::{Files, NextFrame, list_numbered};

/// A file that was read.
#[derive(Debug)]
pub(super) struct ReadFile {
    pub(super) name: String,
    pub(super) number: u64,
    pub(super) length: u64,
    pub(super) windows: FiledBirths,
}

/// The windows in a file.
#[derive(Default, Debug)]
pub(super) struct FiledBirths {
    /// Those that can be used, and the bytes of each. Empty where windows are not read.
    pub(super) all: Vec<(ContainerKey, Birth, u64)>,
    /// The last of them by birth.
    pub(super) last: Option<Birth>,
}

/// The contents of the log.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) containers: BTreeMap<ContainerKey, FoundContainer>,
    /// Files of closed windows, oldest first.
    pub(super) files: VecDeque<ReadFile>,
    /// Files of open windows.
    pub(super) open_files: Vec<String>,
    /// Changes of names, in order.
    pub(super) names: Vec<NameChange>,
    /// Files of names.
    pub(super) name_files: Vec<String>,
    /// Files that were kept for publishers, oldest first. They are not read: nothing in them is of use to the store.
    pub(super) spool_files: Vec<SpoolFileName>,
    /// The number of the next file.
    pub(super) next: u64,
    /// When the agent was last known to be alive.
    pub(super) last: Option<Timestamp>,
    /// The last epoch in the log.
    pub(super) epoch: u64,
    /// Whether that run shut down cleanly.
    pub(super) in_order: bool,
    pub(super) damage: LogDamage,
}

/// How much of the files is read.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Depth {
    /// Everything.
    Windows,
    /// Only containers, for a process that has the windows already: reading them would double its memory.
    Containers,
}

/// Reads all files. A directory that cannot be read is damage.
pub(super) fn read_or_report(files: &dyn Files, depth: Depth) -> Findings {
    read(files, depth).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot read the window log");
        Findings { damage: LogDamage { files: 1, ..LogDamage::default() }, ..Findings::default() }
    })
}

fn read(files: &dyn Files, depth: Depth) -> io::Result<Findings> {
    let names = files.list_names()?;
    let mut findings = Findings { spool_files: list_spool_files(&names), ..Findings::default() };
    findings.next = findings.spool_files.last().map_or(0, |last| last.number.saturating_add(1));
    for prefix in [WINDOWS, OPEN, NAMES] {
        for (number, name) in list_numbered(&names, prefix) {
            findings.next = findings.next.max(number.saturating_add(1));
            let bytes = files.read(name).unwrap_or_else(|error| {
                tracing::warn!(file = name, %error, "cannot read a file of the window log");
                findings.damage.files += 1;
                Vec::new()
            });
            let windows = findings.read_file(&bytes, number, depth, prefix == OPEN);
            match prefix {
                WINDOWS => {
                    let length = bytes.len() as u64;
                    findings.files.push_back(ReadFile { name: name.clone(), number, length, windows });
                }
                OPEN => findings.open_files.push(name.clone()),
                _ => findings.name_files.push(name.clone()),
            }
        }
    }
    if depth == Depth::Windows {
        // Of the others, files of closed windows have nothing any more, and checkpoints nothing that was not closed.
        findings.containers.retain(|_, found| !found.is_only_open || found.open.is_some());
    }
    Ok(findings)
}

impl Findings {
    /// Reads one file; returns the windows in it.
    fn read_file(&mut self, bytes: &[u8], number: u64, depth: Depth, has_checkpoints: bool) -> FiledBirths {
        let (decoder, windows) = (WindowDecoder::default(), FiledBirths::default());
        let mut file = LogFileReader { findings: self, epoch: 0, has_checkpoints, decoder, windows };
        for next in FORMAT.iter_frames(bytes, number) {
            match next {
                NextFrame::Damaged(range) => {
                    file.findings.damage.parts += 1;
                    file.findings.damage.bytes += range.len() as u64;
                }
                NextFrame::Payload(payload) => match LogEntry::decode(payload) {
                    Some(LogEntry::File { version, .. }) if version != VERSION => {
                        file.findings.damage.files += 1;
                        break;
                    }
                    Some(LogEntry::Window { birth, .. } | LogEntry::Lost { birth, .. })
                        if depth == Depth::Containers =>
                    {
                        file.windows.last = file.windows.last.max(Some(birth));
                    }
                    // Skipped without validation.
                    Some(
                        LogEntry::Layout { .. }
                        | LogEntry::Added { .. }
                        | LogEntry::Open { .. }
                        | LogEntry::Closed { .. }
                        | LogEntry::Events { .. }
                        | LogEntry::Lasting { .. }
                        | LogEntry::Names { .. },
                    ) if depth == Depth::Containers => {}
                    entry => {
                        if entry.and_then(|entry| file.apply_entry(entry, payload.len())).is_none() {
                            file.findings.damage.entries += 1;
                        }
                    }
                },
            }
        }
        file.windows
    }

    fn record_alive(&mut self, at: Timestamp) {
        self.last = self.last.max(Some(at));
    }
}

/// Reads one file.
struct LogFileReader<'f> {
    findings: &'f mut Findings,
    /// The epoch in which it was written; 0 until known.
    epoch: u64,
    /// Whether it is a file of checkpoints.
    has_checkpoints: bool,
    decoder: WindowDecoder,
    windows: FiledBirths,
}

impl LogFileReader<'_> {
    /// Applies an entry; `None` if it cannot be used.
    fn apply_entry(&mut self, entry: LogEntry<'_>, length: usize) -> Option<()> {
        match entry {
            LogEntry::File { epoch, .. } => {
                self.epoch = epoch;
                self.findings.epoch = self.findings.epoch.max(epoch);
            }
            LogEntry::Container { key, who } => match self.findings.containers.get_mut(&key) {
                Some(found) => {
                    let finished = who.finished.or(found.who.finished);
                    found.who = Who { finished, ..who };
                }
                None => {
                    let new = FoundContainer {
                        who,
                        windows: BTreeMap::new(),
                        events: VecDeque::new(),
                        open: None,
                        lasting: Lasts::default(),
                        is_only_open: self.has_checkpoints,
                    };
                    self.findings.containers.insert(key, new);
                }
            },
            LogEntry::Layout { key, change } => self.decoder.apply_layout(key, &change)?,
            LogEntry::Added { key, birth, window } => self.decoder.note_added(key, birth, &window)?,
            LogEntry::Window { key, birth, revs, window } => {
                let stored = self.decoder.read_window(key, birth, &revs, &window)?;
                // Also where the container is gone: a publisher may not have read it.
                self.windows.last = self.windows.last.max(Some(birth));
                self.findings.containers.get_mut(&key)?.windows.insert(birth, stored);
                self.windows.all.push((key, birth, length as u64));
            }
            LogEntry::Open { key, window } => {
                let window = self.decoder.decode_window(key, &window)?;
                let found = self.findings.containers.get_mut(&key)?;
                match &mut found.open {
                    Some(open) => open.add(self.epoch, &window),
                    None => found.open = Some(OpenWindow::new(self.epoch, &window)),
                }
                self.findings.record_alive(window.span.start.saturating_add(window.span.covered));
            }
            LogEntry::Closed { key, start } => {
                let is_open = |open: &OpenWindow| open.epoch != self.epoch || open.start() > start;
                if let Some(found) = self.findings.containers.get_mut(&key) {
                    found.open = found.open.take().filter(is_open);
                }
            }
            LogEntry::Events { key, events } => {
                let found = self.findings.containers.get_mut(&key)?;
                for event in events {
                    if !found.events.contains(&event) {
                        found.events.push_back(event);
                    }
                }
                while found.events.len() > EVENTS {
                    found.events.pop_front();
                }
            }
            LogEntry::Lasting { key, lasting, checks, habits } => {
                self.findings.containers.get_mut(&key)?.lasting.add(lasting, checks, habits)?;
            }
            LogEntry::Forgotten { key } => {
                self.findings.containers.remove(&key);
            }
            LogEntry::Alive { at } => {
                self.findings.in_order = false;
                self.findings.record_alive(at);
            }
            LogEntry::Ended { at } => {
                self.findings.in_order = true;
                self.findings.record_alive(at);
            }
            LogEntry::Names { changes } => self.findings.names.extend(changes),
            // For publishers, which read on from here.
            LogEntry::Lost { birth, .. } => self.windows.last = self.windows.last.max(Some(birth)),
        }
        Some(())
    }
}
