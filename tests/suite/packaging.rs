//! What `make install` puts into place, and takes out again. The Debian package is tried by `make e2e-deb`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::agent::{BINARY, Ran, ran};
use crate::tools::root;

/// Runs the installer against a directory.
fn install(destination: &Path, prefix: &str, more: &[&str]) -> Ran {
    let mut command = Command::new(root().join("scripts/install"));
    command.args(more).env("DESTDIR", destination).env("PREFIX", prefix);
    ran(command.env("BINARIES", Path::new(BINARY).parent().unwrap()))
}

/// Every file below a directory.
fn files(directory: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut ahead = vec![directory.to_owned()];
    while let Some(next) = ahead.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                ahead.push(path);
            } else {
                found.insert(path.strip_prefix(directory).unwrap().display().to_string());
            }
        }
    }
    found
}

#[test]
fn everything_is_installed_in_its_place_and_removed_from_it() {
    let destination = tempfile::tempdir().unwrap();
    let installed = install(destination.path(), "/opt/tallyport", &[]);
    assert_eq!(installed.code, 0, "{}", installed.err);
    let there = files(destination.path());
    for file in [
        "opt/tallyport/bin/tallyport",
        "opt/tallyport/bin/tallyport-oci",
        "opt/tallyport/share/man/man1/tallyport.1.gz",
        "opt/tallyport/share/man/man1/tallyport-metrics-details.1.gz",
        "opt/tallyport/share/bash-completion/completions/tallyport",
        "opt/tallyport/share/zsh/site-functions/_tallyport",
        "opt/tallyport/share/fish/vendor_completions.d/tallyport.fish",
        "opt/tallyport/lib/systemd/system/tallyport.service",
        "opt/tallyport/lib/sysusers.d/tallyport.conf",
        "opt/tallyport/share/doc/tallyport/examples/prometheus/rules.yaml",
        "etc/tallyport/agent.toml",
    ] {
        assert!(there.contains(file), "{file}: {there:?}");
    }
    let unit = destination.path().join("opt/tallyport/lib/systemd/system/tallyport.service");
    let unit = std::fs::read_to_string(unit).unwrap();
    assert!(unit.contains("ExecStart=/opt/tallyport/bin/tallyport agent ") && !unit.contains("/usr/bin/"));
    let removed = install(destination.path(), "/opt/tallyport", &["--uninstall"]);
    assert_eq!(removed.code, 0, "{}", removed.err);
    assert_eq!(files(destination.path()), BTreeSet::from(["etc/tallyport/agent.toml".to_owned()]));
    assert!(!destination.path().join("opt/tallyport/share/doc/tallyport").exists());
    let again = install(destination.path(), "/opt/tallyport", &["--uninstall"]);
    assert!(again.code == 1 && again.err.contains("nothing is installed below"), "{}", again.err);
}

#[test]
fn a_newer_version_keeps_the_settings_and_removes_what_it_no_longer_has() {
    let destination = tempfile::tempdir().unwrap();
    let at = |path: &str| destination.path().join(path);
    assert_eq!(install(destination.path(), "/usr/local", &[]).code, 0);
    let first = files(destination.path());
    std::fs::write(at("etc/tallyport/agent.toml"), "node = \"n7\"\n").unwrap();
    let list = at("usr/local/share/tallyport/installed");
    let listed = std::fs::read_to_string(&list).unwrap();
    std::fs::write(at("usr/local/bin/tallyport-old"), "").unwrap();
    std::fs::write(at("usr/local/bin/of-somebody-else"), "").unwrap();
    std::fs::write(&list, format!("{listed}/usr/local/bin/tallyport-old\n")).unwrap();
    assert_eq!(install(destination.path(), "/usr/local", &[]).code, 0);
    assert_eq!(std::fs::read_to_string(at("etc/tallyport/agent.toml")).unwrap(), "node = \"n7\"\n");
    let now = files(destination.path());
    let new: Vec<_> = now.difference(&first).collect();
    assert_eq!(new, ["usr/local/bin/of-somebody-else"]);
    assert_eq!(std::fs::read_to_string(&list).unwrap(), listed);
    // A list that somebody wrote by hand removes nothing outside.
    std::fs::write(&list, "/etc/tallyport/agent.toml\n").unwrap();
    let refused = install(destination.path(), "/usr/local", &["--uninstall"]);
    assert!(refused.code == 1 && refused.err.contains("not below /usr/local"), "{}", refused.err);
    assert!(at("etc/tallyport/agent.toml").exists());
}

#[test]
fn nothing_is_installed_before_it_is_built() {
    let destination = tempfile::tempdir().unwrap();
    let mut command = Command::new(root().join("scripts/install"));
    let ran = ran(command.env("DESTDIR", destination.path()).env("BINARIES", destination.path()));
    assert!(ran.code == 1 && ran.err.contains("run make build first"), "{}", ran.err);
    assert_eq!(files(destination.path()), BTreeSet::new());
}
