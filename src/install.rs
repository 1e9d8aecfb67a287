//! Configures container engines to use `tallyport-oci`, and undoes that.
//!
//! ```text
//! Request ── plan, plan_removal ──▶ Plan: every file before and after ── apply ──▶ files
//!   read the file ─ docker | containerd | podman | crio: text in, text out      stage beside, have it checked,
//!                                                                               back up, rename
//! ```
//!
//! Edits are pure functions on text and keep comments, order, unknown keys and spaces. All changes are computed before
//! anything is written, so that they can be shown first.

mod apply;
mod base_spec;
mod check;
mod containerd;
mod crio;
mod docker;
mod errors;
mod json;
mod podman;
mod tables;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

pub use apply::apply_plan;
pub use errors::Error;

/// The header of files that contain nothing else.
const HEADER: &str = "# Written by `tallyport hook install`; `tallyport hook remove` takes it away.\n";
/// The file of the wrapper's settings.
const SETTINGS: &str = "/etc/tallyport/oci.toml";

/// A container engine.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Engine {
    /// containerd, for pods.
    Containerd,
    Docker,
    Podman,
    /// CRI-O.
    Crio,
}

/// How containers get their address.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Mechanism {
    /// The engine starts the wrapper, which starts the runtime.
    Wrapper,
    /// podman runs a `precreate` hook.
    Hook,
    /// containerd gives every container the same address, and a hook opens it for the pod.
    BaseSpec,
}

/// What to install or remove.
#[derive(Clone, Debug)]
pub struct InstallRequest {
    /// Where.
    pub engine: Engine,
    /// How; ignored by a removal, which removes whatever is installed.
    pub mechanism: Mechanism,
    /// The engine's configuration file, if not the default one.
    pub config: Option<PathBuf>,
    /// The name of the runtime in it.
    pub name: String,
    /// Whether it becomes the default runtime.
    pub default: bool,
    /// `tallyport-oci`.
    pub wrapper: PathBuf,
    /// The runtime that the wrapper starts, if it should be written into its settings.
    pub runtime: Option<PathBuf>,
    /// The directory for files of tallyport.
    pub directory: PathBuf,
    /// The base specification for containerd, if not the default one.
    pub specification: Option<PathBuf>,
}

/// The entry of tallyport in an engine's file.
#[derive(Clone, PartialEq, Eq, Debug)]
struct EngineEntry {
    mechanism: Mechanism,
    name: String,
    /// The wrapper, the directory of hooks or the specification.
    path: String,
    default: bool,
}

/// Why a file cannot be edited.
#[derive(PartialEq, Eq, Debug)]
struct Garbled(String);

/// One file, before and after the change.
#[derive(PartialEq, Eq, Debug)]
pub struct FileChange {
    /// The file.
    pub path: PathBuf,
    /// Its text; `None` if it does not exist.
    pub before: Option<String>,
    /// The new text; `None` to delete the file.
    pub after: Option<String>,
    backup: Backup,
    /// Whether the engine reads it and can check it.
    engines: bool,
}

/// What happens to the backup of a file.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Backup {
    /// The file is copied before it is changed.
    Make,
    /// An existing backup stays.
    Leave,
    /// The file is restored, and the backup deleted.
    Drop,
}

/// The changes of an installation or removal.
#[derive(Debug)]
pub struct InstallPlan {
    /// Files that change; empty if nothing has to be done.
    pub changes: Vec<FileChange>,
    /// Notes for the user.
    pub notes: Vec<String>,
    /// How to make the engine read its file again.
    pub restart: &'static str,
    engine: Engine,
    entry: String,
}

/// Whether a path is one of tallyport.
fn is_ours(path: &str) -> bool {
    Path::new(path).file_name().is_some_and(|name| name.to_string_lossy().starts_with("tallyport"))
}

impl Engine {
    fn config_path(self) -> &'static str {
        match self {
            Self::Containerd => containerd::FILE,
            Self::Docker => docker::FILE,
            Self::Podman => podman::FILE,
            Self::Crio => crio::FILE,
        }
    }

    fn restart_hint(self) -> &'static str {
        match self {
            Self::Containerd => containerd::RESTART,
            Self::Docker => docker::RESTART,
            Self::Podman => podman::RESTART,
            Self::Crio => crio::RESTART,
        }
    }

    fn find_entry(self, text: &str, name: &str) -> Result<Option<EngineEntry>, Garbled> {
        match self {
            Self::Containerd => containerd::find_entry(text, name),
            Self::Docker => docker::find_entry(text, name),
            Self::Podman => podman::find_entry(text, name),
            Self::Crio => crio::find_entry(text, name),
        }
    }

    fn add_entry(self, text: &str, entry: &EngineEntry, usual: &podman::Usual) -> Result<String, Garbled> {
        match self {
            Self::Containerd => containerd::add_entry(text, entry),
            Self::Docker => docker::add_entry(text, entry),
            Self::Podman => podman::add_entry(text, entry, usual),
            Self::Crio => crio::add_entry(text, entry),
        }
    }

    fn remove_entry(self, text: &str, entry: &EngineEntry, before: &str) -> Result<String, Garbled> {
        match self {
            Self::Containerd => containerd::remove_entry(text, entry, before),
            Self::Docker => docker::remove_entry(text, entry, before),
            Self::Podman => podman::remove_entry(text, entry, before),
            Self::Crio => crio::remove_entry(text, entry, before),
        }
    }
}

