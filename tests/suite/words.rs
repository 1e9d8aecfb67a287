//! What commands say, and how they end.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::agent::{Address, Agent, BINARY, Ran, ran};

fn tallyport(args: &[&str]) -> Ran {
    ran(Command::new(BINARY).args(args).env_remove("TALLYPORT_URL").env_remove("TALLYPORT_ADMIN_SOCKET"))
}

#[test]
fn filters_that_nothing_matches_are_named_and_are_no_success() {
    let agent = Agent::start();
    for list in [&["tasks"][..], &["containers", "list"]] {
        assert_eq!(agent.cli(list).code, 0, "an empty node is no failure");
    }
    agent.reserve("c1", "web.1");
    for (list, what) in [(&["tasks"][..], "task"), (&["containers", "list"], "container")] {
        let none = agent.cli(&[list, &["--task", "nope*", "--label", "a=b"]].concat());
        assert_eq!((none.code, none.out.as_str()), (3, ""), "{}", none.err);
        let said = format!("no {what} of this node matches --task nope* --label a=b");
        assert!(none.err.contains(&said), "{}", none.err);
        let json = agent.cli(&[list, &["--task", "nope", "--json"]].concat());
        assert_eq!((json.code, json.out.as_str()), (3, "[]\n"));
        assert_eq!(agent.cli(&[list, &["--task", "web*"]].concat()).code, 0);
    }
}

#[test]
fn a_time_without_a_unit_is_a_mistake_of_usage_for_every_option_that_takes_one() {
    for line in [
        &["metrics", "details", "web.1", "--since", "5"][..],
        &["agent", "--window", "5"],
        &["keeper", "--hold", "5"],
        &["untaint", "--node", "n", "--interval", "5"],
    ] {
        let refused = tallyport(line);
        assert_eq!(refused.code, 2, "{line:?}: {}", refused.err);
        assert!(refused.err.contains("it needs a unit, such as 5s or 5m"), "{line:?}: {}", refused.err);
    }
}

#[test]
fn every_mistake_of_usage_is_one_sentence_and_one_hint() {
    for (line, said, hint) in [
        (&["tasks", "--limit", "0"][..], "--limit \"0\": write a whole number of at least 1", "tasks --help"),
        (
            &["tail", "web.1", "--lines", "x"],
            "--lines \"x\": write a whole number of at least 1",
            "tail --help",
        ),
        (&["metrics", "watch", "web.1", "--windows", "0"], "at least 1", "metrics watch --help"),
        (&["env", "c", "--pid", "0"], "from 1 to 2147483647", "env --help"),
        (&["metrics", "details", "web.1", "--since", "5"], "it needs a unit", "details --help"),
        (&["metrics", "details"], "tallyport metrics details needs TASK_ID", "`tallyport tasks` lists"),
        (&["metrics", "details", "web.1", "--wait", "5s"], "--wait takes its time after =", "--wait=5s"),
        (&["explain", "--wait", "5", "web.1"], "--wait takes its time after =", "--wait=5s"),
        (&["metrics", "summary", "web.1", "hits"], "takes no further argument", "metrics details TASK hits"),
        (&["tasks", "web.1"], "takes no further argument", "tasks --task web.1"),
        (&["tail", "web.1", "-f"], "has no option -f", "it always follows"),
        (&["tasks", "--labels", "a=b"], "has no option --labels", "did you mean --label?"),
        (&["metrics", "detials", "web.1"], "has no command \"detials\"", "did you mean details?"),
        (
            &["metrics", "details", "web.1", "-c", "main"],
            "needs --namespace NAMESPACE",
            "--container selects one of any task",
        ),
        (&["tasks", "-o"], "--output needs a value", "possible values: table, json"),
        (&["tasks", "--json", "-o", "csv"], "cannot be used together", "tasks --help"),
        (&["doctor", "--probe", "lxc"], "--probe cannot be \"lxc\"", "possible values: runc"),
        (&["tasks", "--url", "localhost"], "--url \"localhost\": write http://HOST:PORT", "tasks --help"),
        (&["completions", "tcsh"], "SHELL cannot be \"tcsh\"", "possible values: bash"),
    ] {
        let refused = ran(Command::new(BINARY).args(line).env("TALLYPORT_URL", "http://127.0.0.1:1"));
        assert_eq!((refused.code, refused.out.as_str()), (2, ""), "{line:?}: {}", refused.err);
        let lines: Vec<&str> = refused.err.lines().collect();
        let [first, second] = lines[..] else { panic!("{line:?}: {}", refused.err) };
        assert!(first.starts_with("tallyport: ") && first.contains(said), "{line:?}: {}", refused.err);
        assert!(second.starts_with("  ") && second.contains(hint), "{line:?}: {}", refused.err);
    }
}

