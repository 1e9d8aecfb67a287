//! Publishers: every closed window, delivered to the backends that people use.
//!
//! ```text
//! Store ─▶ follow ─▶ round (one interval, each series once) ─▶ parcel ─▶ encoder ─▶ request ─▶ backend
//!                      ▲                                                             │
//!                      └── cursor ◀──── tally ◀──── split ◀──── answer ◀─────────────┘
//! ```
//!
//! Each publisher is one task on a thread of its own, with a cursor in the node's sequence. It reads from memory, and from the
//! files of the window log where memory has lost something ([`crate::window_log::Spool`]). It cuts what has settled into rounds, sends them in order,
//! repeats what fails, searches for the series that a backend refuses, and counts what became of every record. Rounds of a batch
//! share requests, and workers share a batch: the cursor moves when all of it is settled. A backend that is away holds up its own
//! publisher alone, which then keeps one request of each worker and its cursor, and no windows.
//!
//! `round`, `parcel`, `split`, `tally`, `lease`, `backoff` and `answer` know no clock and no socket; `sender` and `sinks` do.

mod answer;
mod backoff;
mod cursor_file;
mod dead_letters;
mod follow;
mod lease;
mod parcel;
mod place;
mod rehearsal;
mod round;
mod selection;
mod sender;
mod sinks;
mod split;
mod status;
mod tally;
mod target_client;
mod thread;
pub mod totals;
mod verify;

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot, watch};
use tokio::time::Instant;

use self::dead_letters::DeadLetters;
use self::follow::WindowSource;
use self::place::PublisherPlaces;
use self::sender::{PublisherCall, PublisherTask, SharedParts, StopOrder};
use self::status::{PublisherState, PublisherStatus};
use self::thread::PublisherThread;
use self::verify::{VerifySource, describe_outcome, verify_part};
use crate::config::{PublishConfig, PublisherConfig, StartAt};
use crate::model::Timestamp;
use crate::net::clock;
use crate::store::{Cursor, Store};
use crate::window_log::{DropRecorder, Spool, SpoolStatus};
use crate::wire::{
    DeadLetterDocument, PublisherCheckDocument, PublisherDocument, PublisherVerifyDocument, ReplayedDocument,
};

pub use answer::{ANSWER_CLASSES, Answer, AnswerDialect, HttpAnswer, judge_answer};
pub use rehearsal::{RehearsedBatch, RoundRehearsal};
pub use sinks::{SinkError, check_support};
pub use tally::DROP_REASONS;
pub use verify::{MOST_PARTS, VerifyRequest};

/// How long a task may take to end, beyond a request that is under way.
const ENDING: Duration = Duration::from_secs(1);
/// How long a comparison waits for another one to end.
const TURN: Duration = Duration::from_secs(2);

/// The publishers of the agent. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Publishers(Arc<PublishersParts>);

#[derive(Debug)]
struct PublishersParts {
    shared: SharedParts,
    running: Mutex<BTreeMap<String, RunningPublisher>>,
    /// Held during a comparison, which needs memory.
    verifying: AsyncMutex<()>,
}

#[derive(Debug)]
struct RunningPublisher {
    config: PublisherConfig,
    settle: Duration,
    status: Arc<PublisherStatus>,
    calls: mpsc::Sender<PublisherCall>,
    stop: watch::Sender<Option<StopOrder>>,
    thread: PublisherThread,
}

/// What publishers deliver.
#[derive(Clone, Debug)]
pub struct PublishedWindows {
    /// The windows in memory.
    pub store: Arc<Store>,
    /// Those that memory no longer has.
    pub spool: Arc<Spool>,
    /// How long windows are in memory at least, and can be revised: `windows.keep` times `windows.length`.
    pub kept_for: Duration,
}

impl Publishers {
    /// No publishers yet. Their files are in `publish` below the state directory.
    #[must_use]
    pub fn new(windows: PublishedWindows, node: String, state_dir: &Path) -> Self {
        let PublishedWindows { store, spool, kept_for } = windows;
        let directory = state_dir.join("publish");
        let places = Arc::new(PublisherPlaces::new(directory.clone()));
        spool.record_drops_with(Arc::clone(&places) as Arc<dyn DropRecorder>);
        let shared = SharedParts {
            node,
            source: WindowSource { store, spool, late_parts: kept_for },
            places,
            directory,
            leases: Arc::default(),
            began: Instant::now(),
        };
        Self(Arc::new(PublishersParts {
            shared,
            running: Mutex::default(),
            verifying: AsyncMutex::default(),
        }))
    }

    /// Holds the files of the window log that publishers still need. Called before the log is written, because what is held by
    /// none is removed then, and after another process that published at the same cursors has ended.
    pub fn hold_files(&self, publish: &PublishConfig) {
        let SharedParts { source, places, .. } = &self.0.shared;
        source.spool.set_limit(publish.spool);
        for config in &publish.publishers {
            if let Some(position) = places.open_place(&config.name).next_position() {
                source.spool.hold_earlier(&config.name, position.earlier, position.cursor);
            } else if config.start == StartAt::Kept {
                source.spool.hold_after(&config.name, Cursor { epoch: 0, seq: 0 });
            }
        }
    }

