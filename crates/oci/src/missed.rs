//! Notes about containers that started without a socket: written by the wrapper, read by the agent once it runs.
//!
//! There is one file per container in `<admin-socket>.missed`, with the request that the agent would have received, and
//! the paths of the runtime's state, which names the container's process.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::value::RawValue;
use tallyport_linux::{files, process};

use super::document::to_json;
use super::{exec, file};

/// Maximum number of notes that are written or read; no node has that many containers.
const MAX_NOTES: usize = 10_000;
/// Longest note that is read.
const LONGEST: u64 = 1 << 20;

/// The contents of a note.
#[derive(Debug, Deserialize)]
struct Note {
    /// Files that may hold the runtime's state of the container; one of them names its process.
    states: Vec<PathBuf>,
    /// The body of a reserve call.
    request: Box<RawValue>,
}

/// The process of a container in a runtime's state; runc and crun use different field names.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RuntimeProcess {
    #[serde(alias = "init_process_pid")]
    pid: i32,
    #[serde(alias = "init_process_start", rename = "process-start-time")]
    started: u64,
}

/// A container that started without a socket.
#[derive(Debug)]
pub struct Missed {
    path: PathBuf,
    /// How long ago that was.
    pub age: Duration,
    /// The body of the reserve call that was not answered.
    pub request: Vec<u8>,
    /// Its process with the ticks of its start, while that lives.
    pub process: Option<(i32, u64)>,
}

impl Missed {
    /// Removes the note.
    ///
    /// # Errors
    /// When the note cannot be removed.
    pub fn remove_note(&self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

/// The directory of notes for the agent at this socket.
#[must_use]
pub fn notes_directory(admin_socket: &Path) -> PathBuf {
    admin_socket.with_added_extension("missed")
}

/// Leaves a note of a container. If it cannot be written, the container starts all the same, and the caller of the runtime gets
/// the reason why it has no socket.
pub(super) fn leave_note(admin_socket: &Path, id: &str, root: Option<&Path>, request: &str) {
    let directory = notes_directory(admin_socket);
    let made =
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory.parent().unwrap_or(&directory));
    let made = made.and_then(|()| match fs::DirBuilder::new().mode(0o700).create(&directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made,
    });
    let states: Vec<_> = exec::state_files(root, id)
        .into_iter()
        .map(|path| std::path::absolute(&path).unwrap_or(path))
        .collect();
    let few = fs::read_dir(&directory).is_ok_and(|notes| notes.count() < MAX_NOTES);
    if made.is_ok() && few && !states.is_empty() {
        // The same container under the same runtime has one note.
        let name = states.iter().fold(0xcbf2_9ce4_8422_2325, |hash, path| hash_path(hash, path));
        let _either_way = file::replace_file(
            &directory.join(format!("{name:016x}.json")),
            &format!(r#"{{"states":{},"request":{request}}}"#, to_json(&states)),
        );
    }
}

/// FNV-1a: short and stable, not meant to be secure.
fn hash_path(hash: u64, path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes().iter().chain([&0]);
    bytes.fold(hash, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Reads the notes in a directory. Malformed notes are removed.
///
/// # Errors
/// When the directory exists and cannot be read, or other users own it or can write to it.
pub fn read(directory: &Path) -> io::Result<Vec<Missed>> {
    let owner = match fs::symlink_metadata(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found?,
    };
    let us = nix::unistd::geteuid().as_raw();
    if !owner.is_dir() || owner.mode() & 0o022 != 0 || (owner.uid() != us && owner.uid() != 0) {
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, "other users could write to it"));
    }
    let paths = fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.path()));
    let notes =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "json")).take(MAX_NOTES);
    Ok(notes.filter_map(|path| read_note(&path).inspect_err(|_| drop(fs::remove_file(&path))).ok()).collect())
}

fn read_note(path: &Path) -> io::Result<Missed> {
    let found = fs::metadata(path)?;
    if found.len() > LONGEST {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let Note { states, request } = serde_json::from_slice(&files::read(path)?)?;
    let age = found.modified()?.elapsed().unwrap_or_default();
    let process = states.iter().find_map(|state| find_running_process(&files::read_to_string(state).ok()?));
    Ok(Missed { path: path.to_owned(), age, request: request.get().as_bytes().to_vec(), process })
}

/// The process that a runtime remembers, if it is still that one, which only its start time shows.
fn find_running_process(state: &str) -> Option<(i32, u64)> {
    let RuntimeProcess { pid, started } = serde_json::from_str(state).ok()?;
    (started > 0 && process::start_ticks(pid).ok()? == started).then_some((pid, started))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn own() -> (i32, u64) {
        let pid = i32::try_from(std::process::id()).unwrap();
        (pid, process::start_ticks(pid).unwrap())
    }

    #[test]
    fn a_process_is_found_in_every_runtimes_state_while_it_is_that_one() {
        let (pid, start) = own();
        assert_eq!(
            find_running_process(&format!(r#"{{"init_process_pid":{pid},"init_process_start":{start}}}"#)),
            Some((pid, start))
        );
        assert_eq!(
            find_running_process(&format!(r#"{{"pid":{pid},"process-start-time":{start}}}"#)),
            Some((pid, start))
        );
        let recycled = start + 1;
        assert_eq!(
            find_running_process(&format!(r#"{{"pid":{pid},"process-start-time":{recycled}}}"#)),
            None
        );
        assert_eq!(
            find_running_process(&format!(r#"{{"pid":{pid}}}"#)),
            None,
            "it cannot be told from a later process"
        );
        assert_eq!(find_running_process("{"), None);
    }

    #[test]
    fn what_is_left_is_read_once_for_each_container_until_it_is_forgotten() {
        let home = tempfile::tempdir().unwrap();
        let (socket, root) = (home.path().join("run/admin.sock"), home.path().join("root"));
        fs::create_dir_all(root.join("c1")).unwrap();
        let (pid, start) = own();
        let state = format!(r#"{{"init_process_pid":{pid},"init_process_start":{start}}}"#);
        fs::write(root.join("c1/state.json"), state).unwrap();
        assert!(read(&notes_directory(&socket)).unwrap().is_empty());
        for id in ["c1", "c2", "c1"] {
            leave_note(&socket, id, Some(&root), &format!(r#"{{"container_id":"{id}"}}"#));
        }
        fs::write(notes_directory(&socket).join("x.json"), "nonsense").unwrap();
        let mut missed = read(&notes_directory(&socket)).unwrap();
        missed.sort_by_key(|missed| missed.request.clone());
        let [c1, c2] = missed.as_slice() else { panic!("{missed:?}") };
        assert_eq!((c1.process, c2.process), (Some((pid, start)), None));
        assert_eq!(c1.request, br#"{"container_id":"c1"}"#);
        c1.remove_note().unwrap();
        assert_eq!(read(&notes_directory(&socket)).unwrap().len(), 1);
        fs::set_permissions(notes_directory(&socket), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(read(&notes_directory(&socket)).is_err(), "any user could have written that");
    }

    #[test]
    fn an_id_that_would_lead_elsewhere_leaves_nothing() {
        let home = tempfile::tempdir().unwrap();
        let socket = home.path().join("admin.sock");
        leave_note(&socket, "../../etc", None, "{}");
        assert!(read(&notes_directory(&socket)).unwrap().is_empty());
    }
}
