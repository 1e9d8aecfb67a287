//! The wrapper's settings: `/etc/tallyport/oci.toml`, and a few environment variables that override it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::agent::{self, Trusted};
use super::errors::Error;
use super::identity::{IdentityRule, IdentityRules, Mark};
use super::table::{self, TomlTable};

/// The settings file, unless `TALLYPORT_OCI_CONFIG` names another.
const FILE: &str = "/etc/tallyport/oci.toml";
/// The agent's own default.
const UNIX_PATH: &str = "/var/run/datadog/dsd.socket";

/// Whether containers get sockets.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum InjectMode {
    /// Containers get sockets.
    #[default]
    Inject,
    /// Every call is passed through unchanged, so that the wrapper can be removed from a runtime's configuration while
    /// containers run.
    PassThrough,
}

/// Which containers get sockets.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Select {
    /// All that do not opt out.
    #[default]
    All,
    /// Only those that opt in.
    OptIn,
}

/// Whether containers get a `poststop` hook.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub(super) enum Poststop {
    /// Only if the agent cannot hold a pidfd of the container's process, which would report the end at once.
    #[default]
    Auto,
    Always,
    Never,
}

/// The settings.
#[derive(Debug)]
pub(super) struct WrapperConfig {
    pub(super) mode: InjectMode,
    pub(super) select: Select,
    /// Whether a container must not start without a socket.
    pub(super) fail_closed: bool,
    pub(super) poststop: Poststop,
    /// The real runtime, by name or path.
    pub(super) runtime: Option<PathBuf>,
    /// The real runtime for each name under which this program is called.
    pub(super) runtimes: BTreeMap<String, PathBuf>,
    pub(super) admin_socket: Option<PathBuf>,
    /// The user that the agent runs as, by name or number, if not root.
    pub(super) agent_user: String,
    /// The path of the Unix socket in containers, as in the agent's `unix.path`; nothing is mounted anywhere else.
    pub(super) unix_path: PathBuf,
    /// Time limit for all requests to the agent together, in milliseconds.
    pub(super) budget_ms: u64,
    /// The directory of Docker's own container data, which it does not pass to its runtime; empty to disable reading
    /// it.
    pub(super) docker_root: PathBuf,
    /// Rules to identify containers, applied before the built-in ones.
    pub(super) identity: Vec<IdentityRule>,
    /// Marks of sandbox containers, in addition to the built-in ones.
    pub(super) sandbox: Vec<Mark>,
    /// What is wrong with the file, if it is unusable but `fail_closed` could still be read.
    pub(super) broken: Option<String>,
}

/// Settings that cannot be used.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) error: Error,
    /// Whether `fail_closed = true` could still be read.
    pub(super) fail_closed: bool,
}

impl Default for WrapperConfig {
    fn default() -> Self {
        Self {
            mode: InjectMode::default(),
            select: Select::default(),
            fail_closed: false,
            poststop: Poststop::default(),
            runtime: None,
            runtimes: BTreeMap::new(),
            admin_socket: None,
            agent_user: agent::AGENT_USER.to_owned(),
            unix_path: UNIX_PATH.into(),
            budget_ms: 1000,
            docker_root: "/var/lib/docker".into(),
            identity: Vec::new(),
            sandbox: Vec::new(),
            broken: None,
        }
    }
}

impl WrapperConfig {
    /// Reads the file. Settings that it does not contain, and all settings if there is no file, have their defaults.
    pub(super) fn load() -> Result<Self, Broken> {
        let named = std::env::var_os("TALLYPORT_OCI_CONFIG");
        let path = PathBuf::from(named.clone().unwrap_or_else(|| FILE.into()));
        match tallyport_linux::files::read(&path) {
            Ok(bytes) => Self::read(&bytes, &path),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && named.is_none() => {
                Ok(Self::default())
            }
            Err(source) => Err(Broken { error: Error::Read { path, source }, fail_closed: false }),
        }
    }

