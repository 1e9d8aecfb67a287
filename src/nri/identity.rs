//! Who a container is, from what the runtime says about it and its pod. `docs/reference/kubernetes.md` has the table.
//!
//! Identity comes from the runtime alone. What the author of a pod writes can add labels and an alias inside the pod's
//! own namespace; it never replaces what says where a sample comes from.

use std::path::PathBuf;

use super::annotation::{self, GAUGE_SIGN, TASK_ID, TIMER_UNIT, UNIX_SOCKET};
use super::messages::{LinuxNamespace, NriContainer, PodSandbox};
use crate::containers::{ContainerNetwork, Details, Reservation, Ttl, UnixWish, gauge_sign, timer_unit};
use crate::model::{ContainerId, IdError, Labels, TaskId};

/// Prefix of the labels that Kubernetes recommends.
const RECOMMENDED: &str = "app.kubernetes.io/";
/// Prefix of Datadog's unified service tags.
const DATADOG: &str = "tags.datadoghq.com/";
/// Labels that only the runtime gives.
const IDENTITY: [&str; 7] = ["namespace", "pod", "uid", "container", "image", "workload", "workload_kind"];
/// Where runtimes that do not name the image in its own field have it.
const IMAGE_ANNOTATIONS: [&str; 2] = ["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"];

/// What a container reserves.
///
/// # Errors
/// When the runtime gave it an id that cannot be one.
pub(super) fn build_reservation(pod: &PodSandbox, container: &NriContainer) -> Result<Reservation, IdError> {
    let mut reservation = Reservation::new(ContainerId::new(&container.id)?);
    reservation.task_id = Some(task_id(pod)?);
    reservation.alias = task_alias(pod, container);
    reservation.labels = container_labels(pod, container);
    reservation.network = container_network(pod, container);
    reservation.holder = i32::try_from(pod.pid).ok().filter(|pid| *pid > 0);
    // How long it may take until it starts is looked after by the plugin, which hears whether it was removed.
    reservation.ttl = Ttl::Never;
    reservation.gauge_sign = annotation::find_annotation(pod, container, GAUGE_SIGN).and_then(gauge_sign);
    reservation.timer_unit = annotation::find_annotation(pod, container, TIMER_UNIT).and_then(timer_unit);
    reservation.unix = annotation::find_annotation(pod, container, UNIX_SOCKET).and_then(UnixWish::read);
    reservation.details = Details {
        bundle: None,
        sandbox_id: Some(pod.id.clone()),
        pod_uid: Some(pod.uid.clone()),
        runtime_handler: non_empty(&pod.runtime_handler),
        image: image_name(container),
        ..Details::default()
    };
    Ok(reservation)
}

/// `<namespace>_<pod>_<uid>`. Neither a namespace nor a pod can have `_` in its name, so no two pods share one.
fn task_id(pod: &PodSandbox) -> Result<TaskId, IdError> {
    // Without an API server there is no uid; then the sandbox is what tells two pods of one name apart.
    let uid = if pod.uid.is_empty() { &pod.id } else { &pod.uid };
    TaskId::new(&format!("{}_{}_{uid}", pod.namespace, pod.name))
}

/// `<namespace>/<what the annotation says>`: another namespace's names are out of reach.
fn task_alias(pod: &PodSandbox, container: &NriContainer) -> Option<TaskId> {
    let said = annotation::find_annotation(pod, container, TASK_ID).filter(|said| !said.is_empty())?;
    TaskId::new(&format!("{}/{said}", pod.namespace)).ok()
}

/// What is set later wins: the recommended labels, Datadog's, and the container's own of Datadog's. What the runtime
/// says comes from nowhere else, so that no label can claim another origin, not even where the runtime says nothing.
fn container_labels(pod: &PodSandbox, container: &NriContainer) -> Labels {
    let mut labels = Labels::new();
    let mut set = |key: &str, value: &str| {
        if !value.is_empty() {
            labels.insert(key.to_owned(), value.to_owned());
        }
    };
    // In order, so that two labels that become one have the same winner every time.
    let recommended =
        pod.labels.iter().filter_map(|(key, value)| Some((key.strip_prefix(RECOMMENDED)?, value)));
    for (name, value) in recommended.collect::<std::collections::BTreeMap<_, _>>() {
        let name = name.replace('-', "_");
        // The application's name is called so below: there are many names.
        if name != "name" && !IDENTITY.contains(&name.as_str()) {
            set(&name, value);
        }
    }
    if let Some(name) = pod_label(pod, "app.kubernetes.io/name") {
        set("app", name);
        set("service", name);
    }
    for prefix in [DATADOG.to_owned(), format!("{DATADOG}{}.", container.name)] {
        for name in ["env", "service", "version"] {
            if let Some(value) = pod.labels.get(&format!("{prefix}{name}")) {
                set(name, value);
            }
        }
    }
    let (kind, workload) = pod_workload(pod);
    set("workload_kind", kind);
    set("workload", workload);
    set("image", image_name(container).as_deref().unwrap_or_default());
    set("uid", &pod.uid);
    set("namespace", &pod.namespace);
    set("pod", &pod.name);
    set("container", &container.name);
    labels
}

fn image_name(container: &NriContainer) -> Option<String> {
    let named = container.image.as_ref().map(|image| &image.name).filter(|name| !name.is_empty());
    let annotated = || IMAGE_ANNOTATIONS.iter().find_map(|key| container.annotations.get(*key));
    named.or_else(annotated).cloned()
}

fn non_empty(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// What made the pod. The runtime is not told, but the controllers leave marks: a label, and how they name pods.
fn pod_workload(pod: &PodSandbox) -> (&'static str, &str) {
    let front = pod.name.rsplit_once('-').map_or(pod.name.as_str(), |(front, _)| front);
    if let Some(job) = pod_label(pod, "batch.kubernetes.io/job-name").or_else(|| pod_label(pod, "job-name")) {
        return ("Job", job);
    }
    if pod_label(pod, "statefulset.kubernetes.io/pod-name") == Some(&pod.name) {
        return ("StatefulSet", front);
    }
    if let Some(hash) = pod_label(pod, "pod-template-hash") {
        // <deployment>-<hash>-<random>; a ReplicaSet that nobody deployed has no such label.
        let deployment = front.strip_suffix(hash).and_then(|name| name.strip_suffix('-'));
        return deployment.map_or(("", ""), |name| ("Deployment", name));
    }
    if pod_label(pod, "controller-revision-hash").is_some() {
        return ("DaemonSet", front);
    }
    ("Pod", &pod.name)
}

fn pod_label<'p>(pod: &'p PodSandbox, key: &str) -> Option<&'p str> {
    pod.labels.get(key).map(String::as_str)
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
