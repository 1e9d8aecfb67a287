//! The agent while it moves: to another process, or into a store for the next agent.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, TryLockError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::Notify;

use super::conversation::{AgentDescriptors, SuccessorStep};
use crate::aggregate::encode;
use crate::api::Pages;
use crate::config::AgentConfig;
use crate::containers::{ContainerTableHandle, Leaving};
use crate::net::clock;
use crate::net::passing::Channel;
use crate::nri::{SuspendedPlugin, Suspender};
use crate::shard::{SentAhead, ShardPool};
use crate::shutdown::Pauser;
use crate::store::Store;

/// How long the NRI plugin may take to stop between two calls: longer than it takes to answer one. Everything is paused
/// meanwhile.
const PLUGIN_STOP_TIMEOUT: Duration = Duration::from_secs(1);

/// The parts of the agent that have state to move, or stop meanwhile.
#[derive(Debug)]
pub struct MovableParts {
    /// Closed windows.
    pub store: Arc<Store>,
    /// The shards.
    pub pool: Arc<ShardPool>,
    /// The container table.
    pub containers: ContainerTableHandle,
    /// Answers that are being built or sent.
    pub pages: Pages,
    /// The configuration in force.
    pub config: Arc<RwLock<Arc<AgentConfig>>>,
}

/// Everything that the old process can hand over, and whether it still has it.
#[derive(Debug)]
pub struct Holding {
    parts: MovableParts,
    shared: AgentDescriptors,
    pauser: Pauser,
    nri: Suspender,
    /// Locked from when another process begins to take over until the outcome is known.
    location: Mutex<StateLocation>,
    /// Whether this agent has been told to end.
    told_to_end: AtomicBool,
    /// Whether it was told so again, so that it no longer waits for any other process.
    given_up: Arc<AtomicBool>,
    /// Wakes those who wait for that.
    gave_up: Notify,
}

/// Which process has the state of the agent.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum StateLocation {
    Here,
    /// Here, and this agent is ending: no hand-over may begin.
    Ending,
    /// With another process.
    Moved,
}

/// The right to move the agent. While it is held nothing else moves the agent, and the agent does not end.
#[derive(Debug)]
pub(super) struct Claim<'a> {
    holding: &'a Holding,
    location: MutexGuard<'a, StateLocation>,
}

/// The agent while it moves: new work is paused, the plugin has stopped, and the table waits for the outcome. Dropping
/// it without one resumes everything.
#[derive(Debug)]
pub(super) struct Moving<'a> {
    holding: &'a Holding,
    location: MutexGuard<'a, StateLocation>,
    plugin: Option<SuspendedPlugin>,
    /// When the plugin stopped, as time since boot.
    stopped: Duration,
    leaving: Option<Leaving>,
}

impl Holding {
    /// Holds everything. `shared` are copies of the agent's own descriptors.
    #[must_use]
    pub fn new(parts: MovableParts, shared: AgentDescriptors, pauser: Pauser, nri: Suspender) -> Self {
        let location = Mutex::new(StateLocation::Here);
        let (told_to_end, given_up, gave_up) = Default::default();
        Self { parts, shared, pauser, nri, location, told_to_end, given_up, gave_up }
    }

    pub(super) const fn movable_parts(&self) -> &MovableParts {
        &self.parts
    }

    /// The configuration in force.
    pub(super) fn current_config(&self) -> Arc<AgentConfig> {
        Arc::clone(&self.parts.config.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Prevents processes from beginning to take over from now on. Waits for a hand-over that is under way, and returns whether
    /// another process has everything.
    pub async fn close_to_successors(self: &Arc<Self>) -> bool {
        let holding = Arc::clone(self);
        tokio::task::spawn_blocking(move || holding.close()).await.unwrap_or(false)
    }

    fn close(&self) -> bool {
        self.told_to_end.store(true, Ordering::Relaxed);
        let mut location = match self.location.try_lock() {
            Ok(free) => free,
            Err(TryLockError::Poisoned(free)) => free.into_inner(),
            Err(TryLockError::WouldBlock) => {
                tracing::info!("told to end during a hand-over; waiting for its outcome");
                self.location.lock().unwrap_or_else(PoisonError::into_inner)
            }
        };
        if *location == StateLocation::Here {
            *location = StateLocation::Ending;
        }
        *location == StateLocation::Moved
    }

    /// Whether this agent has been told to end, so that a hand-over should finish quickly.
    pub(super) fn is_told_to_end(&self) -> bool {
        self.told_to_end.load(Ordering::Relaxed)
    }

    /// Cancels a hand-over in progress, unless the other process replies at this moment. The agent then resumes here.
    fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
        self.gave_up.notify_waiters();
    }

    /// Waits until whatever is being handed over is given up.
    pub async fn wait_until_given_up(&self) {
        // Created before the look, so that a notification after it is not missed.
        let gave_up = self.gave_up.notified();
        if !self.given_up.load(Ordering::Relaxed) {
            gave_up.await;
        }
    }

    /// Waits for a step, unless what is being handed over is given up.
    fn wait_for_step<T>(&self, handle: &Handle, step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        handle.block_on(async {
            tokio::select! {
                biased;
                () = self.wait_until_given_up() => {
                    let why = "given up, because this process was told to end again";
                    Err(io::Error::new(io::ErrorKind::ConnectionAborted, why))
                }
                done = step => done,
            }
        })
    }

    /// Waits for something that a hand-over may delay. A second signal to end (`told_again`) gives the hand-over up; the result
    /// says whether there was one.
    pub async fn unless_told_again<T>(
        &self,
        waits: impl Future<Output = T>,
        told_again: impl Future<Output = ()>,
    ) -> (T, bool) {
        let mut waits = std::pin::pin!(waits);
        tokio::select! {
            biased;
            done = &mut waits => (done, false),
            () = told_again => {
                tracing::warn!("told to end again; giving up what is being handed over");
                self.give_up();
                (waits.await, true)
            }
        }
    }

    /// The connection to the process that everything is handed over to. Waits for its messages end once the hand-over is
    /// given up.
    pub(super) fn until_given_up(&self, channel: Channel) -> Channel {
        channel.until_given_up(Arc::clone(&self.given_up))
    }

    /// The right to hand over to a successor.
    ///
    /// # Errors
    /// When another process has taken over already, or this agent is ending.
    pub(super) fn claim_for_successor(&self) -> io::Result<Claim<'_>> {
        let claim = self.claim_move()?;
        match *claim.location {
            StateLocation::Ending => Err(io::Error::other("the agent is shutting down")),
            StateLocation::Here | StateLocation::Moved => Ok(claim),
        }
    }

