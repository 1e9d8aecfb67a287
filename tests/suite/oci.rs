//! `tallyport-oci` in front of real runtimes.

use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::agent::Agent;
use crate::containers::{Bundle, Runtime, WRAPPER, statsd};
use crate::namespaces::{Leash, Namespace, Process};
use crate::tools;

/// All installed runtimes, and the required ones.
pub(crate) fn runtimes() -> Vec<Runtime> {
    if tools::network_namespaces().is_none() {
        return Vec::new();
    }
    ["runc", "crun"].into_iter().filter_map(tools::runtime).collect()
}

fn shown(agent: &Agent, container: &str) -> Value {
    agent.admin("GET", &format!("/v1/containers/{container}"), &Value::Null).1
}

fn descriptors(agent: &Agent) -> usize {
    agent.descriptors()
}

/// The environment of a process started by `exec` with a process document, as engines do.
fn exec_environment(bundle: &Bundle) -> Vec<String> {
    let process = json!({"terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/usr/bin:/bin"],
        "args": ["bash", "-c", "printf 'joined:1|c' > /dev/udp/$STATSD_UDP_HOST/$STATSD_UDP_PORT; env"]});
    let path = bundle.path("process.json");
    std::fs::write(&path, process.to_string()).unwrap();
    let ran = bundle.must(&["exec", "--process", path.to_str().unwrap(), &bundle.id]);
    statsd(&ran.out)
}

#[test]
fn a_container_has_its_socket_from_its_first_instruction_to_its_last() {
    for runtime in runtimes() {
        let agent = Agent::with(&["--window", "10s"]);
        let bundle = Bundle::new(&runtime, &agent.admin_socket());
        bundle.configure(|config| {
            config["annotations"] = json!({"tallyport.task-id": "web.1", "team": "shop"});
        });
        let before = descriptors(&agent);
        for generation in 1..=2 {
            bundle.create();
            let created = shown(&agent, &bundle.id);
            assert_eq!((&created["state"], &created["attached"]), (&json!("listening"), &json!(true)));
            assert_eq!((&created["pid"], &created["generation"]), (&json!(bundle.pid()), &json!(generation)));
            assert_eq!((&created["task_id"], &created["labels"]["team"]), (&json!("web.1"), &json!("shop")));
            assert_eq!(created["origin_guard"], "netns");
            bundle.must(&["start", &bundle.id]);
            bundle.until_ready();
            let pair = ["STATSD_UDP_HOST=127.0.0.1", "STATSD_UDP_PORT=18125"];
            assert_eq!(bundle.environment(), pair, "{runtime:?}");
            assert_eq!(exec_environment(&bundle), pair, "{runtime:?}");
            agent.until("both have been counted", || shown(&agent, &bundle.id)["received"] == 2);
            let leash = Leash::on(bundle.pid());
            let ended = Instant::now();
            bundle.kill();
            agent.until("it is gone", || shown(&agent, &bundle.id)["state"] == "gone");
            agent.until("its namespace is gone", || !leash.holds());
            assert!(ended.elapsed() < Duration::from_secs(1), "{:?}", ended.elapsed());
            bundle.delete();
            std::fs::remove_file(bundle.path("out/ready")).unwrap();
        }
        assert_eq!(agent.metrics("web.1", "?window=all").len(), 2, "the newest life");
        agent.until("no descriptor is left", || descriptors(&agent) <= before);
    }
}

#[test]
fn a_container_that_is_run_in_one_go_is_served_too() {
    for runtime in runtimes() {
        let agent = Agent::start();
        let bundle = Bundle::new(&runtime, &agent.admin_socket());
        bundle.configure(|config| {
            let script = "printf 'a:5|c' > /dev/udp/$STATSD_UDP_HOST/$STATSD_UDP_PORT";
            config["process"]["args"] = json!(["/usr/bin/bash", "-c", script]);
        });
        bundle.must(&["run", "-b", bundle.path("").to_str().unwrap(), &bundle.id]);
        agent.until("it is gone", || shown(&agent, &bundle.id)["state"] == "gone");
        assert_eq!(agent.totals(&bundle.id)["a"]["value"], 5.0, "{runtime:?}");
    }
}

