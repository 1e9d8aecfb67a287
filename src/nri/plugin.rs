//! Handles the calls of the runtime.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use prost::Message as _;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::adjustment::build_adjustment;
use super::identity;
use super::messages::{
    About, Adjustment, Configure, ConfigureAnswer, CreateContainerAnswer, Listing, NriContainer, NriEvent,
    PLUGIN_SERVICE, PodSandbox, StateChange, Synchronize, SynchronizeAnswer, TtrpcRequest, TtrpcStatus,
};
use super::selection::{SelectionRules, SelectionVerdict};
use super::ttrpc::{INVALID, UNIMPLEMENTED};
use crate::containers::{
    ContainerInfo, ContainerTableHandle, LifecycleState, Reservation, ReserveError, Unserved,
};
use crate::model::ContainerId;
use crate::net::clock;
use crate::stats::{NriOutcome, NriStats, Stats};

/// The settings of the plugin; a reload changes them for new containers.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PluginSettings {
    /// Which containers to serve.
    pub selection: SelectionRules,
    /// Aliases of the two variables, by preset.
    pub presets: Vec<String>,
}

/// How long a call waits for the container table. The runtime waits two seconds for the plugin and then disconnects it.
const BUDGET: Duration = Duration::from_millis(500);
/// How long a container that was created may take to start. Longer than kubelet waits for the runtime (two minutes).
const STARTS_WITHIN: Duration = Duration::from_mins(5);

/// The events that the plugin subscribes to; any other would only delay the runtime.
const EVENTS: [NriEvent; 4] =
    [NriEvent::CreateContainer, NriEvent::StartContainer, NriEvent::StopContainer, NriEvent::RemoveContainer];

/// The plugin. It outlives connections, because it tracks its containers.
#[derive(Debug)]
pub struct Plugin {
    pub(super) containers: ContainerTableHandle,
    pub(super) settings: watch::Receiver<Arc<PluginSettings>>,
    stats: Arc<Stats>,
    /// Containers that the runtime reported and that are in the table; for those that have not started, when they were
    /// created.
    pub(super) ours: HashMap<ContainerId, Option<Instant>>,
    /// Why containers that are about to start have no socket. Kept until they are shown with the reason.
    pub(super) refused: HashMap<ContainerId, String>,
    pub(super) listing: Listing,
}

/// Maximum number of reasons kept for containers that have not started: far more than a runtime creates at a time.
/// Without a limit, containers that never start would accumulate.
const REFUSED: usize = 1000;

/// The state of the plugin in a hand-over.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct PluginState {
    /// Containers that the runtime reported, and whether each has yet to start.
    ours: Vec<(ContainerId, bool)>,
    refused: Vec<(ContainerId, String)>,
}

impl Plugin {
    /// A plugin that adds containers to the table.
    #[must_use]
    pub fn new(
        containers: ContainerTableHandle,
        settings: watch::Receiver<Arc<PluginSettings>>,
        stats: Arc<Stats>,
    ) -> Self {
        let (ours, refused) = (HashMap::new(), HashMap::new());
        Self { containers, settings, stats, ours, refused, listing: Listing::default() }
    }

    /// The state for the plugin of the next process.
    pub(super) fn to_state(&self) -> PluginState {
        PluginState {
            ours: self.ours.iter().map(|(id, waits)| (id.clone(), waits.is_some())).collect(),
            refused: self.refused.clone().into_iter().collect(),
        }
    }

    /// Restores the state of the previous process.
    pub(super) fn restore_state(&mut self, before: PluginState) {
        let now = Instant::now();
        self.ours = before.ours.into_iter().map(|(id, waits)| (id, waits.then_some(now))).collect();
        self.refused = before.refused.into_iter().collect();
    }

    pub(super) fn stats(&self) -> &NriStats {
        &self.stats.nri
    }

    /// Handles a call.
    ///
    /// # Errors
    /// With a status, when the method is unknown, or when the description of the runtime or its list of
    /// containers cannot be decoded. Calls about a container never fail: the runtime would not create it.
    pub(super) async fn call(&mut self, request: &TtrpcRequest) -> Result<Vec<u8>, TtrpcStatus> {
        let started = std::time::Instant::now();
        let answer = self.dispatch_call(request).await;
        self.stats().record_handling(started.elapsed());
        answer
    }

