//! The commands as users type them.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::agent::{Agent, BINARY, Ran, ran};

pub(crate) fn tallyport(args: &[&str]) -> Ran {
    ran(Command::new(BINARY).args(args).env_remove("TALLYPORT_URL").env_remove("TALLYPORT_ADMIN_SOCKET"))
}

fn fed(args: &[&str], input: &[u8]) -> Ran {
    let mut child = Command::new(BINARY)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut stdin, input) = (child.stdin.take().unwrap(), input.to_vec());
    // Written while the output is read, because the pipes hold less than a large input.
    let feeder = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ran { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
}

/// A task that has sent a metric of every kind.
fn some(agent: &Agent) {
    let address = agent.reserve("c1", "web.1");
    address.send("testapp.response.latency:4:5:6|ms|#route:/pay\nhits:3|c\ntemp:21.5|g\nbad line\n_sc|db|1");
    agent.finish("c1");
}

#[test]
fn details_are_a_table_sorted_by_name() {
    let agent = Agent::with(&["--window", "10s"]);
    some(&agent);
    let ran = agent.cli(&["metrics", "details", "web.1"]);
    assert_eq!((ran.code, ran.err.as_str()), (0, "web.1 is finished\n"));
    let lines: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
    let headings = ["NAME", "TYPE", "VALUE", "COUNT", "P50", "P95", "P99", "MAX", "UNIT", "TAGS", "AGE"];
    assert_eq!(lines[0], headings);
    assert_eq!(lines[1][..3], ["db", "service_check", "warning"]);
    assert_eq!(lines[2][..3], ["hits", "counter", "3"]);
    assert_eq!(lines[3][..3], ["temp", "gauge", "21.5"]);
    let latency = ["testapp.response.latency", "timer", "5", "3", "5", "6", "6", "6", "ms", "route:/pay"];
    assert_eq!(lines[4][..10], latency);
}

#[test]
fn a_pod_is_named_by_its_namespace_and_one_of_its_containers_by_its_name() {
    let agent = Agent::start();
    for (id, pod, container) in
        [("c1", "web-0", "main"), ("c2", "web-0", "sidecar"), ("c3", "web-1", "main"), ("c4", "db-0", "main")]
    {
        let labels = json!({"namespace": "shop", "pod": pod, "container": container});
        let body =
            json!({"container_id": id, "task_id": format!("shop_{pod}_u"), "labels": labels, "ttl": null});
        agent.reserve_with(&body).send(format!("from.{container}:1|c"));
        agent.finish(id);
    }
    let names = |args: &[&str]| -> (i32, Vec<String>) {
        let ran = agent.cli(&[&["metrics", "details", "--json", "-n"], args].concat());
        let records: Value = serde_json::from_str(&ran.out).unwrap_or_default();
        let records = records.as_array().cloned().unwrap_or_default();
        (ran.code, records.iter().map(|record| record["name"].as_str().unwrap().to_owned()).collect())
    };
    assert_eq!(names(&["shop", "web-0"]).1, ["from.main", "from.sidecar"]);
    assert_eq!(names(&["shop", "web-0", "-c", "sidecar"]).1, ["from.sidecar"]);
    assert_eq!(names(&["shop", "db"]).1, ["from.main"], "the start of a name is enough");
    assert_eq!(names(&["shop", "web"]).0, 6, "where it means one");
    assert_eq!(names(&["bank", "web-0"]).0, 3);
    assert_eq!(names(&["shop", "web-0", "-c", "none"]).0, 4);
    assert_eq!(agent.cli(&["metrics", "details", "web-0", "-c", "main"]).code, 2, "-c needs -n");
}