    /// Makes the publishers those of a configuration. One that is configured differently goes on at its cursor.
    pub async fn apply_settings(&self, publish: &PublishConfig) {
        self.0.shared.source.spool.set_limit(publish.spool);
        let mut stopped = Vec::new();
        {
            let mut running = self.running();
            let unchanged = |name: &str, one: &RunningPublisher| {
                let configured = publish.publishers.iter().find(|config| config.name == name);
                configured == Some(&one.config) && one.settle == publish.settle
            };
            let names: Vec<_> = running.keys().cloned().collect();
            for name in names {
                match running.get(&name).is_some_and(|one| unchanged(&name, one)) {
                    // Files are opened again, for rotation.
                    true => drop(running.get(&name).map(|one| one.calls.try_send(PublisherCall::OpenAgain))),
                    false => stopped.extend(running.remove(&name)),
                }
            }
        }
        let mut kept = BTreeMap::new();
        for one in stopped {
            let name = one.config.name.clone();
            let status = Arc::clone(&one.status);
            one.end(StopOrder::AtOnce, Instant::now() + ENDING).await;
            kept.insert(name, status);
        }
        let configured = |name: &str| publish.publishers.iter().any(|config| config.name == name);
        for name in kept.keys().filter(|name| !configured(name)) {
            self.forget_publisher(name);
        }
        self.start_missing(publish, &kept);
    }

