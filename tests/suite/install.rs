//! `tallyport hook`: typical configuration files of engines, in directories of the tests.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

use crate::agent::{BINARY, Ran, ran};
use crate::containers::WRAPPER;
use crate::tools;

const DAEMON: &str = "{\n  \"log-driver\": \"journald\",\n  \"big\": 123456789012345678901234567890\n}\n";
const CONTAINERD: &str = "# ours\nversion = 2\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\" # as ever\n";

/// A node's `/etc`.
struct Etc(tempfile::TempDir);

impl Etc {
    /// Needs a runtime for the wrapper to start.
    fn new() -> Option<Self> {
        tools::runtime("runc")?;
        let etc = Self(tempfile::tempdir().unwrap());
        etc.write("oci.toml", "");
        Some(etc)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::create_dir_all(self.path(name).parent().unwrap()).unwrap();
        std::fs::write(self.path(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn hook(&self, verb: &str, engine: &str, file: &str, more: &[&str]) -> Ran {
        let mut command = Command::new(BINARY);
        command.args(["hook", verb, "--for", engine, "--config"]).arg(self.path(file));
        command.args(["--directory"]).arg(self.path("own")).args(more);
        ran(command.env("TALLYPORT_OCI_CONFIG", self.path("oci.toml")))
    }

    fn must(&self, verb: &str, engine: &str, file: &str, more: &[&str]) -> String {
        let ran = self.hook(verb, engine, file, more);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{}", ran.out);
        ran.out
    }

    /// Every file with its text, to detect changes.
    fn everything(&self) -> Vec<(PathBuf, String)> {
        fn walk(directory: &Path, files: &mut Vec<(PathBuf, String)>) {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    walk(&path, files);
                } else {
                    let text = std::fs::read_to_string(&path).unwrap();
                    files.push((path, text));
                }
            }
        }
        let mut files = Vec::new();
        walk(self.0.path(), &mut files);
        files.sort();
        files
    }
}

/// Each engine with an existing file.
const FILES: [(&str, &str, &str); 4] = [
    ("docker", "docker/daemon.json", DAEMON),
    ("containerd", "containerd/config.toml", CONTAINERD),
    ("podman", "containers/containers.conf.d/99-tallyport.conf", "[engine]\nnum_locks = 7 # mine\n"),
    ("crio", "crio/crio.conf.d/99-tallyport.conf", "[crio.runtime]\ndefault_runtime = \"crun\"\n"),
];

#[test]
fn what_is_shown_is_written_and_taken_away_again_to_the_byte() {
    let Some(etc) = Etc::new() else { return };
    for (engine, file, text) in FILES {
        etc.write(file, text);
        let before = etc.everything();
        let shown = etc.must("install", engine, file, &["--default", "--dry-run"]);
        assert!(shown.contains("\n+++ ") && shown.contains(WRAPPER), "{shown}");
        assert!(shown.ends_with("nothing was written (--dry-run)\n"), "{shown}");
        assert_eq!(etc.everything(), before, "{engine}: nothing is written");
        let done = etc.must("install", engine, file, &["--default"]);
        let diff = |out: &str| {
            out.lines()
                .filter(|line| line.starts_with(['+', '-', '@']))
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        assert_eq!(diff(&done), diff(&shown));
        assert!(done.contains("\nnext: "), "{done}");
        let installed = etc.read(file);
        for line in diff(&done)
            .iter()
            .filter_map(|line| line.strip_prefix('+'))
            .filter(|line| !line.starts_with("++ "))
        {
            assert!(installed.contains(line), "{line} is not in {installed}");
        }
        let again = etc.must("install", engine, file, &["--default"]);
        assert!(again.ends_with("nothing to do: it is installed\n"), "{again}");
        assert_eq!(etc.read(file), installed);
        etc.must("remove", engine, file, &["--dry-run"]);
        assert_eq!(etc.read(file), installed);
        etc.must("remove", engine, file, &[]);
        assert_eq!(etc.everything(), before, "{engine}: as if it had never been there");
        let nothing = etc.must("remove", engine, file, &[]);
        assert_eq!(nothing, "nothing to do: it is not installed\n");
    }
}

#[test]
fn where_there_was_no_file_there_is_none_afterwards() {
    let Some(etc) = Etc::new() else { return };
    let before = etc.everything();
    for (engine, file, _) in FILES {
        etc.must("install", engine, file, &[]);
        let made = std::fs::metadata(etc.path(file)).unwrap();
        assert_eq!(made.permissions().mode() & 0o7777, 0o644, "{engine}");
        assert!(etc.must("remove", engine, file, &[]).contains("removed "));
        assert_eq!(etc.everything(), before, "{engine}");
    }
}

#[test]
fn mode_owner_and_links_stay_and_so_do_unknown_entries() {
    let Some(etc) = Etc::new() else { return };
    etc.write("real.json", DAEMON);
    let real = etc.path("real.json");
    std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o640)).unwrap();
    let root = nix::unistd::geteuid().is_root();
    if root {
        std::os::unix::fs::chown(&real, Some(1234), Some(4321)).unwrap();
    }
    std::os::unix::fs::symlink("real.json", etc.path("daemon.json")).unwrap();
    let done = etc.must("install", "docker", "daemon.json", &["--runtime-name", "metrics"]);
    assert!(done.contains("daemon.json.tallyport-backup is what it was before"), "{done}");
    assert!(std::fs::symlink_metadata(etc.path("daemon.json")).unwrap().is_symlink());
    for name in ["real.json", "daemon.json.tallyport-backup"] {
        let found = std::fs::metadata(etc.path(name)).unwrap();
        assert_eq!(found.mode() & 0o7777, 0o640, "{name}");
        assert!(!root || (found.uid(), found.gid()) == (1234, 4321), "{name}");
    }
    assert_eq!(etc.read("daemon.json.tallyport-backup"), DAEMON);
    let text = etc.read("real.json");
    assert!(text.contains("\"big\": 123456789012345678901234567890,\n"), "{text}");
    let document: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["runtimes"], json!({"metrics": {"path": WRAPPER}}));
    assert_eq!(document.get("default-runtime"), None, "only who asks for it gets it");
}

