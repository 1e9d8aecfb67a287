//! Containers that run without a socket: shown and counted, and served where StatsD clients send by default if adopting is on.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use super::{ContainerEntry, ContainerTable};
use crate::containers::reservation::{IMAGE_LABEL, NAME_LABEL};
use crate::containers::socket::Site;
use crate::containers::{
    ContainerNetwork, Details, Reservation, ReserveError, ReservedContainer, Ttl, UnixWish, Unserved,
    WantedAddress,
};
use crate::model::ContainerId;
use crate::net::clock;

impl ContainerTable {
    /// Registers a running container without a socket, with the reason.
    pub(super) async fn register_unserved(
        &mut self,
        reservation: &Reservation,
        why: Unserved,
        reason: String,
    ) -> Result<ReservedContainer, ReserveError> {
        self.drain_if_ended(&reservation.container_id);
        if let Some(info) = self.find_live_container(&reservation.container_id) {
            return Ok(ReservedContainer { info, new: false });
        }
        if self.ending {
            return Err(ReserveError::Ending);
        }
        if self.live.len() >= self.settings.containers {
            return Err(ReserveError::Full { limit: self.settings.containers });
        }
        // Show the container even if its network namespace cannot be found.
        let site = Site::from_reservation(reservation).unwrap_or(Site::Unborn);
        let mut info = self.new_info(reservation, &site);
        info.state = why.to_state();
        info.reason = Some(reason);
        if why == Unserved::Mute {
            info.warnings.extend(self.adopt_pod(reservation, site).await);
        }
        let allocation = info.allocation;
        let info = Arc::new(info);
        self.live.insert(reservation.container_id.clone(), allocation);
        let since_boot = clock::since_boot();
        let entry = ContainerEntry {
            info: Arc::clone(&info),
            deadline: None,
            since_boot,
            process: None,
            watch: None,
        };
        self.entries.insert(allocation, entry);
        self.directory.upsert_container(&info);
        let (container, task) = (&info.origin.container_id, &info.origin.task_id);
        tracing::warn!(%container, %task, state = %info.state, reason = info.reason, "a running container has no socket");
        Ok(ReservedContainer { info, new: true })
    }
}

/// The address that clients use if none is configured.
const USUAL: WantedAddress = WantedAddress { host: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), port: Some(8125) };

/// Why a pod is not adopted.
#[derive(Debug, thiserror::Error)]
enum AdoptError {
    #[error("it is in no pod")]
    NoPod,
    #[error("its network is the node's")]
    Shared,
    #[error("the process that holds its pod's network is unknown, so its end cannot be detected")]
    NoHolder,
    #[error(transparent)]
    Refused(#[from] ReserveError),
}

impl ContainerTable {
    /// Adopts the pod of a mute container, if that is enabled. Returns a warning that describes the outcome.
    pub(super) async fn adopt_pod(&mut self, mute: &Reservation, site: Site) -> Option<String> {
        if !self.settings.adopt_mute {
            return None;
        }
        Some(match self.try_adopt_pod(mute, site).await {
            Ok(pod) => {
                format!("what it sends to 127.0.0.1:8125 is counted for its pod, as container {pod}")
            }
            Err(why) => format!("its pod cannot be adopted: {why}"),
        })
    }

    async fn try_adopt_pod(&mut self, mute: &Reservation, site: Site) -> Result<ContainerId, AdoptError> {
        let pod = mute.details.sandbox_id.as_deref().and_then(|id| ContainerId::new(id).ok());
        let pod = pod.ok_or(AdoptError::NoPod)?;
        if !matches!(site, Site::Own(_)) {
            return Err(AdoptError::Shared);
        }
        // A socket keeps its network namespace alive, so do not open one without a process whose end closes it.
        let holder = mute.holder.or_else(|| network_holder_pid(&mute.network)).ok_or(AdoptError::NoHolder)?;
        let reserved = self.reserve_container(of_pod(mute, pod.clone(), holder)).await?;
        if reserved.new {
            let task = &reserved.info.origin.task_id;
            tracing::info!(container = %pod, %task, "a pod was adopted");
        }
        Ok(pod)
    }
}

/// The reservation for a container's pod, without anything that identifies the container.
fn of_pod(mute: &Reservation, pod: ContainerId, holder: i32) -> Reservation {
    let mut labels = mute.labels.clone();
    labels.remove(NAME_LABEL);
    labels.remove(IMAGE_LABEL);
    Reservation {
        task_id: Some(mute.effective_task_id()),
        alias: mute.alias.clone(),
        labels,
        network: mute.network.clone(),
        pid: Some(holder),
        holder: Some(holder),
        ttl: Ttl::Never,
        unix: Some(UnixWish::No),
        wanted: Some(USUAL),
        details: Details { bundle: None, image: None, adopted: true, ..mute.details.clone() },
        ..Reservation::new(pod)
    }
}

/// The process in the path of a network namespace: runtimes use `/proc/PID/ns/net`.
fn network_holder_pid(network: &ContainerNetwork) -> Option<i32> {
    let ContainerNetwork::Path(path) = network else { return None };
    path.to_str()?.strip_prefix("/proc/")?.strip_suffix("/ns/net")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pods_socket_is_no_containers() {
        let mut mute = Reservation::new(ContainerId::new("c1").unwrap());
        for (key, value) in [("container", "main"), ("image", "shop:1"), ("namespace", "shop")] {
            mute.labels.insert(key.to_owned(), value.to_owned());
        }
        mute.details.bundle = Some("/b".to_owned());
        mute.details.pod_uid = Some("u-1".to_owned());
        let pod = of_pod(&mute, ContainerId::new("s1").unwrap(), 7);
        assert_eq!(
            (pod.container_id.as_str(), pod.effective_task_id().as_str(), pod.pid),
            ("s1", "c1", Some(7))
        );
        assert_eq!(pod.labels.iter().collect::<Vec<_>>(), [(&"namespace".to_owned(), &"shop".to_owned())]);
        assert_eq!((pod.details.bundle, pod.details.pod_uid.as_deref()), (None, Some("u-1")));
        assert!(pod.details.adopted && !mute.details.adopted);
    }

    #[test]
    fn the_process_that_holds_a_network_is_in_its_path() {
        let of = |path: &str| network_holder_pid(&ContainerNetwork::Path(path.into()));
        assert_eq!(of("/proc/17/ns/net"), Some(17));
        assert_eq!(
            (of("/proc/self/ns/net"), of("/run/netns/cni-1"), network_holder_pid(&ContainerNetwork::New)),
            (None, None, None)
        );
    }
}