    /// Starts the configured publishers that do not run, with the status of those that ran before.
    fn start_missing(&self, publish: &PublishConfig, before: &BTreeMap<String, Arc<PublisherStatus>>) {
        if publish.publishers.is_empty() {
            return;
        }
        let directory = &self.0.shared.directory;
        match std::fs::DirBuilder::new().mode(0o700).create(directory) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                tracing::error!(directory = %directory.display(), %error, "cursors cannot be saved");
            }
            _ => {}
        }
        let mut has_started = false;
        let mut running = self.running();
        for config in &publish.publishers {
            if running.contains_key(&config.name) {
                continue;
            }
            let status = before.get(&config.name).cloned().unwrap_or_default();
            if let Some(started) = self.start_publisher(config.clone(), publish.settle, status) {
                running.insert(config.name.clone(), started);
                has_started = true;
            }
        }
        if has_started && crate::files::is_volatile(directory).unwrap_or(false) {
            tracing::warn!(
                directory = %directory.display(),
                "this directory is in memory: what publishers have not delivered when the machine is rebooted is lost. Set state_dir \
                 to a directory on a disk"
            );
        }
    }

    fn start_publisher(
        &self,
        config: PublisherConfig,
        settle: Duration,
        status: Arc<PublisherStatus>,
    ) -> Option<RunningPublisher> {
        let (calls, received) = mpsc::channel(4);
        let (stop, told) = watch::channel(None);
        let shared = self.0.shared.clone();
        let task = PublisherTask::new((config.clone(), settle), shared, Arc::clone(&status), received, told);
        match task {
            Ok(task) => match PublisherThread::start(&config.name, task.run()) {
                Ok(thread) => Some(RunningPublisher { config, settle, status, calls, stop, thread }),
                Err(error) => {
                    tracing::error!(publisher = config.name, %error, "it has no thread and is not started");
                    None
                }
            },
            Err(error) => {
                tracing::error!(publisher = config.name, %error, "it is not started");
                None
            }
        }
    }

    /// Removes the cursor of a publisher that is no longer configured, and lets go of the files that are kept for it. Its dead
    /// letters stay, for a person to read.
    fn forget_publisher(&self, name: &str) {
        let SharedParts { source, places, .. } = &self.0.shared;
        source.spool.release_publisher(name);
        if let Err(error) = places.forget_place(name) {
            tracing::warn!(publisher = name, %error, "the cursor of a removed publisher cannot be removed");
        }
    }

    /// Starts publishers again that have failed or hang, for as long as this is polled.
    pub async fn restart_failed(self, settings: impl Fn() -> PublishConfig) {
        loop {
            let publish = settings();
            tokio::time::sleep(publish.reap_every).await;
            let now = self.0.shared.began.elapsed();
            // A request that is within its own time limit does not hang.
            let longest = publish.publishers.iter().map(|config| config.sink.timeout_limit()).max();
            let lease = publish.lease.max(longest.unwrap_or_default() + ENDING);
            let overdue = {
                let mut leases = self.0.shared.leases.lock().unwrap_or_else(PoisonError::into_inner);
                leases.reap_overdue(now, lease, publish.reap_limit)
            };
            let mut running = self.running();
            let ended = running.iter().filter(|(name, one)| {
                one.stop.borrow().is_none() && (one.thread.is_finished() || overdue.contains(name.as_str()))
            });
            let ended: Vec<_> = ended.map(|(name, _)| name.clone()).collect();
            for name in ended {
                let Some(one) = running.remove(&name) else { continue };
                // Cancels one that hangs.
                drop(one.thread);
                one.status.update_with(|status| status.restarts += 1);
                tracing::error!(
                    publisher = name,
                    "it has failed or hung, and is started again at its cursor"
                );
                if let Some(started) = self.start_publisher(one.config, one.settle, one.status) {
                    running.insert(name, started);
                }
            }
        }
    }

    /// Sends what is left, for as long as there is time, and ends all publishers.
    pub async fn flush_all(&self, time: Duration) {
        let until = Instant::now() + time;
        self.end_all(StopOrder::Flush(until), until).await;
    }

    /// Ends all publishers at once; another process goes on at their cursors.
    pub async fn stop_all(&self) {
        self.end_all(StopOrder::AtOnce, Instant::now() + ENDING).await;
    }

    async fn end_all(&self, order: StopOrder, until: Instant) {
        let running = std::mem::take(&mut *self.running());
        for one in running.values() {
            one.stop.send_replace(Some(order));
        }
        for one in running.into_values() {
            one.end(order, until).await;
        }
    }

    /// Each publisher's document, by name.
    #[must_use]
    pub fn list_documents(&self) -> Vec<PublisherDocument> {
        let (end, now) = (self.0.shared.source.store.end_cursor(), clock::wall_time());
        let running = self.running();
        running.values().map(|one| one.status.values().to_document(&one.config, end, now)).collect()
    }

    /// Whether there is a publisher.
    #[must_use]
    pub fn is_any_running(&self) -> bool {
        !self.running().is_empty()
    }

    /// The files that are kept for publishers.
    #[must_use]
    pub fn spool_status(&self) -> SpoolStatus {
        self.0.shared.source.spool.snapshot()
    }

    /// Has a publisher send one record. `None` if there is no publisher of this name, or it ends.
    pub async fn check_publisher(&self, name: &str) -> Option<PublisherCheckDocument> {
        self.call_publisher(name, PublisherCall::Check).await
    }

    /// Has a publisher send kept windows that end after `since` again, or else its dead letters.
    pub async fn replay_publisher(&self, name: &str, since: Option<Timestamp>) -> Option<ReplayedDocument> {
        self.call_publisher(name, |reply| PublisherCall::Replay(since, reply)).await
    }

    /// Compares a part of what a publisher has sent with what its destination holds. `None` if there is no publisher of this name.
    pub async fn verify_publisher(
        &self,
        name: &str,
        request: VerifyRequest,
    ) -> Option<PublisherVerifyDocument> {
        let Ok(_turn) = tokio::time::timeout(TURN, self.0.verifying.lock()).await else {
            let why = "another comparison is under way; try again".to_owned();
            return Some(describe_outcome("failed", Some(why)));
        };
        let source = {
            let running = self.running();
            let one = running.get(name)?;
            let (status, store) = (one.status.values(), &self.0.shared.source.store);
            // Windows of earlier runs, which cannot be told to be whole, are not compared.
            let place = |cursor: Cursor| if cursor.epoch == store.epoch() { cursor.seq } else { 0 };
            VerifySource {
                config: one.config.clone(),
                settle: one.settle,
                node: self.0.shared.node.clone(),
                store: Arc::clone(store),
                spool: Arc::clone(&self.0.shared.source.spool),
                sent: status.position.map_or(0, |position| place(position.cursor)),
                begun: status.begun.map_or(0, place),
            }
        };
        Some(verify_part(source, request).await)
    }

    async fn call_publisher<T>(
        &self,
        name: &str,
        call: impl FnOnce(oneshot::Sender<T>) -> PublisherCall,
    ) -> Option<T> {
        let calls = self.running().get(name)?.calls.clone();
        let (reply, answer) = oneshot::channel();
        calls.send(call(reply)).await.ok()?;
        answer.await.ok()
    }

    /// The dead letters of a publisher. `None` if there is no publisher of this name.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read_dead_letters(&self, name: &str) -> std::io::Result<Option<Vec<DeadLetterDocument>>> {
        if !self.running().contains_key(name) {
            return Ok(None);
        }
        DeadLetters::new(&self.0.shared.directory, name).read_letters().map(Some)
    }

    // Poisoning is ignored: publishers are only ever added or removed.
    fn running(&self) -> MutexGuard<'_, BTreeMap<String, RunningPublisher>> {
        self.0.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RunningPublisher {
    /// Ends the thread; one that does not end is cancelled, and its request may be sent again.
    async fn end(self, order: StopOrder, until: Instant) {
        let Self { config, status, stop, mut thread, .. } = self;
        stop.send_replace(Some(order));
        if !thread.wait_until(until + ENDING).await
            // Its last word is the cursor that it has saved.
            && !thread.cancel_until(Instant::now() + ENDING).await
        {
            tracing::error!(publisher = config.name, "it hangs where it cannot be ended");
        }
        status.update_with(|status| status.state = PublisherState::Stopped);
    }
}
