//! Kills: a few under load, and a few at calls that write. `make e2e-kill` has the complete set.

use std::path::Path;
use std::process::Command;

use crate::agent::{BINARY, Ran, ran};
use crate::tools;

/// Runs a check of `integration/crash` with the tested binaries.
pub(crate) fn crash(check: &str, flags: &[&str]) -> Option<Ran> {
    let python = tools::program("python3", "scripts/setup python")?;
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("integration/crash").join(check);
    let binaries = Path::new(BINARY).parent().unwrap();
    let ran = ran(Command::new(python).arg("-B").arg(script).arg("--binaries").arg(binaries).args(flags));
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    Some(ran)
}

#[test]
fn kills_under_load_cost_a_checkpoints_interval_and_no_window() {
    let Some(ran) = crash(
        "kills.py",
        &["--kills", "10", "--longest", "1.2", "--rate", "2000", "--back-within", "5", "--slack", "2"],
    ) else {
        return;
    };
    assert!(ran.out.contains("kills: 10 kills, "), "{}", ran.out);
}

#[test]
fn a_kill_at_a_call_that_writes_is_recovered_from() {
    let Some(_) = tools::program("cc", "scripts/setup cc") else { return };
    let Some(ran) = crash("faults.py", &["--every", "20", "--slack", "1"]) else { return };
    assert!(ran.out.contains("each recovered from"), "{}", ran.out);
}

#[test]
fn a_quarter_of_a_minute_of_everything_at_random_closes_its_accounts() {
    let Some(ran) = crash("soak.py", &["12", "--slack", "2"]) else { return };
    assert!(ran.out.contains("soak: containers "), "{}", ran.out);
}