#[test]
fn grep_finds_what_the_walkthrough_shows() {
    let agent = Agent::with(&["--window", "10s"]);
    some(&agent);
    let ran = agent.cli(&["metrics", "details", "--json", "web.1"]);
    let lines: Vec<&str> = ran.out.lines().collect();
    let at = lines.iter().position(|line| line.contains("testapp.response.latency")).unwrap();
    let end = agent.metrics("web.1", "?name=hits")[0]["end"].as_str().unwrap().to_owned();
    assert_eq!(
        lines[at - 1..=at + 4],
        [
            "    {",
            "        \"name\": \"testapp.response.latency\",",
            "        \"value\": 5.0,",
            "        \"unit\": \"ms\",",
            &format!("        \"timestamp\": \"{end}\","),
            "        \"tags\": {\"route\": \"/pay\"},",
        ]
    );
    let documents: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
    let keys: Vec<&String> = documents[3].as_object().unwrap().keys().take(7).collect();
    assert_eq!(keys, ["name", "value", "unit", "timestamp", "tags", "type", "agg"]);
}

#[test]
fn every_output_format_is_what_it_says() {
    let agent = Agent::with(&["--window", "10s"]);
    some(&agent);
    let details = |format: &str| agent.cli(&["metrics", "details", "web.1", "-o", format]).out;
    let array: Vec<Value> = serde_json::from_str(&details("json")).unwrap();
    let lines: Vec<Value> =
        details("ndjson").lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(array, lines);
    let prom = details("prom");
    assert!(prom.contains("# TYPE hits_total counter\nhits_total{task=\"web.1\"} 3\n"), "{prom}");
    for command in [
        vec!["tasks"],
        vec!["containers", "list"],
        vec!["metrics", "summary", "web.1"],
        vec!["explain", "web.1"],
        vec!["doctor"],
        vec!["version"],
        vec!["containers", "show", "c1"],
    ] {
        let ran = agent.cli(&[command.as_slice(), &["--json"]].concat());
        assert!(serde_json::from_str::<Value>(&ran.out).is_ok(), "{command:?}: {}", ran.out);
    }
}

#[test]
fn a_name_may_be_shortened_and_exit_codes_say_how_it_went() {
    let agent = Agent::with(&["--window", "10s"]);
    some(&agent);
    agent.reserve("c2", "web.2");
    agent.reserve("c3", "silent");
    let code = |args: &[&str]| {
        let ran = agent.cli(args);
        (ran.code, ran.err)
    };
    assert_eq!(code(&["metrics", "details", "web.1", "--name", "hits"]).0, 0);
    let (ambiguous, err) = code(&["metrics", "details", "web"]);
    assert!(ambiguous == 6 && err.contains("web.1  gone") && err.contains("web.2  listening"), "{err}");
    let (silent, err) = code(&["metrics", "details", "sil"]);
    assert!(
        silent == 4
            && err.contains("task silent has sent nothing yet")
            && err.contains("tallyport explain silent"),
        "{err}"
    );
    let (unknown, err) = code(&["metrics", "details", "wbe.1"]);
    assert!(
        unknown == 3 && err.contains("did you mean \"web.1\"?") && err.contains("tallyport tasks"),
        "{err}"
    );
    assert_eq!(code(&["metrics", "details", "web.1", "--name", "nope"]).0, 4);
    assert_eq!(code(&["metrics", "details"]).0, 2);
    assert_eq!(code(&["containers", "show", "nope"]).0, 3);
    assert_eq!(code(&["metrics", "details", "web.1", "--since", "soon"]).0, 2);
}

#[test]
fn an_agent_that_is_not_there_is_code_5_and_a_hint() {
    for args in [
        vec!["tasks", "--url", "http://127.0.0.1:1"],
        vec!["containers", "list", "--admin-socket", "/no/such/socket"],
        vec!["tail", "x", "--admin-socket", "/no/such/socket"],
        vec!["doctor", "--url", "http://127.0.0.1:1"],
    ] {
        let ran = tallyport(&args);
        assert!(
            ran.code == 5 && ran.err.contains("start one with `tallyport agent`"),
            "{args:?}: {}",
            ran.err
        );
    }
}

