//! Publishers of remote write, to a receiver that accepts and refuses what Prometheus does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use super::receiver::{Labels, Receiver, decode, is_v2};
use super::{Reply, agent_in, agent_with, publisher, until_delivered};
use crate::agent::{Agent, of_this_test};

fn remote_write(address: SocketAddr, more: &str) -> String {
    format!(
        "[publish.r]\ntype = \"remote_write\"\nurl = \"http://{address}/api/v1/write\"\ntimeout = \"1s\"\nproxy = \"\"\n{more}"
    )
}

fn until_increased(agent: &Agent, receiver: &Receiver, name: &str, expected: f64) {
    agent.until("what was sent arrives", || receiver.stored().increase(name) == expected);
    until_delivered(agent);
}

fn assert_nothing_refused(receiver: &Receiver) {
    let stored = receiver.stored();
    assert!(stored.refused.is_empty(), "{:#?}", stored.refused);
}

#[test]
fn totals_are_what_was_sent_and_every_new_series_begins_with_zero() {
    for speaks_v2 in [true, false] {
        let receiver = Receiver::new(speaks_v2);
        let agent = agent_with(&remote_write(receiver.backend.address, ""));
        let containers = ["c-1", "c-2"].map(of_this_test);
        let addresses = containers.each_ref().map(|container| agent.reserve(container, "web.1"));
        let (mut sent, deadline) = (0.0, Instant::now() + Duration::from_millis(2500));
        while Instant::now() < deadline {
            for address in &addresses {
                address.send("hits:2|c\nhits:1|c|#route:/pay\nlatency:7:8|ms\nlevel:3|g");
                sent += 1.0;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        until_increased(&agent, &receiver, "hits_total", 3.0 * sent);
        assert_eq!(receiver.stored().increase("latency_seconds_count"), 2.0 * sent);
        let sum = receiver.stored().increase("latency_seconds_sum");
        assert!((sum - 0.015 * sent).abs() < 1e-9, "{sum}");
        let first = receiver.stored().samples("latency_seconds_count")[0];
        assert_eq!((first.0 % 1000, first.1), (2, 0.0), "a zero, two milliseconds after the window's start");
        assert_eq!(receiver.stored().resets("hits_total"), 0);
        assert_nothing_refused(&receiver);
        let requests = receiver.backend.requests();
        let versions = |name: &str| requests.iter().filter(|(it, _)| it.headers[name] == "2.0.0").count();
        let of_2 = versions("x-prometheus-remote-write-version");
        assert!(if speaks_v2 { of_2 == requests.len() } else { of_2 == 1 }, "{of_2} of {}", requests.len());
        assert_eq!(agent.log().contains("1.0 is used"), !speaks_v2);
        let records = &publisher(&agent)["records"];
        assert_eq!((&records["dropped"], &records["dead"]), (&serde_json::json!({}), &serde_json::json!(0)));
    }
}

/// The labels of each sample of a page of `/metrics/tasks`.
fn page_labels(agent: &Agent) -> BTreeSet<Labels> {
    let page = String::from_utf8(agent.get_raw("/metrics/tasks").body.to_vec()).unwrap();
    let lines = page.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let all = lines.filter_map(|line| {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, labels) = series.split_once('{')?;
        let labels = labels.trim_end_matches('}').split("\",").filter(|pair| !pair.is_empty());
        let mut labels: Labels = labels
            .map(|pair| pair.trim_end_matches('"').split_once("=\"").unwrap())
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        labels.insert("__name__".to_owned(), name.to_owned());
        (!name.ends_with("_created") && !name.starts_with("tallyport_")).then_some(labels)
    });
    all.collect()
}

#[test]
fn labels_are_those_of_a_scrape_and_those_that_it_adds() {
    let receiver = Receiver::new(true);
    let agent = agent_with(&remote_write(receiver.backend.address, "labels = [\"cluster=eu-1\"]\n"));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    address.send(
        "http.hits:2|c|#route:/pay,zone:b,task:forged\nlatency:7|ms\ngröße:3|g\nusers:a|s\nsize:4|h|#live",
    );
    until_increased(&agent, &receiver, "http_hits_total", 2.0);
    let mut pushed: BTreeSet<Labels> = receiver.stored().lasting().into_iter().cloned().collect();
    let (node, added) = (agent.get("/v1/node").1["node"].clone(), ["job", "instance", "node", "cluster"]);
    let mut of_push = BTreeMap::new();
    pushed = pushed
        .into_iter()
        .map(|mut labels| {
            of_push.extend(added.map(|name| (name, labels.remove(name).unwrap())));
            labels
        })
        .collect();
    assert_eq!((of_push["job"].as_str(), of_push["cluster"].as_str()), ("tallyport", "eu-1"));
    assert_eq!(of_push["instance"], of_push["node"]);
    assert!(node.is_null() || node == of_push["node"].as_str(), "{node}");
    let scraped = page_labels(&agent);
    assert_eq!(pushed.difference(&scraped).collect::<Vec<_>>(), Vec::<&Labels>::new());
    assert_eq!(scraped.difference(&pushed).collect::<Vec<_>>(), Vec::<&Labels>::new());
    assert!(pushed.len() > 10);
}

#[test]
fn a_containers_end_is_seen_and_the_next_one_of_its_task_begins_again() {
    let receiver = Receiver::new(true);
    let agent = agent_with(&remote_write(receiver.backend.address, ""));
    let send = |container: &str, task: &str| {
        let container = of_this_test(container);
        agent.reserve(&container, task).send("hits:5|c\nlevel:3|g\nlatency:7|ms");
        container
    };
    let (ends, _stays) = (send("c-1", "web.1"), send("c-2", "web.2"));
    until_increased(&agent, &receiver, "hits_total", 10.0);
    agent.finish(&ends);
    let ended = Instant::now();
    let lasting = |task: &str| receiver.stored().lasting().iter().filter(|of| of["task"] == task).count();
    agent.until("every series of the ended one is marked", || lasting("web.1") == 0);
    assert!(ended.elapsed() < Duration::from_secs(15), "{:?}", ended.elapsed());
    assert_eq!(lasting("web.2"), 9);
    let _next = send("c-3", "web.1");
    until_increased(&agent, &receiver, "hits_total", 15.0);
    assert_eq!(receiver.stored().resets("hits_total"), 1, "the new one begins at zero");
    assert_nothing_refused(&receiver);
}

#[test]
fn every_kind_of_refusal_is_overcome_and_nothing_is_lost_or_counted_twice() {
    let receiver = Receiver::new(true);
    let mut replies = [
        Reply::Status(401, "", "no org id"),
        Reply::Status(404, "", "not enabled"),
        Reply::Status(429, "retry-after: 1", ""),
        Reply::Status(503, "", "overloaded"),
        Reply::Status(500, "", "the disk is full"),
        Reply::Hang,
    ]
    .into_iter()
    .cycle();
    let mut turn = 0;
    receiver.follow(move |_| {
        turn += 1;
        // Two of three are answered otherwise.
        (turn % 3 != 0 && turn < 30).then(|| replies.next().unwrap())
    });
    let agent = agent_with(&remote_write(receiver.backend.address, ""));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    let mut sent = 0.0;
    let deadline = Instant::now() + Duration::from_secs(4);
    while Instant::now() < deadline {
        address.send("hits:2|c\nhits:1|c|#route:/pay\nlatency:7|ms");
        sent += 3.0;
        std::thread::sleep(Duration::from_millis(50));
        publisher(&agent);
    }
    until_increased(&agent, &receiver, "hits_total", sent);
    assert_nothing_refused(&receiver);
    let records = &publisher(&agent)["records"];
    assert_eq!((&records["dropped"], &records["dead"]), (&serde_json::json!({}), &serde_json::json!(0)));
}

#[test]
fn a_lost_answer_costs_nothing() {
    let receiver = Receiver::new(true);
    let agent = agent_with(&remote_write(receiver.backend.address, ""));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    address.send("hits:5|c");
    until_increased(&agent, &receiver, "hits_total", 5.0);
    // The next requests are stored, and their answers come too late.
    let (stored, mut left) = (receiver.stored_apart(), 3);
    receiver.follow(move |request| {
        left -= 1;
        (left >= 0).then(|| {
            let _late = stored.lock().unwrap().take(request, true);
            Reply::Hang
        })
    });
    address.send("hits:7|c");
    until_increased(&agent, &receiver, "hits_total", 12.0);
    assert_nothing_refused(&receiver);
}

#[test]
fn a_refused_series_is_found_and_kept_and_everything_else_arrives() {
    for speaks_v2 in [true, false] {
        let receiver = Receiver::new(speaks_v2);
        let poisoned = move |request: &super::Received| {
            (speaks_v2 || !is_v2(request))
                && decode(request).iter().any(|sample| sample.labels["__name__"] == "poison_total")
        };
        receiver.follow(move |request| {
            let header = if speaks_v2 { "X-Prometheus-Remote-Write-Samples-Written: 0" } else { "" };
            poisoned(request).then_some(Reply::Status(400, header, "out of bounds"))
        });
        let agent = agent_with(&remote_write(receiver.backend.address, ""));
        let address = agent.reserve(&of_this_test("c-1"), "web.1");
        for n in 0..400 {
            address.send(format!("series.{n}:1|c"));
        }
        address.send("poison:1|c");
        let arrived =
            || (0..400).map(|n| receiver.stored().increase(&format!("series_{n}_total"))).sum::<f64>();
        agent.until("all others arrive", || arrived() == 400.0);
        agent.until("it is dead", || publisher(&agent)["records"]["dead"] == 1);
        until_delivered(&agent);
        let requests = receiver.backend.requests().len();
        assert!(requests <= 30, "{requests}");
        let dead = agent.cli(&["publish", "dead", "r"]);
        assert!(
            dead.out.contains("counter poison of web.1") && dead.out.contains("out of bounds"),
            "{dead:?}"
        );
        receiver.follow(|_| None);
        let replayed = agent.cli(&["publish", "replay", "r"]);
        assert_eq!((replayed.code, replayed.out.as_str()), (0, "1 records were accepted, 0 were not\n"));
        assert_eq!(receiver.stored().samples("poison_total").last().unwrap().1, 1.0);
        // Windows are not sent again: their samples would be older than what the receiver has.
        let again = agent.cli(&["publish", "replay", "r", "--since", "5m"]);
        assert!(again.out.contains("0 records were accepted"), "{again:?}");
    }
}

#[test]
fn a_series_that_the_receiver_fails_on_is_found_and_holds_up_nothing() {
    let receiver = Receiver::new(true);
    receiver.follow(|request| {
        let fails = decode(request).iter().any(|sample| sample.labels["__name__"] == "poison_total");
        fails.then_some(Reply::Status(500, "", "label name is not unique"))
    });
    let agent = agent_with(&remote_write(receiver.backend.address, ""));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    for n in 0..40 {
        address.send(format!("series.{n}:1|c"));
    }
    address.send("poison:1|c");
    let arrived = || (0..40).map(|n| receiver.stored().increase(&format!("series_{n}_total"))).sum::<f64>();
    agent.until("all others arrive", || arrived() == 40.0);
    agent.until("it is dead", || publisher(&agent)["records"]["dead"] == 1);
    until_delivered(&agent);
    assert_nothing_refused(&receiver);
}

#[test]
fn a_series_whose_samples_are_too_old_for_the_receiver_costs_only_itself() {
    for speaks_v2 in [true, false] {
        let receiver = Receiver::new(speaks_v2);
        let agent = agent_with(&remote_write(receiver.backend.address, ""));
        let address = agent.reserve(&of_this_test("c-1"), "web.1");
        address.send("late:1|g\nhits:1|c");
        until_increased(&agent, &receiver, "hits_total", 1.0);
        // Another sender has sent a sample of this series that is an hour ahead.
        receiver.stored().move_newest("late", 3_600_000);
        for n in 0..300 {
            address.send(format!("series.{n}:1|c"));
        }
        address.send("late:2|g");
        let arrived =
            || (0..300).map(|n| receiver.stored().increase(&format!("series_{n}_total"))).sum::<f64>();
        agent.until("all others arrive", || arrived() == 300.0);
        agent.until("it is dead", || publisher(&agent)["records"]["dead"].as_u64() >= Some(1));
        let dead = agent.cli(&["publish", "dead", "r"]);
        assert!(dead.out.lines().all(|line| line.contains("gauge late of web.1")), "{dead:?}");
    }
}

#[test]
fn a_receiver_with_a_limit_gets_smaller_requests() {
    let receiver = Receiver::new(true);
    receiver.follow(|request| (decode(request).len() > 50).then_some(Reply::Status(413, "", "too large")));
    let agent = agent_with(&remote_write(receiver.backend.address, ""));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    for n in 0..200 {
        address.send(format!("series.{n}:1|c"));
    }
    let arrived = || (0..200).map(|n| receiver.stored().increase(&format!("series_{n}_total"))).sum::<f64>();
    agent.until("all arrive", || arrived() == 200.0);
    until_delivered(&agent);
    assert_eq!(publisher(&agent)["records"]["dead"], 0);
    assert_nothing_refused(&receiver);
}

#[test]
fn late_samples_are_part_of_the_next_total() {
    let receiver = Receiver::new(true);
    let agent = agent_with(&remote_write(receiver.backend.address, ""));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    address.send("hits:5|c\nlevel:1|g");
    until_increased(&agent, &receiver, "hits_total", 5.0);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs();
    std::thread::sleep(Duration::from_millis(1500));
    address.send(format!("hits:7|c|T{now}\nlevel:9|g|T{}", now - 1));
    // No window of this series follows.
    until_increased(&agent, &receiver, "hits_total", 12.0);
    address.send("hits:1|c\nlevel:2|g");
    until_increased(&agent, &receiver, "hits_total", 13.0);
    assert_eq!(receiver.stored().samples("level").last().unwrap().1, 2.0);
    assert_nothing_refused(&receiver);
}

#[test]
fn a_restart_in_order_and_a_kill_begin_at_zero_and_count_nothing_twice() {
    let receiver = Receiver::new(true);
    let config = remote_write(receiver.backend.address, "");
    let (mut directory, mut sent) = (tempfile::tempdir().unwrap(), 0.0);
    for run in 0..4 {
        let mut agent = agent_in(directory, &config);
        let address = agent.reserve(&of_this_test(&format!("c-{run}")), "web.1");
        for _ in 0..60 {
            address.send("hits:2|c");
            sent += 2.0;
            std::thread::sleep(Duration::from_millis(20));
        }
        if run % 2 == 0 {
            // What is open is sent at the end.
            directory = agent.into_directory();
            assert_eq!(receiver.stored().increase("hits_total"), sent);
        } else {
            until_increased(&agent, &receiver, "hits_total", sent);
            agent.signal(Signal::SIGKILL);
            agent.wait();
            directory = agent.into_dead_directory();
        }
    }
    assert_eq!(receiver.stored().increase("hits_total"), sent);
    assert_eq!(receiver.stored().resets("hits_total"), 3);
    assert_nothing_refused(&receiver);
}

#[test]
fn a_kill_while_a_round_is_sent_counts_it_at_most_once() {
    let receiver = Receiver::new(true);
    let config = remote_write(receiver.backend.address, "");
    let mut agent = agent_in(tempfile::tempdir().unwrap(), &config);
    agent.reserve(&of_this_test("c-1"), "web.1").send("hits:2|c");
    until_increased(&agent, &receiver, "hits_total", 2.0);
    // It is stored, and the agent is killed before it knows.
    let stored = receiver.stored_apart();
    receiver.follow(move |request| {
        let zeros = decode(request).iter().all(|sample| sample.bits == 0);
        (!zeros).then(|| {
            let _unseen = stored.lock().unwrap().take(request, true);
            Reply::Hang
        })
    });
    let container = of_this_test("c-2");
    agent.reserve(&container, "web.2").send("hits:3|c\nother:1|c");
    agent.until("it is stored", || receiver.stored().increase("hits_total") == 5.0);
    agent.signal(Signal::SIGKILL);
    agent.wait();
    receiver.follow(|_| None);
    let agent = agent_in(agent.into_dead_directory(), &config);
    agent.reserve(&of_this_test("c-3"), "web.1").send("hits:4|c");
    agent.until("the next arrives", || receiver.stored().increase("hits_total") == 9.0);
    until_delivered(&agent);
    assert_nothing_refused(&receiver);
    assert_eq!(publisher(&agent)["records"]["dead"], 0);
}

#[test]
fn a_changed_address_goes_on_with_the_totals_and_with_the_round_that_is_under_way() {
    let receiver = Receiver::new(true);
    let agent = agent_with(&remote_write(receiver.backend.address, ""));
    let address = agent.reserve(&of_this_test("c-1"), "web.1");
    address.send("hits:5|c");
    until_increased(&agent, &receiver, "hits_total", 5.0);
    let stored = receiver.stored_apart();
    receiver.follow(move |request| {
        let _unseen = stored.lock().unwrap().take(request, true);
        Some(Reply::Hang)
    });
    address.send("hits:6|c");
    agent.until("it is stored, and not known to be", || receiver.stored().increase("hits_total") == 11.0);
    let other = Receiver::new(true);
    receiver.share_with(&other);
    let file = agent.admin_socket().with_file_name("agent.toml");
    let config = format!("publish.settle = \"100ms\"\n{}", remote_write(other.backend.address, ""));
    std::fs::write(&file, config).unwrap();
    let (status, answer) = agent.admin("POST", "/v1/config/reload", &Value::Null);
    assert_eq!(status, 200, "{answer}");
    address.send("hits:7|c");
    until_increased(&agent, &other, "hits_total", 18.0);
    assert_eq!(other.stored().resets("hits_total"), 0);
    assert_nothing_refused(&other);
}

#[test]
fn what_was_not_delivered_before_the_end_of_an_agent_is_delivered_by_the_next() {
    let receiver = Receiver::new(true);
    receiver.follow(|_| Some(Reply::Status(503, "", "")));
    let config = remote_write(receiver.backend.address, "");
    let agent = agent_with(&config);
    agent.reserve(&of_this_test("c-1"), "web.1").send("hits:5|c");
    agent.until("it is tried", || !receiver.backend.requests().is_empty());
    let directory = agent.into_directory();
    receiver.follow(|_| None);
    let agent = agent_in(directory, &config);
    until_increased(&agent, &receiver, "hits_total", 5.0);
    assert_nothing_refused(&receiver);
}

#[test]
fn native_histograms_count_every_value() {
    let receiver = Receiver::new(true);
    let agent = agent_with(&remote_write(receiver.backend.address, "timers = \"native\"\n"));
    agent.reserve(&of_this_test("c-1"), "web.1").send("hits:5|c\nlatency:7:8:9|ms");
    until_increased(&agent, &receiver, "hits_total", 5.0);
    assert!(receiver.stored().lasting().iter().all(|labels| !labels["__name__"].starts_with("latency")));
    let records = &publisher(&agent)["records"];
    assert_eq!((&records["delivered"], &records["dropped"]), (&serde_json::json!(2), &serde_json::json!({})));
}

#[test]
fn a_receiver_of_1_0_alone_is_not_taken_to_understand_2_0() {
    let receiver = Receiver::new(false);
    let agent = agent_with(&remote_write(receiver.backend.address, "version = \"2.0\"\n"));
    agent.reserve(&of_this_test("c-1"), "web.1").send("hits:5|c");
    agent.until("it is held", || publisher(&agent)["state"] == "held");
    let held = publisher(&agent);
    assert!(held["last_answer"].as_str().unwrap().contains("does not understand remote write 2.0"), "{held}");
    assert_eq!(held["records"]["delivered"], 0);
    let check = agent.cli(&["publish", "check", "r"]);
    assert!(check.code == 1 && check.out.contains("does not understand"), "{check:?}");
    assert_eq!(receiver.stored().len(), 0);
}

#[test]
fn a_probe_finds_the_version_that_is_understood() {
    let receiver = Receiver::new(false);
    let agent = agent_with(&remote_write(receiver.backend.address, ""));
    let check = agent.cli(&["publish", "check", "r"]);
    assert_eq!(check.code, 0, "{check:?}");
    let stored = receiver.stored();
    let names: Vec<_> = stored.lasting().iter().map(|labels| labels["__name__"].clone()).collect();
    assert!(names.len() == 1 && names[0].contains("publish_check"), "{names:?}");
}