#[test]
fn a_container_in_the_hosts_network_has_an_address_of_its_own() {
    for runtime in runtimes() {
        let agent = Agent::start();
        let bundle = Bundle::new(&runtime, &agent.admin_socket());
        // By a path, as docker does, and without a namespace entry.
        let ours = format!("/proc/{}/ns/net", std::process::id());
        for namespace in [Some(&ours), None] {
            bundle.configure(|config| {
                let all = config["linux"]["namespaces"].as_array_mut().unwrap();
                all.pop();
                all.extend(namespace.map(|path| json!({"type": "network", "path": path})));
            });
            bundle.up();
            let host = bundle.environment()[0].clone();
            let own = host.starts_with("STATSD_UDP_HOST=127.") && !host.contains("=127.0.");
            assert!(own, "{runtime:?} {namespace:?}: {host}");
            agent.until("it is counted", || shown(&agent, &bundle.id)["received"] == 1);
            // crun makes no control group of the second version on a machine that has both.
            let groups = std::fs::read_to_string(format!("/proc/{}/cgroup", bundle.pid())).unwrap();
            let guard = if groups.lines().any(|line| line == "0::/") { "none" } else { "cgroup" };
            assert_eq!(shown(&agent, &bundle.id)["origin_guard"], guard);
            bundle.delete();
        }
    }
}

#[test]
fn containers_of_a_pod_share_its_namespace_and_no_socket() {
    for runtime in runtimes() {
        let agent = Agent::start();
        let pod = Namespace::new();
        let bundles = ["app", "sidecar"].map(|name| {
            let bundle = Bundle::new(&runtime, &agent.admin_socket());
            bundle.configure(|config| {
                config["linux"]["namespaces"][4]["path"] = json!(pod.path());
                config["annotations"] = json!({
                    "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": name,
                    "io.kubernetes.cri.sandbox-id": "s1", "io.kubernetes.cri.sandbox-name": "web-1",
                    "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-uid": "u-1"
                });
            });
            bundle.up();
            bundle
        });
        for (bundle, (name, port)) in bundles.iter().zip([("app", 18_125), ("sidecar", 18_126)]) {
            assert_eq!(bundle.environment()[1], format!("STATSD_UDP_PORT={port}"));
            agent.until("it is counted", || shown(&agent, &bundle.id)["received"] == 1);
            let shown = shown(&agent, &bundle.id);
            assert_eq!(
                (&shown["task_id"], &shown["labels"]["container"]),
                (&json!("shop_web-1_u-1"), &json!(name))
            );
            assert_eq!((&shown["sandbox_id"], &shown["pod_uid"]), (&json!("s1"), &json!("u-1")));
        }
        let (_, task) = agent.get("/v1/tasks/shop_web-1_u-1");
        assert_eq!(task["containers"].as_array().unwrap().len(), 2);
        bundles.iter().for_each(Bundle::delete);
    }
}