#[test]
fn odd_task_names_work() {
    let agent = Agent::with(&["--window", "10s"]);
    let name = "/prod/wéb 1#?&%";
    agent.reserve("c1", name).send("a:1|c");
    agent.finish("c1");
    let ran = agent.cli(&["metrics", "details", name]);
    assert!(ran.code == 0 && ran.out.contains("counter"), "{ran:?}");
    assert_eq!(agent.cli(&["explain", name, "a"]).code, 0);
}

#[test]
fn run_becomes_the_command_with_a_socket_of_its_own() {
    let agent = Agent::with(&["--window", "10s"]);
    let script = "import os,socket,sys\n\
                  a=(os.environ['STATSD_UDP_HOST'],int(os.environ['STATSD_UDP_PORT']))\n\
                  socket.socket(socket.AF_INET,socket.SOCK_DGRAM).sendto(b'a:7|c',a)\n\
                  print(sys.argv[1]); sys.exit(3)";
    let ran = agent.cli(&[
        "run",
        "--task-id",
        "job",
        "--label",
        "team=shop",
        "--",
        "python3",
        "-c",
        script,
        "--flag",
    ]);
    assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (3, "--flag\n", ""));
    agent.until("its metrics are there", || !agent.metrics("job", "?window=all").is_empty());
    let record = &agent.metrics("job", "?window=all")[0];
    assert_eq!((&record["value"], &record["origin"]["labels"]), (&json!(7.0), &json!({"team": "shop"})));
}

#[test]
fn run_fails_open_unless_told_otherwise() {
    let open = tallyport(&[
        "run",
        "--admin-socket",
        "/no/such/socket",
        "--",
        "sh",
        "-c",
        "echo \"[$STATSD_UDP_HOST]\"",
    ]);
    assert_eq!((open.code, open.out.as_str()), (0, "[]\n"));
    assert!(open.err.contains("starting without a socket"), "{}", open.err);
    let closed =
        tallyport(&["run", "--fail-closed", "--admin-socket", "/no/such/socket", "--", "echo", "started"]);
    assert_eq!((closed.code, closed.out.as_str()), (5, ""));
}

#[test]
fn a_mistake_in_the_arguments_of_run_or_env_is_an_error_although_both_fail_open() {
    let away = ["--admin-socket", "/no/such/socket"];
    for mistake in [["--label", "a"], ["--label", "=a"], ["--task-id", ""], ["--task-id", "a\tb"]] {
        let ran = tallyport(&[&["run"], &away[..], &mistake, &["--", "echo", "started"]].concat());
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{mistake:?}: {}", ran.err);
        assert!(ran.err.starts_with(&format!("tallyport: {} ", mistake[0])), "{}", ran.err);
        let ran = tallyport(&[&["env", "web.service"], &away[..], &mistake].concat());
        assert_eq!((ran.code, ran.out.as_str()), (2, ""), "{mistake:?}: {}", ran.err);
    }
    let ran = tallyport(&[&["env", "a/b"], &away[..]].concat());
    assert_eq!(ran.code, 2, "{}", ran.err);
}