impl InstallRequest {
    fn config_path(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| self.engine.config_path().into())
    }

    /// The directory of tallyport's podman hooks. It is a separate one because CRI-O fails to start containers if it
    /// finds this stage in the shared one.
    fn hooks_directory(&self) -> PathBuf {
        self.directory.join("tallyport-hooks.d")
    }

    fn base_spec(&self) -> PathBuf {
        self.directory.join("tallyport-base-spec.json")
    }

    fn entry(&self) -> Result<EngineEntry, Error> {
        let path = match self.mechanism {
            Mechanism::Wrapper => self.wrapper.clone(),
            Mechanism::Hook => self.hooks_directory(),
            Mechanism::BaseSpec => self.base_spec(),
        };
        let said = path.into_os_string().into_string();
        let path = said.map_err(|path| Error::Request(format!("{} is not UTF-8", path.display())))?;
        if !path.starts_with('/') {
            return Err(Error::Request(format!(
                "{path} is not an absolute path, and engines run in another directory"
            )));
        }
        Ok(EngineEntry { mechanism: self.mechanism, name: self.name.clone(), path, default: self.default })
    }

    /// Checks the request itself, independent of files.
    fn ensure_valid(&self) -> Result<(), Error> {
        let wrong = |why: String| Err(Error::Request(why));
        let fits = match self.mechanism {
            Mechanism::Wrapper => true,
            Mechanism::Hook => self.engine == Engine::Podman,
            Mechanism::BaseSpec => self.engine == Engine::Containerd,
        };
        if !fits {
            return wrong("only podman has the mechanism hook, and only containerd base-spec".to_owned());
        }
        if self.mechanism == Mechanism::Hook && self.default {
            return wrong("podman's hook applies to every container, so --default has no meaning".to_owned());
        }
        // The characters that Kubernetes accepts in the handler of a RuntimeClass.
        let fit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let name = &self.name;
        if name.is_empty()
            || name.len() > 63
            || !name.chars().all(fit)
            || name.starts_with('-')
            || name.ends_with('-')
        {
            return wrong(format!(
                "{name:?} is not a valid runtime name: use a-z, 0-9 and inner -, at most 63 characters"
            ));
        }
        if name == "runc" || name == "crun" {
            return wrong(format!("{name} is the name of a real runtime; choose another"));
        }
        Ok(())
    }
}

/// A file's text; `None` if it does not exist.
fn read(path: &Path) -> Result<Option<String>, Error> {
    match crate::files::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Read { path: path.to_owned(), source }),
    }
}

/// The path of a file's backup. Engines read every file in a directory whose name ends in `.d`, so backups of such
/// files are one level up.
fn backup_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tallyport-backup");
    match path.parent() {
        Some(parent) if parent.extension().is_some_and(|extension| extension == "d") => {
            parent.with_file_name(name)
        }
        _ => path.with_file_name(name),
    }
}

/// Plans an installation.
///
/// # Errors
/// When the request is invalid, a file cannot be read or edited, the name is taken, or a program is missing.
pub fn plan_installation(request: &InstallRequest) -> Result<InstallPlan, Error> {
    request.ensure_valid()?;
    let (path, entry) = (request.config_path(), request.entry()?);
    let before = read(&path)?;
    let text = before.as_deref().unwrap_or_default();
    let garbled = |Garbled(why)| Error::Garbled { path: path.clone(), why };
    let there = request.engine.find_entry(text, &request.name).map_err(garbled)?;
    if let Some(there) = &there {
        ensure_no_conflict(there, &entry, &path)?;
    }
    let mut notes = vec![check::probe_wrapper(&request.wrapper, request.runtime.as_deref())?];
    let usual = read_default_lists(&path)?;
    let after = request.engine.add_entry(text, &entry, &usual).map_err(garbled)?;
    let mut changes = own_files(request)?;
    if after != text {
        // Back up only the original file, before the first installation.
        let backup = if there.is_none() && before.is_some() { Backup::Make } else { Backup::Leave };
        changes.push(FileChange {
            path: path.clone(),
            before: before.clone(),
            after: Some(after),
            backup,
            engines: true,
        });
    }
    if request.engine == Engine::Containerd {
        notes.extend(notes_on_containerd(text, request).map_err(garbled)?);
    }
    Ok(InstallPlan {
        changes,
        notes,
        restart: request.engine.restart_hint(),
        engine: request.engine,
        entry: entry.path,
    })
}

/// Allows only one mechanism at a time: with two, a container would reserve two sockets.
fn ensure_no_conflict(there: &EngineEntry, wanted: &EngineEntry, path: &Path) -> Result<(), Error> {
    if !is_ours(&there.path) && there.path != wanted.path {
        let (path, name, found) = (path.to_owned(), there.name.clone(), there.path.clone());
        return Err(Error::Taken { path, name, found });
    }
    if there.mechanism == wanted.mechanism {
        return Ok(());
    }
    Err(Error::Request(format!("{} has tallyport by another mechanism; remove that first", path.display())))
}