#[test]
fn where_it_is_told_to_fail_closed_a_container_does_not_start_and_everybody_hears_why() {
    for runtime in runtimes() {
        let bundle = Bundle::new(&runtime, Path::new("/nowhere/admin.sock"));
        bundle.settings("fail_closed = true");
        let before = bundle.config();
        let ran = bundle.run(&["create", "--bundle", ".", &bundle.id]);
        assert_eq!(ran.code, 1);
        assert!(
            ran.err.contains("does not start without a socket (fail_closed): no agent answers"),
            "{}",
            ran.err
        );
        let last: Value = serde_json::from_str(bundle.log().lines().last().unwrap()).unwrap();
        assert_eq!((&last["level"], bundle.config()), (&json!("error"), before));
        assert!(last["msg"].as_str().unwrap().starts_with("tallyport-oci: container "), "{last}");
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_left_to_the_runtime_as_it_is() {
    for runtime in runtimes() {
        let agent = Agent::start();
        let bundle = Bundle::new(&runtime, &agent.admin_socket());
        for text in [
            "{\"ociVersion\":\"1.0.2\",",
            "[]",
            "",
            "{\"ociVersion\":\"1.0.2\",\"process\":{\"env\":\"A=B\"}}",
        ] {
            std::fs::write(bundle.path("config.json"), text).unwrap();
            let before = std::fs::metadata(bundle.path("config.json")).unwrap();
            let ran = bundle.run(&["create", "--bundle", ".", &bundle.id]);
            assert_ne!(ran.code, 0, "{text}: the runtime cannot read it either");
            assert!(ran.err.contains("config.json, which is left as it is"), "{}", ran.err);
            let after = std::fs::metadata(bundle.path("config.json")).unwrap();
            assert_eq!((bundle.config().as_str(), before.ino()), (text, after.ino()));
        }
        let (_, left) = agent.admin("GET", "/v1/containers", &Value::Null);
        let live = left.as_array().unwrap().iter().filter(|container| container["state"] != "gone").count();
        assert_eq!(live, 0, "nothing is reserved for what did not start: {left}");
    }
}

#[test]
fn what_gets_no_socket_is_not_asked_about() {
    for runtime in runtimes() {
        let agent = Agent::start();
        let bundle = Bundle::new(&runtime, &agent.admin_socket());
        for (annotations, settings) in [
            (json!({"io.kubernetes.cri.container-type": "sandbox"}), ""),
            (json!({"tallyport.enabled": "false"}), ""),
            (json!({"team": "shop"}), "select = \"opt-in\""),
            (json!({}), "mode = \"pass-through\""),
            (json!({"my.kind": "pause"}), "[[sandbox]]\nwhen = { \"my.kind\" = \"pause\" }"),
        ] {
            bundle.settings(settings);
            bundle.configure(|config| {
                config["annotations"] = annotations.clone();
                config["process"]["args"] = json!(["/usr/bin/true"]);
            });
            let before = bundle.config();
            bundle.must(&["run", "--bundle", ".", &bundle.id]);
            assert_eq!(
                (bundle.config(), shown(&agent, &bundle.id)["code"].as_str()),
                (before, Some("unknown_container"))
            );
        }
        bundle.settings("select = \"opt-in\"");
        bundle.configure(|config| config["annotations"] = json!({"tallyport.enabled": "true"}));
        bundle.create();
        assert_eq!(shown(&agent, &bundle.id)["state"], "listening");
        bundle.delete();
    }
}

#[test]
fn an_alias_of_a_preset_is_written_and_never_over_what_the_application_has_set_or_beside_half_of_it() {
    for runtime in runtimes() {
        let agent = Agent::with(&["--window", "1s", "--set", "env.presets=statsd,datadog"]);
        let bundle = Bundle::new(&runtime, &agent.admin_socket());
        bundle.configure(|config| {
            config["process"]["env"].as_array_mut().unwrap().push(json!("STATSD_HOST=mine"));
        });
        bundle.up();
        let expected = [
            "STATSD_HOST=mine",
            "DD_DOGSTATSD_URL=udp://127.0.0.1:18125",
            "STATSD_UDP_HOST=127.0.0.1",
            "STATSD_UDP_PORT=18125",
        ];
        let mut expected = expected.map(str::to_owned).to_vec();
        expected.sort();
        let environment = bundle.environment();
        assert_eq!(environment, expected, "{runtime:?}");
        // The engine passes the application's own variables.
        expected.retain(|variable| variable != "STATSD_HOST=mine");
        assert_eq!(exec_environment(&bundle), expected);
        bundle.delete();
    }
}

#[test]
fn a_hook_for_the_end_releases_and_never_keeps_a_container_from_being_deleted() {
    for runtime in runtimes() {
        let agent = Agent::start();
        let bundle = Bundle::new(&runtime, &agent.admin_socket());
        bundle.settings("poststop = \"always\"\nbudget_ms = 200");
        bundle.up();
        let config: Value = serde_json::from_str(&bundle.config()).unwrap();
        assert_eq!(config["hooks"]["poststop"][0]["args"][2], "poststop");
        bundle.delete();
        agent.until("the hook has called", || agent.log().contains("\"DELETE\""));
        bundle.up();
        // The agent that the hook would call has ended.
        drop(agent);
        bundle.delete();
    }
}

#[test]
fn a_hook_reads_what_it_is_told_to_its_end_whatever_it_does_with_it() {
    // crun is killed by SIGPIPE when it cannot write.
    for arguments in
        [&["poststop", "--container", "c", "--admin-socket", "/nowhere"][..], &["create-runtime"], &[]]
    {
        let mut command = std::process::Command::new(WRAPPER);
        command.arg("hook").args(arguments).stdin(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(&vec![b' '; 1 << 20]).unwrap();
        let succeeded = child.wait().unwrap().success();
        assert_eq!(succeeded, arguments.first() == Some(&"poststop"), "{arguments:?}");
    }
}

#[test]
fn a_container_cannot_be_forged_by_another_or_by_the_host() {
    let Some(runtime) = runtimes().into_iter().next() else { return };
    let agent = Agent::start();
    let (victim, forger) =
        (Bundle::new(&runtime, &agent.admin_socket()), Bundle::new(&runtime, &agent.admin_socket()));
    victim.up();
    forger.configure(|config| {
        let script = "exec 2> /out/err; for n in {1..1000}; do printf 'forged:1|c' > /dev/udp/127.0.0.1/18125; done; echo ready > /out/ready; sleep 600";
        config["process"]["args"] = json!(["/usr/bin/bash", "-c", script]);
    });
    forger.create();
    forger.must(&["start", &forger.id]);
    forger.until_ready();
    let host = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    for n in 0..10_000_u16 {
        let _refused = host.send_to(b"forged:1|c", ("127.0.0.1", 18_100 + n % 100));
    }
    // On a busy machine the kernel drops some, which are counted when the window closes.
    agent.until("all of it has come home", || {
        let forger = shown(&agent, &forger.id);
        forger["received"].as_u64().unwrap() + forger["kernel_drops"].as_u64().unwrap() == 1000
    });
    assert_eq!(shown(&agent, &victim.id)["received"], 1, "its own");
    for bundle in [&victim, &forger] {
        bundle.kill();
        agent.until("it is gone", || shown(&agent, &bundle.id)["state"] == "gone");
    }
    let names = |bundle: &Bundle| agent.totals(&bundle.id).keys().cloned().collect::<Vec<_>>();
    assert_eq!((names(&victim), names(&forger)), (vec!["starts".to_owned()], vec!["forged".to_owned()]));
}

/// The configuration that podman's `precreate` hook returns.
fn precreated(agent: &Path, config: &str) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(WRAPPER);
    command.arg("precreate").env("TALLYPORT_ADMIN_SOCKET", agent).env("TALLYPORT_OCI_CONFIG", "/dev/null");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(config.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn podmans_precreate_hook_writes_the_address_or_what_it_has_read() {
    let agent = Agent::start();
    let config = r#"{"process":{"env":["A=B"]},"n":1e999,"linux":{"cgroupsPath":"/libpod_parent/libpod-0ab1","namespaces":[{"type":"network"}]}}"#;
    let (code, edited, _) = precreated(&agent.admin_socket(), config);
    assert_eq!((code, edited.contains("\"n\":1e999")), (Some(0), true), "{edited}");
    assert!(
        edited.contains(r#""env":["A=B","STATSD_UDP_HOST=127.0.0.1","STATSD_UDP_PORT=18125"]"#),
        "{edited}"
    );
    assert!(edited.contains("createRuntime") && !edited.contains("poststop"), "{edited}");
    assert_eq!(shown(&agent, "0ab1")["state"], "reserved");
    for (socket, config) in [(Path::new("/nowhere/admin.sock"), config), (&agent.admin_socket(), "{nonsense")]
    {
        let (code, output, said) = precreated(socket, config);
        assert_eq!((code, output.as_str()), (Some(0), config));
        assert!(said.contains("starts without a socket"), "{said}");
    }
}

#[test]
fn everything_else_goes_straight_through() {
    for runtime in runtimes() {
        let bundle = Bundle::new(&runtime, Path::new("/nowhere/admin.sock"));
        let (through, direct) = (bundle.run(&["--version"]), bundle.start(&runtime.0, &["--version"]));
        assert_eq!((through.code, through.out), (0, direct.out));
        let ran = bundle.run(&["state", "nobody"]);
        assert!(ran.code != 0 && !ran.err.contains("tallyport-oci"), "{}", ran.err);
        assert_eq!(ran.err.is_empty(), bundle.start(&runtime.0, &["state", "nobody"]).err.is_empty());
    }
}

#[test]
fn it_refuses_to_become_itself() {
    let directory = tempfile::tempdir().unwrap();
    let link = directory.path().join("runc");
    std::os::unix::fs::symlink(WRAPPER, &link).unwrap();
    let loops = directory.path().join("loops");
    std::fs::write(&loops, format!("#!/bin/sh\nexec {WRAPPER} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&loops, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    for (runtime, why) in [
        (WRAPPER.as_ref(), "is tallyport-oci itself"),
        (link.as_path(), "is tallyport-oci itself"),
        (&loops, "leads back to tallyport-oci"),
        (Path::new("nonesuch"), "there is no runtime"),
    ] {
        let mut command = std::process::Command::new(WRAPPER);
        command
            .args(["state", "x"])
            .env("TALLYPORT_OCI_RUNTIME", runtime)
            .env("TALLYPORT_OCI_CONFIG", "/dev/null");
        let ran = crate::agent::ran(&mut command);
        assert!(ran.code == 1 && ran.err.contains(why), "{}: {}", ran.code, ran.err);
    }
}

#[test]
fn containers_of_a_pod_share_the_address_that_all_were_given_beforehand() {
    for runtime in runtimes() {
        let agent = Agent::start();
        let mut pause = Process::apart();
        let network = format!("/proc/{}/ns/net", pause.pid());
        let bundles = ["app", "sidecar"].map(|name| {
            let bundle = Bundle::new(&runtime, &agent.admin_socket());
            bundle.settings(&format!("admin_socket = {:?}", agent.admin_socket()));
            given_beforehand(&bundle, name, &network);
            bundle.up_without_the_wrapper();
            bundle
        });
        for bundle in &bundles {
            assert_eq!(bundle.environment(), ["STATSD_UDP_HOST=127.0.0.1", "STATSD_UDP_PORT=8125"]);
        }
        agent.until("both are counted", || shown(&agent, "s1")["received"] == 2);
        let pod = shown(&agent, "s1");
        assert_eq!((&pod["task_id"], &pod["pid"]), (&json!("shop_web-1_u-1"), &json!(pause.pid())));
        assert_eq!((&pod["statsd_port"], &pod["origin_guard"]), (&json!(8125), &json!("netns")));
        assert_eq!(
            pod["labels"],
            json!({"namespace": "shop", "pod": "web-1", "uid": "u-1"}),
            "it is the whole pod's"
        );
        bundles.iter().for_each(Bundle::delete);
        assert_eq!(shown(&agent, "s1")["state"], "listening", "it outlives containers");
        pause.end();
        agent.until("and ends with the pod", || shown(&agent, "s1")["state"] == "gone");
        assert_eq!(agent.totals("shop_web-1_u-1")["starts"]["value"], 2.0);
    }
}

#[test]
fn a_pod_in_the_hosts_network_gets_nothing_at_an_address_that_is_everybodys() {
    for runtime in runtimes() {
        let agent = Agent::start();
        let bundle = Bundle::new(&runtime, &agent.admin_socket());
        bundle.settings(&format!("admin_socket = {:?}", agent.admin_socket()));
        given_beforehand(&bundle, "app", &format!("/proc/{}/ns/net", std::process::id()));
        bundle.up_without_the_wrapper();
        assert_eq!(agent.admin("GET", "/v1/containers", &Value::Null).1, json!([]));
        bundle.delete();
    }
}

/// A container of a pod as containerd creates it from our base specification.
fn given_beforehand(bundle: &Bundle, name: &str, network: &str) {
    let settings = format!("TALLYPORT_OCI_CONFIG={}", bundle.path("etc/oci.toml").display());
    bundle.configure(|config| {
        config["process"]["env"] = json!(["PATH=/usr/bin:/bin", "STATSD_UDP_HOST=127.0.0.1", "STATSD_UDP_PORT=8125"]);
        config["linux"]["namespaces"][4]["path"] = json!(network);
        config["hooks"] = json!({"createRuntime": [
            {"path": WRAPPER, "args": ["tallyport-oci", "hook", "pod", "8125"], "env": [settings], "timeout": 3}
        ]});
        config["annotations"] = json!({
            "io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": name,
            "io.kubernetes.cri.sandbox-id": "s1", "io.kubernetes.cri.sandbox-name": "web-1",
            "io.kubernetes.cri.sandbox-namespace": "shop", "io.kubernetes.cri.sandbox-uid": "u-1"
        });
    });
}