#[test]
fn env_gives_a_unit_its_variables_and_never_those_of_an_earlier_life() {
    let agent = Agent::start();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("deep/web.service");
    let written = || std::fs::read_to_string(&file).unwrap();
    let ran = agent.cli(&[
        "env",
        "web.service",
        "--task-id",
        "web",
        "--label",
        "team=shop",
        "--env-file",
        file.to_str().unwrap(),
    ]);
    assert_eq!((ran.code, ran.out.as_str()), (0, ""), "{}", ran.err);
    let (_, shown) = agent.admin("GET", "/v1/containers/web.service", &Value::Null);
    let (host, port) = (shown["statsd_host"].as_str().unwrap(), &shown["statsd_port"]);
    assert_eq!(written(), format!("STATSD_UDP_HOST={host}\nSTATSD_UDP_PORT={port}\n"));
    assert_eq!((&shown["task_id"], &shown["labels"]["team"]), (&json!("web"), &json!("shop")));
    assert_eq!(
        agent.cli(&["env", "web.service", "--task-id", "web"]).out,
        written(),
        "a repeat changes nothing"
    );
    let away =
        ["env", "web.service", "--admin-socket", "/no/such/socket", "--env-file", file.to_str().unwrap()];
    let closed = tallyport(&[&away[..], &["--fail-closed"]].concat());
    assert_eq!((closed.code, written().is_empty()), (5, false));
    let open = tallyport(&away);
    assert!(open.code == 0 && open.err.contains("there is no socket"), "{}", open.err);
    assert_eq!(written(), "");
    assert_eq!(agent.cli(&["containers", "release", "web.service"]).code, 0);
}

#[test]
fn run_answers_as_a_shell_does_for_what_cannot_be_started() {
    let agent = Agent::start();
    assert_eq!(agent.cli(&["run", "--", "/no/such/command"]).code, 127);
    let plain_file = agent.admin_socket().with_file_name("state/epoch");
    assert_eq!(agent.cli(&["run", "--", plain_file.to_str().unwrap()]).code, 126);
    assert_eq!(agent.cli(&["run", "--label", "nonsense", "--fail-closed", "--", "true"]).code, 2);
}

#[test]
fn run_writes_its_pair_over_what_is_set_but_no_alias() {
    let agent = Agent::with(&["--window", "10s", "--set", "env.presets=statsd"]);
    let mut command = agent.command(&["run", "--", "sh", "-c", "echo $STATSD_UDP_HOST $STATSD_HOST"]);
    let ran = ran(command.env("STATSD_UDP_HOST", "theirs").env("STATSD_HOST", "theirs"));
    let words: Vec<&str> = ran.out.split_whitespace().collect();
    assert!(words[0].starts_with("127.") && words[1] == "theirs", "{words:?}");
}