#[test]
fn what_others_have_changed_since_stays_and_the_old_default_comes_back() {
    let Some(etc) = Etc::new() else { return };
    let before =
        "{\n  \"default-runtime\": \"nvidia\",\n  \"runtimes\": {\"nvidia\": {\"path\": \"/opt/n\"}}\n}\n";
    etc.write("daemon.json", before);
    etc.must("install", "docker", "daemon.json", &[]);
    // The backup is the file before the first run, not the one before the last run.
    etc.must("install", "docker", "daemon.json", &["--default"]);
    assert_eq!(etc.read("daemon.json.tallyport-backup"), before);
    etc.write("daemon.json", &etc.read("daemon.json").replace("/opt/n", "/opt/new"));
    let done = etc.must("remove", "docker", "daemon.json", &[]);
    assert!(done.contains("was changed since"), "{done}");
    assert_eq!(etc.read("daemon.json"), before.replace("/opt/n", "/opt/new"));
}

#[test]
fn what_cannot_be_edited_safely_is_left_as_it_is() {
    let Some(etc) = Etc::new() else { return };
    let taken = "{\"runtimes\": {\"tallyport\": {\"path\": \"/opt/other\"}}}";
    for (engine, text, why) in [
        ("docker", "{\"debug\": true,}", "trailing comma at line 1"),
        ("docker", "{ // why\n}", "left as it is"),
        ("docker", taken, "which starts \"/opt/other\"; choose another name with --runtime-name"),
        ("containerd", "root = \"/data\"\n", "containerd config migrate"),
        ("containerd", "version = 2\n[plugins\n", "TOML parse error at line 2"),
        ("podman", "engine = 7\n", "engine is not a table"),
        ("crio", "[crio]\nruntime = []\n", "runtime is not a table"),
    ] {
        etc.write("file", text);
        let before = etc.everything();
        let ran = etc.hook("install", engine, "file", &[]);
        assert_eq!(ran.code, 1, "{engine}: {text}");
        assert!(ran.err.contains(why), "{engine}: {}", ran.err);
        assert_eq!(etc.everything(), before);
    }
    etc.write("file", taken);
    assert_eq!(etc.hook("remove", "docker", "file", &[]).code, 1, "what is not ours is not ours to remove");
    assert_eq!(etc.read("file"), taken);
}

