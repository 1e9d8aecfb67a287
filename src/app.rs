//! The agent put together: everything is bound before anything runs, and ends in order.
//!
//! ```text
//! TERM ─▶ not ready ─▶ no new containers ─▶ sockets read until empty, open windows closed as partial
//!      ─▶ streams send what was closed, answers finish, listeners close ─▶ exit 0
//! ```
//!
//! A second TERM or the deadline cuts that short; then the exit code is 1.

mod plugin;
mod reload;
mod serve;
mod windows;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

pub use reload::Loader;

use crate::api::Api;
use crate::client::{Client, Target};
use crate::config::{Config, Guarding, UnixMode};
use crate::containers::{self, Guarded, Table};
use crate::net::clock::{self, Clock};
use crate::net::guard::{Guard, GuardError};
use crate::net::http::{self, Listener};
use crate::net::unix::{self, BoundSocket, HeldDirectory, PathError};
use crate::shard::{Plan, ShardPool};
use crate::shutdown::{DrainTrigger, Latch, Readiness, drain};
use crate::stats::{ListenerName, Stats};
use crate::store::{Store, next_epoch};
use crate::telemetry::LogFilter;
use crate::window_log::Parts;

use windows::WindowLog;

/// Why the agent did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A path is not to be had.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The HTTP address is not to be had.
    #[error("cannot listen on {address}: {source}{}", holder.map_or(String::new(), |pid| format!("; another tallyport agent, pid {pid}, answers there")))]
    Listen {
        /// The address.
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
    /// The guard is required, and not to be had.
    #[error(
        "containers on the host's network cannot be guarded, as listeners.guard = \"required\" wants: {0}"
    )]
    Guard(#[from] GuardError),
    /// The system gave no threads, descriptors or signals.
    #[error("cannot start {what}: {source}")]
    System {
        /// What.
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
pub struct Bound {
    api: Api,
    table: Table,
    http: TcpListener,
    admin: UnixListener,
    descriptors: UnixListener,
    reloads: mpsc::Receiver<crate::api::ReloadRequest>,
    loader: Loader,
    log: LogFilter,
    drain: DrainTrigger,
    latch: Latch,
    window_log: Option<WindowLog>,
    _sockets: [BoundSocket; 2],
    _state: HeldDirectory,
}

/// How often shards are looked after.
const LOOK: Duration = Duration::from_secs(1);

/// Takes everything the agent needs: its directories, its addresses, its threads.
///
/// # Errors
/// When something is not to be had; what was taken is given back.
pub async fn bind(config: Config, loader: Loader, log: LogFilter) -> Result<Bound, StartError> {
    raise_descriptor_limit();
    let (guard, guarding) = guard(&config)?;
    let state = unix::hold_directory(&config.state_dir)?;
    let epoch = next_epoch(&config.state_dir, clock::wall())
        .map_err(|source| StartError::State { path: config.state_dir.clone(), source })?;
    let (http, http_address) = listen(config.http.listen).await?;
    let (admin, socket) = unix::listen(&config.admin.socket, config.admin.mode)?;
    let beside = config.admin.socket.with_added_extension("fd");
    let (descriptors, beside) = unix::listen_for_messages(&beside, config.admin.mode)?;
    let watched = |listener| {
        UnixListener::from_std(listener)
            .map_err(|source| StartError::System { what: "the admin socket", source })
    };
    let (admin, descriptors) = (watched(admin)?, watched(descriptors)?);

    let left = windows::read(&config)?;
    let store = Arc::new(Store::new(epoch, config.aggregation.keep));
    let settings = Arc::new(config.aggregation.clone());
    let plan = Plan {
        shards: config.process.shards,
        memory_limit: config.node_limits.memory,
        gather: config.process.gather,
    };
    let pool = ShardPool::start(&plan, &store, &settings, Clock::default())
        .map_err(|source| StartError::System { what: "the shards", source })?;
    let pool = Arc::new(pool);
    let (table, containers) = Table::new(table_settings(&config), Arc::clone(&pool), Arc::clone(&store));
    let mut table = table.guarded_by(guard);
    let mut window_log = None;
    if let Some(left) = left {
        let directory = Arc::clone(containers.directory());
        let parts = Parts { store: Arc::clone(&store), pool: Arc::clone(&pool), directory };
        let (log, restored) = WindowLog::start(&config, left, parts, table)?;
        (window_log, table) = (Some(log), restored);
    }
    let readiness = Readiness::default();
    let latch = readiness.latch("listeners");
    let (trigger, drain) = drain();
    let (reloads, reload_requests) = mpsc::channel(8);
    let api = Api {
        store,
        pool,
        containers,
        readiness,
        stats: Arc::new(Stats::default()),
        window_log: window_log.as_ref().map(|log| Arc::clone(&log.status)),
        config: Arc::new(RwLock::new(Arc::new(config))),
        reloads,
        connections: Default::default(),
        http_address,
        guarding,
        started: clock::wall(),
        drain,
    };
    Ok(Bound {
        api,
        table,
        http,
        admin,
        descriptors,
        reloads: reload_requests,
        loader,
        log,
        drain: trigger,
        latch,
        window_log,
        _sockets: [socket, beside],
        _state: state,
    })
}

/// The guard, where there is to be one, and how that went.
fn guard(config: &Config) -> Result<(Option<Guard>, Guarded), GuardError> {
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

/// What the container table needs of the configuration.
fn table_settings(config: &Config) -> containers::Settings {
    containers::Settings {
        containers: config.node_limits.containers,
        port: config.listeners.port,
        receive_buffer: config.listeners.receive_buffer,
        receive_buffers: config.listeners.receive_buffers,
        receive_buffer_max: config.listeners.receive_buffer_max,
        rest: config.listeners.rest,
        reservation_ttl: config.containers.reservation_ttl,
        tombstone: config.containers.tombstone,
        gauge_sign: config.usual_gauge_sign(),
        dcos_host: config.dcos_host,
        node_labels: config.node_labels.clone(),
        unix: containers::UnixSettings {
            mode: match config.unix.mode {
                UnixMode::Off => containers::UnixMode::Off,
                UnixMode::OptIn => containers::UnixMode::OptIn,
                UnixMode::All => containers::UnixMode::All,
            },
            path: config.unix.path.clone(),
            directory: config.state_dir.join("sockets"),
            queue: config.unix.queue,
        },
    }
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), StartError> {
    match TcpListener::bind(address).await.and_then(|listener| Ok((listener.local_addr()?, listener))) {
        Ok((bound, listener)) => Ok((listener, bound)),
        Err(source) => {
            let taken = source.kind() == io::ErrorKind::AddrInUse;
            let holder = if taken { agent_at(address).await } else { None };
            Err(StartError::Listen { address, source, holder })
        }
    }
}

/// The process of the agent that answers at an address, if one does.
async fn agent_at(address: SocketAddr) -> Option<u32> {
    #[derive(serde::Deserialize)]
    struct Health {
        pid: u32,
    }
    let client = Client::new(Target::Http(address.to_string()));
    let answer = tokio::time::timeout(Duration::from_secs(1), client.get("/health")).await.ok()?.ok()?;
    serde_json::from_slice::<Health>(&answer.body).ok().map(|health| health.pid)
}

/// A container costs descriptors; the soft limit is usually a thousand.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::debug!(%error, "cannot raise the limit of open files");
    }
}

impl Bound {
    /// The address that HTTP is served on, where the configured port was 0.
    #[must_use]
    pub fn http_address(&self) -> SocketAddr {
        self.api.http_address
    }

    /// Serves until the process is told to end.
    ///
    /// # Errors
    /// When signals cannot be had.
    pub async fn run(self) -> Result<Ended, StartError> {
        let unheard = |source| StartError::System { what: "listening to signals", source };
        let mut term = signal(SignalKind::terminate()).map_err(unheard)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(unheard)?;
        let mut hangup = signal(SignalKind::hangup()).map_err(unheard)?;
        let config = self.api.config();
        let mut tasks = JoinSet::new();
        tasks.spawn(self.table.run());
        let pods = plugin::start(&mut tasks, &self.api);
        tasks.spawn(reload::serve(self.reloads, self.loader, self.log, reload::Parts::new(&self.api, pods)));
        serve_listeners(&mut tasks, &self.api, self.http, self.admin);
        tasks.spawn(crate::api::descriptors(self.api.clone(), self.descriptors));
        self.latch.open();
        tracing::info!(
            http = %self.api.http_address,
            admin = %config.admin.socket.display(),
            state = %config.state_dir.display(),
            node = config.node,
            epoch = self.api.store.epoch(),
            shards = config.process.shards,
            version = env!("CARGO_PKG_VERSION"),
            "listening",
        );
        let mut look = tokio::time::interval(LOOK);
        let why = loop {
            tokio::select! {
                _ = term.recv() => break Why::Told("TERM"),
                _ = interrupt.recv() => break Why::Told("INT"),
                _ = hangup.recv() => ask_for_reload(&self.api),
                _ = look.tick() => if self.api.pool.balance().await.is_err() || !self.api.pool.ended().is_empty() {
                    break Why::Failed
                },
            }
        };
        self.latch.close();
        let deadline = self.api.config().process.drain_deadline;
        let api = self.api.clone();
        drop(self.api);
        let ending = async {
            let started = tokio::time::Instant::now();
            api.containers.drain_all().await;
            drop(api);
            if let Some(log) = self.window_log {
                log.end().await;
            }
            self.drain.start(deadline.saturating_sub(started.elapsed())).await
        };
        let cleanly = match why {
            Why::Told(name) => {
                tracing::info!(signal = name, ?deadline, "draining");
                tokio::select! {
                    done = tokio::time::timeout(deadline, ending) => done.unwrap_or(false),
                    _ = term.recv() => false,
                    _ = interrupt.recv() => false,
                }
            }
            Why::Failed => {
                tracing::error!(
                    "a shard has ended; what its containers sent since their last window is lost"
                );
                let _late = tokio::time::timeout(deadline, ending).await;
                false
            }
        };
        tracing::info!(cleanly, "ended");
        Ok(if cleanly { Ended::Cleanly } else { Ended::Otherwise })
    }
}

/// Why the agent ends.
enum Why {
    /// A signal said so.
    Told(&'static str),
    /// A shard has ended by itself.
    Failed,
}

fn serve_listeners(tasks: &mut JoinSet<()>, api: &Api, http: TcpListener, admin: UnixListener) {
    let config = api.config();
    let limits =
        http::Limits { connections: config.http.max_connections, header_timeout: config.http.header_timeout };
    let [http_connections, admin_connections] = api.connections.clone();
    let service = serve::counted(crate::api::http_routes(api), ListenerName::Http, Arc::clone(&api.stats));
    tasks.spawn(http::serve(Listener::Tcp(http), service, limits, http_connections, api.drain.clone()));
    let service = serve::counted(crate::api::admin_routes(api), ListenerName::Admin, Arc::clone(&api.stats));
    tasks.spawn(http::serve(Listener::Unix(admin), service, limits, admin_connections, api.drain.clone()));
}

/// Asks for a reload as the admin API does; the outcome is logged where it is made.
fn ask_for_reload(api: &Api) {
    let (reply, _nobody_waits) = oneshot::channel();
    if api.reloads.try_send(reply).is_err() {
        tracing::warn!("a reload is under way already");
    }
}