#[test]
fn a_mistake_in_a_variable_is_described_by_its_name() {
    let with = |args: &[&str]| ran(Command::new(BINARY).args(args).env("TALLYPORT_URL", "here"));
    let refused = with(&["tasks"]);
    assert!(
        refused.code == 2 && refused.err.starts_with("tallyport: TALLYPORT_URL \"here\": write"),
        "{refused:?}"
    );
    let refused = with(&["tasks", "--url=there"]);
    assert!(refused.err.starts_with("tallyport: --url \"there\": write"), "{refused:?}");
}

#[test]
fn a_number_of_lines_in_the_place_of_a_namespace_is_pointed_at() {
    let agent = Agent::start();
    agent.reserve("c1", "web.1");
    let refused = agent.cli(&["tail", "web.1", "-n", "5"]);
    assert_eq!(refused.code, 3, "{refused:?}");
    assert!(refused.err.contains("-n is --namespace") && refused.err.contains("--lines 5"), "{refused:?}");
    let other = agent.cli(&["tail", "web.1", "-n", "shop"]);
    assert!(other.code == 3 && !other.err.contains("--lines"), "{other:?}");
}

#[test]
fn details_and_watch_take_the_name_of_a_metric_as_explain_and_tail_do() {
    let agent = Agent::with(&["--window", "1s"]);
    let web = agent.reserve("c1", "web.1");
    web.send("hits:1|c\nmisses:1|c");
    agent.until("the window has closed", || agent.metrics("web.1", "?window=all").len() >= 2);
    for args in [&["web.1", "hits"][..], &["web.1", "h*"], &["web.1", "h*", "--name", "*s"]] {
        let shown = agent.cli(&[&["metrics", "details", "--window", "all"], args].concat());
        assert!(shown.code == 0 && shown.out.contains("hits") && !shown.out.contains("misses"), "{shown:?}");
    }
    let none = agent.cli(&["metrics", "details", "web.1", "hit"]);
    assert!(none.code == 4 && none.err.contains("'*hit*'"), "{none:?}");
    let mut watch = agent.command(&["metrics", "watch", "web.1", "hits", "--windows", "1", "-o", "ndjson"]);
    let mut watch = watch.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    agent.until("a window was printed", || {
        web.send("hits:1|c\nmisses:1|c");
        watch.try_wait().unwrap().is_some()
    });
    let printed = String::from_utf8(watch.wait_with_output().unwrap().stdout).unwrap();
    assert!(printed.contains("hits") && !printed.contains("misses"), "{printed}");
}

