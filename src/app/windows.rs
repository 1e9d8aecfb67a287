//! The window log, where there is one: what the life before has left, and who writes what comes.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use super::StartError;
use crate::api::Api;
use crate::config::Config;
use crate::containers::{Finished, Image, Table};
use crate::net::clock;
use crate::window_log::{Directory, Files, Parts, Recovered, Report, Settings, Status, Writer, recover};

/// The window log of this life.
#[derive(Debug)]
pub(super) struct WindowLog {
    pub(super) status: Arc<Status>,
    writer: Writer,
}

/// What an earlier life has left, and the files it is in.
pub(super) type Left = (Arc<dyn Files>, Recovered);

/// Reads what is there. Nothing where no log is wanted.
pub(super) fn read(config: &Config) -> Result<Option<Left>, StartError> {
    if !config.window_log.enabled {
        return Ok(None);
    }
    let path = config.state_dir.join("windows");
    let files = Directory::new(path.clone()).map_err(|source| StartError::State { path, source })?;
    let recovered = recover(&files, clock::wall(), config.containers.tombstone);
    tell(&recovered.report, files.path());
    Ok(Some((Arc::new(files), recovered)))
}

fn tell(report: &Report, path: &Path) {
    let Some(last) = report.last else { return };
    let (gap, in_order) = (report.gap, report.in_order);
    let Report { containers, windows, open, damage, .. } = *report;
    tracing::info!(%last, ?gap, in_order, containers, windows, open, "windows of the life before are back");
    if !in_order {
        tracing::warn!(%last, ?gap, "the life before did not end in order; nobody received meanwhile");
    }
    if !damage.is_none() {
        tracing::warn!(directory = %path.display(), ?damage, "parts of the window log are damaged and left out");
    }
}

impl WindowLog {
    /// Takes in what came back, shows the containers of which nothing else is known, and starts to write.
    pub(super) fn start(
        api: &Api,
        (files, mut recovered): Left,
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
        let writer = Writer::start(&files, recovered, parts(api), settings(&api.config()), &status)
            .map_err(|source| StartError::System { what: "the window log", source })?;
        Ok(Self { status, writer })
    }

    /// Has everything written that is closed.
    pub(super) async fn end(self) {
        self.writer.end().await;
    }
}

fn parts(api: &Api) -> Parts {
    let directory = Arc::clone(api.containers.directory());
    Parts { store: Arc::clone(&api.store), pool: Arc::clone(&api.pool), directory }
}

fn settings(config: &Config) -> Settings {
    Settings {
        checkpoint: config.window_log.checkpoint,
        checkpoint_rate: config.window_log.checkpoint_rate as u64,
        size: config.window_log.size as u64,
    }
}