/// The lists from the files that podman reads before this one.
fn read_default_lists(path: &Path) -> Result<podman::Usual, Error> {
    let mut usual = podman::Usual::default();
    for other in podman::OTHERS.iter().map(Path::new).filter(|other| *other != path) {
        if let Some(text) = read(other)? {
            usual = usual.override_with(&text);
        }
    }
    Ok(usual)
}

/// Files that belong to tallyport.
fn own_files(request: &InstallRequest) -> Result<Vec<FileChange>, Error> {
    let mut changes = Vec::new();
    let mut write = |path: PathBuf, after: String| {
        let before = read(&path)?;
        if before.as_ref() != Some(&after) {
            changes.push(FileChange {
                path,
                before,
                after: Some(after),
                backup: Backup::Leave,
                engines: false,
            });
        }
        Ok(())
    };
    if let Some(runtime) = &request.runtime {
        let path = wrapper_settings_path();
        let text = read(&path)?.unwrap_or_default();
        let garbled = |Garbled(why)| Error::Garbled { path: path.clone(), why };
        let mut document = tables::read(&text).map_err(garbled)?;
        tables::set_value(document.as_table_mut(), "runtime", runtime.to_string_lossy().as_ref());
        write(path, document.to_string())?;
    }
    match request.mechanism {
        Mechanism::Wrapper => {}
        Mechanism::Hook => {
            write(
                request.hooks_directory().join(podman::HOOK),
                podman::render_hook(&request.wrapper.to_string_lossy()),
            )?;
        }
        Mechanism::BaseSpec => {
            let usual = base_spec::load_specification(request.specification.as_deref())?;
            let spec = base_spec::with_address(&usual, &request.wrapper.to_string_lossy());
            let garbled = |Garbled(why)| Error::Garbled { path: request.base_spec(), why };
            write(request.base_spec(), spec.map_err(garbled)?)?;
        }
    }
    Ok(changes)
}

fn wrapper_settings_path() -> PathBuf {
    std::env::var_os("TALLYPORT_OCI_CONFIG").map_or_else(|| SETTINGS.into(), PathBuf::from)
}

fn notes_on_containerd(text: &str, request: &InstallRequest) -> Result<Vec<String>, Garbled> {
    let mut notes = Vec::new();
    if containerd::without_pods(text) {
        notes.push(
            "disabled_plugins disables the CRI plugin in this file, so the added settings have no effect"
                .to_owned(),
        );
    }
    if let Some(path) = containerd::template_binary(text, &request.name)?
        && request.mechanism == Mechanism::Wrapper
        && request.runtime.is_none()
    {
        notes.push(format!("pods used {path}; set --real-runtime {path} to make the wrapper start it, too"));
    }
    Ok(notes)
}

/// Plans a removal.
///
/// # Errors
/// When a file cannot be read or edited.
pub fn plan_removal(request: &InstallRequest) -> Result<InstallPlan, Error> {
    let path = request.config_path();
    let mut plan = InstallPlan {
        changes: Vec::new(),
        notes: Vec::new(),
        restart: match request.engine {
            Engine::Docker => docker::RESTART_REMOVED,
            engine => engine.restart_hint(),
        },
        engine: request.engine,
        entry: String::new(),
    };
    let Some(text) = read(&path)? else { return Ok(plan) };
    let garbled = |Garbled(why)| Error::Garbled { path: path.clone(), why };
    let Some(entry) = request.engine.find_entry(&text, &request.name).map_err(garbled)? else {
        return Ok(plan);
    };
    if !is_ours(&entry.path) && Path::new(&entry.path) != request.wrapper {
        return Err(Error::Taken { path: path.clone(), name: entry.name, found: entry.path });
    }
    let usual = read_default_lists(&path)?;
    let backup = read(&backup_of(&path))?;
    let made_from = |old: &str| request.engine.add_entry(old, &entry, &usual).is_ok_and(|made| made == text);
    let (after, keep) = if backup.as_deref().is_some_and(made_from) {
        (backup, Backup::Drop)
    } else if made_from("") {
        (None, Backup::Leave)
    } else {
        plan.notes.push(format!(
            "{} was changed since, so only the parts of tallyport are removed",
            path.display()
        ));
        let before = backup.unwrap_or_default();
        (Some(request.engine.remove_entry(&text, &entry, &before).map_err(garbled)?), Backup::Leave)
    };
    plan.changes.push(FileChange { path, before: Some(text), after, backup: keep, engines: true });
    let ours = match entry.mechanism {
        Mechanism::Wrapper => None,
        Mechanism::Hook => Some(Path::new(&entry.path).join(podman::HOOK)),
        Mechanism::BaseSpec => Some(PathBuf::from(&entry.path)),
    };
    if let Some(path) = ours
        && let before @ Some(_) = read(&path)?
    {
        plan.changes.push(FileChange { path, before, after: None, backup: Backup::Leave, engines: false });
    }
    Ok(plan)
}
