//! What the agent before has left on disk, with reports of what is damaged there, and the window log of this one.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::error::StartError;
use crate::archive::Archive;
use crate::config::AgentConfig;
use crate::containers::{ContainerSnapshot, ContainerTable, FinishedContainer, JOURNAL, Replayed};
use crate::model::Timestamp;
use crate::net::clock;
use crate::net::passing::Channel;
use crate::publish::Publishers;
use crate::stats::{Damaged, DamagedFiles, StateFile};
use crate::store::{EPOCH, Epoch, next_epoch};
use crate::window_log::{
    Files, LogDamage, LogDirectory, LogStatus, LogWriter, Recovered, RecoveryReport, WindowLogSettings,
    WriterSources, recover_windows, survey_log,
};

/// The window log of this run.
#[derive(Debug)]
pub(super) struct AgentWindowLog {
    pub(super) status: Arc<LogStatus>,
    writer: LogWriterState,
}

/// The state of the writer.
#[derive(Debug)]
enum LogWriterState {
    Now(LogWriter),
    /// Starts once the previous process has ended.
    Then(JoinHandle<Result<LogWriter, StartError>>),
    /// It could not be started.
    Never,
}

/// How long the previous process may take to write its windows and end.
const ENDING: Duration = Duration::from_secs(10);
/// How long writing all windows may take.
const WRITING: Duration = Duration::from_secs(2);

/// The windows of the previous run, and their files.
pub(super) type PreviousLog = (Arc<dyn Files>, Recovered);

/// Reads the window log. `None` where it is disabled.
pub(super) fn read_windows(config: &AgentConfig) -> Result<Option<PreviousLog>, StartError> {
    if !config.window_log.enabled {
        return Ok(None);
    }
    let files = open(config)?;
    let recovered = recover_windows(&files, clock::wall_time(), config.containers.tombstone);
    tell_damage(recovered.report.damage, files.path());
    Ok(Some((Arc::new(files), recovered)))
}

fn open(config: &AgentConfig) -> Result<LogDirectory, StartError> {
    let path = config.state_dir.join("windows");
    LogDirectory::new(path.clone()).map_err(|source| StartError::State { path, source })
}

/// Whether the log does not survive a reboot. It is not said of a directory that cannot be looked at.
fn is_in_memory(config: &AgentConfig) -> bool {
    open(config).is_ok_and(|files| files.is_volatile().unwrap_or(false))
}

fn tell_damage(damage: LogDamage, path: &Path) {
    if !damage.is_none() {
        let LogDamage { parts, bytes, entries, files } = damage;
        tracing::warn!(directory = %path.display(), parts, bytes, entries, files,
            "parts of the window log are damaged and left out");
    }
}

fn log_report(report: &RecoveryReport) {
    let Some(last) = report.last else { return };
    let (gap, in_order) = (report.gap, report.in_order);
    let RecoveryReport { containers, windows, open, ahead, .. } = *report;
    tracing::info!(%last, ?gap, in_order, containers, windows, open, "restored windows of the previous run");
    if ahead > 0 {
        tracing::warn!(
            windows = ahead,
            "some windows of the last run start after this one did: the clock was ahead then, or is behind now; check the \
             node's time synchronization"
        );
    }
    if !in_order {
        tracing::warn!(%last, ?gap, "the previous agent did not end in order; no datagrams were received until this start");
    }
}

impl AgentWindowLog {
    /// Restores windows, shows containers that are known only from the log, and starts the writer.
    pub(super) fn start(
        sources: WriterSources,
        config: &AgentConfig,
        (files, mut recovered): PreviousLog,
        table: &mut ContainerTable,
        images: &[ContainerSnapshot],
    ) -> Result<Self, StartError> {
        recovered.assign_allocations(images.iter().map(|image| (image.origin(), image.allocation())));
        let known: HashSet<_> = images.iter().map(ContainerSnapshot::allocation).collect();
        let finished = recovered.containers.iter().filter(|container| !known.contains(&container.allocation));
        let finished = finished.map(|container| FinishedContainer {
            allocation: container.allocation,
            origin: Arc::clone(&container.who.origin),
            alias: container.who.alias.clone(),
            opened: container.who.opened,
            finished_at: container.finished_at,
        });
        table.show_finished(finished.collect());
        let status = Arc::new(LogStatus::new(recovered.report));
        status.set_in_memory(is_in_memory(config));
        let writer = LogWriter::start(&files, recovered, sources, writer_settings(config), &status)
            .map_err(|source| StartError::System { what: "the window log", source })?;
        Ok(Self { status, writer: LogWriterState::Now(writer) })
    }

