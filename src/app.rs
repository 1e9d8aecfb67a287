//! The agent put together: everything is bound before anything runs, and ends in order.
//!
//! ```text
//! TERM ─▶ not ready ─▶ no new containers ─▶ sockets read until empty, open windows closed as partial
//!      ─▶ streams send what was closed, answers finish, listeners close ─▶ exit 0
//! ```
//!
//! A second TERM or the deadline cuts that short; then the exit code is 1. A second TERM also gives up a hand-over that is under
//! way. If a keeper or the service manager holds state between agents (`saved_state`), TERM
//! leaves the state there instead.

mod ahead;
mod damage;
mod ending;
mod entrance;
mod fd_store;
#[cfg(fuzzing)]
pub mod fuzzing;
mod handover;
mod keeper;
mod listeners;
mod missed;
mod moving;
#[cfg_attr(not(feature = "nri"), path = "app/plugin/absent.rs")]
mod plugin;
mod reload;
mod resources;
mod running;
mod saved_state;
mod serve;
mod takeover;
mod token_failures;
mod windows;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

pub use entrance::{EntranceError, check_entrance};
pub use fd_store::Inherited;
pub use keeper::run as keep;
pub use reload::Loader;
pub use takeover::{TakeOver, start};

use crate::api::{AgentContext, MaintenanceContext, Pages, ReloadRequest, Routes};
use crate::config::{AfterHandOver, AgentConfig, Guarding};
use crate::containers::{self, ContainerTable, Guarded, JOURNAL};
use crate::host::CpuMeter;
use crate::model::Timestamp;
use crate::net::clock::{self, Clock};
use crate::net::guard::{Guard, GuardError};
use crate::net::sys;
use crate::net::unix::PathError;
use crate::nri::Carried;
use crate::shard::{ShardPlan, ShardPool};
use crate::shutdown::{DrainTrigger, Latch, Readiness, drain_channel};
use crate::stats::Stats;
use crate::store::{EPOCH, Store, next_epoch};
use crate::telemetry::LogFilter;
use ending::{AgentShutdown, Conclusion, Why};
use entrance::Entrance;
use moving::Holding;
use resources::AgentResources;
use running::Running;
use windows::AgentWindowLog;

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A path is not to be had.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The HTTP address is not to be had.
    #[error("cannot listen on {address}: {source}{}", holder.map_or(String::new(), |pid| format!("; another tallyport agent, pid {pid}, answers there")))]
    Listen {
        address: SocketAddr,
        /// Why not.
        source: io::Error,
        /// The other agent, if it is one.
        holder: Option<u32>,
    },
    /// The state directory cannot be written.
    #[error("cannot write to {}: {source}", path.display())]
    State {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A file of the state directory cannot be read or replaced.
    #[error("cannot use {}: {source}; remove it, or make it a file that this user can read and replace", path.display())]
    StateFile {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The guard is required, and not to be had.
    #[error(
        "containers on the host's network cannot be guarded, as listeners.guard = \"required\" wants: {0}"
    )]
    Guard(#[from] GuardError),
    /// What the HTTP listener is to ask of those who come cannot be read.
    #[error(transparent)]
    Entrance(#[from] EntranceError),
    /// The agent that runs does not hand over, or this one cannot go on with what it has.
    #[error("cannot take over from the agent that runs: {source}")]
    TakeOver {
        /// Why not.
        source: io::Error,
    },
    /// The system gave no threads, descriptors or signals.
    #[error("cannot start {what}: {source}")]
    System {
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// How the agent ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Ended {
    /// In order.
    Cleanly,
    /// By a deadline, a second signal, or because a part of it failed.
    Otherwise,
}

/// An agent that is bound and has not begun to serve.
#[derive(Debug)]
pub struct BoundAgent {
    parts: AgentParts,
    held: AgentResources,
    loader: Loader,
    log: LogFilter,
    /// What the process before had of the NRI plugin.
    nri: Option<Carried>,
}

/// The parts of an agent, tied together.
#[derive(Debug)]
struct AgentParts {
    running: Running,
    routes: Routes,
    table: ContainerTable,
    window_log: Option<AgentWindowLog>,
    reloads: mpsc::Receiver<ReloadRequest>,
    missed: mpsc::Receiver<crate::api::MissedRequest>,
    drain: DrainTrigger,
    latch: Latch,
    entrance: Entrance,
}

/// What an agent has before its parts are started.
struct Beginning {
    config: AgentConfig,
    /// The guard, where there is one, and whether containers are guarded.
    guarded: (Option<Guard>, Guarded),
    store: Arc<Store>,
    /// The moment before which no shard's clock may be, where another process closed windows up to it.
    not_before: Option<Timestamp>,
    /// The address that HTTP is served on.
    http_address: SocketAddr,
    /// What the HTTP listener requires of clients.
    asked: entrance::Asked,
}

/// What tells the agent to end.
const TERM: &str = "TERM";
/// How often shards are looked after.
const LOOK: Duration = Duration::from_secs(1);

/// Takes everything the agent needs: its directories, its addresses, its threads.
///
/// # Errors
/// When something is not to be had; what was taken is given back.
pub async fn bind(config: AgentConfig, loader: Loader, log: LogFilter) -> Result<BoundAgent, StartError> {
    raise_descriptor_limit();
    let guarded = create_guard(&config)?;
    let asked = entrance::read(&config.http)?;
    let held = AgentResources::acquire_all(&config).await?;
    let left = windows::read(&config)?;
    let state_dir = config.state_dir.clone();
    let known = left.as_ref().map_or(0, |(_, recovered)| recovered.epoch);
    let epoch = next_epoch(&state_dir, known, clock::wall_time())
        .map_err(|source| StartError::StateFile { path: state_dir.join(EPOCH), source })?;
    let store = Arc::new(Store::new(epoch.number, config.aggregation.keep));
    let http_address = held.http_address;
    let mut parts =
        AgentParts::new(Beginning { config, guarded, store, not_before: None, http_address, asked })?;
    let health = parts.running.containers.journal_health().clone();
    let (journal, replayed) = containers::Journal::open(&state_dir, health)
        .map_err(|source| StartError::StateFile { path: state_dir.join(JOURNAL), source })?;
    damage::report_epoch(&epoch, &state_dir, &parts.running.stats.damage);
    let recovered = left.as_ref().map(|(_, recovered)| recovered);
    damage::report_journal(&replayed, recovered, &state_dir, &parts.running.stats.damage);
    parts.table = parts.table.recorded_in(journal);
    if let Some(left) = left {
        parts.keep_windows(left, &replayed.images)?;
    }
    let found = replayed.images.len();
    let containers::RestoredCounts { kept, lost, gone } =
        parts.table.restore_containers(replayed.images).await;
    if let Some(log) = &parts.window_log {
        log.heard_again(clock::wall_time());
    }
    if found > 0 {
        tracing::info!(kept, lost, gone, "read the journal of the last agent");
    }
    Ok(BoundAgent { parts, held, loader, log, nri: None })
}

impl AgentParts {
    /// Starts the shards, and ties the parts together.
    fn new(beginning: Beginning) -> Result<Self, StartError> {
        let Beginning { config, guarded, store, not_before, http_address, asked } = beginning;
        let (guard, guarding) = guarded;
        let settings = Arc::new(config.aggregation.clone());
        let plan = ShardPlan {
            shards: config.process.shards,
            memory_limit: config.node_limits.memory,
            remembered: config.node_limits.remembered,
            gather: config.process.gather,
            not_before,
        };
        let pool = ShardPool::start(&plan, &store, &settings, Clock::default())
            .map_err(|source| StartError::System { what: "the shards", source })?;
        let pool = Arc::new(pool);
        let (table, containers) =
            ContainerTable::new(reload::table_settings(&config), Arc::clone(&pool), Arc::clone(&store));
        let readiness = Readiness::default();
        let latch = readiness.add_latch("listeners");
        let (trigger, drain) = drain_channel();
        let stats = Arc::new(Stats::default());
        let entrance = Entrance::new(&config.http, asked, &stats);
        let (reloads, reload_requests) = mpsc::channel(8);
        let config = Arc::new(RwLock::new(Arc::new(config)));
        let (missed, missed_requests) = mpsc::channel(8);
        let pages = Pages::new(&config);
        let running = Running { store, pool, containers, config, stats, pages, readiness, reloads, drain };
        let routes = Routes {
            agent: AgentContext {
                reading: running.reader_context(),
                containers: running.containers.clone(),
                readiness: running.readiness.clone(),
                window_log: None,
                connections: Default::default(),
                http_address,
                guarding,
                started: clock::wall_time(),
            },
            maintenance: MaintenanceContext {
                containers: running.containers.clone(),
                reloads: running.reloads.clone(),
                missed,
            },
            cpu: Arc::new(CpuMeter::start()),
        };
        let table = table.guarded_by(guard);
        let (reloads, missed) = (reload_requests, missed_requests);
        Ok(Self {
            running,
            routes,
            table,
            window_log: None,
            reloads,
            missed,
            drain: trigger,
            latch,
            entrance,
        })
    }

    /// Takes in the windows of the life before, and keeps a log of those that come.
    fn keep_windows(
        &mut self,
        left: windows::PreviousLog,
        images: &[containers::ContainerSnapshot],
    ) -> Result<(), StartError> {
        let log = AgentWindowLog::start(&self.running, left, &mut self.table, images)?;
        self.routes.agent.window_log = Some(Arc::clone(&log.status));
        self.window_log = Some(log);
        Ok(())
    }
}

/// The guard, where there is to be one, and how that went.
fn create_guard(config: &AgentConfig) -> Result<(Option<Guard>, Guarded), GuardError> {
    if config.listeners.guard == Guarding::Off {
        return Ok((None, Guarded::Off));
    }
    match Guard::new(config.node_limits.containers) {
        Ok(guard) => Ok((Some(guard), Guarded::On)),
        Err(error) if config.listeners.guard == Guarding::Required => Err(error),
        Err(error) => {
            tracing::info!(%error, "containers on the host's network are not guarded");
            Ok((None, Guarded::Unavailable(error.to_string().into())))
        }
    }
}

/// A container costs descriptors; the soft limit is usually a thousand.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    /// Eight bytes each in the kernel.
    const ROOM: u32 = 16_384;
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(0, |(soft, _)| soft);
    let room = u32::try_from(limit).map_or(ROOM, |limit| limit.min(ROOM));
    if let Err(error) = sys::reserve_descriptors(room) {
        tracing::debug!(%error, "cannot make room for descriptors");
    }
}

impl BoundAgent {
    /// The address that HTTP is served on, where the configured port was 0.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.held.http_address
    }

    /// Serves until the process is told to end.
    ///
    /// # Errors
    /// When signals cannot be had.
    pub async fn run(self) -> Result<Ended, StartError> {
        let unheard = |source| StartError::System { what: "listening to signals", source };
        let mut signals = Signals::new().map_err(unheard)?;
        let Self { parts, held, loader, log, nri } = self;
        let AgentParts { running, routes, table, window_log, reloads, missed, drain, latch, entrance } =
            parts;
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
        tasks.spawn(reload::serve_reloads(
            reloads,
            loader,
            log,
            reload::ReloadParts::new(&running, pods.settings, entrance),
        ));
        let socket = config.admin.socket.clone();
        tasks.spawn(missed::run(socket, running.containers.clone(), missed, running.drain.clone()));
        tasks.spawn(crate::api::descriptors(routes.lifecycle_context(), descriptors));
        latch.open();
        tracing::info!(
            http = %routes.agent.http_address,
            admin = %config.admin.socket.display(),
            state = %config.state_dir.display(),
            node = config.node,
            epoch = running.store.epoch(),
            shards = config.process.shards,
            version = env!("CARGO_PKG_VERSION"),
            "listening",
        );
        // The listeners have their own copies and drop them when they end. One kept here would keep the store and the table's queue open.
        drop(routes);
        let (successors, mut successor) = mpsc::channel(1);
        let holding = Arc::new(Holding::new(shared, drain.pauser(), pods.suspender));
        tasks.spawn(handover::serve_successors(handover, running.clone(), Arc::clone(&holding), successors));
        let (mut look, mut failures) = (tokio::time::interval(LOOK), running.pool.subscribe_failures());
        let why = loop {
            tokio::select! {
                _ = signals.term.recv() => break Why::Told(TERM),
                _ = signals.interrupt.recv() => break Why::Told("INT"),
                _ = signals.hangup.recv() => ask_for_reload(&running),
                Some(successor) = successor.recv() => break Why::from(successor),
                Ok(()) = failures.changed() => shards.close(),
                _ = look.tick() => {
                    if !running.pool.ended_shards().is_empty() {
                        break Why::Failed;
                    }
                    // One that failed just now is looked at again next time.
                    if running.pool.balance_load().await.is_ok() && !failures.has_changed().unwrap_or(true) {
                        shards.open();
                    }
                }
            }
        };
        latch.close();
        let told = matches!(why, Why::Told(_));
        // Told to end while another process was taking over: that is finished first, and may have failed.
        let (mut why, mut at_once) = (why, false);
        if told {
            let moved;
            (moved, at_once) = holding.unless_told_again(close(&holding), &mut signals).await;
            if moved {
                why = successor.recv().await.map_or(why, Why::from);
            }
        }
        let waits = running.current_config().process.after_hand_over == AfterHandOver::Wait;
        let ending = AgentShutdown { running, window_log, drain, holding, names: sockets, state, at_once };
        let Conclusion { cleanly, succeeded, waiting } = ending.run(why, &mut signals).await;
        tasks.shutdown().await;
        // No address is taken any more.
        drop(waiting);
        tracing::info!(cleanly, "ended");
        if succeeded && waits && !told {
            tracing::info!("another process serves this node; waiting for TERM");
            signals.told_to_end().await;
        }
        Ok(if cleanly { Ended::Cleanly } else { Ended::Otherwise })
    }
}

/// Has no process begin to take over from now on. Waits for a hand-over that is under way, and answers whether another process has
/// everything.
async fn close(holding: &Arc<Holding>) -> bool {
    let holding = Arc::clone(holding);
    tokio::task::spawn_blocking(move || holding.close()).await.unwrap_or(false)
}

/// What the agent is told by signals.
#[derive(Debug)]
struct Signals {
    term: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Waits for TERM or INT.
    async fn told_to_end(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Asks for a reload as the admin API does; the outcome is logged where it is made.
fn ask_for_reload(running: &Running) {
    let (reply, _not_waited_for) = oneshot::channel();
    if running.reloads.try_send(ReloadRequest { force: false, reply }).is_err() {
        tracing::warn!("a reload is under way already");
    }
}
