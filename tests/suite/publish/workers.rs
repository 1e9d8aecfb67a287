//! Publishers with several workers: their requests overlap, each series keeps its order, and one that is stuck holds up its round alone.

use nix::sys::signal::Signal;

use super::batch::wait_for_batch;
use super::receiver::{Receiver, decode};
use super::*;

const TASKS: usize = 24;

/// Containers of tasks of their own, so that workers share them.
fn reserve_all(agent: &Agent) -> Vec<crate::agent::Address> {
    let name = |n: usize| of_this_test(&format!("c-{n}"));
    (0..TASKS).map(|n| agent.reserve(&name(n), &format!("web.{n}"))).collect()
}

/// How many requests a backend had at the same time, if each answer took this long.
fn count_overlapping(backend: &Backend, delay: Duration) -> usize {
    let received: Vec<_> = backend.requests().iter().map(|(request, _)| request.at).collect();
    let at = |moment: Instant| received.iter().filter(|at| **at <= moment && moment < **at + delay).count();
    received.iter().map(|moment| at(*moment)).max().unwrap_or(0)
}

#[test]
fn as_many_requests_overlap_as_there_are_workers() {
    const DELAY: Duration = Duration::from_millis(150);
    /// Less than [`DELAY`] by what timers may be off.
    const SURELY_DELAYED: Duration = Duration::from_millis(130);
    for workers in [1, 4] {
        let backend = Backend::new(|_| TAKEN);
        backend.answer_after(DELAY);
        let agent = agent_with(&format!("{}workers = {workers}\n", influx(backend.address)));
        let addresses = reserve_all(&agent);
        let (mut sent, deadline) = (0.0, Instant::now() + Duration::from_millis(2500));
        while Instant::now() < deadline {
            for address in &addresses {
                address.send("hits:2|c\nhits:1|c|#route:/pay");
                sent += 3.0;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        agent.until("all arrive", || backend.sum("hits") == sent);
        until_delivered(&agent);
        assert_eq!(count_overlapping(&backend, SURELY_DELAYED), workers);
        let records = &publisher(&agent)["records"];
        assert_eq!((&records["dropped"], &records["dead"]), (&json!({}), &json!(0)));
    }
}

#[test]
fn each_series_arrives_in_order_at_a_receiver_that_refuses_all_else() {
    let receiver = Receiver::new(true);
    receiver.backend.answer_after(Duration::from_millis(50));
    let mut turn = 0;
    receiver.follow(move |_| {
        turn += 1;
        match turn % 7 {
            3 => Some(Reply::Status(503, "", "overloaded")),
            5 => Some(Reply::Hang),
            _ => None,
        }
    });
    let agent = agent_with(&format!(
        "[publish.r]\ntype = \"remote_write\"\nurl = \"http://{}/w\"\ntimeout = \"500ms\"\nproxy = \"\"\nworkers = 4\n",
        receiver.backend.address
    ));
    let addresses = reserve_all(&agent);
    let (mut sent, deadline) = (0.0, Instant::now() + Duration::from_secs(4));
    while Instant::now() < deadline {
        for address in &addresses {
            address.send("hits:2|c\nlatency:7|ms");
            sent += 2.0;
        }
        std::thread::sleep(Duration::from_millis(50));
        publisher(&agent);
    }
    receiver.follow(|_| None);
    agent.until("what was sent arrives", || receiver.stored().increase("hits_total") == sent);
    until_delivered(&agent);
    let stored = receiver.stored();
    assert!(stored.refused.is_empty(), "{:#?}", stored.refused);
    assert_eq!(stored.resets("hits_total"), 0);
}

#[test]
fn one_stuck_request_holds_up_its_round_and_no_other_request_of_it() {
    let stuck = |request: &Received| request.lines.iter().any(|line| line.contains("task=web.7 "));
    let backend = Backend::new(move |request| if stuck(request) { Reply::Hang } else { TAKEN });
    let agent = agent_with(&format!("{}workers = 4\n", influx(backend.address)));
    let addresses = reserve_all(&agent);
    let send = || addresses.iter().for_each(|address| address.send("hits:5|c"));
    // So that all are in one round.
    wait_for_batch(1);
    send();
    // A quarter of them shares a request with the one that is stuck.
    agent.until("the others arrive", || backend.sum("hits") >= 5.0 * (TASKS / 2) as f64);
    agent.until("the stuck one is repeated", || {
        backend.requests().iter().filter(|(it, _)| stuck(it)).count() >= 2
    });
    let publisher = publisher(&agent);
    assert!(
        publisher["records"]["pending"].as_u64() >= Some(TASKS as u64),
        "the cursor stays: {publisher:#}"
    );
    let before = backend.sum("hits");
    send();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(backend.sum("hits"), before, "the next round waits");
    backend.follow(|_| TAKEN);
    agent.until("all arrive", || backend.sum("hits") == 10.0 * TASKS as f64);
    until_delivered(&agent);
}

#[test]
fn a_kill_while_workers_send_loses_none_and_repeats_the_same_bytes() {
    let mut turn = 0;
    let backend = Backend::new(move |_| {
        turn += 1;
        if turn % 2 == 0 { Reply::Hang } else { TAKEN }
    });
    let config = format!("{}workers = 4\n", influx(backend.address));
    let mut agent = agent_with(&config);
    let addresses = reserve_all(&agent);
    wait_for_batch(1);
    addresses.iter().for_each(|address| address.send("hits:5|c"));
    agent.until("some are stuck", || {
        backend.requests().iter().filter(|(_, status)| *status == 0).count() >= 2
    });
    agent.signal(Signal::SIGKILL);
    agent.wait();
    backend.follow(|_| TAKEN);
    let agent = agent_in(agent.into_dead_directory(), &config);
    agent.until("all arrive", || backend.sum("hits") == 5.0 * TASKS as f64);
    until_delivered(&agent);
    let requests = backend.requests();
    let taken: Vec<_> =
        requests.iter().filter(|(_, status)| *status == 204).map(|(it, _)| &it.lines).collect();
    let stuck = requests.iter().filter(|(_, status)| *status == 0).map(|(request, _)| &request.lines);
    assert!(stuck.into_iter().all(|lines| taken.contains(&lines)));
}

#[test]
fn a_server_that_asks_one_worker_to_wait_is_left_alone_by_all() {
    let mut asked = false;
    let backend = Backend::new(move |_| match std::mem::replace(&mut asked, true) {
        false => Reply::Status(429, "retry-after: 2", ""),
        true => TAKEN,
    });
    let agent = agent_with(&format!("{}workers = 2\n", influx(backend.address)));
    let addresses = reserve_all(&agent);
    addresses.iter().for_each(|address| address.send("hits:5|c"));
    agent.until("it waits", || publisher(&agent)["state"] == "retrying");
    addresses.iter().for_each(|address| address.send("hits:5|c"));
    agent.until("all arrive", || backend.sum("hits") == 10.0 * TASKS as f64);
    let requests = backend.requests();
    let busy = requests.iter().find(|(_, status)| *status == 429).unwrap().0.at;
    let gap =
        requests.iter().map(|(request, _)| request.at - busy).find(|gap| *gap > Duration::from_millis(500));
    assert!(gap.unwrap() >= Duration::from_millis(1990), "{gap:?}");
    until_delivered(&agent);
}

#[test]
fn a_refused_series_is_found_by_the_worker_that_has_it() {
    let receiver = Receiver::new(true);
    receiver.follow(|request| {
        let poisoned = decode(request).iter().any(|sample| sample.labels["__name__"] == "poison_total");
        poisoned.then_some(Reply::Status(
            400,
            "X-Prometheus-Remote-Write-Samples-Written: 0",
            "out of bounds",
        ))
    });
    let agent = agent_with(&format!(
        "[publish.r]\ntype = \"remote_write\"\nurl = \"http://{}/w\"\ntimeout = \"1s\"\nproxy = \"\"\nworkers = 3\n",
        receiver.backend.address
    ));
    let addresses = reserve_all(&agent);
    addresses[3].send("poison:1|c");
    addresses.iter().for_each(|address| address.send("hits:5|c\nlevel:1|g"));
    agent.until("all others arrive", || receiver.stored().increase("hits_total") == 5.0 * TASKS as f64);
    agent.until("it is dead", || publisher(&agent)["records"]["dead"] == 1);
    until_delivered(&agent);
    assert!(receiver.backend.requests().len() <= 60, "{}", receiver.backend.requests().len());
}
