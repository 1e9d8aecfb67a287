//! Finds the real runtime, and replaces this process with it.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::config::WrapperConfig;
use super::errors::Error;

/// Names the real runtime; overrides everything else.
const VARIABLE: &str = "TALLYPORT_OCI_RUNTIME";
/// Set on the way to the runtime. A process keeps its number when it becomes another program, so a wrapper that finds its own
/// number there was called by the runtime that it called.
const PASSED: &str = "TALLYPORT_OCI_PASSED";
const USUAL: &str = "runc";
/// Used if `PATH` is not set: callers start runtimes with almost no environment.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Replaces this process with the real runtime. Returns only on failure.
pub(super) fn become_it(arguments: &[OsString], config: &WrapperConfig) -> Error {
    let called = arguments.first().map(OsString::as_os_str).unwrap_or_default();
    let wanted = choose_runtime(called, std::env::var_os(VARIABLE), config);
    let path = std::env::var_os("PATH").filter(|path| !path.is_empty());
    let path = match find(&wanted, &path.unwrap_or_else(|| PATH.into())) {
        Ok(path) => path,
        Err(error) => return error,
    };
    let pid = std::process::id().to_string();
    if std::env::var_os(PASSED).is_some_and(|passed| passed == OsStr::new(&pid)) {
        return Error::Loop { path };
    }
    let mut command = Command::new(&path);
    command.args(arguments.get(1..).unwrap_or_default()).env(PASSED, pid);
    Error::Start { source: command.exec(), path }
}

/// The name or path of the runtime, from the first of: the variable, the setting for the name under which this program
/// was called, that name itself, the general setting, the default.
fn choose_runtime(called: &OsStr, variable: Option<OsString>, config: &WrapperConfig) -> PathBuf {
    if let Some(said) = variable.filter(|said| !said.is_empty()) {
        return said.into();
    }
    let name = Path::new(called).file_name().and_then(OsStr::to_str).unwrap_or_default();
    if let Some(said) = config.runtimes.get(name) {
        return said.clone();
    }
    // `tallyport-crun` means crun, and a link called `runc` shadows the real one.
    let meant =
        name.strip_prefix("tallyport-oci-").or_else(|| name.strip_prefix("tallyport-")).unwrap_or(name);
    match meant {
        "" | "oci" => config.runtime.clone().unwrap_or_else(|| USUAL.into()),
        _ => meant.into(),
    }
}

/// Looks up a runtime. A name skips this program and finds the next one of that name; a path to this program is
/// rejected.
fn find(wanted: &Path, path: &OsStr) -> Result<PathBuf, Error> {
    if wanted.as_os_str().as_encoded_bytes().contains(&b'/') {
        return if is_this(wanted) {
            Err(Error::Myself { path: wanted.to_owned() })
        } else {
            Ok(wanted.to_owned())
        };
    }
    let candidates: Vec<PathBuf> = std::env::split_paths(path)
        .map(|directory| directory.join(wanted))
        .filter(|path| is_executable(path))
        .collect();
    match candidates.iter().find(|path| !is_this(path)) {
        Some(found) => Ok(found.clone()),
        None => Err(match candidates.into_iter().next() {
            Some(path) => Error::Myself { path },
            None => Error::NoRuntime { name: wanted.display().to_string() },
        }),
    }
}

fn is_executable(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
}

/// Whether a path leads to the program that is running, whatever it is called.
fn is_this(path: &Path) -> bool {
    let identity = |path: &Path| std::fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    identity(path).is_some_and(|found| identity(Path::new("/proc/self/exe")) == Some(found))
}

/// The path of this program, for hooks that call it later. After an upgrade it is the path of the new version.
pub(super) fn own_path() -> Option<String> {
    let path = std::fs::read_link("/proc/self/exe").ok()?.into_os_string().into_string().ok()?;
    Some(path.strip_suffix(" (deleted)").map_or(path.clone(), str::to_owned))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_named_by_variable_settings_or_the_name_it_was_called_by() {
        let config = WrapperConfig {
            runtime: Some("/opt/runc".into()),
            runtimes: [("tallyport-x".to_owned(), "/opt/x".into())].into(),
            ..WrapperConfig::default()
        };
        let none = WrapperConfig::default();
        let name = |called: &str, variable: Option<&str>, config: &WrapperConfig| {
            choose_runtime(OsStr::new(called), variable.map(OsString::from), config).display().to_string()
        };
        assert_eq!(name("/usr/bin/tallyport-oci", None, &none), "runc");
        assert_eq!(name("/usr/bin/tallyport-oci", None, &config), "/opt/runc");
        assert_eq!(name("tallyport-crun", None, &config), "crun");
        assert_eq!(name("/usr/local/sbin/runc", None, &config), "runc");
        assert_eq!(name("tallyport-x", None, &config), "/opt/x");
        assert_eq!(name("tallyport-x", Some("youki"), &config), "youki");
        assert_eq!(name("tallyport-x", Some(""), &config), "/opt/x");
    }

    #[test]
    fn a_name_leads_past_this_program_and_a_path_to_it_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        std::fs::create_dir(at("first")).unwrap();
        std::fs::create_dir(at("second")).unwrap();
        let me = std::env::current_exe().unwrap();
        std::os::unix::fs::symlink(&me, at("first/runc")).unwrap();
        let path = std::env::join_paths([at("none"), at("first"), at("second")]).unwrap();
        assert!(matches!(find(Path::new("runc"), &path), Err(Error::Myself { .. })));
        std::fs::write(at("second/runc"), "").unwrap();
        assert!(matches!(find(Path::new("runc"), &path), Err(Error::Myself { .. })), "it cannot be run");
        std::fs::set_permissions(at("second/runc"), std::fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(Path::new("runc"), &path).unwrap(), at("second/runc"));
        assert!(matches!(find(&at("first/runc"), &path), Err(Error::Myself { .. })));
        assert!(matches!(find(Path::new("crun"), &path), Err(Error::NoRuntime { .. })));
    }
}