#[test]
fn the_settings_of_the_running_agent_are_compared_with_those_configured() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    let path = file.to_str().unwrap();
    std::fs::write(&file, "limits.series = 2000\n").unwrap();
    let agent = Agent::with(&["--config", path]);
    std::fs::write(&file, "limits.series = 3000\nunix.queue = 9\n").unwrap();
    let shown = || {
        let ran = agent.cli(&["config", "show", "--running", "--config", path, "--json"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let settings: Vec<Value> = serde_json::from_str(&ran.out).unwrap();
        move |key: &str| settings.iter().find(|setting| setting["key"] == key).unwrap().clone()
    };
    let before = shown();
    let series = before("limits.series");
    assert_eq!((&series["value"], &series["configured"]["value"]), (&json!("2000"), &json!("3000")));
    assert!(series["origin"].as_str().unwrap().ends_with("agent.toml:1"), "{series}");
    assert_eq!(before("limits.name_bytes").get("configured"), None);
    assert_eq!(agent.cli(&["reload"]).code, 0);
    let after = shown();
    assert_eq!(
        (&after("limits.series")["value"], after("limits.series").get("configured")),
        (&json!("3000"), None)
    );
    let queue = after("unix.queue");
    assert_eq!(queue["configured"]["value"], "9", "it takes effect at a restart: {queue}");
    let table = agent.cli(&["config", "show", "--running", "--config", path]);
    assert!(
        table.out.contains("CONFIGURED HERE") && table.err.contains("configured otherwise here"),
        "{table:?}"
    );
    assert_eq!(agent.get("/v1/config").0, 404, "only the admin socket shows it");
    let none = tallyport(&["config", "show", "--running", "--admin-socket", "/nowhere/admin.sock"]);
    assert_eq!(none.code, 5, "{none:?}");
}

#[test]
fn explain_ends_at_the_step_that_stopped_a_metric() {
    let agent = Agent::start();
    agent.reserve("c1", "silent");
    let silent = agent.cli(&["explain", "silent"]);
    let steps: Vec<&str> = silent.out.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(silent.code, 4);
    let stop = steps.iter().position(|line| line.starts_with("STOP")).unwrap();
    assert!(steps[stop].contains("no datagram has arrived"), "{}", silent.out);
    assert_eq!(steps.len(), stop + 2, "only the verdict follows: {}", silent.out);
}

#[test]
fn explain_stops_a_metric_whose_lines_are_rejected_where_they_are_read() {
    let agent = Agent::start();
    let shop = agent.reserve("c1", "shop");
    (0..3).for_each(|_| shop.send("checkout.failed:oops|c\ncheckout.ok:1|c"));
    agent.until("all lines are read", || agent.get("/v1/tasks/shop").1["totals"]["lines"]["received"] == 6);
    let failed = agent.cli(&["explain", "shop", "checkout.failed"]);
    assert_eq!(failed.code, 4, "{}", failed.out);
    assert!(failed.out.contains("STOP  read"), "{}", failed.out);
    assert!(failed.out.contains("invalid_value: \"checkout.failed:oops|c\" (3 times)"), "{}", failed.out);
    let well = agent.cli(&["explain", "shop", "checkout.ok"]);
    assert_eq!(well.code, 0, "{}", well.out);
    assert!(!well.out.contains("oops"), "lines of another name: {}", well.out);
}

#[test]
fn explain_finds_a_rejected_line_by_the_exact_name() {
    let agent = Agent::start();
    let shop = agent.reserve("c1", "shop");
    shop.send(b"cart.size=3|g\ncart.tot\xffal:1|q".as_slice());
    agent.until("both lines are read", || agent.get("/v1/tasks/shop").1["totals"]["lines"]["received"] == 2);
    let explained = agent.cli(&["explain", "shop", "cart.size"]);
    assert!(explained.code == 4 && explained.out.contains("STOP  read"), "{}", explained.out);
    assert!(explained.out.contains("missing_value: \"cart.size=3|g\""), "{}", explained.out);
    let other = agent.cli(&["explain", "shop", "checkout"]).out;
    assert!(other.contains("have other names:") && other.contains("cart.size=3|g"), "{other}");
    assert!(other.contains(r#"unknown_type: "cart.tot\xffal:1|q""#), "{other}");
    let doctor = agent.cli(&["doctor"]).out;
    assert!(doctor.contains(r#""cart.tot\xffal:1|q": unknown_type"#), "{doctor}");
}

#[test]
fn explain_names_the_limit_that_kept_a_name_out_and_the_container_that_lost_data() {
    let agent = Agent::with(&["--set", "limits.series=2"]);
    let (first, second) = (agent.reserve("c1", "jobs"), agent.reserve("c2", "jobs"));
    first.send("a:1|ms");
    second.send("a:1|ms\nb:1|ms\njobs.time:1|ms\njobs.time:2|ms");
    let lost = || agent.get("/v1/tasks/jobs").1["totals"]["values"]["dropped"]["series_limit"] == 2;
    agent.until("the limit has dropped both", lost);
    let explained = agent.cli(&["explain", "jobs", "jobs.time"]).out;
    let stop = "no series fits \"jobs.time\"; it may be among what was lost: 2 values (series_limit)";
    assert!(explained.contains(stop) && explained.contains("raise limits.series"), "{explained}");
    assert!(explained.contains("dropped by container: c2 2"), "{explained}");
    assert!(explained.contains("limits.series (now set by --set limits.series)"), "{explained}");
    let doctor = agent.cli(&["doctor"]).out;
    assert_eq!(doctor.matches("c2 of task jobs").count(), 1, "{doctor}");
    assert!(doctor.contains("2 values of other types were dropped"), "{doctor}");
}

#[test]
fn advice_about_a_setting_names_the_file_that_the_agent_has_read() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, "[limits]\nseries = 2\n").unwrap();
    let agent = Agent::with(&["--config", file.to_str().unwrap()]);
    let jobs = agent.reserve("c1", "jobs");
    jobs.send("a:1|ms\nb:1|ms\nc:1|ms");
    agent.until("a limit has dropped one", || {
        agent.get("/v1/tasks/jobs").1["totals"]["values"]["dropped"]["series_limit"] == 1
    });
    let place = format!("raise limits.series in {}:2", file.display());
    for command in [&["explain", "jobs", "c"][..], &["doctor"]] {
        let said = agent.cli(&[command, &["-o", "json"]].concat()).out;
        assert!(said.contains(&place), "{command:?}: {said}");
        assert!(!said.contains("--running` shows where"), "{command:?}: {said}");
    }
    // Without the admin socket the line is unknown.
    let mut explain = agent.command(&["explain", "jobs", "c", "-o", "json"]);
    let said = ran(explain.env("TALLYPORT_ADMIN_SOCKET", "/nowhere.sock")).out;
    assert!(said.contains(&format!("raise limits.series in {}\"", file.display())), "{said}");
    assert_eq!(agent.get("/v1/node").1["config_file"], file.to_str().unwrap());
}

#[test]
fn the_id_of_a_container_selects_it_or_says_that_the_whole_task_is_shown() {
    let agent = Agent::with(&["--window", "1s"]);
    for (id, line) in [("run-1", "one:1|c"), ("run-2", "two:1|c")] {
        agent.reserve(id, "loader").send(line);
    }
    agent.until("both have a window", || agent.metrics("loader", "").len() == 2);
    let details = agent.cli(&["metrics", "details", "run-2"]);
    assert!(details.out.contains("two") && !details.out.contains("one"), "{details:?}");
    assert!(details.err.contains("only container run-2 of task loader"), "{details:?}");
    let page = || agent.cli(&["metrics", "details", "run-2", "-o", "prom"]).out;
    // A scrape may be a moment behind.
    agent.until("it can be scraped", || page().contains("two_total"));
    assert!(!page().contains("one_total"), "{}", page());
    for command in [&["explain"][..], &["metrics", "summary"]] {
        let shown = agent.cli(&[command, &["run-2"]].concat());
        assert!(shown.err.contains("run-2 is one of 2 containers of task loader"), "{shown:?}");
    }
    let summary = agent.cli(&["metrics", "summary", "loader"]).out;
    assert!(summary.contains("CONTAINER") && summary.contains("run-1"), "{summary}");
}

/// The ids of two containers of the task `loader`, of which nine digits are the same.
fn similar_ids() -> [String; 2] {
    ["a", "b"].map(|tenth| format!("0f0f0f0f0{}", tenth.repeat(55)))
}

#[test]
fn the_start_of_a_containers_id_selects_it_wherever_a_task_is_named() {
    let agent = Agent::with(&["--window", "1s"]);
    let ids = similar_ids();
    let sockets = [agent.reserve(&ids[0], "loader"), agent.reserve(&ids[1], "loader")];
    let send = || {
        sockets[0].send("one:1|c\nlatency:1|ms");
        sockets[1].send("two:1|c\nlatency:1|ms");
    };
    send();
    agent.until("both have a window", || agent.metrics("loader", "").len() == 4);
    let start = ids[0].get(..10).unwrap();
    let only = format!("only container {} of task loader", ids[0]);
    for (args, shown) in [
        (&["metrics", "details", start][..], "one"),
        (&["metrics", "details", start, "--json"], "\"one\""),
        (&["metrics", "plot", start, "latency"], "latency"),
    ] {
        let ran = agent.cli(args);
        assert!(ran.code == 0 && ran.out.contains(shown) && !ran.out.contains("two"), "{args:?}: {ran:?}");
        assert!(ran.err.contains(&only), "{args:?}: {ran:?}");
    }
    for args in [
        &["metrics", "watch", start, "--windows", "2", "-o", "ndjson"][..],
        &["tail", start, "--lines", "4"],
        &["tail", start, "--lines", "4", "-o", "ndjson"],
    ] {
        let mut follow = agent.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        agent.until("it has shown as much as it was to show", || {
            send();
            follow.try_wait().unwrap().is_some()
        });
        let ran = follow.wait_with_output().unwrap();
        let [out, err] = [ran.stdout, ran.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
        assert!(out.contains(&ids[0]) && !out.contains(&ids[1]), "{args:?}: {out}");
        assert!(err.contains(&only), "{args:?}: {err}");
    }
    let whole = format!("{} is one of 2 containers of task loader", ids[0]);
    for command in [&["explain"][..], &["metrics", "summary"]] {
        let shown = agent.cli(&[command, &[start]].concat());
        assert!(shown.err.contains(&whole), "{shown:?}");
    }
    let both = ids[0].get(..9).unwrap();
    for args in [
        &["metrics", "details", both][..],
        &["metrics", "summary", both],
        &["metrics", "watch", both],
        &["metrics", "plot", both, "latency"],
        &["explain", both],
        &["tail", both],
    ] {
        let refused = agent.cli(args);
        let named = ids.iter().all(|id| refused.err.contains(&format!("{id}  listening")));
        assert!(refused.code == 6 && named, "{args:?}: {refused:?}");
    }
}

#[test]
fn the_filter_of_containers_takes_the_start_of_an_id_in_every_command_that_has_it() {
    let agent = Agent::with(&["--window", "1s"]);
    let ids = similar_ids();
    for (id, task, line) in [(&ids[0], "loader", "one:1|c"), (&ids[1], "other", "two:1|c")] {
        agent.reserve(id, task).send(line);
    }
    agent.until("both have a window", || {
        !agent.metrics("loader", "").is_empty() && !agent.metrics("other", "").is_empty()
    });
    let (start, both) = (ids[0].get(..10).unwrap(), ids[0].get(..9).unwrap());
    for args in [
        &["tasks", "--container"][..],
        &["containers", "list", "--container"],
        &["metrics", "details", "loader", "--container"],
        &["metrics", "plot", "loader", "one", "--container"],
    ] {
        let found = agent.cli(&[args, &[start]].concat());
        assert!(found.code == 0 && !found.out.contains("other"), "{args:?}: {found:?}");
        let pattern = agent.cli(&[args, &[&format!("{start}*")]].concat());
        assert_eq!(pattern.code, 0, "{args:?}: {pattern:?}");
        let none = agent.cli(&[args, &["f00"]].concat());
        assert!([3, 4].contains(&none.code), "{args:?}: {none:?}");
    }
    for args in [&["tasks"][..], &["containers", "list"]] {
        let refused = agent.cli(&[args, &["--container", both]].concat());
        assert!(refused.code == 6 && ids.iter().all(|id| refused.err.contains(id)), "{refused:?}");
        assert_eq!(agent.cli(&[args, &["--container", &format!("{both}*")]].concat()).code, 0);
    }
}

#[test]
fn a_name_that_nothing_has_gets_the_nearest_ones_or_the_filter_that_hides_it() {
    let agent = Agent::with(&["--window", "1s"]);
    agent.reserve("c1", "web.1").send("response.latency:1|ms");
    agent.until("there is a window", || !agent.metrics("web.1", "").is_empty());
    let details = |args: &[&str]| agent.cli(&[&["metrics", "details"], args].concat()).err;
    let misspelt = details(&["web.1", "respons.latency"]);
    assert!(misspelt.contains("nearest names: response.latency") && !misspelt.contains('*'), "{misspelt}");
    let filtered = details(&["web.1", "response.latency", "--type", "counter"]);
    assert!(filtered.contains("the timer response.latency exists"), "{filtered}");
    assert!(details(&["wbe"]).contains("did you mean \"web.1\"?"));
    let mut tail = agent.command(&["tail", "web.1", "nosuch*"]);
    let mut tail = tail.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(tail.stderr.take().unwrap()), &mut said)
        .unwrap();
    tail.kill().unwrap();
    tail.wait().unwrap();
    assert!(said.contains("waiting for lines named nosuch*, of which web.1 has no series yet"), "{said}");
}

#[test]
fn an_ended_task_sends_no_more_lines() {
    let agent = Agent::start();
    agent.reserve("c1", "job");
    agent.finish("c1");
    let tail = agent.cli(&["tail", "job"]);
    assert!(tail.code == 4 && tail.err.contains("task job has ended and sends no more lines"), "{tail:?}");
    let explained = agent.cli(&["explain", "job"]).out;
    assert!(explained.contains("no datagram arrived before the task ended"), "{explained}");
    assert!(!explained.contains("as they come"), "{explained}");
}

#[test]
fn folded_values_are_shown_wherever_losses_are() {
    let agent = Agent::with(&["--set", "limits.series=10"]);
    let shop = agent.reserve("c1", "shop");
    (0..40).for_each(|n| shop.send(format!("invoices:1|c|#customer:{n}")));
    let folded = || agent.get("/v1/tasks/shop").1["totals"]["values"]["folded"].as_u64().unwrap();
    agent.until("the limit of series is reached", || folded() >= 30);
    let folded = folded().to_string();
    let tasks = agent.cli(&["tasks", "--sort", "folded"]).out;
    let heading = tasks.lines().next().unwrap().split_whitespace().position(|word| word == "FOLDED").unwrap();
    assert_eq!(
        tasks.lines().nth(1).unwrap().split_whitespace().nth(heading),
        Some(folded.as_str()),
        "{tasks}"
    );
    let containers = agent.cli(&["containers", "list", "-o", "csv"]).out;
    let cells = |line: usize| -> Vec<&str> { containers.lines().nth(line).unwrap().split(',').collect() };
    let heading = cells(0).iter().position(|heading| *heading == "folded").unwrap();
    assert_eq!(cells(1)[heading], folded, "{containers}");
    assert!(agent.cli(&["containers", "list"]).out.contains("FOLDED"));
    let shown = agent.cli(&["containers", "show", "c1"]).out;
    let shown = shown.lines().find_map(|line| line.strip_prefix("folded ")).unwrap();
    assert_eq!(shown.trim(), folded);
    let said = format!("{folded} values of counters");
    let mut tail = agent.command(&["tail", "shop", "--raw", "--lines", "1"]);
    let mut tail = tail.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    agent.until("tail has shown a line", || {
        // A series that exists, so that the number of folded values stays.
        shop.send("invoices:1|c|#customer:0");
        tail.try_wait().unwrap().is_some()
    });
    let err = String::from_utf8(tail.wait_with_output().unwrap().stderr).unwrap();
    assert!(err.starts_with(&format!("tallyport: {said}")), "{err}");
    let summary = agent.cli(&["metrics", "summary", "shop"]).out;
    assert!(summary.contains(&said), "{summary}");
    let explained = agent.cli(&["explain", "shop", "invoices"]);
    assert!(explained.out.contains("\"invoices\" can be read in part"), "{}", explained.out);
    assert!(explained.out.contains("raise limits.series"), "{}", explained.out);
}

#[test]
fn explain_agrees_with_details_after_a_restart_of_the_agent() {
    let flags = ["--window", "1s"];
    let mut agent = Agent::with(&flags);
    let id = crate::agent::of_this_test("kept");
    let process = crate::restart::Sleeper::start();
    let body = json!({"container_id": id, "task_id": "web.1", "pid": process.pid()});
    agent.reserve_with(&body).send("hits:3|c");
    agent.until("the window is written", || agent.own_metric("tallyport_window_log_windows_total") >= 1.0);
    agent.signal(nix::sys::signal::Signal::SIGKILL);
    assert!(!agent.wait().success());
    let agent = Agent::in_directory(agent.into_dead_directory(), &flags);
    let details = agent.cli(&["metrics", "details", "web.1", "--json"]);
    assert_eq!(details.code, 0, "{}", details.err);
    let explained = agent.cli(&["explain", "web.1", "hits"]);
    assert_eq!(explained.code, 0, "{}", explained.out);
    assert!(!explained.out.contains("STOP") && explained.out.contains("can be read"), "{}", explained.out);
    assert_eq!(agent.cli(&["metrics", "summary", "web.1"]).code, 0);
}

#[test]
fn doctor_counts_what_is_repeated_and_leaves_out_what_has_ended() {
    let agent = Agent::start();
    let addresses: Vec<_> = (0..5).map(|n| agent.reserve(&format!("c{n}"), &format!("web.{n}"))).collect();
    addresses.iter().for_each(|address| address.send("bad line"));
    let rejected =
        |task: usize| agent.get(&format!("/v1/tasks/web.{task}")).1["totals"]["lines"]["rejected"].clone();
    agent.until("all are rejected", || (0..5).all(|task| rejected(task)["missing_type"] == 1));
    let doctor = agent.cli(&["doctor"]);
    let lines: Vec<&str> = doctor.out.lines().filter(|line| line.contains("rejected lines")).collect();
    assert_eq!(lines.len(), 1, "{}", doctor.out);
    assert!(lines[0].contains("5 tasks have sent lines that were rejected"), "{}", doctor.out);
    assert!(
        doctor.out.contains("task web.0: 1 missing_type") && doctor.out.contains("and 2 more"),
        "{}",
        doctor.out
    );
    let findings: Value = serde_json::from_str(&agent.cli(&["doctor", "--json"]).out).unwrap();
    let finding =
        findings.as_array().unwrap().iter().find(|finding| finding["check"] == "rejected lines").unwrap();
    assert_eq!(finding["examples"].as_array().unwrap().len(), 4);
    (0..5).for_each(|n| agent.finish(&format!("c{n}")));
    assert!(!agent.cli(&["doctor"]).out.contains("rejected lines"), "they have ended");
}

#[test]
fn doctor_reports_a_container_whose_series_are_folded() {
    let agent = Agent::with(&["--window", "1s", "--set", "limits.series=3"]);
    let address = agent.reserve("c1", "wide");
    assert!(agent.cli(&["doctor"]).out.contains("no container has more than it may"));
    (0..20).for_each(|n| address.send(format!("hits:1|c|#user:{n}")));
    agent.until("they are folded", || {
        agent.get("/v1/tasks/wide").1["totals"]["values"]["folded"].as_u64().unwrap() > 0
    });
    let doctor = agent.cli(&["doctor"]);
    let line = doctor.out.lines().find(|line| line.contains("has more series than it may")).unwrap();
    assert!(line.starts_with("warning") && line.contains("c1 of task wide"), "{}", doctor.out);
    assert!(
        doctor.out.contains("limits.series") && !doctor.out.contains("no container has more"),
        "{}",
        doctor.out
    );
}

#[test]
fn doctor_reports_series_that_a_naming_scheme_leaves_out() {
    let agent = Agent::with(&["--window", "1s", "--set", "prometheus.naming=statsd_exporter"]);
    agent.reserve("c1", "web.1").send("a.b:1|c\na_b:1|g");
    agent.until("both are recorded", || agent.metrics("web.1", "?window=last").len() == 2);
    assert!(agent.cli(&["doctor"]).out.contains("no two names become one"));
    agent.get_raw("/metrics/tasks");
    let doctor = agent.cli(&["doctor"]).out;
    assert!(
        doctor.contains("a scrape left out a series") && doctor.contains("prometheus.naming"),
        "{doctor}"
    );
    assert!(!doctor.contains("no two names become one"), "{doctor}");
}

#[test]
fn a_keeper_of_a_directory_that_does_not_exist_refuses_and_creates_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("nope");
    let refused = tallyport(&["keeper", "--state-dir", missing.to_str().unwrap()]);
    assert_eq!(refused.code, 1);
    let said = format!("there is no state directory {}", missing.display());
    assert!(refused.err.contains(&said) && refused.err.contains("--state-dir"), "{}", refused.err);
    assert!(!missing.exists());
}

/// The lines that `tail` prints for these arguments while every kind of line is sent, and one marked line at the end.
fn tailed(agent: &Agent, address: &Address, args: &[&str], last: &str) -> Vec<String> {
    let mut tail = agent.command(&[&["tail", "tail.1", "--raw", "--lines", "20"], args].concat());
    let mut child = tail.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    agent.until("20 lines are shown", || {
        address.send(format!("other:1|c\nother:x|c\n{last}\n\u{1}\u{2}"));
        child.try_wait().unwrap().is_some()
    });
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn tail_shows_only_the_lines_of_a_name_or_an_outcome() {
    let agent = Agent::start();
    let address = agent.reserve("t1", "tail.1");
    let all = |lines: &[String], wanted: &[&str]| {
        lines.len() == 20 && lines.iter().all(|line| wanted.contains(&line.as_str()))
    };
    let named = tailed(&agent, &address, &["hits"], "hits:1|c");
    assert!(all(&named, &["hits:1|c"]), "{named:?}");
    let glob = tailed(&agent, &address, &["h*s", "--accepted"], "hits:1|c");
    assert!(all(&glob, &["hits:1|c"]), "{glob:?}");
    let rejected = tailed(&agent, &address, &["--rejected"], "hits:1|c");
    assert!(all(&rejected, &["other:x|c", "\u{1}\u{2}"]), "{rejected:?}");
    assert!(
        rejected.iter().any(|line| line == "\u{1}\u{2}"),
        "a line without a name is one, too: {rejected:?}"
    );
    let both = tailed(&agent, &address, &["other", "--rejected", "-o", "table"], "hits:1|c");
    assert!(all(&both, &["other:x|c"]), "{both:?}");
    assert_eq!(agent.cli(&["tail", "tail.1", "--rejected", "--accepted"]).code, 2);
}

#[test]
fn a_program_that_shares_its_control_group_has_only_the_resources_of_its_process() {
    let agent = Agent::start();
    let process = crate::restart::Sleeper::start();
    agent
        .reserve_with(&json!({"container_id": "c1", "task_id": "web.1", "pid": process.pid()}))
        .send("a:1|c");
    agent.until("it has sent", || agent.get("/v1/tasks/web.1").1["last_datagram"].is_string());
    let summary = agent.cli(&["metrics", "summary", "web.1", "--json"]);
    let summary: Value = serde_json::from_str(&summary.out).unwrap();
    assert_eq!(summary["resources"]["first_process_only"], true, "{summary}");
    // The resident memory of a sleeping program, and not that of the test run around it.
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid())).unwrap();
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let resident: f64 = resident.trim().trim_end_matches(" kB").parse().unwrap();
    assert_eq!(summary["resources"]["memory_bytes"], resident * 1024.0, "{summary}");
    let text = agent.cli(&["metrics", "summary", "web.1"]).out;
    assert!(text.contains("no control group of its own"), "{text}");
}
