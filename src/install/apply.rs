//! Applies a plan: each file is replaced atomically, and only after all checks have passed.

use std::path::Path;

use super::check::{self, EngineVerdict};
use super::{Backup, Error, FileChange, InstallPlan, backup_of, read};
use crate::oci::file::StagedFile;

/// Writes every file of a plan. Files are replaced only after all new versions have been written and checked.
///
/// # Errors
/// When a file cannot be written, was changed by another program, or is rejected by the engine.
pub fn apply_plan(plan: &InstallPlan) -> Result<Vec<String>, Error> {
    let mut said = Vec::new();
    let mut staged = Vec::new();
    for change in &plan.changes {
        let beside = stage_change(change)?;
        if let Some(beside) = beside.as_ref().filter(|_| change.engines) {
            let written = Some(plan.entry.as_str()).filter(|entry| !entry.is_empty());
            match check::validate_with_engine(plan.engine, beside.path(), written) {
                EngineVerdict::Accepted(program) => said.push(format!("{program} accepts it")),
                EngineVerdict::Unasked(why) => said.push(why),
                EngineVerdict::Refused(program, said) => {
                    return Err(Error::Checker { program, path: change.path.clone(), said });
                }
            }
        }
        staged.push(beside);
    }
    for (change, beside) in plan.changes.iter().zip(staged) {
        if read(&change.path)? != change.before {
            return Err(Error::Changed { path: change.path.clone() });
        }
        said.extend(commit_change(change, beside)?);
    }
    Ok(said)
}

fn stage_change(change: &FileChange) -> Result<Option<StagedFile>, Error> {
    let Some(text) = &change.after else { return Ok(None) };
    let write = || {
        if let Some(directory) = change.path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        StagedFile::create_beside(&change.path, text)
    };
    write().map(Some).map_err(|source| Error::Write { path: change.path.clone(), source })
}

fn commit_change(change: &FileChange, beside: Option<StagedFile>) -> Result<Vec<String>, Error> {
    let path = &change.path;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Write { path, source }
    };
    let mut said = Vec::new();
    let kept = backup_of(path);
    if let (Backup::Make, Some(before)) = (change.backup, &change.before) {
        let copy = StagedFile::create_beside(&kept, before).and_then(|copy| copy.replace_target(path, true));
        copy.map_err(failed(&kept))?;
        said.push(format!("{} is what it was before", kept.display()));
    }
    match beside {
        Some(beside) => {
            beside.replace_target(path, true).map_err(failed(path))?;
            said.push(format!("wrote {}", path.display()));
        }
        None => {
            std::fs::remove_file(path).map_err(failed(path))?;
            said.push(format!("removed {}", path.display()));
        }
    }
    if change.backup == Backup::Drop {
        std::fs::remove_file(&kept).map_err(failed(&kept))?;
    }
    Ok(said)
}