    /// The right to store everything for the next agent, although this one ends.
    ///
    /// # Errors
    /// When another process has everything already.
    pub(super) fn claim_move(&self) -> io::Result<Claim<'_>> {
        let location = self.location.lock().unwrap_or_else(PoisonError::into_inner);
        match *location {
            StateLocation::Moved => Err(io::Error::other("another process has taken over")),
            StateLocation::Here | StateLocation::Ending => Ok(Claim { holding: self, location }),
        }
    }
}

impl<'a> Claim<'a> {
    /// Stops everything that changes what is handed over. `sent` are the containers that the other process knows already.
    ///
    /// # Errors
    /// When the plugin does not stop, a shard has ended, descriptors ran out, or the hand-over is given up. Then everything
    /// goes on.
    pub(super) fn stop_agent(self, sent: SentAhead, handle: &Handle) -> io::Result<Moving<'a>> {
        let Self { holding, location } = self;
        holding.pauser.set_paused(true);
        holding.parts.pages.stand_still(true);
        let stopped = clock::since_boot();
        let mut moving = Moving { holding, location, plugin: None, stopped, leaving: None };
        // Before the table, which a call in progress may need.
        moving.plugin = holding.wait_for_step(handle, async {
            let suspended = tokio::time::timeout(PLUGIN_STOP_TIMEOUT, holding.nri.suspend_plugin()).await;
            suspended.map_err(|_| io::Error::other("the NRI plugin is busy; try again"))
        })?;
        moving.stopped = clock::since_boot();
        moving.leaving = Some(holding.wait_for_step(handle, holding.parts.containers.hand_over(sent))?);
        Ok(moving)
    }
}

impl Moving<'_> {
    /// Encodes the last message, without its descriptors.
    ///
    /// # Errors
    /// When the containers are no longer suspended.
    pub(super) fn encode_final_state(&self, part: Vec<u8>) -> io::Result<Vec<u8>> {
        let carried = self.plugin.as_ref().map(|plugin| &plugin.carried);
        let nri = carried.map(|carried| (&carried.state, carried.socket.is_some()));
        let leaving = self.leaving.as_ref().ok_or_else(|| io::Error::other("no containers are suspended"))?;
        // In the order of `FinalState`.
        Ok(encode(&(&leaving.manifest, Bytes::from(part), nri)))
    }

    /// Duplicates every descriptor of the last message, in order.
    ///
    /// # Errors
    /// When descriptors ran out.
    pub(super) fn clone_descriptors(&self) -> io::Result<Vec<OwnedFd>> {
        let nri = self.plugin.as_ref().and_then(|plugin| plugin.carried.socket.as_ref());
        let of_containers = self.leaving.iter().flat_map(|leaving| &leaving.descriptors);
        let all = self.holding.shared.0.iter().chain(nri).chain(of_containers);
        all.map(OwnedFd::try_clone).collect()
    }

    /// How long the other process may take for a step. The container runtime waits, too, while its connection is handed over.
    pub(super) fn remaining_time(&self, step: SuccessorStep) -> Duration {
        let carries = self.plugin.as_ref().is_some_and(|plugin| plugin.carried.socket.is_some());
        step.remaining_time(carries.then(|| clock::since_boot().saturating_sub(self.stopped)))
    }

    /// Keeps the guard of listeners attached until the next agent has one.
    pub(super) fn guard_descriptors(&self) -> &[OwnedFd] {
        self.leaving.as_ref().map_or(&[], |leaving| &leaving.guard)
    }

    /// Ends here if everything is `taken` by another process, and otherwise goes on.
    pub(super) fn conclude_move(mut self, taken: bool) {
        if taken {
            *self.location = StateLocation::Moved;
        }
        self.release_or_resume(taken);
    }

    fn release_or_resume(&mut self, taken: bool) {
        self.leaving.take().into_iter().for_each(|leaving| leaving.send_outcome(taken));
        self.plugin.take().into_iter().for_each(|plugin| plugin.report_outcome(taken));
        self.holding.pauser.set_paused(taken);
        self.holding.parts.pages.stand_still(false);
    }
}

impl Drop for Moving<'_> {
    fn drop(&mut self) {
        if *self.location != StateLocation::Moved {
            self.release_or_resume(false);
        }
    }
}

// An absent plugin is never busy, which is what they test.
#[cfg(test)]
#[cfg(feature = "nri")]
mod tests;