    fn read(bytes: &[u8], path: &Path) -> Result<Self, Broken> {
        let text = String::from_utf8_lossy(bytes);
        let mut closed = None;
        let read = match std::str::from_utf8(bytes) {
            Ok(text) => table::read(text, |table| {
                let config = Self::from_table(table);
                closed = Some(config.fail_closed && config.mode == InjectMode::Inject);
                config
            }),
            Err(error) => Err(error.to_string()),
        };
        read.map_err(|why| {
            let fail_closed = closed.unwrap_or_else(|| says_closed(&text));
            let why = if fail_closed { format!("{why}; fail_closed = true holds") } else { why };
            Broken { error: Error::Garbled { path: path.to_owned(), why }, fail_closed }
        })
    }

    /// Fails if only `fail_closed` could be read from the settings.
    pub(super) fn ensure_usable(&self) -> Result<(), Error> {
        self.broken.as_ref().map_or(Ok(()), |why| Err(Error::Settings { why: why.clone() }))
    }

    fn from_table(table: &mut TomlTable<'_>) -> Self {
        let usual = Self::default();
        let modes = [("inject", InjectMode::Inject), ("pass-through", InjectMode::PassThrough)];
        let selects = [("all", Select::All), ("opt-in", Select::OptIn)];
        let poststops = [("auto", Poststop::Auto), ("always", Poststop::Always), ("never", Poststop::Never)];
        let runtimes = table.take_named_texts("runtimes").into_iter();
        Self {
            mode: table.take_keyword("mode", &modes).unwrap_or_default(),
            select: table.take_keyword("select", &selects).unwrap_or_default(),
            fail_closed: table.take_bool("fail_closed").unwrap_or(usual.fail_closed),
            poststop: table.take_keyword("poststop", &poststops).unwrap_or_default(),
            runtime: table.take_text("runtime").map(PathBuf::from),
            runtimes: runtimes.map(|(name, runtime)| (name, PathBuf::from(runtime))).collect(),
            admin_socket: table.take_text("admin_socket").map(PathBuf::from),
            agent_user: table.take_text("agent_user").unwrap_or(usual.agent_user),
            unix_path: table.take_text("unix_path").map_or(usual.unix_path, PathBuf::from),
            budget_ms: table.take_number("budget_ms").unwrap_or(usual.budget_ms),
            docker_root: table.take_text("docker_root").map_or(usual.docker_root, PathBuf::from),
            identity: table.take_tables("identity", IdentityRule::from_table),
            sandbox: table.take_tables("sandbox", Mark::from_table),
            broken: None,
        }
    }

    pub(super) fn identity_rules(&self) -> IdentityRules {
        IdentityRules::before_built_in(&self.identity, &self.sandbox)
    }

    pub(super) fn time_budget(&self) -> Duration {
        Duration::from_millis(self.budget_ms)
    }

    /// The users whose responses are trusted.
    pub(super) fn trusted_users(&self) -> Trusted {
        Trusted::with_agent(&self.agent_user)
    }

    /// Where the agent listens.
    pub(super) fn admin_socket(&self) -> PathBuf {
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        admin_socket(
            variable("TALLYPORT_ADMIN_SOCKET").map(PathBuf::from).or_else(|| self.admin_socket.clone()),
            nix::unistd::geteuid().is_root(),
            variable("XDG_RUNTIME_DIR"),
        )
    }
}

/// Whether a text that is not valid TOML contains `fail_closed = true` on a line of its own before all tables.
fn says_closed(text: &str) -> bool {
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let settings = lines.take_while(|line| !line.starts_with('['));
    let pairs: Vec<_> = settings
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.trim(), value.trim()))
        .collect();
    pairs.contains(&("fail_closed", "true"))
        && !pairs
            .iter()
            .any(|(key, value)| *key == "mode" && value.trim_matches(['"', '\'']) == "pass-through")
}

