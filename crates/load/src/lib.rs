//! The load generator: sends traffic whose totals are known, then asks the agent what arrived.
//!
//! Each container has a *cycle*, a few datagrams that are sent repeatedly, so that sending costs almost nothing and
//! every expected total is that of one cycle times the number of cycles. Values are multiples of one half and weights
//! are whole numbers, so that sums are exact in f64, in any order.

mod check;
mod cycle;
mod send;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use serde::Serialize;
use tallyport_client::{Client, Target};

pub use check::{Checked, Mismatch};
pub use cycle::{Cycle, Expected, Flood, TrafficShape};
pub use send::{Outlasted, SendTotals, StopCondition, Traffic, send};

/// Sends StatsD traffic with known totals to an agent, and checks what it counted.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "tallyport-load",
    version,
    after_help = "\
Examples:
  tallyport-load --containers 64 --samples 2000000 --rate 40000
  tallyport-load --containers 64 --samples 2000000 --over-caps 2 --series-cap 200 --json
  sleep 60 | tallyport-load --containers 64 --outlast

Exit codes: 0 every total agrees, 1 something differs or the agent does not answer, 2 usage"
)]
pub struct LoadOptions {
    /// Containers to reserve, each with a socket of its own
    #[arg(long, default_value_t = 64)]
    pub containers: usize,
    /// Values to send in all, at least; for as long as standard input lasts with --outlast
    #[arg(long, default_value_t = 2_000_000)]
    pub samples: u64,
    /// Datagrams a second over all containers; 0 = as fast as possible
    #[arg(long, default_value_t = 40_000)]
    pub rate: u64,
    /// Lines in a datagram
    #[arg(long, default_value_t = 8)]
    pub packing: usize,
    /// Series of each container
    #[arg(long, default_value_t = 60)]
    pub series: usize,
    /// Percentage of invalid lines
    #[arg(long, default_value_t = 2)]
    pub bad: usize,
    /// Containers that send more series than they may have
    #[arg(long, default_value_t = 0)]
    pub over_caps: usize,
    /// The agent's limits.series
    #[arg(long, default_value_t = 10_000)]
    pub series_cap: usize,
    /// Keep sending without an agent until standard input ends; then print what was sent without comparing it
    #[arg(long, conflicts_with = "over_caps")]
    pub outlast: bool,
    /// URL of the agent
    #[arg(long, env = "TALLYPORT_URL", default_value = "http://127.0.0.1:9725", hide_env_values = true)]
    pub url: Target,
    /// The agent's admin socket
    #[arg(long, env = "TALLYPORT_ADMIN_SOCKET", hide_env_values = true)]
    pub admin_socket: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Why the generator could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The agent does not answer.
    #[error(transparent)]
    Client(#[from] tallyport_client::ClientError),
    /// The agent refused a request.
    #[error("{what}: the agent answered {status}: {body}")]
    Refused {
        /// The request.
        what: String,
        /// HTTP status code.
        status: u16,
        /// Body of the response.
        body: String,
    },
    /// A socket failed.
    #[error("cannot send: {0}")]
    Send(#[from] std::io::Error),
    /// A response cannot be parsed.
    #[error("cannot read the agent's answer: {0}")]
    Garbled(#[from] serde_json::Error),
}

/// What was sent and what the agent counted, over all containers.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LoadReport {
    /// Number of containers that sent.
    pub containers: usize,
    /// Datagrams sent.
    pub sent: u64,
    /// Values sent on lines that can be read.
    pub values: u64,
    /// Lines sent that cannot be read.
    pub bad_lines: u64,
    /// Datagrams the agent has read.
    pub received: u64,
    /// Datagrams the kernel dropped.
    pub kernel_drops: u64,
    /// Values in records.
    pub in_records: u64,
    /// Values dropped at limits.
    pub dropped: u64,
    /// How long sending took, in seconds.
    pub seconds: f64,
    /// What differs.
    pub mismatches: Vec<Mismatch>,
}

/// Runs the generator with these options and prints what it found.
#[must_use]
pub fn main(options: &LoadOptions) -> ExitCode {
    let mut out = std::io::stdout();
    let done = if options.outlast {
        send::send_until_input_ends(options).map(|sent| {
            let _closed_pipe = send::print_totals(&mut out, &sent);
            true
        })
    } else {
        run(options).map(|report| {
            let _closed_pipe = print_report(&mut out, options, &report);
            report.mismatches.is_empty()
        })
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _closed_pipe =
                std::io::Write::write_fmt(&mut std::io::stderr(), format_args!("tallyport-load: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Reserves, sends, releases, and compares.
///
/// # Errors
/// When the agent does not answer or a socket fails. What differs is in the report.
pub fn run(options: &LoadOptions) -> Result<LoadReport, LoadError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = Client::new(Target::Unix(options.admin_socket.clone()));
    let http = Client::new(options.url.clone());
    let (names, cycles) = generate_traffic(options);
    let addresses = runtime.block_on(check::reserve_sockets(&admin, &names, None))?;
    let per_cycle: u64 = cycles.iter().map(|cycle| cycle.expected.values).sum();
    let rounds = options.samples.div_ceil(per_cycle.max(1));
    let sent = send(&cycles, &addresses, StopCondition::Rounds(rounds), options.rate)?;
    runtime.block_on(async {
        check::release_containers(&admin, &names).await?;
        let mut report =
            LoadReport { containers: names.len(), seconds: sent.took.as_secs_f64(), ..LoadReport::default() };
        for (name, cycle) in names.iter().zip(&cycles) {
            let expected = cycle.expected.after_rounds(rounds);
            let checked = check::compare_container(&http, name, &expected).await?;
            report.add(&expected, checked);
        }
        Ok(report)
    })
}

/// The containers' names, and the cycle that each sends.
fn generate_traffic(options: &LoadOptions) -> (Vec<String>, Vec<Cycle>) {
    let cycle = |index| Cycle::new(&container_shape(options, index));
    let name = |index| format!("load-{}-{index}", std::process::id());
    ((0..options.containers).map(name).collect(), (0..options.containers).map(cycle).collect())
}

/// The last containers are those over their caps.
fn container_shape(options: &LoadOptions, index: usize) -> TrafficShape {
    let over = index + options.over_caps >= options.containers;
    TrafficShape {
        seed: index as u64,
        series: options.series,
        packing: options.packing,
        bad_percent: options.bad,
        flood: over.then_some(Flood { cap: options.series_cap, excess: options.series_cap }),
    }
}

impl LoadReport {
    fn add(&mut self, expected: &Expected, checked: Checked) {
        self.sent += expected.datagrams;
        self.values += expected.values;
        self.bad_lines += expected.bad_lines;
        self.received += checked.received;
        self.kernel_drops += checked.kernel_drops;
        self.in_records += checked.in_records;
        self.dropped += checked.dropped;
        self.mismatches.extend(checked.mismatches);
    }
}

fn print_report(
    out: &mut impl std::io::Write,
    options: &LoadOptions,
    report: &LoadReport,
) -> std::io::Result<()> {
    if options.json {
        serde_json::to_writer_pretty(&mut *out, report)?;
        return writeln!(out);
    }
    writeln!(out, "containers    {:>12}", report.containers)?;
    writeln!(
        out,
        "datagrams     {:>12} sent = {} received + {} dropped by the kernel",
        report.sent, report.received, report.kernel_drops
    )?;
    writeln!(
        out,
        "values        {:>12} sent = {} in records + {} dropped at limits",
        report.values, report.in_records, report.dropped
    )?;
    writeln!(out, "bad lines     {:>12}", report.bad_lines)?;
    let rate = report.values as f64 / Duration::from_secs_f64(report.seconds.max(1e-9)).as_secs_f64();
    writeln!(out, "took          {:>12.2} s, {rate:.0} values/s", report.seconds)?;
    for mismatch in &report.mismatches {
        writeln!(out, "DIFFERS       {mismatch}")?;
    }
    writeln!(out, "{}", if report.mismatches.is_empty() { "every total agrees" } else { "totals differ" })
}
