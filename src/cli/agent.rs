//! `tallyport agent` and `keeper`, which run, and `health` and `reload`, which ask a running agent.

use std::process::ExitCode;

use serde_json::Value;

use super::args::{AgentArgs, HealthArgs, KeeperArgs, OutputFormat, ReloadArgs, Sources};
use super::background;
use super::failure::{Failure, code};
use super::output::Console;
use super::resolve::parse_response;
use super::wait::repeat_until_complete;
use crate::app::{self, ConfigSources, Ended, Loader};
use crate::client::Client;
use crate::net::{cgroup, sys};
use crate::restart::{self, Inherited, TakeOver};
use crate::telemetry;
use crate::wire::{HealthDocument, ReadyDocument, ReloadedDocument};

/// Threads of the control runtime: one can render a large response while the other handles the end of a process.
const CONTROL_THREADS: usize = 2;
/// Task polls between two checks for I/O events and for tasks woken by other threads. Tokio's default of 61 is for
/// shorter polls: beside many large responses, a small request would wait for dozens of them at each step.
const INTERVAL: u32 = 7;

pub(super) fn run_agent(args: &AgentArgs, out: &mut Console) -> Result<ExitCode, Failure> {
    if args.background || args.stop {
        let (config, _) = loader_from_args(args)?.load_config()?;
        return if args.stop {
            background::stop_agent(&config, out)
        } else {
            background::start_agent(&config, out)
        };
    }
    run_in_foreground(args)
}

