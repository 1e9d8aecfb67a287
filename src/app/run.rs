//! A bound agent, and serving until it is told to end.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use super::ending::{AgentShutdown, Conclusion, Signals, TERM, Why};
use super::error::StartError;
use super::parts::{AgentParts, Running};
use super::reload::{self, ConfigSources};
use super::{missed, plugin, serve};
use crate::api::ConfigRequest;
use crate::archive::Archive;
use crate::config::{AfterHandOver, AgentConfig};
use crate::net::passing::Channel;
use crate::nri::Carried;
use crate::publish::Publishers;
use crate::restart::{AgentResources, Holding, Successor, serve_successors};
use crate::shutdown::{Drain, Latch};
use crate::telemetry::LogFilter;

/// How the agent ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// In an orderly way.
    Cleanly,
    /// By a deadline, a second signal, or because a part of it failed.
    Otherwise,
}

/// An agent that is bound and has not begun to serve.
#[derive(Debug)]
pub struct BoundAgent {
    pub(super) parts: AgentParts,
    pub(super) held: AgentResources,
    pub(super) sources: ConfigSources,
    pub(super) log: LogFilter,
    /// What the agent before had of the NRI plugin.
    pub(super) nri: Option<Carried>,
}

/// The interval at which shards are checked.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

impl BoundAgent {
    /// The address that HTTP is served on, where the configured port was 0.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.held.http_address
    }

    /// Serves until the process is told to end. `on_ready` is called with the agent's URL once it answers requests and is ready.
    ///
    /// # Errors
    /// When the system refuses signals or descriptors.
    pub async fn run(self, on_ready: impl FnOnce(&str)) -> Result<Ended, StartError> {
        let unheard = |source| StartError::System { what: "listening to signals", source };
        let mut signals = Signals::new().map_err(unheard)?;
        let Self { mut parts, held, sources, log, nri } = self;
        let predecessor_ended = parts.predecessor_ended.take();
        let AgentParts {
            running,
            routes,
            table,
            window_log,
            config_requests,
            missed,
            drain,
            latch,
            entrance,
            ..
        } = parts;
        let config = running.current_config();
        let shards = running.readiness.add_latch("shards");
        shards.open();
        let mut tasks = JoinSet::new();
        tasks.spawn(table.run());
        let pods = plugin::start(&mut tasks, &running, nri);
        let shared =
            held.clone_descriptors().map_err(|source| StartError::System { what: "handing over", source })?;
        let AgentResources { http, admin, descriptors, handover, sockets, state, .. } = held;
        serve::serve_listeners(&mut tasks, &routes, &entrance, http, admin);
        tasks.spawn(reload::serve_config(
            config_requests,
            sources,
            log,
            reload::ReloadParts::new(&running, pods.settings, entrance),
        ));
        let socket = config.admin.socket.clone();
        tasks.spawn(missed::run(socket, running.containers.clone(), missed, running.drain.clone()));
        tasks.spawn(crate::api::descriptors(routes.lifecycle_context(), descriptors));
        tasks.spawn(run_publishers(PublisherParts::new(&running), predecessor_ended));
        latch.open();
        on_ready(&log_addresses(&running, routes.agent.http_address));
        // The listeners have their own copies and drop them when they end. One kept here would keep the store and the
        // table's queue open.
        drop(routes);
        let (successors, mut successor) = mpsc::channel(1);
        let parts = running.movable_parts();
        let holding = Arc::new(Holding::new(parts, shared, drain.pauser(), pods.suspender));
        tasks.spawn(serve_successors(handover, Arc::clone(&holding), running.drain.clone(), successors));
        // The process that asked this one to end waits on its channel.
        let (why, asker) = wait_for_reason(&running, &mut signals, &mut successor, &shards).await;
        latch.close();
        let told = matches!(why, Why::Told(_));
        let waits = running.current_config().process.after_hand_over == AfterHandOver::Wait;
        let ending =
            AgentShutdown { running, window_log, drain, holding, names: sockets, state, at_once: false };
        let Conclusion { cleanly, succeeded, waiting } = ending.run(why, &mut signals, &mut successor).await;
        tasks.shutdown().await;
        // This process holds no addresses any more.
        drop(waiting);
        // Closed by the kernel once this process has ended: the process that asked waits for that.
        std::mem::forget(asker);
        tracing::info!(cleanly, "ended");
        if succeeded && waits && !told {
            tracing::info!("another process serves this node; waiting for TERM");
            signals.told_to_end().await;
        }
        Ok(if cleanly { Ended::Cleanly } else { Ended::Otherwise })
    }
}

