//! Parses the command line of an OCI runtime, as far as it matters here.
//!
//! `RUNTIME [GLOBAL FLAGS] COMMAND [FLAGS] ID …`. A flag's value follows after `=` or as the next word, so finding the
//! command and the ID requires knowing which flags take one.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Flags before the command that take a value: runc's, crun's and youki's.
const GLOBAL: [&str; 8] =
    ["root", "log", "log-format", "criu", "rootless", "cgroup-manager", "log-level", "systemd-log"];
/// Flags of `create`, `run`, `restore` and `exec` that take a value.
const OF_COMMAND: [&str; 33] = [
    "bundle",
    "b",
    "config",
    "f",
    "console-socket",
    "pid-file",
    "preserve-fds",
    "image-path",
    "work-path",
    "parent-path",
    "manage-cgroups-mode",
    "empty-ns",
    "lsm-profile",
    "lsm-mount-context",
    "status-fd",
    "process",
    "p",
    "cwd",
    "env",
    "e",
    "user",
    "u",
    "additional-gids",
    "g",
    "process-label",
    "apparmor",
    "cap",
    "c",
    "cgroup",
    "notify-socket",
    "preserve-fd",
    "systemd-cgroup-path",
    "pidfd-socket",
];

/// The kind of a call.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum CallKind {
    /// `create`, `run` and `restore`: a container is created.
    Create,
    /// `exec`: a process joins a container.
    Exec,
    /// Any other command.
    Other,
}

/// One call of the runtime.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Call {
    pub(super) kind: CallKind,
    /// The container.
    pub(super) id: Option<String>,
    /// The bundle; by default the working directory.
    pub(super) bundle: PathBuf,
    /// Name of the configuration in the bundle; only crun can use another than `config.json`.
    pub(super) config: PathBuf,
    /// The document of the joining process.
    pub(super) process: Option<PathBuf>,
    /// Where the runtime keeps its state.
    pub(super) root: Option<PathBuf>,
    /// The log in which the runtime's caller looks for errors.
    pub(super) log: Option<PathBuf>,
    pub(super) json_log: bool,
}

impl Call {
    /// Reads a command line; the first word is the program.
    pub(super) fn read(words: &[OsString]) -> Self {
        let mut words = words.iter().skip(1).map(OsString::as_os_str);
        let mut call = Self {
            kind: CallKind::Other,
            id: None,
            bundle: ".".into(),
            config: "config.json".into(),
            process: None,
            root: None,
            log: None,
            json_log: false,
        };
        let command = next_positional(&mut words, &GLOBAL, |flag, value| match flag {
            "root" => call.root = Some(value.into()),
            "log" => call.log = Some(value.into()),
            "log-format" => call.json_log = value == "json",
            _ => {}
        });
        call.kind = match command.and_then(OsStr::to_str) {
            Some("create" | "run" | "restore") => CallKind::Create,
            Some("exec") => CallKind::Exec,
            _ => return call,
        };
        let id = next_positional(&mut words, &OF_COMMAND, |flag, value| match flag {
            "bundle" | "b" => call.bundle = value.into(),
            "config" | "f" => call.config = value.into(),
            "process" | "p" => call.process = Some(value.into()),
            _ => {}
        });
        call.id = id.and_then(OsStr::to_str).map(str::to_owned);
        call
    }

    /// The container's configuration.
    pub(super) fn config_path(&self) -> PathBuf {
        self.bundle.join(&self.config)
    }
}

/// The next word that is not a flag. Reports every flag with a value before it.
fn next_positional<'a>(
    words: &mut impl Iterator<Item = &'a OsStr>,
    with_value: &[&str],
    mut each: impl FnMut(&str, &OsStr),
) -> Option<&'a OsStr> {
    while let Some(word) = words.next() {
        let bytes = word.as_encoded_bytes();
        if word == "--" {
            return words.next();
        }
        if !bytes.starts_with(b"-") || bytes == b"-" {
            return Some(word);
        }
        let Some(text) = word.to_str() else { continue };
        let name = text.trim_start_matches('-');
        let takes = |name: &str| with_value.contains(&name);
        match name.split_once('=') {
            Some((name, value)) if takes(name) => each(name, OsStr::new(value)),
            None if takes(name) => each(name, words.next()?),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Call {
        Call::read(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn what_containerd_says_is_understood() {
        let call = read(
            "tallyport-oci --root /run/containerd/runc/k8s.io --log /b/log.json --log-format json --systemd-cgroup \
             create --bundle /b --pid-file /b/init.pid --console-socket /s c1",
        );
        assert_eq!((call.kind, call.id.as_deref()), (CallKind::Create, Some("c1")));
        assert_eq!(call.config_path(), PathBuf::from("/b/config.json"));
        assert_eq!((call.log, call.json_log), (Some("/b/log.json".into()), true));
        assert_eq!(call.root, Some("/run/containerd/runc/k8s.io".into()));
    }

    #[test]
    fn every_way_to_write_a_flag_is_read() {
        let call =
            read("x --log=/l --log-format=text run -b=/b --no-pivot --preserve-fds=2 -f my.json -- create");
        assert_eq!((call.kind, call.id.as_deref()), (CallKind::Create, Some("create")));
        assert_eq!(call.config_path(), PathBuf::from("/b/my.json"));
        assert!(!call.json_log);
        let call = read("x run c1");
        assert_eq!(call.config_path(), PathBuf::from("./config.json"), "the working directory is the bundle");
    }

    #[test]
    fn an_exec_is_known_by_its_process_document() {
        let call = read("x --root /r exec --process /tmp/p --detach --pid-file /f c1");
        assert_eq!((call.kind, call.id.as_deref()), (CallKind::Exec, Some("c1")));
        assert_eq!((call.process, call.root), (Some("/tmp/p".into()), Some("/r".into())));
        let call = read("x exec -t -e A=B c1 sh -c create");
        assert_eq!((call.kind, call.id.as_deref(), call.process), (CallKind::Exec, Some("c1"), None));
    }

    #[test]
    fn words_elsewhere_are_no_commands() {
        for line in [
            "x",
            "x --version",
            "x features",
            "x delete --force create",
            "x kill run 9",
            "x state exec",
            "x --log create",
        ] {
            assert_eq!(read(line).kind, CallKind::Other, "{line}");
        }
        assert_eq!(read("x create").id, None);
    }
}