fn run_in_foreground(args: &AgentArgs) -> Result<ExitCode, Failure> {
    // Before any descriptor is opened.
    let inherited = Inherited::from_environment().map_err(|error| Failure::system_error(&error))?;
    let loader = loader_from_args(args)?;
    let (config, layers) = loader.load_checked_config()?;
    let sources = ConfigSources::new(loader, layers);
    let log = telemetry::start(&config.log);
    // Before other threads are started.
    sys::bound_allocator();
    // Without the privilege, the agent sees fewer control groups, and reports that where it matters.
    if cgroup::see_those_of_the_node().unwrap_or_default() {
        tracing::debug!("entered the node's cgroup namespace");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        // A connection with a large response writes 64 KiB per poll, so check for new requests after a few of them.
        .event_interval(INTERVAL)
        .global_queue_interval(INTERVAL)
        .enable_all()
        .build()
        .map_err(|error| Failure::system_error(&error))?;
    let ended = runtime.block_on(async {
        let bound = Box::pin(app::start(config, sources, log, inherited, take_over(args))).await?;
        let on_ready = |url: &str| {
            if args.announce {
                background::announce_agent(url);
            }
        };
        Box::pin(bound.run(on_ready)).await
    })?;
    // Clients that still hold a connection have had until the deadline.
    runtime.shutdown_background();
    Ok(if ended == Ended::Cleanly { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn take_over(args: &AgentArgs) -> TakeOver {
    match (args.take_over, args.replace) {
        (_, true) => TakeOver::Replace,
        (true, _) => TakeOver::Strict,
        _ => TakeOver::No,
    }
}

fn loader_from_args(args: &AgentArgs) -> Result<Loader, Failure> {
    let mut loader = loader_from_sources(&args.sources)?;
    let mut flag = |key: &str, value: Option<&String>, flag: &str| {
        if let Some(value) = value {
            loader.flags.push((key.to_owned(), value.clone(), flag.to_owned()));
        }
    };
    flag("http.listen", args.http_listen.as_ref(), "--http-listen");
    flag("http.insecure", args.http_insecure.then(|| "true".to_owned()).as_ref(), "--http-insecure");
    flag("admin.socket", args.admin_socket.as_ref(), "--admin-socket");
    flag("state_dir", args.state_dir.as_ref(), "--state-dir");
    flag("windows.length", args.window.as_ref(), "--window");
    flag("windows.keep", args.keep.as_ref(), "--keep");
    flag("log.filter", args.log.as_ref(), "--log");
    flag("log.format", args.log_format.as_ref(), "--log-format");
    Ok(loader)
}

/// A loader for the configuration file and the settings of `--set`.
pub(super) fn loader_from_sources(sources: &Sources) -> Result<Loader, Failure> {
    let mut loader = Loader { file: sources.config.clone(), flags: Vec::new() };
    for pair in &sources.set {
        match pair.split_once('=') {
            Some((key, value)) => {
                loader.flags.push((key.trim().to_owned(), value.trim().to_owned(), format!("--set {key}")));
            }
            None => return Err(Failure::usage_error(format!("--set {pair:?} is not KEY=VALUE"))),
        }
    }
    Ok(loader)
}

pub(super) fn run_keeper(args: &KeeperArgs, _out: &mut Console) -> Result<ExitCode, Failure> {
    let mut loader = loader_from_sources(&args.sources)?;
    if let Some(state_dir) = &args.state_dir {
        loader.flags.push(("state_dir".to_owned(), state_dir.clone(), "--state-dir".to_owned()));
    }
    let (config, _) = loader.load_config()?;
    if !config.state_dir.is_dir() {
        return Err(Failure::new(
            code::ERROR,
            format!("there is no state directory {}", config.state_dir.display()),
        )
        .with_hint(
            "the keeper needs the agent's own: start the agent first, or give its state_dir with --state-dir",
        ));
    }
    let _log = telemetry::start(&config.log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system_error(&error))?;
    runtime.block_on(restart::run_keeper(config.state_dir, args.hold))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) async fn check_health(args: &HealthArgs, out: &mut Console) -> Result<(), Failure> {
    let client = args.at.build_client()?;
    let Some(patience) = args.wait else {
        let alive = query_health(args, &client).await?;
        return Ok(out.write_line(alive)?);
    };
    let query = async || {
        let alive = query_health(args, &client).await?;
        check_readiness(&client).await?;
        Ok(alive)
    };
    let alive = repeat_until_complete(Some(patience), query, |_| true).await?;
    Ok(out.write_line(alive)?)
}

/// The line that describes the agent, if it is the expected one.
async fn query_health(args: &HealthArgs, client: &Client) -> Result<String, Failure> {
    let response = client.get("/health").await?;
    let health: HealthDocument<'_> = parse_response(&response)?;
    // An empty variable counts as unset.
    match args.instance.as_deref().filter(|wanted| !wanted.is_empty()) {
        Some(wanted) if wanted != health.instance => Err(wrong_instance_failure(args, wanted, &health)),
        _ => Ok(format!("alive: tallyport {}, pid {}", health.version, health.pid)),
    }
}

async fn check_readiness(client: &Client) -> Result<(), Failure> {
    let response = client.get("/ready").await?;
    if response.status != 503 {
        return parse_response::<ReadyDocument>(&response).map(drop);
    }
    let ready: ReadyDocument =
        serde_json::from_slice(&response.body).map_err(|error| Failure::malformed_response(&error))?;
    let pending = ready.pending.join(", ");
    Err(Failure::new(code::ERROR, format!("the agent is not ready; pending: {pending}")).that_may_pass())
}

fn wrong_instance_failure(args: &HealthArgs, wanted: &str, health: &HealthDocument<'_>) -> Failure {
    let HealthDocument { pid, instance, .. } = health;
    let is = if instance.is_empty() { "has no name".to_owned() } else { format!("is {instance:?}") };
    let url = &args.at.url;
    Failure::new(code::ERROR, format!("another agent answers at {url}: pid {pid} {is}, not {wanted:?}")).with_hint(
        "during an update, this is normal until the new agent has taken over; `agent.instance` sets an agent's name",
    )
    .that_may_pass()
}

pub(super) async fn reload_config(args: &ReloadArgs, out: &mut Console) -> Result<(), Failure> {
    let path = if args.force { "/v1/config/reload?force=true" } else { "/v1/config/reload" };
    let response = args.admin.build_client().send_request("POST", path, Vec::new()).await?;
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&parse_response::<Value>(&response)?)?,
        OutputFormat::Ndjson => out.write_ndjson([parse_response::<Value>(&response)?])?,
        OutputFormat::Table => {
            let needs_restart = parse_response::<ReloadedDocument>(&response)?.needs_restart;
            out.write_line("the configuration was read again and is in force")?;
            if !needs_restart.is_empty() {
                let settings = needs_restart.join(", ");
                out.write_line(format!(
                    "these settings have changed and take effect at a restart: {settings}"
                ))?;
            }
        }
    }
    Ok(())
}