/// Serves until there is a reason to end, and opens or closes `shards` as their state changes. Also returns the channel of a
/// process that has asked this one to end.
async fn wait_for_reason(
    running: &Running,
    signals: &mut Signals,
    successor: &mut mpsc::Receiver<Successor>,
    shards: &Latch,
) -> (Why, Option<Channel>) {
    let mut look = tokio::time::interval(CHECK_INTERVAL);
    let mut failures = running.pool.subscribe_failures();
    loop {
        tokio::select! {
            _ = signals.term.recv() => return (Why::Told(TERM), None),
            _ = signals.interrupt.recv() => return (Why::Told("INT"), None),
            _ = signals.hangup.recv() => ask_for_reload(running),
            Some(successor) = successor.recv() => return match successor {
                Successor::AsksToEnd(channel) => {
                    tracing::info!("asked to end by another process");
                    (Why::Told(TERM), Some(channel))
                }
                successor => (Why::from(successor), None),
            },
            Ok(()) = failures.changed() => shards.close(),
            _ = look.tick() => {
                if !running.pool.ended_shards().is_empty() {
                    return (Why::Failed, None);
                }
                // A shard that failed just now is checked again next time.
                if running.pool.balance_load().await.is_ok() && !failures.has_changed().unwrap_or(true) {
                    shards.open();
                }
            }
        }
    }
}

/// What publishers are started with. Not the whole agent: the store is to be free when it ends.
struct PublisherParts {
    publishers: Publishers,
    archive: Archive,
    config: Arc<RwLock<Arc<AgentConfig>>>,
    drain: Drain,
}

impl PublisherParts {
    fn new(running: &Running) -> Self {
        let Running { publishers, archive, config, drain, .. } = running;
        let (publishers, archive) = (publishers.clone(), archive.clone());
        Self { publishers, archive, config: Arc::clone(config), drain: drain.clone() }
    }
}

/// Starts publishers and the archive, once no other process goes on at the same cursors, and keeps publishers running until the
/// agent ends.
async fn run_publishers(parts: PublisherParts, predecessor_ended: Option<oneshot::Receiver<()>>) {
    let PublisherParts { publishers, archive, config, mut drain } = parts;
    if let Some(ended) = predecessor_ended {
        // Closed without a word where the wait for it failed.
        let _either_way = ended.await;
    }
    let settings = move || config.read().unwrap_or_else(PoisonError::into_inner).publish.clone();
    archive.start();
    publishers.apply_settings(&settings()).await;
    tokio::select! {
        () = publishers.restart_failed(settings) => {}
        () = drain.wait_for_start() => {}
    }
}

/// Logs where the agent serves, and returns its URL.
fn log_addresses(running: &Running, http: SocketAddr) -> String {
    let config = running.current_config();
    tracing::info!(
        %http,
        admin = %config.admin.socket.display(),
        state = %config.state_dir.display(),
        node = config.node,
        epoch = running.store.epoch(),
        shards = config.process.shards,
        version = env!("CARGO_PKG_VERSION"),
        "listening",
    );
    let scheme = if config.http.tls.is_some() { "https" } else { "http" };
    format!("{scheme}://{http}")
}

/// Requests a reload as the admin API does; the outcome is logged by the task that reloads.
fn ask_for_reload(running: &Running) {
    let (reply, _not_waited_for) = oneshot::channel();
    if running.config_requests.try_send(ConfigRequest::Reload { force: false, reply }).is_err() {
        tracing::warn!("a reload is under way already");
    }
}
