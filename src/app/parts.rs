//! The parts of an agent, and how they are tied together.

use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::{mpsc, oneshot};

use super::disk::{AgentWindowLog, PreviousLog};
use super::entrance::{self, Entrance};
use super::error::StartError;
use crate::api::{AgentContext, ConfigRequest, MaintenanceContext, Pages, ReaderContext, Routes};
use crate::archive::Archive;
use crate::config::{AgentConfig, UnixMode};
use crate::containers::{self, ContainerSnapshot, ContainerTable, ContainerTableHandle, Guarded};
use crate::host::CpuMeter;
use crate::model::Timestamp;
use crate::net::clock::{self, Clock};
use crate::net::guard::Guard;
use crate::publish::{PublishedWindows, Publishers};
use crate::query::Data;
use crate::restart::MovableParts;
use crate::shard::{ShardPlan, ShardPool};
use crate::shutdown::{Drain, DrainTrigger, Latch, Readiness, drain_channel};
use crate::stats::Stats;
use crate::store::Store;
use crate::window_log::{Spool, WriterSources};

/// The parts that run as long as the agent does.
#[derive(Clone, Debug)]
pub(super) struct Running {
    /// Closed windows.
    pub(super) store: Arc<Store>,
    /// The shards.
    pub(super) pool: Arc<ShardPool>,
    /// The container table.
    pub(super) containers: ContainerTableHandle,
    /// The configuration in force.
    pub(super) config: Arc<RwLock<Arc<AgentConfig>>>,
    /// Windows that are no longer in memory, for publishers.
    pub(super) spool: Arc<Spool>,
    /// What delivers windows to backends.
    pub(super) publishers: Publishers,
    /// The history of containers.
    pub(super) archive: Archive,
    /// Counters that belong to no other module.
    pub(super) stats: Arc<Stats>,
    /// Answers that are being built or sent.
    pub(super) pages: Pages,
    /// The conditions of readiness.
    pub(super) readiness: Readiness,
    /// Requests a reload of the configuration.
    pub(super) config_requests: mpsc::Sender<ConfigRequest>,
    /// The end of the agent.
    pub(super) drain: Drain,
}