    async fn dispatch_call(&mut self, request: &TtrpcRequest) -> Result<Vec<u8>, TtrpcStatus> {
        let payload = request.payload.as_slice();
        if request.service != PLUGIN_SERVICE {
            return Err(unimplemented_status(&request.service));
        }
        match request.method.as_str() {
            "Configure" => Ok(answer_configure(&read(payload)?).encode_to_vec()),
            "Synchronize" => Ok(self.handle_synchronize(read(payload)?).await?.encode_to_vec()),
            "CreateContainer" => {
                let adjust = self.handle_create(&decode_or_default(payload)).await;
                Ok(CreateContainerAnswer { adjust }.encode_to_vec())
            }
            "StateChange" => {
                let StateChange { event, pod, container } = decode_or_default(payload);
                let event = NriEvent::try_from(event).unwrap_or(NriEvent::Unknown);
                self.handle_event(event, About { pod, container }).await;
                Ok(Vec::new())
            }
            "Shutdown" => {
                tracing::info!("the container runtime is shutting down");
                Ok(Vec::new())
            }
            method => match event_of(method) {
                Some(event) => {
                    self.handle_event(event, decode_or_default(payload)).await;
                    Ok(Vec::new())
                }
                None => Err(unimplemented_status(method)),
            },
        }
    }

    /// A container is about to be created.
    async fn handle_create(&mut self, about: &About) -> Option<Adjustment> {
        let (pod, container) = (about.pod.as_ref()?, about.container.as_ref()?);
        let settings = Arc::clone(&self.settings.borrow());
        let verdict = settings.selection.judge_container(pod, container);
        if verdict != SelectionVerdict::Inject {
            self.left_alone(pod, container, verdict);
            return None;
        }
        let served = match identity::build_reservation(pod, container) {
            Ok(reservation) => self.reserve_at_creation(reservation).await,
            Err(error) => Err(format!("its id {error}")),
        };
        let adjusted = match served {
            Ok(info) => build_adjustment(container, &info, &settings.presets),
            Err(why) => Err(why),
        };
        match adjusted {
            Ok(adjustment) => {
                self.stats().count(NriOutcome::Injected);
                Some(adjustment)
            }
            Err(why) => {
                // Release any reservation: the container does not learn its address.
                self.release_container(&container.id).await;
                self.stats().count_failure(&why, clock::wall_time());
                tracing::warn!(namespace = ?pod.namespace, pod = ?pod.name, container = ?container.name, %why,
                    "a container starts without a socket");
                self.keep_reason(container, why);
                None
            }
        }
    }

    /// Keeps the reason why a container has no socket until it is started and shown.
    fn keep_reason(&mut self, container: &NriContainer, why: String) {
        if let Ok(id) = ContainerId::new(&container.id)
            && self.refused.len() < REFUSED
        {
            self.refused.insert(id, why);
        }
    }

    fn left_alone(&self, pod: &PodSandbox, container: &NriContainer, verdict: SelectionVerdict) {
        let outcome = match verdict {
            SelectionVerdict::Inject => return,
            SelectionVerdict::Observe => NriOutcome::Observed,
            SelectionVerdict::Sandboxed => NriOutcome::Sandboxed,
            SelectionVerdict::OptedOut | SelectionVerdict::NotOptedIn => NriOutcome::OptedOut,
            SelectionVerdict::Excluded(_) => NriOutcome::Excluded,
        };
        self.stats().count(outcome);
        let (namespace, pod_name, name) = (&pod.namespace, &pod.name, &container.name);
        if verdict == SelectionVerdict::Sandboxed {
            let handler = &pod.runtime_handler;
            tracing::warn!(?namespace, pod = ?pod_name, container = ?name, ?handler,
                "a container with its own kernel cannot reach a socket on the node, and gets none");
        } else {
            tracing::debug!(?namespace, pod = ?pod_name, container = ?name, ?verdict, "left alone");
        }
    }

