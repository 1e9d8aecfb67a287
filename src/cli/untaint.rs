//! `tallyport untaint`: removes a node's startup taint once the container runtime has registered the agent.
//!
//! It keeps running after that, since a node that registers again may have the taint again. Failures are retried; only
//! TERM and INT end it.

mod args;
mod cluster;
mod node;

use std::process::ExitCode;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use super::failure::Failure;
use crate::app::Loader;
use crate::telemetry;
pub(super) use args::UntaintArgs;
use cluster::{Cluster, ClusterError, Freshness};
use node::ensure_registered;

/// The interval at which the agent is polled. It is short: the agent is on this machine, and pods wait for it.
const POLL: Duration = Duration::from_secs(1);
/// The pause after the first failure of the API server; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause between failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The pause after the node was changed by another client at the same time.
const CONFLICT_PAUSE: Duration = Duration::from_millis(100);

pub(super) fn untaint_node(args: &UntaintArgs) -> Result<ExitCode, Failure> {
    let (config, _) = Loader::default().load_config()?;
    let _log = telemetry::start(&config.log);
    let cluster = Cluster::of_this_pod(&args.credentials).map_err(|error| {
        Failure::usage_error(error.to_string()).with_hint("run it in a pod, by components/startup-taint")
    })?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system_error(&error))?;
    runtime.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        tokio::select! {
            () = keep_untainted(args, &cluster) => {}
            _ = term.recv() => {}
            _ = interrupt.recv() => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Keeps the node untainted until the process ends.
async fn keep_untainted(args: &UntaintArgs, cluster: &Cluster) {
    let mut pause = FIRST_PAUSE;
    loop {
        match remove_startup_taint(args, cluster).await {
            Ok(()) => {
                pause = FIRST_PAUSE;
                sleep(args.interval).await;
            }
            Err(ClusterError::Conflict) => sleep(CONFLICT_PAUSE).await,
            Err(error) => {
                tracing::warn!(node = args.node, %error, retry_in = ?pause, "cannot check or remove the node's taint");
                sleep(pause).await;
                pause = (2 * pause).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Removes the taint if the node has it, as soon as the agent is registered.
async fn remove_startup_taint(args: &UntaintArgs, cluster: &Cluster) -> Result<(), ClusterError> {
    let seen = cluster.fetch_node(&args.node, Freshness::Cached).await?;
    if seen.without_taint(&args.taint).is_none() {
        return Ok(());
    }
    tracing::info!(
        node = args.node,
        taint = args.taint,
        "the node is tainted; waiting until its agent is registered"
    );
    until_registered(args).await;
    // The node may have changed meanwhile, so read it again.
    let now = cluster.fetch_node(&args.node, Freshness::Newest).await?;
    if let Some(patch) = now.without_taint(&args.taint) {
        cluster.patch_node(&args.node, &patch).await?;
        tracing::info!(node = args.node, taint = args.taint, "removed the taint");
    }
    Ok(())
}

/// Waits until the runtime has registered the agent. Logs what it waits for whenever that changes.
async fn until_registered(args: &UntaintArgs) {
    let mut last = None;
    loop {
        // A new client each time: the CA certificate may be mounted or renewed meanwhile.
        let answer = match args.at.build_client() {
            Ok(client) => client.get("/ready").await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        let Err(why) = answer.and_then(|response| ensure_registered(response.status, &response.body)) else {
            return;
        };
        if last.as_ref() != Some(&why) {
            tracing::info!(%why, "the agent is not registered yet");
        }
        last = Some(why);
        sleep(POLL).await;
    }
}
