//! Tests for the files of all engines, and for TOML in the forms that people write.

use super::*;

fn entry(mechanism: Mechanism, default: bool) -> EngineEntry {
    let path = match mechanism {
        Mechanism::Wrapper => "/usr/bin/tallyport-oci",
        Mechanism::Hook => "/etc/tallyport/tallyport-hooks.d",
        Mechanism::BaseSpec => "/etc/tallyport/tallyport-base-spec.json",
    };
    EngineEntry { mechanism, name: "tallyport".to_owned(), path: path.to_owned(), default }
}

/// As on a typical Kubernetes node.
const CONTAINERD: &str = r#"# ours
version = 2
root = "/data"   # large disk

[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "localhost/pause:1"
    [plugins."io.containerd.grpc.v1.cri".containerd]
      default_runtime_name = "runc" # not kata
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
        runtime_type = "io.containerd.runc.v2"
        pod_annotations = ["a.*"] # for us
        [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
          SystemdCgroup = true

[debug]
  level = "info"
"#;

const CONTAINERS: &str = "# mine\n[containers]\nlog_size_max = 7\n\n[engine]\nruntime = \"crun\" # fast\nruntime_supports_json = [\"crun\", \"mine\"]\n\n[engine.runtimes]\nmine = [\"/opt/mine\"]\n";

const CRIO: &str = "[crio.runtime]\ndefault_runtime = \"crun\"\n\n[crio.runtime.runtimes.crun]\nruntime_path = \"/usr/bin/crun\"\n";

/// Every file with every engine that reads it.
fn files() -> Vec<(Engine, Mechanism, &'static str)> {
    let mut files = Vec::new();
    for text in ["", "\n", CONTAINERD] {
        files.push((Engine::Containerd, Mechanism::Wrapper, text));
        files.push((Engine::Containerd, Mechanism::BaseSpec, text));
    }
    for text in ["", "# nothing yet\n", CONTAINERS] {
        files.push((Engine::Podman, Mechanism::Wrapper, text));
        files.push((Engine::Podman, Mechanism::Hook, text));
    }
    files.extend(["", CRIO].map(|text| (Engine::Crio, Mechanism::Wrapper, text)));
    files.extend(["", "{}", "{\"debug\": true}"].map(|text| (Engine::Docker, Mechanism::Wrapper, text)));
    files
}

/// The lines of one text that are not in the other.
fn new_lines(text: &str, old: &str) -> Vec<String> {
    text.lines().filter(|line| !old.lines().any(|old| old == *line)).map(str::to_owned).collect()
}

#[test]
fn an_installation_is_found_again_and_a_second_changes_nothing() {
    for (engine, mechanism, text) in files() {
        for default in [false, mechanism != Mechanism::Hook] {
            let (entry, usual) = (entry(mechanism, default), podman::Usual::default());
            assert_eq!(engine.find_entry(text, "tallyport"), Ok(None), "{engine:?}: {text}");
            let made = engine.add_entry(text, &entry, &usual).unwrap();
            assert_eq!(engine.find_entry(&made, "tallyport"), Ok(Some(entry.clone())), "{made}");
            assert_eq!(engine.add_entry(&made, &entry, &usual), Ok(made.clone()));
            let removed = engine.remove_entry(&made, &entry, text).unwrap();
            assert_eq!(engine.find_entry(&removed, "tallyport"), Ok(None), "{removed}");
        }
    }
}

#[test]
fn every_line_that_was_there_stays_but_for_the_default() {
    for (engine, mechanism, text) in files().into_iter().filter(|(engine, ..)| *engine != Engine::Docker) {
        let made = engine.add_entry(text, &entry(mechanism, false), &podman::Usual::default()).unwrap();
        let lost = new_lines(text, &made);
        let lists = lost.iter().all(|line| line.starts_with("runtime_supports_json"));
        assert!(lists, "{engine:?}: {lost:?}");
        let removed = engine.remove_entry(&made, &entry(mechanism, false), text).unwrap();
        assert_eq!(new_lines(text, &removed), Vec::<String>::new(), "{engine:?}: {removed}");
    }
}

#[test]
fn a_runtime_of_containerd_is_like_the_one_that_pods_had() {
    let made = containerd::add_entry(CONTAINERD, &entry(Mechanism::Wrapper, true)).unwrap();
    let expected = [
        "      default_runtime_name = \"tallyport\" # not kata",
        "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.tallyport]",
        "runtime_type = \"io.containerd.runc.v2\"",
        "pod_annotations = [\"a.*\"]",
        "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.tallyport.options]",
        "SystemdCgroup = true",
        "BinaryName = \"/usr/bin/tallyport-oci\"",
    ];
    assert_eq!(
        new_lines(&made, CONTAINERD).into_iter().filter(|line| !line.is_empty()).collect::<Vec<_>>(),
        expected
    );
    let removed = containerd::remove_entry(&made, &entry(Mechanism::Wrapper, true), CONTAINERD).unwrap();
    assert_eq!(new_lines(CONTAINERD, &removed), Vec::<String>::new(), "the default is given back");
}

#[test]
fn a_containerd_without_a_file_keeps_its_runc() {
    let made = containerd::add_entry("", &entry(Mechanism::Wrapper, false)).unwrap();
    let expected = "version = 2\n\n[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.runc]\nruntime_type = \"io.containerd.runc.v2\"\n\n\
        [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.tallyport]\nruntime_type = \"io.containerd.runc.v2\"\n\n\
        [plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.tallyport.options]\nBinaryName = \"/usr/bin/tallyport-oci\"\n";
    assert_eq!(made, expected);
}

#[test]
fn each_version_of_containerds_file_has_its_own_name_for_the_plugin() {
    for (version, plugin) in [
        (2, "io.containerd.grpc.v1.cri"),
        (3, "io.containerd.cri.v1.runtime"),
        (4, "io.containerd.cri.v1.runtime"),
    ] {
        let made =
            containerd::add_entry(&format!("version = {version}\n"), &entry(Mechanism::Wrapper, false))
                .unwrap();
        assert!(
            made.contains(&format!("[plugins.\"{plugin}\".containerd.runtimes.tallyport.options]")),
            "{made}"
        );
    }
    for (text, why) in [
        ("root = \"/data\"\n", "version 1"),
        ("version = 1\n", "version 1"),
        ("version = 9\n", "version 9"),
        ("version = 2\nplugins = 7\n", "not a table"),
        ("version = 2\n[plugins\n", "TOML parse error"),
        ("version = 2\r\nroot = \"/data\"\r\n", "line ends"),
    ] {
        let refused = containerd::add_entry(text, &entry(Mechanism::Wrapper, false));
        assert!(refused.as_ref().is_err_and(|Garbled(said)| said.contains(why)), "{text}: {refused:?}");
    }
}

#[test]
fn a_runtime_that_is_no_runc_is_said_and_another_shim_is_not_copied() {
    let crun = CONTAINERD.replace("SystemdCgroup = true", "BinaryName = \"/usr/bin/crun\"");
    assert_eq!(containerd::template_binary(&crun, "tallyport"), Ok(Some("/usr/bin/crun".to_owned())));
    assert_eq!(containerd::template_binary(CONTAINERD, "tallyport"), Ok(None));
    let kata = CONTAINERD.replace("_name = \"runc\"", "_name = \"kata\"")
        + "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.kata]\nruntime_type = \"io.containerd.kata.v2\"\n";
    let made = containerd::add_entry(&kata, &entry(Mechanism::Wrapper, false)).unwrap();
    assert_eq!(made.matches("kata.v2").count(), 1, "{made}");
    assert!(containerd::without_pods("version = 2\ndisabled_plugins = [\"cri\"]\n"));
    assert!(!containerd::without_pods(CONTAINERD));
}

#[test]
fn inline_tables_are_written_into_as_they_stand() {
    let text = "version = 3\n[plugins.'io.containerd.cri.v1.runtime']\ncontainerd = { runtimes = { runc = { runtime_type = \"io.containerd.runc.v2\" } } }\n";
    let made = containerd::add_entry(text, &entry(Mechanism::Wrapper, true)).unwrap();
    assert_eq!(
        containerd::find_entry(&made, "tallyport"),
        Ok(Some(entry(Mechanism::Wrapper, true))),
        "{made}"
    );
}

#[test]
fn lists_of_podman_begin_with_what_holds_without_them() {
    let usual = podman::Usual::default().override_with("[engine]\nruntime_supports_json = [\"only\"]\n");
    let made = podman::add_entry("", &entry(Mechanism::Wrapper, false), &usual).unwrap();
    assert!(made.starts_with("# Written by"), "{made}");
    assert!(made.contains("runtime_supports_json = [\"only\", \"tallyport\"]"), "{made}");
    let made = podman::add_entry(CONTAINERS, &entry(Mechanism::Wrapper, true), &usual).unwrap();
    assert!(made.contains("runtime_supports_json = [\"crun\", \"mine\", \"tallyport\"]"), "{made}");
    assert!(made.contains("runtime = \"tallyport\" # fast"), "{made}");
    assert!(made.ends_with("mine = [\"/opt/mine\"]\ntallyport = [\"/usr/bin/tallyport-oci\"]\n"), "{made}");
    let made = podman::add_entry("", &entry(Mechanism::Hook, false), &usual).unwrap();
    assert!(made.contains("\"/usr/share/containers/oci/hooks.d\", \"/etc/containers/oci/hooks.d\", \"/etc/tallyport/tallyport-hooks.d\"]"), "{made}");
}

#[test]
fn a_copy_is_beside_its_file_but_not_where_an_engine_would_read_it() {
    let of = |path: &str| backup_of(Path::new(path)).display().to_string();
    assert_eq!(of("/etc/docker/daemon.json"), "/etc/docker/daemon.json.tallyport-backup");
    assert_eq!(of("/etc/crio/crio.conf.d/50-x.conf"), "/etc/crio/50-x.conf.tallyport-backup");
}

#[test]
fn a_specification_gets_the_address_and_the_hook_once() {
    let text = r#"{"ociVersion":"1.1.0","process":{"env":["PATH=/bin"],"rlimits":[{"hard":18446744073709551615}]},"linux":{}}"#;
    let made = base_spec::with_address(text, "/usr/bin/tallyport-oci").unwrap();
    let document: serde_json::Value = serde_json::from_str(&made).unwrap();
    let env = ["PATH=/bin", "STATSD_UDP_HOST=127.0.0.1", "STATSD_UDP_PORT=8125"];
    assert_eq!(document["process"]["env"], serde_json::json!(env));
    let hook = serde_json::json!([{"path": "/usr/bin/tallyport-oci", "args": ["tallyport-oci", "hook", "pod", "8125"], "timeout": 3}]);
    assert_eq!(document["hooks"]["createRuntime"], hook);
    assert!(made.contains("18446744073709551615"));
    assert_eq!(base_spec::with_address(&made, "/usr/bin/tallyport-oci"), Ok(made));
    assert!(base_spec::with_address("[]", "/x").is_err());
}
