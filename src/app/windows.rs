//! The window log, where there is one: what the life before has left, and who writes what comes.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::StartError;
use super::running::Running;
use crate::config::AgentConfig;
use crate::containers::{ContainerSnapshot, ContainerTable, FinishedContainer};
use crate::model::Timestamp;
use crate::net::clock;
use crate::net::passing::Channel;
use crate::store::{EPOCH, next_epoch};
use crate::window_log::{
    Files, LogDamage, LogDirectory, LogStatus, LogWriter, Recovered, RecoveryReport, WindowLogSettings,
    WriterSources, recover_windows, survey_log,
};

/// The window log of this life.
#[derive(Debug)]
pub(super) struct AgentWindowLog {
    pub(super) status: Arc<LogStatus>,
    writer: LogWriterState,
}

/// Who writes.
#[derive(Debug)]
enum LogWriterState {
    Now(LogWriter),
    /// Once the process before has ended.
    Then(JoinHandle<Result<LogWriter, StartError>>),
    /// It could not begin.
    Never,
}

/// How long the process before may take to write what it has, and to end.
const ENDING: Duration = Duration::from_secs(10);
/// How long writing what there is may take.
const WRITING: Duration = Duration::from_secs(2);

/// What an earlier life has left, and the files it is in.
pub(super) type PreviousLog = (Arc<dyn Files>, Recovered);

/// Reads what is there. Nothing where no log is wanted.
pub(super) fn read(config: &AgentConfig) -> Result<Option<PreviousLog>, StartError> {
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
    tracing::info!(%last, ?gap, in_order, containers, windows, open, "windows of the life before are back");
    if ahead > 0 {
        tracing::warn!(
            windows = ahead,
            "some windows of the last run start after this one did: the clock was ahead then, or is behind now; check the \
             node's time synchronization"
        );
    }
    if !in_order {
        tracing::warn!(%last, ?gap, "the life before did not end in order; nobody received meanwhile");
    }
}

impl AgentWindowLog {
    /// Takes in what came back, shows the containers of which nothing else is known, and starts to write.
    pub(super) fn start(
        running: &Running,
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
        let writer = LogWriter::start(
            &files,
            recovered,
            writer_parts(running),
            writer_settings(&running.current_config()),
            &status,
        )
        .map_err(|source| StartError::System { what: "the window log", source })?;
        Ok(Self { status, writer: LogWriterState::Now(writer) })
    }

    /// Writes on where the process before has, as soon as it has ended, if it has not. Nothing where no log is wanted.
    pub(super) fn start_after(before: Option<Channel>, running: &Running) -> Option<Self> {
        let (config, parts) = (running.current_config(), writer_parts(running));
        if !config.window_log.enabled {
            return None;
        }
        let status = Arc::new(LogStatus::new(RecoveryReport::default()));
        let shown = Arc::clone(&status);
        let writer = tokio::task::spawn_blocking(move || {
            let failing = Arc::clone(&shown);
            // Nothing comes but the end of the connection.
            let _either_way = before.map(|before| before.receive(ENDING));
            let start = || {
                let files = open(&config)?;
                let survey = survey_log(&files);
                tell_damage(survey.damage(), files.path());
                let files: Arc<dyn Files> = Arc::new(files);
                let (path, known) = (config.state_dir.clone(), survey.last_epoch());
                let epoch = next_epoch(&path, known, clock::wall_time())
                    .map_err(|source| StartError::StateFile { path: path.join(EPOCH), source })?;
                LogWriter::start_anew(&files, survey, epoch.number, parts, writer_settings(&config), &shown)
                    .map_err(|source| StartError::System { what: "the window log", source })
            };
            start().inspect_err(|error| {
                failing.record_failure(&io::Error::other(error.to_string()), clock::wall_time());
            })
        });
        Some(Self { status, writer: LogWriterState::Then(writer) })
    }

    /// Notes that containers are heard again, and says for how long they were not.
    pub(super) fn heard_again(&self, now: Timestamp) {
        log_report(&self.status.heard_again(now));
    }

    /// Has everything written that is closed.
    pub(super) async fn finish_in_order(self) {
        if let Some(writer) = self.into_writer().await {
            writer.finish_in_order().await;
        }
    }

    /// The same where somebody keeps what is open: should that be lost, the last checkpoint comes back.
    pub(super) async fn finish_keeping_open(self) {
        if let Some(writer) = self.into_writer().await {
            writer.finish_keeping_open().await;
        }
    }

    /// Has everything written now, open windows included.
    pub(super) async fn write_now(self) -> Self {
        let Self { status, writer } = self;
        let waiting = Self { status: Arc::clone(&status), writer };
        match waiting.into_writer().await {
            Some(writer) => {
                // One that waits for a disk is not waited for.
                let _late = tokio::time::timeout(WRITING, writer.write_now()).await;
                Self { status, writer: LogWriterState::Now(writer) }
            }
            None => Self { status, writer: LogWriterState::Never },
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

fn writer_parts(running: &Running) -> WriterSources {
    let directory = Arc::clone(running.containers.directory());
    WriterSources { store: Arc::clone(&running.store), pool: Arc::clone(&running.pool), directory }
}

fn writer_settings(config: &AgentConfig) -> WindowLogSettings {
    WindowLogSettings {
        checkpoint: config.window_log.checkpoint,
        checkpoint_rate: config.window_log.checkpoint_rate as u64,
        size: config.window_log.size as u64,
    }
}
