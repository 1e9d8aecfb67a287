//! The plugin's effect on start times: containers are started in turn by a containerd with it and one without it, while
//! the agent serves a thousand other containers.
//!
//! cost [ROUNDS]

use std::time::{Duration, Instant};

use tallyport_nri::agent::Agent;
use tallyport_nri::containerd::Containerd;
use tallyport_nri::cri::{Cri, Pod};

const POD: Pod =
    Pod { name: "cost", uid: "u-cost", namespace: "shop", own_network: false, annotations: &[], labels: &[] };
const OTHERS: usize = 1000;

fn main() {
    let rounds = std::env::args().nth(1).map_or(100, |text| text.parse().expect("a number of rounds"));
    let mut nodes = [Containerd::start(), Containerd::start()];
    let cris = nodes.each_ref().map(Containerd::cri);
    let directory = tempfile::tempdir().expect("a directory");
    let agent = Agent::start(directory.path(), &nodes[0].nri_socket(), &["log.filter=warn"]);
    for n in 0..OTHERS {
        let body = format!(r#"{{"container_id":"other-{n}","task_id":"others","ttl":null}}"#);
        assert!(agent.post("/v1/containers", &body), "container {n} is reserved");
    }
    let pods = [0, 1].map(|at: usize| {
        let pod = Pod { uid: ["u-with", "u-without"][at], ..POD };
        let id = cris[at].run_pod(&pod);
        nodes[at].owns(&id);
        (pod, id)
    });
    let mut took = [Vec::new(), Vec::new()];
    for round in 0..rounds {
        // Each goes first in every other round.
        for at in if round % 2 == 0 { [0, 1] } else { [1, 0] } {
            took[at].push(start(&cris[at], &pods[at].0, &pods[at].1, round));
        }
    }
    let [with, without] = took.each_mut().map(|times| {
        times.sort();
        [times.len() / 2, times.len() * 9 / 10].map(|at| times[at].as_secs_f64() * 1e3)
    });
    let handled = |quantile: &str| {
        let name = format!("tallyport_nri_handling_seconds{{quantile=\"{quantile}\"}}");
        agent.metric(&name).unwrap_or_default() * 1e3
    };
    println!("{rounds} starts each, the agent serves {OTHERS} other containers; milliseconds");
    println!("                     median     p90");
    println!("with the plugin     {:7.2} {:7.2}", with[0], with[1]);
    println!("without             {:7.2} {:7.2}", without[0], without[1]);
    println!("added               {:7.2} {:7.2}", with[0] - without[0], with[1] - without[1]);
    println!(
        "the agent's answers: median {:.3}, p99 {:.3}, longest {:.3}",
        handled("0.5"),
        handled("0.99"),
        handled("1")
    );
}

/// The time to create and start a container.
fn start(cri: &Cri, pod: &Pod, sandbox: &str, round: usize) -> Duration {
    let started = Instant::now();
    let id = cri.start(sandbox, pod, &format!("main-{round}"), &[]);
    let took = started.elapsed();
    cri.stop(&id);
    cri.remove(&id);
    took
}