    /// Continues the log of the previous process once that has ended, which `ended` is told as well. `None` if the log is
    /// disabled.
    pub(super) fn start_after(
        before: Option<Channel>,
        sources: WriterSources,
        (publishers, archive): (Publishers, Archive),
        config: Arc<AgentConfig>,
        ended: oneshot::Sender<()>,
    ) -> Option<Self> {
        if !config.window_log.enabled {
            tokio::task::spawn_blocking(move || {
                wait_for_end(before);
                tell_end(ended);
            });
            return None;
        }
        let status = Arc::new(LogStatus::new(RecoveryReport::default()));
        status.set_in_memory(is_in_memory(&config));
        let shown = Arc::clone(&status);
        // The previous process writes what it has closed; what this one closes meanwhile must not leave memory before the writer runs.
        sources.store.note_written(sources.store.end_cursor().seq);
        let writer = tokio::task::spawn_blocking(move || {
            let (failing, spool) = (Arc::clone(&shown), Arc::clone(&sources.spool));
            let store = Arc::clone(&sources.store);
            wait_for_end(before);
            // Only now: until its end, that process publishes and writes the archive. And before these start here, because both
            // open the archive.
            publishers.hold_files(&config.publish);
            archive.hold_files();
            tell_end(ended);
            let start = || {
                let files = open(&config)?;
                let survey = survey_log(&files);
                tell_damage(survey.damage(), files.path());
                let files: Arc<dyn Files> = Arc::new(files);
                let (path, known) = (config.state_dir.clone(), survey.last_epoch());
                let epoch = next_epoch(&path, known, clock::wall_time())
                    .map_err(|source| StartError::StateFile { path: path.join(EPOCH), source })?;
                LogWriter::start_anew(&files, survey, epoch.number, sources, writer_settings(&config), &shown)
                    .map_err(|source| StartError::System { what: "the window log", source })
            };
            start().inspect_err(|error| {
                failing.record_failure(&io::Error::other(error.to_string()), clock::wall_time());
                spool.give_up_files();
                store.note_written(u64::MAX);
            })
        });
        Some(Self { status, writer: LogWriterState::Then(writer) })
    }

    /// Records that datagrams are received again, and logs how long they were not.
    pub(super) fn heard_again(&self, now: Timestamp) {
        log_report(&self.status.heard_again(now));
    }

    /// Writes all closed windows and ends the log.
    pub(super) async fn finish_in_order(self) {
        if let Some(writer) = self.into_writer().await {
            writer.finish_in_order().await;
        }
    }

    /// The same where a store keeps the open windows. Should those be lost, the last checkpoint comes back.
    pub(super) async fn finish_keeping_open(self) {
        if let Some(writer) = self.into_writer().await {
            writer.finish_keeping_open().await;
        }
    }

    /// Writes everything now, open windows included. Can be cancelled.
    pub(super) async fn write_now(&mut self) {
        if let LogWriterState::Then(starting) = &mut self.writer {
            let started = starting.await;
            // One that failed has said so.
            self.writer = started.map_or(LogWriterState::Never, |started| {
                started.map_or(LogWriterState::Never, LogWriterState::Now)
            });
        }
        if let LogWriterState::Now(writer) = &self.writer {
            // A disk that takes longer does not delay the end of the agent.
            let _late = tokio::time::timeout(WRITING, writer.write_now()).await;
        }
    }

    async fn into_writer(self) -> Option<LogWriter> {
        match self.writer {
            LogWriterState::Now(writer) => Some(writer),
            // One that failed has said so.
            LogWriterState::Then(starting) => starting.await.ok()?.ok(),
            LogWriterState::Never => None,
        }
    }
}

/// Waits for the end of the previous process.
fn wait_for_end(before: Option<Channel>) {
    // The only event on this connection is its end.
    let _either_way = before.map(|before| before.receive(ENDING));
}

/// Has publishers and the archive start.
fn tell_end(ended: oneshot::Sender<()>) {
    // There is no receiver where the agent ends before it has begun to serve.
    let _either_way = ended.send(());
}

fn writer_settings(config: &AgentConfig) -> WindowLogSettings {
    WindowLogSettings {
        checkpoint: config.window_log.checkpoint,
        checkpoint_rate: config.window_log.checkpoint_rate as u64,
        size: config.window_log.size as u64,
    }
}

/// Maximum number of containers named in a report.
const NAMED: usize = 20;

/// Logs a damaged epoch file and keeps it for `/v1/node`.
pub(super) fn report_epoch(epoch: &Epoch, directory: &Path, damage: &DamagedFiles) {
    let Some(found) = &epoch.damage else { return };
    let (path, number) = (directory.join(EPOCH), epoch.number);
    tracing::error!(path = %path.display(), found, epoch = number, "the epoch file is damaged and was replaced; check the disk");
    damage.record_damage(StateFile::Epoch, Damaged { places: 1, found: found.clone() });
}

/// Logs a damaged journal and keeps it for `/v1/node`, with the containers that may be lost: those that are live
/// according to the window log, and missing in the journal.
pub(super) fn report_journal(
    replayed: &Replayed,
    recovered: Option<&Recovered>,
    directory: &Path,
    damage: &DamagedFiles,
) {
    if replayed.damaged == 0 {
        return;
    }
    let found = format!(
        "{} damaged parts ({} bytes); {}",
        replayed.damaged,
        replayed.damaged_bytes,
        describe_missing(replayed, recovered)
    );
    let path = directory.join(JOURNAL);
    tracing::error!(path = %path.display(), found, "the journal of containers is damaged; restart the containers that have lost their sockets");
    damage.record_damage(StateFile::Journal, Damaged { places: replayed.damaged, found });
}

fn describe_missing(replayed: &Replayed, recovered: Option<&Recovered>) -> String {
    let known: HashSet<_> = replayed
        .images
        .iter()
        .map(|image| (image.origin().container_id.clone(), image.origin().generation))
        .collect();
    let lived = recovered.into_iter().flat_map(|recovered| &recovered.containers);
    let missing: Vec<_> = lived
        .filter(|container| container.who.finished.is_none())
        .map(|container| &container.who.origin)
        .filter(|origin| !known.contains(&(origin.container_id.clone(), origin.generation)))
        .collect();
    if missing.is_empty() {
        return "the containers recorded there are unknown".to_owned();
    }
    let named: Vec<_> = missing
        .iter()
        .take(NAMED)
        .map(|origin| format!("{} of task {}", origin.container_id, origin.task_id))
        .collect();
    let more = match missing.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("lost containers: {}{more}", named.join(", "))
}