    /// Reserves a socket for a container that is being created, and times out before the runtime disconnects the
    /// plugin. Not for running containers: they have their address already and must not lose it on a timeout.
    async fn reserve_at_creation(&mut self, reservation: Reservation) -> Result<Arc<ContainerInfo>, String> {
        let id = reservation.container_id.clone();
        match self.containers.reserve_within(BUDGET, reservation).await {
            Some(Ok(reserved)) => {
                self.ours.entry(id).or_insert_with(|| Some(Instant::now()));
                Ok(reserved.info)
            }
            Some(Err(error)) => Err(error.to_string()),
            // The table releases a late reservation, whose address the container would not know.
            None => Err("the container table did not answer in time".to_owned()),
        }
    }

    /// Handles an event of a container. The runtime may report an event twice; the second report must change nothing.
    async fn handle_event(&mut self, event: NriEvent, about: About) {
        let (Some(pod), Some(container)) = (about.pod, about.container) else { return };
        match event {
            NriEvent::StartContainer | NriEvent::PostStartContainer => {
                self.handle_start(&pod, &container).await;
            }
            NriEvent::StopContainer | NriEvent::RemoveContainer => {
                self.release_container(&container.id).await;
            }
            _ => {}
        }
    }

    async fn handle_start(&mut self, pod: &PodSandbox, container: &NriContainer) {
        let Ok(id) = ContainerId::new(&container.id) else { return };
        if !self.is_served(&id) {
            // It was created by a previous run, while the plugin was not connected, or got no socket.
            if self.settings.borrow().selection.judge_container(pod, container) != SelectionVerdict::Inject {
                return;
            }
            self.restore_container(&id, pod, container).await;
        }
        if let Some(waits) = self.ours.get_mut(&id) {
            *waits = None;
            self.attach_process(id, container.pid).await;
        }
    }

    pub(super) async fn release_container(&mut self, id: &str) {
        let Ok(id) = ContainerId::new(id) else { return };
        self.refused.remove(&id);
        if self.ours.remove(&id).is_some() {
            let containers = self.containers.clone();
            // It may have ended already, and its tombstone time may be over.
            let _either_way = within_budget(async move { containers.release(id).await }).await;
        }
    }

    /// Shows a running container that has no socket. A reason that was kept at its creation is shown instead of the given one.
    pub(super) async fn show_unserved(
        &mut self,
        pod: &PodSandbox,
        container: &NriContainer,
        why: Unserved,
        reason: &str,
    ) {
        let outcome = match why {
            Unserved::Mute => NriOutcome::Mute,
            Unserved::Lost => NriOutcome::Lost,
        };
        let Ok(reservation) = identity::build_reservation(pod, container) else { return };
        let (containers, id) = (self.containers.clone(), reservation.container_id.clone());
        let reason = self.refused.remove(&id).unwrap_or_else(|| reason.to_owned());
        let noted =
            within_budget(async move { containers.register_unserved(reservation, why, reason).await }).await;
        match noted {
            Some(Ok(reserved)) => {
                // A container with a socket got it from another launcher, which also releases it.
                if matches!(reserved.info.state, LifecycleState::Mute | LifecycleState::Lost) {
                    self.ours.insert(id, None);
                }
                if reserved.new {
                    self.stats().count(outcome);
                }
            }
            // The table registers it later, unless another launcher has reserved a socket for it and releases it.
            None => {
                let info = self.containers.directory().find_container(&id);
                if !info.is_some_and(|info| info.state.can_attach()) {
                    self.ours.insert(id, None);
                    self.stats().count(outcome);
                }
            }
            Some(Err(ReserveError::Ending)) => {}
            Some(Err(error)) => {
                tracing::warn!(container = ?container.id, %error, "a container cannot be shown");
            }
        }
    }

