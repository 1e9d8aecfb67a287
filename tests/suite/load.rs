//! Two million values of known totals, all accounted for.

use std::process::Command;

use serde_json::{Value, json};

use crate::agent::{Agent, Ran, ran};

fn load(agent: &Agent, flags: &[&str]) -> (Ran, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tallyport-load"));
    let url = format!("http://{}", agent.http);
    command.args(["--json", "--url", &url, "--admin-socket"]).arg(agent.admin_socket()).args(flags);
    let ran = ran(&mut command);
    let report = serde_json::from_str(&ran.out).unwrap_or_default();
    (ran, report)
}

#[test]
fn two_million_values_from_64_containers_are_all_accounted_for() {
    // Buffers large enough for a busy machine: another test covers drops of the kernel.
    let large = ["--set", "listeners.receive_buffer=8MiB", "--set", "listeners.receive_buffers=1GiB"];
    let agent = Agent::with(
        &[&["--window", "1s", "--keep", "600", "--set", "limits.series=200"], &large[..]].concat(),
    );
    let flags = [
        "--containers",
        "64",
        "--samples",
        "2000000",
        "--rate",
        "30000",
        "--over-caps",
        "2",
        "--series-cap",
        "200",
    ];
    let (ran, report) = load(&agent, &flags);
    assert_eq!((ran.code, &report["mismatches"]), (0, &json!([])), "{}{}", ran.out, ran.err);
    let n = |key: &str| report[key].as_u64().unwrap();
    assert!(n("values") >= 2_000_000 && n("bad_lines") > 0 && n("dropped") > 0, "{report}");
    assert_eq!(n("sent"), n("received") + n("kernel_drops"));
    assert_eq!(n("kernel_drops"), 0, "nothing is compared where the kernel has dropped: {report}");
    assert_eq!(n("values"), n("in_records") + n("dropped"));
    let (_, accounting) = agent.get("/v1/accounting");
    assert_eq!(accounting["total"]["values"]["accepted"], report["values"]);
    assert_eq!(accounting["total"]["balanced"], true);
}

#[test]
fn what_the_kernel_drops_is_counted_too() {
    let agent = Agent::with(&["--window", "1s", "--keep", "600", "--set", "listeners.receive_buffer=8KiB"]);
    let (ran, report) = load(&agent, &["--containers", "4", "--samples", "400000", "--rate", "0"]);
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    let n = |key: &str| report[key].as_u64().unwrap();
    assert_eq!(n("sent"), n("received") + n("kernel_drops"));
}

#[test]
fn a_wrong_total_is_found() {
    // The generator assumes another cap than the agent's.
    let agent = Agent::with(&["--window", "1s", "--keep", "600", "--set", "limits.series=100"]);
    let (ran, report) =
        load(&agent, &["--containers", "2", "--samples", "5000", "--over-caps", "1", "--series-cap", "110"]);
    assert_eq!(ran.code, 1);
    assert!(!report["mismatches"].as_array().unwrap().is_empty());
}
