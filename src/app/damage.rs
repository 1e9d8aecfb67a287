//! Reports state files of the previous agent that could not be read.

use std::collections::HashSet;
use std::path::Path;

use crate::containers::{JOURNAL, Replayed};
use crate::stats::{Damaged, DamagedFiles, StateFile};
use crate::store::{EPOCH, Epoch};
use crate::window_log::Recovered;

/// Most containers that a report names.
const NAMED: usize = 20;

/// Logs a damaged epoch file and keeps it for `/v1/node`.
pub(super) fn report_epoch(epoch: &Epoch, directory: &Path, damage: &DamagedFiles) {
    let Some(found) = &epoch.damage else { return };
    let (path, number) = (directory.join(EPOCH), epoch.number);
    tracing::error!(path = %path.display(), found, epoch = number, "the epoch file is damaged and was replaced; check the disk");
    damage.record_damage(StateFile::Epoch, Damaged { places: 1, found: found.clone() });
}

/// Logs a damaged journal and keeps it for `/v1/node`, with the containers that may be lost: the window log had them as live, and the
/// journal does not have them.
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