#[test]
fn explain_says_what_stopped_a_metric() {
    let agent = Agent::with(&["--window", "10s", "--set", "limits.series=2"]);
    let explain = |args: &[&str]| {
        let ran = agent.cli(&[&["explain"], args, &["--json"]].concat());
        let document: Value = serde_json::from_str(&ran.out).unwrap();
        (ran.code, document)
    };
    let outcome = |document: &Value, station: &str| {
        let stations = document["stations"].as_array().unwrap();
        stations.iter().find(|found| found["station"] == station).unwrap()["outcome"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    let address = agent.reserve("c1", "web.1");
    let (code, document) = explain(&["web.1"]);
    assert_eq!((code, outcome(&document, "received").as_str()), (4, "stop"));

    address.send("all bad");
    agent.until("it has arrived", || agent.get("/v1/tasks/web.1").1["totals"]["lines"]["received"] == 1);
    let (code, document) = explain(&["web.1"]);
    assert_eq!((code, outcome(&document, "read").as_str()), (4, "stop"));
    let read = document["stations"].as_array().unwrap().iter().find(|s| s["station"] == "read").unwrap();
    assert!(read["advice"].to_string().contains("all bad"), "the line itself is shown: {read}");

    address.send("app.latency:1|ms\nb:1|g\nc:1|g");
    agent.until("it is in a window", || agent.metrics("web.1", "").len() == 2);
    let (code, document) = explain(&["web.1", "latency"]);
    assert_eq!(
        (code, outcome(&document, "recorded").as_str(), outcome(&document, "kept").as_str()),
        (4, "stop", "note")
    );
    assert!(document.to_string().contains("nearest names: app.latency"), "{document}");
    let (code, document) = explain(&["web.1", "*latency"]);
    assert_eq!((code, &document["verdict"]), (0, &json!("\"*latency\" can be read")));
}

#[test]
fn explain_looks_into_the_process_for_the_variables() {
    let agent = Agent::with(&["--window", "10s"]);
    let mut child = agent.command(&["run", "--task-id", "good", "--", "sleep", "60"]).spawn().unwrap();
    let mut other = Command::new("sleep")
        .arg("60")
        .env("STATSD_UDP_HOST", "10.0.0.1")
        .env("STATSD_UDP_PORT", "8125")
        .spawn()
        .unwrap();
    agent.reserve_with(&json!({"container_id": "c2", "task_id": "overwritten", "pid": other.id()}));
    agent.until("it is attached", || agent.get("/v1/tasks/good").0 == 200);
    let injected = |task: &str| {
        let document: Value = serde_json::from_str(&agent.cli(&["explain", task, "--json"]).out).unwrap();
        document["stations"][1].clone()
    };
    agent.until("the launcher has become the command", || injected("good")["outcome"] == "ok");
    assert!(injected("good")["found"].as_str().unwrap().contains("the process has them"));
    let overwritten = injected("overwritten");
    assert_eq!(overwritten["outcome"], "stop");
    assert!(overwritten["found"].as_str().unwrap().contains("10.0.0.1:8125"), "{overwritten}");
    for child in [&mut child, &mut other] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

#[test]
fn tail_shows_lines_as_they_come() {
    let agent = Agent::start();
    let address = agent.reserve("c1", "web.1");
    let tail = |flags: &[&str]| {
        let mut command = agent.command(&[&["tail", "web.1", "--lines", "2"], flags].concat());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut child = Some(child);
        agent.until("it has seen two lines", || {
            address.send("a:1|c\nbad");
            child.as_mut().unwrap().try_wait().unwrap().is_some()
        });
        String::from_utf8(child.take().unwrap().wait_with_output().unwrap().stdout).unwrap()
    };
    let lines = tail(&[]);
    assert!(lines.contains("accepted  a:1|c") && lines.contains("rejected: missing_type  bad"), "{lines}");
    assert_eq!(tail(&["--raw"]), "a:1|c\nbad\n");
    let first: Value = serde_json::from_str(tail(&["-o", "ndjson"]).lines().next().unwrap()).unwrap();
    assert_eq!((&first["line"], &first["container_id"]), (&json!("a:1|c"), &json!("c1")));
}

#[test]
fn watch_redraws_with_every_window() {
    let agent = Agent::start();
    let address = agent.reserve("c1", "web.1");
    let child = agent
        .command(&["metrics", "watch", "web.1", "--windows", "2"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut child = Some(child);
    let mut n = 0;
    agent.until("two windows were drawn", || {
        n += 1;
        address.send(format!("a:{n}|g"));
        child.as_mut().unwrap().try_wait().unwrap().is_some()
    });
    let out = String::from_utf8(child.take().unwrap().wait_with_output().unwrap().stdout).unwrap();
    let titles: Vec<&str> = out.lines().filter(|line| line.starts_with("web.1  ")).collect();
    assert!(
        titles.len() == 2 && titles[1].starts_with("web.1  window until "),
        "a table for each window: {out}"
    );
    // The scale begins at zero, and the first window may have ended at any value.
    let rises = "▁▂▃▄▅▆▇".chars().any(|low| out.contains(&format!("{low}█")));
    assert!(out.contains("TREND") && rises, "{out}");
    assert!(!out.contains('\u{1b}'), "no colours without a terminal: {out}");
}

#[test]
fn parse_reads_arguments_lines_and_base64() {
    let document = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let ran = tallyport(&["parse", "a:+5|g|#k:v"]);
    assert_eq!(
        document(&ran.out),
        json!({"samples": [{"name": "a", "type": "gauge_delta", "values": [5.0], "rate": 1.0, "tags": ["k:v"]}], "rejected": []})
    );
    assert_eq!(ran.code, 0, "every line is accepted");
    for rejected in [&["parse", "b"][..], &["parse", "a:1|c", "b", "a:1|c"], &["parse", "a:1|c\nb"]] {
        let ran = tallyport(rejected);
        assert!(ran.code == 1 && ran.err.is_empty(), "{rejected:?}: {ran:?}");
        assert_eq!(ran.out.lines().count(), rejected.len() - 1, "what follows is parsed as well");
    }
    let ran = fed(&["parse", "--base64"], b"YToxfGMKYg==\n\n");
    assert_eq!(ran.code, 1);
    let lines: Vec<Value> = ran.out.lines().map(document).collect();
    assert_eq!(lines.len(), 2, "a blank line is the empty datagram");
    assert_eq!(lines[0]["rejected"], json!([{"line": "b", "code": "missing_type"}]));
    assert_eq!(lines[1], json!({"samples": [], "rejected": []}));
    let ran = fed(&["parse", "--tag-styles", "all"], b"foo,a=1:1|c\nbar:1|c");
    let lines: Vec<Value> = ran.out.lines().map(document).collect();
    assert_eq!((&lines[0]["samples"][0]["tags"], lines.len()), (&json!(["a:1"]), 2));
    assert_eq!(tallyport(&["parse", "--base64", "!"]).code, 1);
    assert_eq!(tallyport(&["parse", "--tag-styles", "graphite", "a:1|c"]).code, 2);
}

#[test]
fn the_whole_corpus_goes_through_parse() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/statsd.jsonl")).unwrap();
    for (styled, flags) in
        [(false, vec!["parse", "--base64"]), (true, vec!["parse", "--base64", "--tag-styles", "all"])]
    {
        let cases: Vec<_> =
            crate::corpus::cases_of(&text).into_iter().filter(|case| case.is_styled() == styled).collect();
        let input = cases.iter().fold(String::new(), |input, case| input + case.base64() + "\n");
        let ran = fed(&flags, input.as_bytes());
        let found: Vec<Value> = ran.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(found.len(), cases.len());
        let wrong: Vec<String> = cases
            .iter()
            .zip(&found)
            .filter(|(case, _)| case.required())
            .filter_map(|(case, found)| case.disagreement(found))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

#[test]
fn config_is_checked_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "windows.keep = 12\n[http]\nlisten = \"127.0.0.1:1234\"\n").unwrap();
    assert_eq!(tallyport(&["config", "check", "--config", path]).out, format!("{path} is sound\n"));
    let shown = tallyport(&["config", "show", "--config", path, "--set", "limits.series=5", "--json"]);
    let shown: Vec<Value> = serde_json::from_str(&shown.out).unwrap();
    let of = |key: &str| shown.iter().find(|held| held["key"] == key).unwrap().clone();
    assert_eq!(
        (&of("windows.keep")["value"], &of("windows.keep")["origin"]),
        (&json!("12"), &json!(format!("{path}:1")))
    );
    assert_eq!(of("http.listen")["origin"], format!("{path}:3"));
    assert_eq!(of("limits.series")["origin"], "--set limits.series");
    assert_eq!(of("log.filter")["origin"], "default");
    std::fs::write(&file, "windows.kep = 1\n[http]\nlisten = 7\n").unwrap();
    let refused = tallyport(&["config", "check", "--config", path]);
    assert!(
        refused.code == 1
            && refused.err.contains("did you mean windows.keep?")
            && refused.err.contains(":3: http.listen"),
        "{}",
        refused.err
    );
    assert_eq!(tallyport(&["config", "check", "--config", "/no/such/file"]).code, 1);
}

#[test]
fn publishers_are_checked_with_their_files_and_shown() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let (path, token, open) = (at("agent.toml"), at("token"), at("open"));
    for (file, mode) in [(&token, 0o600), (&open, 0o644)] {
        std::fs::write(file, "geheim\n").unwrap();
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let sound = format!(
        "windows.length = \"5s\"\n[publish.mimir]\ntype = \"influxdb\"\nurl = \"https://mimir/push\"\ntoken_file = {token:?}\n"
    );
    std::fs::write(&path, &sound).unwrap();
    assert_eq!(tallyport(&["config", "check", "--config", &path]).out, format!("{path} is sound\n"));
    let workers = "publish.mimir.workers=3";
    let shown = tallyport(&["config", "show", "--config", &path, "--set", workers, "--json"]);
    let shown: Vec<Value> = serde_json::from_str(&shown.out).unwrap();
    let of = |key: &str| shown.iter().find(|held| held["key"] == key).unwrap().clone();
    assert_eq!(of("publish.mimir.url")["value"], "https://mimir/push");
    assert_eq!(of("publish.mimir.url")["origin"], format!("{path}:4"));
    assert_eq!(of("publish.mimir.workers")["value"], "3");
    assert_eq!(of("publish.mimir.max_age")["origin"], "default");
    assert_eq!(of("publish.mimir.interval")["value"], "5s", "the length of a window");
    let wrong = sound.replace(&token, &open).replace("https:", "") + "interval = \"7s\"\nwindow = 1\n";
    std::fs::write(&path, wrong).unwrap();
    let refused = tallyport(&["config", "check", "--config", &path]);
    assert_eq!(refused.code, 1, "{}", refused.err);
    for part in [
        ":4: publish.mimir.url is not a URL",
        ":5: publish.mimir.token_file = ",
        "chmod o=",
        ":6: publish.mimir.interval = \"7s\" is not a multiple of windows.length, which is 5s",
        ":7: publish.mimir.window is not a setting",
    ] {
        assert!(refused.err.contains(part), "{part}: {}", refused.err);
    }
    assert!(!refused.err.contains("geheim"), "{}", refused.err);
}

#[test]
fn the_shipped_example_is_sound_and_up_to_date() {
    let example = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/agent.toml")).unwrap();
    assert_eq!(tallyport(&["config", "example"]).out, example, "run: make docs");
    assert_eq!(
        tallyport(&[
            "config",
            "check",
            "--config",
            concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/agent.toml")
        ])
        .code,
        0
    );
}

#[test]
fn the_reference_pages_are_up_to_date() {
    for (page, args) in [
        ("configuration.md", vec!["config", "reference"]),
        ("own-metrics.md", vec!["config", "reference", "--metrics"]),
    ] {
        let written =
            std::fs::read_to_string(format!("{}/docs/reference/{page}", env!("CARGO_MANIFEST_DIR"))).unwrap();
        assert_eq!(tallyport(&args).out, written, "{page}: run make docs");
    }
}

#[test]
fn every_command_has_help_completions_and_a_manual_page() {
    let help = tallyport(&["--help"]);
    assert!(
        help.code == 0
            && help.out.contains("Exit codes: 0 found")
            && help.out.contains("tallyport run --task-id"),
        "{}",
        help.out
    );
    for command in [
        "agent",
        "run",
        "tasks",
        "containers",
        "metrics",
        "explain",
        "tail",
        "parse",
        "config",
        "doctor",
        "completions",
        "man",
        "version",
    ] {
        let ran = tallyport(&[command, "--help"]);
        assert!(ran.code == 0 && ran.out.contains("Usage: tallyport"), "{command}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(tallyport(&["completions", shell]).out.contains("_TALLYPORT_COMPLETE"), "{shell}");
    }
    let directory = tempfile::tempdir().unwrap();
    let ran = tallyport(&["man", "--dir", directory.path().to_str().unwrap()]);
    assert_eq!(ran.code, 0);
    let page = std::fs::read_to_string(directory.path().join("man1/tallyport-metrics-details.1")).unwrap();
    assert!(page.contains("merge"), "{page}");
    assert!(tallyport(&["man"]).out.contains(".TH tallyport 1"));
    let version = tallyport(&["version"]).out;
    assert!(version.starts_with(&format!("tallyport {}\n", env!("CARGO_PKG_VERSION"))), "{version}");
    assert_eq!(tallyport(&["nonsense"]).code, 2);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let agent = Agent::with(&["--window", "10s"]);
    some(&agent);
    let mut child = agent
        .command(&["metrics", "details", "web.1", "--json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr), (Some(0), vec![]));
}

#[test]
fn doctor_shows_what_is_wrong() {
    let agent = Agent::with(&["--window", "10s"]);
    let address = agent.reserve("c1", "web.1");
    address.send("hits:3|c\nbad line");
    agent.until("the line is rejected", || {
        agent.admin("GET", "/v1/containers/c1", &Value::Null).1["rejected"] == 1
    });
    let ran = agent.cli(&["doctor"]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    for part in [
        "everything is counted once",
        "rejected lines",
        "\"bad line\"",
        "missing_type: write name:value|type",
        "answers",
    ] {
        assert!(ran.out.contains(part), "{part} is not in\n{}", ran.out);
    }
}

#[test]
fn health_tells_an_agent_that_is_there_from_another_and_from_none() {
    let agent = Agent::with(&["--set", "agent.instance=pod-1"]);
    assert_eq!(agent.get("/health").1["instance"], "pod-1");
    let alive = agent.cli(&["health"]);
    assert!(alive.code == 0 && alive.out.starts_with("alive: tallyport "), "{alive:?}");
    assert_eq!(agent.cli(&["health", "--instance", "pod-1"]).code, 0);
    assert_eq!(ran(agent.command(&["health"]).env("TALLYPORT_AGENT_INSTANCE", "pod-1")).code, 0);
    assert_eq!(ran(agent.command(&["health"]).env("TALLYPORT_AGENT_INSTANCE", "")).code, 0);
    let other = ran(agent.command(&["health"]).env("TALLYPORT_AGENT_INSTANCE", "pod-2"));
    assert_eq!(other.code, 1);
    assert!(other.err.contains("pod-1") && other.err.contains("pod-2"), "{other:?}");
    // It needs no token, so a missing token file does not matter.
    assert_eq!(ran(agent.command(&["health"]).env("TALLYPORT_TOKEN_FILE", "/nowhere/token")).code, 0);
    assert_eq!(tallyport(&["health", "--url", "http://127.0.0.1:1"]).code, 5);
    let nameless = Agent::start();
    assert_eq!(nameless.cli(&["health", "--instance", "pod-1"]).code, 1);
}

#[test]
fn reload_applies_a_changed_file_and_says_what_a_restart_is_needed_for() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    write("");
    let agent = Agent::with(&["--config", file.to_str().unwrap()]);
    let same = agent.cli(&["reload"]);
    assert_eq!((same.code, same.out.lines().count()), (0, 1), "{same:?}");
    write("agent.instance = \"a\"\nlog.format = \"text\"\nunix.queue = 9\n");
    let reloaded = agent.cli(&["reload"]);
    assert_eq!(reloaded.code, 0, "{reloaded:?}");
    assert!(reloaded.out.lines().nth(1).unwrap().ends_with("restart: unix.queue"), "{reloaded:?}");
    assert_eq!(agent.get("/health").1["instance"], "a");
    let document: Value = serde_json::from_str(&agent.cli(&["reload", "--json"]).out).unwrap();
    assert_eq!(document, json!({"applied": true, "needs_restart": ["unix.queue"]}));
    write("limits.series = \"many\"\n");
    let refused = agent.cli(&["reload"]);
    assert!(refused.code == 1 && refused.err.contains("limits.series"), "{refused:?}");
    assert_eq!(agent.get("/health").1["instance"], "a", "the old one stays");
    assert_eq!(tallyport(&["reload", "--admin-socket", "/nowhere/admin.sock"]).code, 5);
}
