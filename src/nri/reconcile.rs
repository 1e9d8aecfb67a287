//! Compares the runtime's list of containers with the table.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::adjustment::{Given, annotated_sockets, verified_sockets};
use super::identity;
use super::messages::{ContainerState, Listing, NriContainer, PodSandbox};
use super::plugin::{Plugin, within_budget};
use super::selection::SelectionVerdict;
use crate::containers::{UnixWish, Unserved, WantedAddress};
use crate::model::ContainerId;
use crate::stats::NriOutcome;

/// The reason for a container that the runtime created without waiting for the plugin.
const UNHEARD: &str =
    "the container runtime did not wait for the agent's answer and created it without a socket";
/// The reason for a container that was created without a call to the plugin.
const UNASKED: &str = "it was created while the agent was not connected to the container runtime";

/// How a listed container is handled.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum ListedStatus {
    /// It has ended; its entry is released.
    Ended,
    /// It is known and live.
    Known,
    /// It is not known, and is not served.
    Other,
    /// It is not known, and running.
    Unknown,
}

fn classify_container(state: i32, live: bool, verdict: SelectionVerdict) -> ListedStatus {
    let state = ContainerState::try_from(state).unwrap_or(ContainerState::Unknown);
    match (state, live) {
        (ContainerState::Stopped, _) => ListedStatus::Ended,
        (_, true) => ListedStatus::Known,
        // A container that was created but not started is reported again when it starts.
        (ContainerState::Running | ContainerState::Paused, false) if verdict == SelectionVerdict::Inject => {
            ListedStatus::Unknown
        }
        _ => ListedStatus::Other,
    }
}

impl Plugin {
    /// Keeps known containers, releases missing ones, opens addresses again, and shows containers without one.
    pub(super) async fn reconcile_listing(&mut self, listing: Listing) {
        let Listing { pods, containers, .. } = listing;
        let mut there = HashSet::new();
        let mut counts = [0_usize; 3];
        for container in &containers {
            let Ok(id) = ContainerId::new(&container.id) else { continue };
            let Some(pod) = pods.get(&container.pod_sandbox_id) else { continue };
            let verdict = self.settings.borrow().selection.judge_container(pod, container);
            match classify_container(container.state, self.is_served(&id), verdict) {
                ListedStatus::Ended => continue,
                ListedStatus::Known if self.never_heard(&id, container) => {
                    self.release_container(id.as_str()).await;
                    self.show_unserved(pod, container, Unserved::Mute, UNHEARD).await;
                    self.track_container(&id, container).await;
                    counts[2] += 1;
                }
                ListedStatus::Known => {
                    counts[0] += 1;
                    self.track_container(&id, container).await;
                }
                ListedStatus::Unknown if self.restore_container(&id, pod, container).await => counts[1] += 1,
                ListedStatus::Unknown => counts[2] += 1,
                ListedStatus::Other => {}
            }
            there.insert(id);
        }
        let gone: Vec<_> = self.ours.keys().filter(|id| !there.contains(*id)).cloned().collect();
        for id in &gone {
            self.release_container(id.as_str()).await;
        }
        // Some were removed while the plugin was not connected.
        self.refused.retain(|id, _| there.contains(id));
        let [kept, restored, without] = counts;
        tracing::info!(kept, restored, without, released = gone.len(), "compared with the container runtime");
    }

    /// Whether a container runs without the address that was reserved for it, because the runtime timed out before it
    /// got the response.
    fn never_heard(&self, id: &ContainerId, container: &NriContainer) -> bool {
        let Some(info) = self.containers.directory().find_container(id) else { return false };
        let runs = container.state == ContainerState::Running as i32;
        let told = annotated_sockets(container);
        let heard = match info.address {
            Some(address) => told.is_some_and(|told| told.address == Some(address)),
            None => info.unix.is_none() || told.is_some(),
        };
        runs && self.ours.contains_key(id) && !heard
    }

