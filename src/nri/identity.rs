//! What a container of a pod reserves, from what the runtime says about both. [`crate::identity::pod`] derives the identity, for the
//! OCI wrapper's containers as well; `docs/reference/kubernetes.md` has the table.

use std::path::PathBuf;

use super::annotation;
use super::messages::{LinuxNamespace, NriContainer, PodSandbox};
use crate::containers::{
    ContainerNetwork, Details, Reservation, Ttl, UnixWish, parse_gauge_sign, parse_timer_unit,
};
use crate::identity::annotation::{GAUGE_SIGN, TASK_ID, TIMER_UNIT, UNIX_SOCKET};
use crate::identity::pod::Pod;
use crate::model::{ContainerId, IdError, TaskId};

/// Where runtimes that do not name the image in its own field have it.
const IMAGE_ANNOTATIONS: [&str; 2] = ["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"];

/// What a container reserves.
///
/// # Errors
/// When the runtime gave it an id that cannot be one.
pub(super) fn build_reservation(pod: &PodSandbox, container: &NriContainer) -> Result<Reservation, IdError> {
    let mut reservation = Reservation::new(ContainerId::new(&container.id)?);
    let (known, image) = (known(pod), image_name(container));
    reservation.task_id = Some(TaskId::new(&known.task_id())?);
    let alias = annotation::find_annotation(pod, container, TASK_ID).and_then(|said| known.task_alias(said));
    reservation.alias = alias.and_then(|alias| TaskId::new(&alias).ok());
    reservation.labels = known.container_labels(&container.name, image.as_deref().unwrap_or(""));
    reservation.network = container_network(pod, container);
    reservation.holder = i32::try_from(pod.pid).ok().filter(|pid| *pid > 0);
    // How long it may take until it starts is looked after by the plugin, which hears whether it was removed.
    reservation.ttl = Ttl::Never;
    reservation.gauge_sign =
        annotation::find_annotation(pod, container, GAUGE_SIGN).and_then(parse_gauge_sign);
    reservation.timer_unit =
        annotation::find_annotation(pod, container, TIMER_UNIT).and_then(parse_timer_unit);
    reservation.unix = annotation::find_annotation(pod, container, UNIX_SOCKET).and_then(UnixWish::read);
    reservation.details = Details {
        bundle: None,
        sandbox_id: Some(pod.id.clone()),
        pod_uid: Some(pod.uid.clone()),
        runtime_handler: non_empty(&pod.runtime_handler),
        image,
        ..Details::default()
    };
    Ok(reservation)
}

/// The pod, as the runtime describes it.
fn known(pod: &PodSandbox) -> Pod<'_> {
    let labels = pod.labels.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    Pod {
        namespace: &pod.namespace,
        name: &pod.name,
        uid: &pod.uid,
        sandbox_id: &pod.id,
        labels: Some(labels.collect()),
    }
}

fn image_name(container: &NriContainer) -> Option<String> {
    let named = container.image.as_ref().map(|image| &image.name).filter(|name| !name.is_empty());
    let annotated = || IMAGE_ANNOTATIONS.iter().find_map(|key| container.annotations.get(*key));
    named.or_else(annotated).cloned()
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// Where the container's network is. A pod with a network of its own names it by a path that stays while the pod
/// lives; for the others the path leads by way of the sandbox's process to the node's own, and the container table
/// finds out that it does.
fn container_network(pod: &PodSandbox, container: &NriContainer) -> ContainerNetwork {
    let find = |namespaces: &[LinuxNamespace]| {
        namespaces.iter().find(|namespace| namespace.kind == "network").map(|found| found.path.clone())
    };
    let of_pod = pod.linux.as_ref().and_then(|linux| find(&linux.namespaces)).filter(|path| !path.is_empty());
    let of_container = || container.linux.as_ref().and_then(|linux| find(&linux.namespaces));
    match of_pod.or_else(of_container) {
        None => ContainerNetwork::Host,
        Some(path) if path.is_empty() => ContainerNetwork::New,
        Some(path) => ContainerNetwork::Path(PathBuf::from(path)),
    }
}

#[cfg(test)]
mod tests;
