//! The window log, where there is one: what the life before has left, and who writes what comes.

use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::StartError;
use super::running::Running;
use crate::config::Config;
use crate::containers::{Finished, Image, Table};
use crate::model::Timestamp;
use crate::net::clock;
use crate::net::passing::Channel;
use crate::store::{EPOCH, next_epoch};
use crate::window_log::{
    Damage, Directory, Files, Parts, Recovered, Report, Settings, Status, Writer, recover, survey,
};

/// The window log of this life.
#[derive(Debug)]
pub(super) struct WindowLog {
    pub(super) status: Arc<Status>,
    writer: Writing,
}

/// Who writes.
#[derive(Debug)]
enum Writing {
    Now(Writer),
    /// Once the process before has ended.
    Then(JoinHandle<Result<Writer, StartError>>),
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
pub(super) fn read(config: &Config) -> Result<Option<PreviousLog>, StartError> {
    if !config.window_log.enabled {
        return Ok(None);
    }
    let files = open(config)?;
    let recovered = recover(&files, clock::wall(), config.containers.tombstone);
    tell_damage(recovered.report.damage, files.path());
    Ok(Some((Arc::new(files), recovered)))
}

fn open(config: &Config) -> Result<Directory, StartError> {
    let path = config.state_dir.join("windows");
    Directory::new(path.clone()).map_err(|source| StartError::State { path, source })
}

fn tell_damage(damage: Damage, path: &Path) {
    if !damage.is_none() {
        tracing::warn!(directory = %path.display(), ?damage, "parts of the window log are damaged and left out");
    }
}

fn tell(report: &Report) {
    let Some(last) = report.last else { return };
    let (gap, in_order) = (report.gap, report.in_order);
    let Report { containers, windows, open, ahead, .. } = *report;
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

impl WindowLog {
    /// Takes in what came back, shows the containers of which nothing else is known, and starts to write.
    pub(super) fn start(
        running: &Running,
        (files, mut recovered): PreviousLog,
        table: &mut Table,
        images: &[Image],
    ) -> Result<Self, StartError> {
        recovered.number(images.iter().map(|image| (image.origin(), image.allocation())));
        let known: HashSet<_> = images.iter().map(Image::allocation).collect();
        let finished = recovered.containers.iter().filter(|container| !known.contains(&container.allocation));
        let finished = finished.map(|container| Finished {
            allocation: container.allocation,
            origin: Arc::clone(&container.who.origin),
            alias: container.who.alias.clone(),
            opened: container.who.opened,
            finished_at: container.finished_at,
        });
        table.show_finished(finished.collect());
        let status = Arc::new(Status::new(recovered.report));
        let writer = Writer::start(&files, recovered, parts(running), settings(&running.config()), &status)
            .map_err(|source| StartError::System { what: "the window log", source })?;
        Ok(Self { status, writer: Writing::Now(writer) })
    }

    /// Writes on where the process before has, as soon as it has ended, if it has not. Nothing where no log is wanted.
    pub(super) fn after(before: Option<Channel>, running: &Running) -> Option<Self> {
        let (config, parts) = (running.config(), parts(running));
        if !config.window_log.enabled {
            return None;
        }
        let status = Arc::new(Status::new(Report::default()));
        let shown = Arc::clone(&status);
        let writer = tokio::task::spawn_blocking(move || {
            let failing = Arc::clone(&shown);
            // Nothing comes but the end of the connection.
            let _either_way = before.map(|before| before.receive(ENDING));
            let start = || {
                let files = open(&config)?;
                let survey = survey(&files);
                tell_damage(survey.damage(), files.path());
                let files: Arc<dyn Files> = Arc::new(files);
                let (path, known) = (config.state_dir.clone(), survey.epoch());
                let epoch = next_epoch(&path, known, clock::wall())
                    .map_err(|source| StartError::StateFile { path: path.join(EPOCH), source })?;
                Writer::anew(&files, survey, epoch.number, parts, settings(&config), &shown)
                    .map_err(|source| StartError::System { what: "the window log", source })
            };
            start().inspect_err(|error| failing.failed(&io::Error::other(error.to_string()), clock::wall()))
        });
        Some(Self { status, writer: Writing::Then(writer) })
    }

    /// Notes that containers are heard again, and says for how long they were not.
    pub(super) fn heard_again(&self, now: Timestamp) {
        tell(&self.status.heard_again(now));
    }

    /// Has everything written that is closed.
    pub(super) async fn end(self) {
        if let Some(writer) = self.writer().await {
            writer.end().await;
        }
    }

    /// The same where somebody keeps what is open: should that be lost, the last checkpoint comes back.
    pub(super) async fn leave(self) {
        if let Some(writer) = self.writer().await {
            writer.leave().await;
        }
    }

    /// Has everything written now, open windows included.
    pub(super) async fn write_now(self) -> Self {
        let Self { status, writer } = self;
        let waiting = Self { status: Arc::clone(&status), writer };
        match waiting.writer().await {
            Some(writer) => {
                // One that waits for a disk is not waited for.
                let _late = tokio::time::timeout(WRITING, writer.write_now()).await;
                Self { status, writer: Writing::Now(writer) }
            }
            None => Self { status, writer: Writing::Never },
        }
    }

    async fn writer(self) -> Option<Writer> {
        match self.writer {
            Writing::Now(writer) => Some(writer),
            // One that failed has said so.
            Writing::Then(starting) => starting.await.ok()?.ok(),
            Writing::Never => None,
        }
    }
}

fn parts(running: &Running) -> Parts {
    let directory = Arc::clone(running.containers.directory());
    Parts { store: Arc::clone(&running.store), pool: Arc::clone(&running.pool), directory }
}

fn settings(config: &Config) -> Settings {
    Settings {
        checkpoint: config.window_log.checkpoint,
        checkpoint_rate: config.window_log.checkpoint_rate as u64,
        size: config.window_log.size as u64,
    }
}
