//! `tallyport doctor --probe`: real containers with real runtimes, and the report if a step fails.

use std::process::Command;

use crate::agent::{Agent, BINARY, Ran, ran};
use crate::containers::WRAPPER;
use crate::tools;

/// Runs doctor where crun finds only one version of cgroups, as it requires.
fn doctor(agent: &Agent, settings: &str, more: &[&str]) -> Ran {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("oci.toml");
    std::fs::write(&file, settings).unwrap();
    let script = "umount /sys/fs/cgroup/unified 2> /dev/null; exec \"$@\"";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", script, "-", BINARY, "doctor"]);
    command.args(more).env("TALLYPORT_OCI_CONFIG", file).env("TMPDIR", directory.path());
    command.env("TALLYPORT_URL", format!("http://{}", agent.http));
    command.env("TALLYPORT_ADMIN_SOCKET", agent.admin_socket());
    let ran = ran(&mut command);
    let left = std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["oci.toml"], "nothing is left of a probe");
    ran
}

/// The line of a step.
fn step<'a>(ran: &'a Ran, step: &str) -> &'a str {
    let line = ran.out.lines().find(|line| line.contains(step));
    line.unwrap_or_else(|| panic!("{step}: {}{}", ran.out, ran.err))
}

/// Whether runc is installed and network namespaces can be created.
fn ready() -> bool {
    tools::network_namespaces().is_some() && tools::runtime("runc").is_some()
}

#[test]
fn a_probe_goes_the_way_of_containers_and_arrives() {
    if !ready() {
        return;
    }
    for way in ["runc", "crun"].into_iter().filter(|way| tools::runtime(way).is_some()) {
        let agent = Agent::with(&["--window", "10s"]);
        let ran = doctor(&agent, "", &["--probe", way]);
        assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
        assert!(step(&ran, "programs: ").contains(&format!("starts {way} version")), "{}", ran.out);
        let address = "start and address: its process had 127.0.0.1:18125";
        assert!(step(&ran, "start and address: ").ends_with(address), "{}", ran.out);
        assert!(step(&ran, "arrival: ").starts_with("ok"), "{}", ran.out);
        let (_, tasks) = agent.get("/v1/tasks");
        assert!(tasks.to_string().contains(&format!("tallyport-probe-{way}-")), "{tasks}");
    }
}

#[test]
fn the_step_that_fails_is_said_with_what_mends_it() {
    if !ready() {
        return;
    }
    let agent = Agent::start();
    let no_address = "start and address: its process had no STATSD_UDP_HOST";
    for (settings, more, failing, advice) in [
        (
            "",
            &["--wrapper", "/nowhere/tallyport-oci"][..],
            "programs: /nowhere/tallyport-oci starts no runc",
            "--wrapper says where",
        ),
        ("", &["--wrapper", "/bin/true"], no_address, "mode = \"inject\""),
        ("mode = \"pass-through\"", &[], "no STATSD_UDP_HOST: neither", "mode = \"inject\""),
        ("[[sandbox]]\ncommand = [\"/tallyport-probe\", \"probe-send\"]", &[], no_address, "admin_socket"),
    ] {
        let ran = doctor(&agent, settings, &[&["--probe", "runc"], more].concat());
        assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
        assert!(step(&ran, failing).starts_with("FAILED"), "{}", ran.out);
        assert!(step(&ran, advice).starts_with("    "), "{}", ran.out);
        assert!(!ran.out.contains("arrival"), "the first that fails is the last: {}", ran.out);
    }
}

#[test]
fn a_metric_that_goes_to_another_agent_is_missed() {
    if !ready() {
        return;
    }
    let (asked, other) = (Agent::start(), Agent::start());
    let directory = tempfile::tempdir().unwrap();
    // As if the wrapper had the settings of another agent.
    let wrapper = directory.path().join("tallyport-oci");
    let socket = other.admin_socket();
    let script = format!("#!/bin/sh\nTALLYPORT_ADMIN_SOCKET={} exec {WRAPPER} \"$@\"\n", socket.display());
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let ran = doctor(&asked, "", &["--probe", "runc", "--wrapper", wrapper.to_str().unwrap()]);
    assert_eq!(ran.code, 1);
    let failed = step(&ran, "arrival: ");
    assert!(
        failed.starts_with("FAILED") && failed.contains("knows no task tallyport-probe-runc"),
        "{}",
        ran.out
    );
    assert!(ran.out.contains("the wrapper asked another agent"), "{}", ran.out);
}
