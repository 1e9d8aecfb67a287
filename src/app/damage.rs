//! Saying what could not be read of the files of an earlier life.

use std::collections::HashSet;
use std::path::Path;

use crate::containers::{JOURNAL, Replayed};
use crate::stats::{Damage, Damaged, StateFile};
use crate::store::{EPOCH, Epoch};
use crate::window_log::Recovered;

/// Containers that are named, at most.
const NAMED: usize = 20;

/// Notes and logs a damaged epoch.
pub(super) fn tell_epoch(epoch: &Epoch, directory: &Path, damage: &Damage) {
    let Some(found) = &epoch.damage else { return };
    let (path, number) = (directory.join(EPOCH), epoch.number);
    tracing::error!(path = %path.display(), found, epoch = number, "the epoch file is damaged; check the disk");
    damage.note(StateFile::Epoch, Damaged { places: 1, found: found.clone() });
}

/// Notes and logs what is damaged of the journal, and which containers that may have cost: those that the window log knows to
/// have lived, and the journal does not.
pub(super) fn tell_journal(
    replayed: &Replayed,
    recovered: Option<&Recovered>,
    directory: &Path,
    damage: &Damage,
) {
    if replayed.damaged == 0 {
        return;
    }
    let found = format!(
        "{} places, {} bytes, cannot be read; {}",
        replayed.damaged,
        replayed.damaged_bytes,
        missing(replayed, recovered)
    );
    let path = directory.join(JOURNAL);
    tracing::error!(path = %path.display(), found, "the journal of containers is damaged; containers that are missing must be restarted");
    damage.note(StateFile::Journal, Damaged { places: replayed.damaged, found });
}

fn missing(replayed: &Replayed, recovered: Option<&Recovered>) -> String {
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
        return "which containers were written there is not known".to_owned();
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
    format!("containers that had windows and are missing: {}{more}", named.join(", "))
}
