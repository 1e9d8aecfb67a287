//! Pods of a containerd whose configuration was changed by `tallyport hook install`.

use std::path::Path;
use std::process::Command;

use tallyport_nri::agent::Agent;
use tallyport_nri::containerd::Containerd;
use tallyport_nri::cri::Pod;
use tallyport_nri::{given, until};

const WEB: Pod = Pod {
    name: "web-0",
    uid: "5f1c-installed",
    namespace: "shop",
    own_network: true,
    annotations: &[],
    labels: &[],
};
const TASK: &str = "shop_web-0_5f1c-installed";

/// A wrapper that uses this agent. Engines do not pass our environment to it.
fn wrapper(directory: &Path) -> std::path::PathBuf {
    let settings = directory.join("oci.toml");
    let socket = directory.join("admin.sock");
    std::fs::write(
        &settings,
        format!("admin_socket = {socket:?}\nruntime = {:?}\n", given("TALLYPORT_E2E_RUNC")),
    )
    .unwrap();
    let program = Path::new(&given("TALLYPORT_E2E_AGENT")).with_file_name("tallyport-oci");
    let wrapper = directory.join("tallyport-oci");
    let script =
        format!("#!/bin/sh\nTALLYPORT_OCI_CONFIG={} exec {} \"$@\"\n", settings.display(), program.display());
    std::fs::write(&wrapper, script).unwrap();
    std::fs::set_permissions(&wrapper, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    wrapper
}

fn hook(verb: &str, file: &Path, directory: &Path, more: &[&str]) {
    let path = format!("{}:{}", given("TALLYPORT_E2E_CONTAINERD"), given("PATH"));
    let mut command = Command::new(given("TALLYPORT_E2E_AGENT"));
    command.args(["hook", verb, "--for", "containerd", "--config"]).arg(file);
    command
        .arg("--wrapper")
        .arg(directory.join("tallyport-oci"))
        .arg("--directory")
        .arg(directory)
        .args(more);
    let output = command.env("PATH", path).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("containerd accepts it"), "{said}");
}

fn received(agent: &Agent, id: &str) -> u64 {
    agent.container(id).and_then(|container| container["received"].as_u64()).unwrap_or(0)
}

#[test]
fn pods_run_through_the_wrapper_that_was_installed_and_without_it_once_it_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    wrapper(directory.path());
    let agent = Agent::alone(directory.path());
    let mut before = String::new();
    let mut containerd = Containerd::with(|file| {
        before = std::fs::read_to_string(file).unwrap();
        hook("install", file, directory.path(), &["--default"]);
    });
    let mut cri = containerd.cri();
    let pod = cri.run_pod(&WEB);
    containerd.owns(&pod);
    let ids = ["main", "side"].map(|name| cri.start(&pod, &WEB, name, &[]));
    for (id, port) in ids.iter().zip(["18125", "18126"]) {
        for env in [cri.process_env(id), cri.exec_env(id)] {
            assert!(env.contains(&"STATSD_UDP_HOST=127.0.0.1".to_owned()), "{env:?}");
            assert!(env.contains(&format!("STATSD_UDP_PORT={port}")), "{env:?}");
        }
        until("datagrams arrive", || received(&agent, id) > 5);
        assert_eq!(agent.container(id).unwrap()["task_id"], TASK);
    }
    cri.remove_pod(&pod);
    until("the first has ended", || agent.state(&ids[0]).as_deref() == Some("gone"));
    hook("remove", &containerd.file(), directory.path(), &[]);
    assert_eq!(std::fs::read_to_string(containerd.file()).unwrap(), before);
    containerd.restart();
    cri = containerd.cri();
    let pod = cri.run_pod(&WEB);
    containerd.owns(&pod);
    let id = cri.start(&pod, &WEB, "main", &[]);
    let env = cri.process_env(&id);
    assert!(!env.iter().any(|variable| variable.starts_with("STATSD_UDP_")), "{env:?}");
    agent.stop();
}

#[test]
fn every_container_of_a_pod_has_the_address_of_the_base_specification_and_one_socket_takes_it_all() {
    let directory = tempfile::tempdir().unwrap();
    wrapper(directory.path());
    let agent = Agent::alone(directory.path());
    let mut containerd = Containerd::with(|file| {
        hook("install", file, directory.path(), &["--mechanism", "base-spec", "--default"]);
    });
    let cri = containerd.cri();
    let pod = cri.run_pod(&WEB);
    containerd.owns(&pod);
    let ids = ["main", "side"].map(|name| cri.start(&pod, &WEB, name, &[]));
    for id in &ids {
        for env in [cri.process_env(id), cri.exec_env(id)] {
            assert!(env.contains(&"STATSD_UDP_HOST=127.0.0.1".to_owned()), "{env:?}");
            assert!(env.contains(&"STATSD_UDP_PORT=8125".to_owned()), "{env:?}");
        }
        assert_eq!(agent.container(id), None, "the socket is the pod's");
    }
    until("datagrams of both arrive", || received(&agent, &pod) > 10);
    let container = agent.container(&pod).unwrap();
    assert_eq!((&container["task_id"], &container["statsd_port"]), (&TASK.into(), &8125.into()));
    cri.remove_pod(&pod);
    until("it ends with the pod", || agent.state(&pod).as_deref() == Some("gone"));
    agent.stop();
}