    async fn track_container(&mut self, id: &ContainerId, container: &NriContainer) {
        let runs = container.state == ContainerState::Running as i32;
        if annotated_sockets(container).is_some() {
            self.ours.entry(id.clone()).or_insert(None);
        }
        // Containers of other launchers are left to them.
        if let Some(waits) = self.ours.get_mut(id)
            && runs
        {
            *waits = None;
            self.attach_process(id.clone(), container.pid).await;
        }
    }

    /// Opens the address that a previous run gave to a container, or shows that it has none.
    pub(super) async fn restore_container(
        &mut self,
        id: &ContainerId,
        pod: &PodSandbox,
        container: &NriContainer,
    ) -> bool {
        let Some(Given { address, socket }) = verified_sockets(pod, container) else {
            self.show_unserved(pod, container, Unserved::Mute, UNASKED).await;
            self.track_container(id, container).await;
            return false;
        };
        let Ok(mut reservation) = identity::build_reservation(pod, container) else { return false };
        let wanted =
            |address: SocketAddr| WantedAddress { host: Some(address.ip()), port: Some(address.port()) };
        reservation.wanted = address.map(wanted);
        // It keeps what it was given, regardless of the current settings.
        reservation.unix = Some(match (&socket, address) {
            (Some(_), None) => UnixWish::Only,
            (Some(_), Some(_)) => UnixWish::Beside,
            (None, _) => UnixWish::No,
        });
        reservation.mounted = socket;
        let (containers, of) = (self.containers.clone(), reservation.container_id.clone());
        let restored = match within_budget(async move { containers.reserve(reservation).await }).await {
            Some(Ok(_)) => {
                self.ours.entry(of).or_insert(None);
                Ok(())
            }
            Some(Err(error)) => Err(error.to_string()),
            // The container keeps this address, so the table opens it even after the timeout.
            None => {
                self.ours.insert(of, None);
                Ok(())
            }
        };
        if let Err(why) = &restored {
            tracing::warn!(namespace = ?pod.namespace, pod = ?pod.name, container = ?container.name, ?address, why,
                "a container's address cannot be opened again");
            let reason = format!("its address could not be opened again: {why}");
            self.show_unserved(pod, container, Unserved::Lost, &reason).await;
        } else {
            self.stats().count(NriOutcome::Restored);
        }
        self.track_container(id, container).await;
        restored.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nri::messages::Synchronize;

    #[test]
    fn what_a_container_of_the_list_is_depends_on_its_life_and_on_what_is_known() {
        use ContainerState::{Created, Paused, Running, Stopped};
        for (state, live, verdict, expected) in [
            (Stopped, true, SelectionVerdict::Inject, ListedStatus::Ended),
            (Running, true, SelectionVerdict::Inject, ListedStatus::Known),
            (Running, true, SelectionVerdict::OptedOut, ListedStatus::Known),
            (Created, true, SelectionVerdict::Inject, ListedStatus::Known),
            (Running, false, SelectionVerdict::Inject, ListedStatus::Unknown),
            (Paused, false, SelectionVerdict::Inject, ListedStatus::Unknown),
            (Created, false, SelectionVerdict::Inject, ListedStatus::Other),
            (Running, false, SelectionVerdict::Sandboxed, ListedStatus::Other),
            (Running, false, SelectionVerdict::Observe, ListedStatus::Other),
        ] {
            assert_eq!(
                classify_container(state as i32, live, verdict),
                expected,
                "{state:?} {live} {verdict:?}"
            );
        }
        assert_eq!(
            classify_container(77, false, SelectionVerdict::Inject),
            ListedStatus::Other,
            "a state of a newer runtime"
        );
    }

    #[test]
    fn a_list_without_end_is_refused() {
        let mut listing = Listing::default();
        let pod = PodSandbox { id: "x".repeat(1 << 20), ..PodSandbox::default() };
        let part = Synchronize { pods: vec![pod; 3], containers: Vec::new(), more: true };
        let refused = (0..40).find(|_| listing.add(part.clone()).is_err());
        assert_eq!(refused, Some(21));
        assert!(listing.pods.is_empty(), "and nothing of it is kept");
    }
}
