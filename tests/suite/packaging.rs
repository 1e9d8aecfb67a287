//! Tests `make install` and `make uninstall`. `make e2e-deb` tests the Debian package.

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
        "opt/tallyport/share/man/man5/agent.toml.5.gz",
        "opt/tallyport/share/man/man8/tallyport-oci.8.gz",
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
    std::fs::write(at("usr/local/bin/of-another-package"), "").unwrap();
    std::fs::write(&list, format!("{listed}/usr/local/bin/tallyport-old\n")).unwrap();
    assert_eq!(install(destination.path(), "/usr/local", &[]).code, 0);
    assert_eq!(std::fs::read_to_string(at("etc/tallyport/agent.toml")).unwrap(), "node = \"n7\"\n");
    let now = files(destination.path());
    let new: Vec<_> = now.difference(&first).collect();
    assert_eq!(new, ["usr/local/bin/of-another-package"]);
    assert_eq!(std::fs::read_to_string(&list).unwrap(), listed);
    // A list that was edited by hand removes nothing outside.
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

/// Makes the archive of these programs. Returns its path.
fn release(dist: &Path) -> std::path::PathBuf {
    let mut command = Command::new(root().join("scripts/release"));
    command
        .env("BINARIES", Path::new(BINARY).parent().unwrap())
        .env("ALLOW_DYNAMIC", "yes")
        .env("DIST", dist);
    let made = ran(command.env("SOURCE_DATE_EPOCH", "1767225600").env("TARGET", "x86_64-unknown-linux-musl"));
    assert_eq!(made.code, 0, "{}", made.err);
    dist.join(format!("tallyport-{}-x86_64-linux.tar.gz", env!("CARGO_PKG_VERSION")))
}

#[test]
fn a_release_has_everything_with_checksums_and_is_the_same_bytes_again() {
    let (first, second, unpacked) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let archive = release(first.path());
    let again = release(second.path());
    assert!(std::fs::read(&archive).unwrap() == std::fs::read(&again).unwrap(), "the archives differ");
    assert_eq!(files(first.path()).len(), 3);
    let sums =
        ran(Command::new("sha256sum").args(["--check", "--strict", "SHA256SUMS"]).current_dir(first.path()));
    assert_eq!((sums.code, sums.out.lines().count()), (0, 2), "{}", sums.err);
    let tar = ran(Command::new("tar")
        .arg("-xzf")
        .arg(&archive)
        .arg("-C")
        .arg(unpacked.path())
        .arg("--strip-components=1"));
    assert_eq!(tar.code, 0, "{}", tar.err);
    let there = files(unpacked.path());
    for file in [
        "bin/tallyport",
        "bin/tallyport-oci",
        "share/man/man1/tallyport.1.gz",
        "share/bash-completion/completions/tallyport",
        "lib/systemd/system/tallyport.service",
        "share/doc/tallyport/LICENCES-OF-OTHERS",
        "share/doc/tallyport/sbom.cdx.json",
    ] {
        assert!(there.contains(file), "{file}: {there:?}");
    }
    let listed = std::fs::read_to_string(unpacked.path().join("share/tallyport/installed")).unwrap();
    let listed: BTreeSet<String> = listed.lines().map(|line| line.replace("/usr/local/", "")).collect();
    let own: BTreeSet<String> =
        there.iter().filter(|file| *file != "share/tallyport/installed").cloned().collect();
    assert_eq!(listed, own, "what is listed is what is removed");
    let moved = ran(Command::new(unpacked.path().join("bin/tallyport")).arg("version"));
    assert!(moved.code == 0 && moved.out.contains(env!("CARGO_PKG_VERSION")), "{moved:?}");
}

#[test]
fn the_sbom_names_every_package_that_is_linked_with_its_checksum_and_licence() {
    let sbom = ran(Command::new(root().join("scripts/sbom")).args(["--target", "x86_64-unknown-linux-musl"]));
    assert_eq!(sbom.code, 0, "{}", sbom.err);
    let sbom: serde_json::Value = serde_json::from_str(&sbom.out).unwrap();
    assert_eq!((&sbom["bomFormat"], &sbom["specVersion"]), (&"CycloneDX".into(), &"1.5".into()));
    let components = sbom["components"].as_array().unwrap();
    let named = |name: &str| components.iter().find(|component| component["name"] == name);
    for linked in ["tokio", "rustls", "warp", "nom"] {
        let component = named(linked).unwrap();
        assert_eq!(component["scope"], "required", "{linked}");
        assert_eq!(component["hashes"][0]["content"].as_str().unwrap().len(), 64, "{linked}");
        assert!(component["licenses"][0]["expression"].is_string(), "{linked}");
    }
    assert_eq!(named("cc").unwrap()["scope"], "excluded", "it builds, and is in no program");
    assert_eq!(named("serde_derive").unwrap()["scope"], "excluded", "it runs in the compiler");
    for test in ["criterion", "proptest", "rcgen"] {
        assert!(named(test).is_none(), "{test} is for tests");
    }
    let own =
        components.iter().filter(|component| component["name"].as_str().unwrap().starts_with("tallyport"));
    assert_eq!(own.count(), 0, "the crates of the workspace are part of the application");
    let refs: BTreeSet<&str> =
        components.iter().map(|component| component["bom-ref"].as_str().unwrap()).collect();
    assert_eq!(refs.len(), components.len(), "each has a name of its own");
    for dependency in sbom["dependencies"].as_array().unwrap() {
        let needs = dependency["dependsOn"].as_array().unwrap();
        assert!(needs.iter().all(|needed| refs.contains(needed.as_str().unwrap())), "{dependency}");
    }
}