#[test]
fn programs_that_containers_would_need_are_looked_for_first() {
    let Some(etc) = Etc::new() else { return };
    let runc = tools::runtime("runc").unwrap().0.display().to_string();
    let install = |more: &[&str]| etc.hook("install", "docker", "daemon.json", more);
    for (more, why) in [
        (&["--wrapper", "/nowhere/tallyport-oci"][..], "/nowhere/tallyport-oci: No such file"),
        (&["--wrapper", "/etc/passwd"], "/etc/passwd: it is not a program"),
        (&["--real-runtime", "/nowhere/runc"], "/nowhere/runc: No such file"),
        (&["--real-runtime", WRAPPER], "is tallyport-oci itself"),
        (&["--real-runtime", "/bin/false"], "it starts no runtime"),
    ] {
        let ran = install(more);
        assert!(ran.code == 1 && ran.err.contains(why), "{more:?}: {} {}", ran.out, ran.err);
    }
    etc.write("oci.toml", "# mine\nruntime = \"/nowhere/runc\" # old\n");
    let ran = install(&[]);
    assert!(ran.code == 1 && ran.err.contains("it starts no runtime"), "{}", ran.err);
    assert!(!etc.path("daemon.json").exists());
    let done = etc.must("install", "docker", "daemon.json", &["--real-runtime", &runc]);
    assert!(done.contains("starts runc version"), "{done}");
    assert_eq!(etc.read("oci.toml"), format!("# mine\nruntime = \"{runc}\" # old\n"));
    etc.must("install", "docker", "daemon.json", &[]);
}

#[test]
fn arguments_without_sense_are_usage_errors() {
    let Some(etc) = Etc::new() else { return };
    for (engine, more, why) in [
        ("docker", &["--mechanism", "hook"][..], "only podman"),
        ("podman", &["--mechanism", "hook", "--default"], "--default has no meaning"),
        ("docker", &["--runtime-name", "runc"], "a real runtime"),
        ("docker", &["--runtime-name", "Über\"x"], "not a valid runtime name"),
        ("docker", &["--runtime-name", ""], "not a valid runtime name"),
    ] {
        let ran = etc.hook("install", engine, "file", more);
        assert!(ran.code == 2 && ran.err.contains(why), "{more:?}: {} {}", ran.code, ran.err);
    }
    assert!(!etc.path("file").exists());
}

#[test]
fn podmans_hook_has_a_directory_of_its_own_and_goes_with_it() {
    let Some(etc) = Etc::new() else { return };
    let before = etc.everything();
    etc.must("install", "podman", "hooks.conf", &["--mechanism", "hook"]);
    let hook: Value = serde_json::from_str(&etc.read("own/tallyport-hooks.d/tallyport.json")).unwrap();
    assert_eq!((&hook["stages"], &hook["hook"]["path"]), (&json!(["precreate"]), &json!(WRAPPER)));
    assert!(etc.read("hooks.conf").contains(&etc.path("own/tallyport-hooks.d").display().to_string()));
    let other = etc.hook("install", "podman", "hooks.conf", &[]);
    assert!(other.code == 2 && other.err.contains("by another mechanism"), "{}", other.err);
    etc.must("remove", "podman", "hooks.conf", &[]);
    assert_eq!(etc.everything(), before);
}