fn admin_socket(said: Option<PathBuf>, root: bool, runtime_directory: Option<OsString>) -> PathBuf {
    let usual = match runtime_directory {
        Some(directory) if !root => PathBuf::from(directory),
        _ => PathBuf::from("/run"),
    };
    said.unwrap_or_else(|| usual.join("tallyport/admin.sock"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<WrapperConfig, Broken> {
        WrapperConfig::read(text.as_bytes(), Path::new("oci.toml"))
    }

    #[test]
    fn what_is_said_holds_and_the_rest_is_as_usual() {
        let config = read(
            "mode = \"pass-through\"\nfail_closed = true\nbudget_ms = 250\nruntime = \"crun\"\npoststop = \"never\"\n\
             select = \"opt-in\"\nadmin_socket = \"/run/a.sock\"\n[runtimes]\ntallyport-kata = \"/usr/bin/kata\"\n\
             [[identity]]\nname = \"mine\"\nwhen = { a = \"b\" }\ntask_id = [\"{a}\"]\n",
        )
        .unwrap();
        assert_eq!(
            (config.mode, config.select, config.fail_closed),
            (InjectMode::PassThrough, Select::OptIn, true)
        );
        assert_eq!((config.time_budget(), config.poststop), (Duration::from_millis(250), Poststop::Never));
        assert_eq!(config.runtimes["tallyport-kata"], PathBuf::from("/usr/bin/kata"));
        let config = read("").unwrap();
        assert_eq!(
            (config.mode, config.fail_closed, config.time_budget()),
            (InjectMode::Inject, false, Duration::from_secs(1))
        );
    }

    #[test]
    fn mistakes_are_said() {
        let why = |text| read(text).unwrap_err().error.to_string();
        for text in
            ["mode = \"maybe\"", "fail_close = true", "budget_ms = -1", "[[identity]]\nwehn = {}", "select ="]
        {
            assert!(why(text).contains("line "), "{text}: {}", why(text));
        }
        assert!(why("\nmode = \"maybe\"").ends_with("line 2: mode is not \"inject\" or \"pass-through\""));
    }

    #[test]
    fn of_a_broken_file_it_holds_that_no_container_starts_without_a_socket() {
        let broken = |text: &[u8]| WrapperConfig::read(text, Path::new("oci.toml")).unwrap_err();
        for text in [
            b"fail_closed = true\nmode = \"maybe\"".as_slice(),
            b"budget_ms = = 7\n fail_closed=true # so it is",
            b"fail_closed = true\nruntime = \"\xff\"",
            b"fail_closed = true\n[[identity]\n",
        ] {
            let broken = broken(text);
            assert!(broken.fail_closed, "{}", broken.error);
            assert!(broken.error.to_string().contains("fail_closed = true holds"), "{}", broken.error);
        }
        for text in [
            b"fail_closed = false\nmode = \"maybe\"".as_slice(),
            b"fail_closed = yes",
            b"# fail_closed = true\nx = = 1",
            b"x = = 1\n[runtimes]\nfail_closed = true",
            b"fail_closed = true\nmode = \"pass-through\"\nx = = 1",
            b"fail_closed = true\nmode = \"pass-through\"\nx = 1",
        ] {
            assert!(!broken(text).fail_closed, "{}", String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn the_agent_is_where_it_listens_by_default() {
        let at = |said: Option<&str>, root, directory: Option<&str>| {
            admin_socket(said.map(PathBuf::from), root, directory.map(OsString::from)).display().to_string()
        };
        assert_eq!(at(None, true, Some("/run/user/0")), "/run/tallyport/admin.sock");
        assert_eq!(at(None, false, Some("/run/user/7")), "/run/user/7/tallyport/admin.sock");
        assert_eq!(at(Some("/a.sock"), false, Some("/run/user/7")), "/a.sock");
    }
}