impl Running {
    /// The configuration in force.
    pub(super) fn current_config(&self) -> Arc<AgentConfig> {
        Arc::clone(&self.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The parts needed for documents about containers and their series.
    pub(super) fn reader_context(&self) -> ReaderContext {
        let data = Data {
            store: Arc::clone(&self.store),
            pool: Arc::clone(&self.pool),
            directory: Arc::clone(self.containers.directory()),
            config: Arc::clone(&self.config),
        };
        let (pages, stats) = (self.pages.clone(), Arc::clone(&self.stats));
        let archive = self.archive.clone();
        ReaderContext { data, archive, pages, stats, drain: self.drain.clone() }
    }

    /// What the window log is written from.
    pub(super) fn window_sources(&self) -> WriterSources {
        let directory = Arc::clone(self.containers.directory());
        let (store, pool, spool) = (Arc::clone(&self.store), Arc::clone(&self.pool), Arc::clone(&self.spool));
        WriterSources { store, pool, directory, spool }
    }

    /// The parts that go to the next agent, or stop meanwhile.
    pub(super) fn movable_parts(&self) -> MovableParts {
        MovableParts {
            store: Arc::clone(&self.store),
            pool: Arc::clone(&self.pool),
            containers: self.containers.clone(),
            pages: self.pages.clone(),
            config: Arc::clone(&self.config),
        }
    }
}

/// The connected parts of an agent.
#[derive(Debug)]
pub(super) struct AgentParts {
    pub(super) running: Running,
    pub(super) routes: Routes,
    pub(super) table: ContainerTable,
    pub(super) window_log: Option<AgentWindowLog>,
    /// The end of the process that this one has taken over from, which may still write its last files.
    pub(super) predecessor_ended: Option<oneshot::Receiver<()>>,
    pub(super) config_requests: mpsc::Receiver<ConfigRequest>,
    pub(super) missed: mpsc::Receiver<crate::api::MissedRequest>,
    pub(super) drain: DrainTrigger,
    pub(super) latch: Latch,
    pub(super) entrance: Entrance,
}

/// What the parts of an agent are started with.
pub(super) struct Beginning {
    pub(super) config: AgentConfig,
    /// The guard, where there is one, and whether containers are guarded.
    pub(super) guarded: (Option<Guard>, Guarded),
    pub(super) store: Arc<Store>,
    /// The earliest time for the clocks of shards, if another process closed windows up to it.
    pub(super) not_before: Option<Timestamp>,
    /// The address that HTTP is served on.
    pub(super) http_address: SocketAddr,
    /// What the HTTP listener requires of clients.
    pub(super) asked: entrance::EntranceSettings,
}

impl AgentParts {
    /// Starts the shards and connects the parts.
    pub(super) fn new(beginning: Beginning) -> Result<Self, StartError> {
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
            ContainerTable::new(table_settings(&config), Arc::clone(&pool), Arc::clone(&store));
        let readiness = Readiness::default();
        let latch = readiness.add_latch("listeners");
        let (trigger, drain) = drain_channel();
        let stats = Arc::new(Stats::default());
        let entrance = Entrance::new(&config.http, asked, &stats);
        let (requesting_config, config_requests) = mpsc::channel(8);
        let spool = Arc::new(match config.window_log.enabled {
            true => Spool::new(config.publish.spool),
            false => Spool::without_files(),
        });
        let publishers = new_publishers(&config, &store, &spool);
        let archive = Archive::new(&config, Arc::clone(&store), Arc::clone(&spool));
        let config = Arc::new(RwLock::new(Arc::new(config)));
        let (missed, missed_requests) = mpsc::channel(8);
        let pages = Pages::new(&config);
        let running = Running {
            store,
            pool,
            containers,
            config,
            spool,
            publishers,
            archive,
            stats,
            pages,
            readiness,
            config_requests: requesting_config,
            drain,
        };
        let routes = Routes {
            agent: AgentContext {
                reading: running.reader_context(),
                containers: running.containers.clone(),
                readiness: running.readiness.clone(),
                publishers: running.publishers.clone(),
                window_log: None,
                connections: Default::default(),
                http_address,
                guarding,
                started: clock::wall_time(),
            },
            maintenance: MaintenanceContext {
                containers: running.containers.clone(),
                publishers: running.publishers.clone(),
                config_requests: running.config_requests.clone(),
                missed,
            },
            cpu: Arc::new(CpuMeter::start()),
        };
        let table = table.guarded_by(guard);
        Ok(Self {
            running,
            routes,
            table,
            window_log: None,
            predecessor_ended: None,
            config_requests,
            missed: missed_requests,
            drain: trigger,
            latch,
            entrance,
        })
    }

    /// Restores the windows of the previous run, and starts the log for new ones.
    pub(super) fn keep_windows(
        &mut self,
        left: PreviousLog,
        images: &[ContainerSnapshot],
    ) -> Result<(), StartError> {
        self.running.publishers.hold_files(&self.running.current_config().publish);
        self.running.archive.hold_files();
        let log = AgentWindowLog::start(
            self.running.window_sources(),
            &self.running.current_config(),
            left,
            &mut self.table,
            images,
        )?;
        self.routes.agent.window_log = Some(Arc::clone(&log.status));
        self.window_log = Some(log);
        Ok(())
    }
}

fn new_publishers(config: &AgentConfig, store: &Arc<Store>, spool: &Arc<Spool>) -> Publishers {
    let keep = u32::try_from(config.aggregation.keep).unwrap_or(u32::MAX);
    let kept_for = config.aggregation.window.saturating_mul(keep);
    let windows = PublishedWindows { store: Arc::clone(store), spool: Arc::clone(spool), kept_for };
    Publishers::new(windows, config.node.clone(), &config.state_dir)
}

/// The settings of the container table.
pub(super) fn table_settings(config: &AgentConfig) -> containers::TableSettings {
    containers::TableSettings {
        containers: config.node_limits.containers,
        port: config.listeners.port,
        receive_buffer: config.listeners.receive_buffer,
        receive_buffers: config.listeners.receive_buffers,
        receive_buffer_max: config.listeners.receive_buffer_max,
        rest: config.listeners.rest,
        reservation_ttl: config.containers.reservation_ttl,
        tombstone: config.containers.tombstone,
        adopt_mute: config.containers.adopt_mute,
        gauge_sign: config.usual_gauge_sign(),
        timer_unit: config.timer_unit,
        dcos_host: config.dcos_host,
        node_labels: config.node_labels.clone(),
        unix: containers::UnixSettings {
            mode: match config.unix.mode {
                UnixMode::Off => containers::UnixSocketMode::Off,
                UnixMode::OptIn => containers::UnixSocketMode::OptIn,
                UnixMode::All => containers::UnixSocketMode::All,
            },
            path: config.unix.path.clone(),
            directory: config.state_dir.join("sockets"),
            queue: config.unix.queue,
        },
    }
}
