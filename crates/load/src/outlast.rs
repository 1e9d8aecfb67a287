//! Sending through the ends and starts of agents: what was sent is told, for somebody else to compare.

use std::collections::BTreeMap;
use std::io::{Read as _, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use tallyport_client::{Client, Target};

use super::cycle::ExpectedTotal;
use super::{LoadError, LoadOptions, StopCondition, check, generate_traffic, send};

/// What was sent, whether or not anybody received it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Outlasted {
    /// Datagrams sent.
    pub sent: u64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Each container's, by id.
    pub containers: BTreeMap<String, Traffic>,
}

/// What one container has sent.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Traffic {
    /// Datagrams.
    pub datagrams: u64,
    /// Values of lines that can be read.
    pub values: u64,
    /// The sum of each counter, by name.
    pub counters: BTreeMap<String, f64>,
}

/// Reserves containers that are this process, and sends until standard input ends. They end with the process, as any
/// container does.
pub(super) fn run(options: &LoadOptions) -> Result<Outlasted, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = Client::new(Target::Unix(options.admin_socket.clone()));
    let (names, cycles) = generate_traffic(options);
    let addresses = runtime.block_on(check::reserve_sockets(&admin, &names, Some(std::process::id())))?;
    let stop = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&stop);
    std::thread::spawn(move || {
        // An error is an end, too.
        let _either_way = std::io::stdin().read_to_end(&mut Vec::new());
        told.store(true, Ordering::Relaxed);
    });
    let sent = send(&cycles, &addresses, StopCondition::Told(&stop), options.rate)?;
    let containers = names.into_iter().zip(&cycles).map(|(name, cycle)| {
        let expected = cycle.expected.after_rounds(sent.rounds);
        let counters = expected.series.into_iter().filter_map(|(name, total)| match total {
            ExpectedTotal::Counter(sum) => Some((name, sum)),
            _ => None,
        });
        let (datagrams, values) = (expected.datagrams, expected.values);
        (name, Traffic { datagrams, values, counters: counters.collect() })
    });
    Ok(Outlasted { sent: sent.datagrams, seconds: sent.took.as_secs_f64(), containers: containers.collect() })
}

/// As JSON: it is for programs.
pub(super) fn print_totals(out: &mut impl Write, sent: &Outlasted) -> std::io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, sent)?;
    writeln!(out)
}