    /// Attaches a container's process, so that its end is noticed at once. If the agent is not in the node's PID
    /// namespace, the runtime's events are used instead.
    pub(super) async fn attach_process(&self, id: ContainerId, pid: u32) {
        let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0) else { return };
        let (containers, attached) = (self.containers.clone(), id.clone());
        if let Some(Err(error)) =
            within_budget(async move { containers.attach_process(attached, pid).await }).await
        {
            tracing::debug!(container = %id, pid, %error, "its process cannot be watched");
        }
    }

    /// Whether a container is live in the table and was not refused a socket. A refused one can be in the table until
    /// its late reservation is released, or because another launcher has reserved it.
    pub(super) fn is_served(&self, id: &ContainerId) -> bool {
        let live = self.containers.directory().find_container(id).is_some_and(|info| info.state.is_live());
        live && !self.refused.contains_key(id)
    }

    /// Releases containers that were created long ago and never started: the runtime has dropped them without an event.
    pub(super) async fn look_over(&mut self, now: Instant) {
        let due =
            |created: &Option<Instant>| created.is_some_and(|at| now.duration_since(at) > STARTS_WITHIN);
        let due: Vec<_> = self.ours.iter().filter(|(_, at)| due(at)).map(|(id, _)| id.clone()).collect();
        for id in due {
            tracing::info!(container = %id, "it was created and never started");
            self.release_container(id.as_str()).await;
        }
    }

    async fn handle_synchronize(&mut self, part: Synchronize) -> Result<SynchronizeAnswer, TtrpcStatus> {
        let more = part.more;
        self.listing.add(part).map_err(|error| TtrpcStatus { code: INVALID, message: error.to_string() })?;
        if !more {
            let listing = std::mem::take(&mut self.listing);
            self.reconcile_listing(listing).await;
            tracing::info!("registered with the container runtime");
        }
        Ok(SynchronizeAnswer { more })
    }
}

/// Runs a request to the table whose outcome the runtime does not need, and waits for it for at most [`BUDGET`]: the
/// runtime disconnects a plugin that does not answer within two seconds. `None` if it takes longer; it is completed
/// anyway.
pub(super) async fn within_budget<T: Send + 'static>(
    asked: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    tokio::time::timeout(BUDGET, tokio::spawn(asked)).await.ok()?.ok()
}

fn answer_configure(runtime: &Configure) -> ConfigureAnswer {
    tracing::info!(runtime = ?runtime.runtime_name, version = ?runtime.runtime_version, nri = ?runtime.nri_version,
        "the container runtime has accepted the plugin");
    ConfigureAnswer { events: EVENTS.into_iter().fold(0, |events, event| events | event.subscription_bit()) }
}

/// The event of a dedicated method (NRI 0.12 and later; earlier versions send all events as `StateChange`).
fn event_of(method: &str) -> Option<NriEvent> {
    Some(match method {
        "RunPodSandbox" => NriEvent::RunPodSandbox,
        "StopPodSandbox" => NriEvent::StopPodSandbox,
        "RemovePodSandbox" => NriEvent::RemovePodSandbox,
        "PostCreateContainer" => NriEvent::PostCreateContainer,
        "StartContainer" => NriEvent::StartContainer,
        "PostStartContainer" => NriEvent::PostStartContainer,
        "UpdateContainer" => NriEvent::UpdateContainer,
        "PostUpdateContainer" => NriEvent::PostUpdateContainer,
        "StopContainer" => NriEvent::StopContainer,
        "RemoveContainer" => NriEvent::RemoveContainer,
        "UpdatePodSandbox" | "PostUpdatePodSandbox" => NriEvent::Unknown,
        _ => return None,
    })
}

fn read<M: prost::Message + Default>(payload: &[u8]) -> Result<M, TtrpcStatus> {
    M::decode(payload).map_err(|error| TtrpcStatus { code: INVALID, message: error.to_string() })
}

/// Decodes a message about a container; returns an empty one if it is invalid.
fn decode_or_default<M: prost::Message + Default>(payload: &[u8]) -> M {
    M::decode(payload).unwrap_or_else(|error| {
        tracing::warn!(%error, "cannot decode the container runtime's message about a container; ignoring its contents");
        M::default()
    })
}

fn unimplemented_status(what: &str) -> TtrpcStatus {
    TtrpcStatus { code: UNIMPLEMENTED, message: format!("{what:?} is not implemented") }
}

#[cfg(test)]
pub(super) mod tests;
