//! What a container of a pod reserves, from what the runtime and the pod's annotations say about it.
//! [`crate::identity::pod`] derives the identity, for the OCI wrapper's containers as well; `docs/reference/kubernetes.md`
//! has the table.

use std::path::PathBuf;

use super::messages::{LinuxNamespace, NriContainer, PodSandbox};
use crate::containers::{
    ContainerNetwork, Details, Reservation, Ttl, UnixWish, parse_gauge_sign, parse_timer_unit,
};
use crate::identity::annotation::{self, GAUGE_SIGN, TASK_ID, TIMER_UNIT, UNIX_SOCKET};
use crate::identity::pod::Pod;
use crate::model::{ContainerId, IdError, TaskId};

/// Annotations with the image, for runtimes that do not set the image field.
const IMAGE_ANNOTATIONS: [&str; 2] = ["io.kubernetes.cri.image-name", "io.kubernetes.cri-o.ImageName"];

/// The reservation of a container.
///
/// # Errors
/// When its id is invalid.
pub(super) fn build_reservation(pod: &PodSandbox, container: &NriContainer) -> Result<Reservation, IdError> {
    let mut reservation = Reservation::new(ContainerId::new(&container.id)?);
    let (known, image) = (known(pod), image_name(container));
    reservation.task_id = Some(TaskId::new(&known.task_id())?);
    let alias = find_annotation(pod, container, TASK_ID).and_then(|said| known.task_alias(said));
    reservation.alias = alias.and_then(|alias| TaskId::new(&alias).ok());
    reservation.labels = known.container_labels(&container.name, image.as_deref().unwrap_or(""));
    reservation.network = container_network(pod, container);
    reservation.holder = i32::try_from(pod.pid).ok().filter(|pid| *pid > 0);
    // The plugin itself limits the time until it starts, since it is told when a container is removed.
    reservation.ttl = Ttl::Never;
    reservation.gauge_sign = find_annotation(pod, container, GAUGE_SIGN).and_then(parse_gauge_sign);
    reservation.timer_unit = find_annotation(pod, container, TIMER_UNIT).and_then(parse_timer_unit);
    reservation.unix = find_annotation(pod, container, UNIX_SOCKET).and_then(UnixWish::read);
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

/// The container's network namespace. A pod with its own network has a path that is valid while the pod lives. For
/// others, the path leads through the sandbox's process to the node's namespace, which the container table detects.
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

/// Finds the annotation for a container: its own, else that of the whole pod.
pub(super) fn find_annotation<'p>(
    pod: &'p PodSandbox,
    container: &NriContainer,
    key: &str,
) -> Option<&'p str> {
    annotation::find(|key| pod.annotations.get(key).map(String::as_str), &container.name, key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aggregate;
    use crate::nri::messages::{LinuxContainer, LinuxPodSandbox, NriImage};

    fn map(pairs: &[(&str, &str)]) -> std::collections::HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn pod(name: &str, labels: &[(&str, &str)]) -> PodSandbox {
        PodSandbox {
            id: "s1".to_owned(),
            name: name.to_owned(),
            uid: "u-1".to_owned(),
            namespace: "shop".to_owned(),
            labels: map(labels),
            ..PodSandbox::default()
        }
    }

    fn container() -> NriContainer {
        NriContainer { id: "c1".to_owned(), name: "web".to_owned(), ..NriContainer::default() }
    }

    #[test]
    fn the_task_is_the_pod_and_no_annotation_changes_that() {
        let mut pod = pod("web-0", &[]);
        pod.annotations = map(&[("tallyport.task-id", "bank_vault_u-2")]);
        let reservation = build_reservation(&pod, &container()).unwrap();
        assert_eq!(reservation.effective_task_id().as_str(), "shop_web-0_u-1");
        assert_eq!(
            reservation.alias.unwrap().as_str(),
            "shop/bank_vault_u-2",
            "an alias inside its own namespace"
        );
    }

    #[test]
    fn without_an_api_server_the_sandbox_tells_pods_apart() {
        let pod = PodSandbox { uid: String::new(), ..pod("web-0", &[]) };
        assert_eq!(
            build_reservation(&pod, &container()).unwrap().effective_task_id().as_str(),
            "shop_web-0_s1"
        );
    }

    #[test]
    fn an_alias_that_cannot_be_a_name_is_none() {
        let mut pod = pod("web-0", &[]);
        for wrong in ["", "  ", "a\nb"] {
            pod.annotations = map(&[("tallyport.task-id", wrong)]);
            assert_eq!(build_reservation(&pod, &container()).unwrap().alias, None, "{wrong:?}");
        }
    }

    #[test]
    fn an_id_that_would_climb_is_refused() {
        let container = NriContainer { id: "../../etc".to_owned(), ..container() };
        assert_eq!(build_reservation(&pod("web-0", &[]), &container), Err(IdError::Climbs));
    }

    #[test]
    fn the_image_is_named_by_the_runtime_in_one_way_or_another() {
        let image = NriContainer { image: Some(NriImage { name: "store:1".to_owned() }), ..container() };
        assert_eq!(image_name(&image).as_deref(), Some("store:1"));
        let annotated =
            NriContainer { annotations: map(&[("io.kubernetes.cri.image-name", "store:2")]), ..container() };
        assert_eq!(image_name(&annotated).as_deref(), Some("store:2"));
        assert_eq!(image_name(&container()), None);
    }

    #[test]
    fn a_network_is_the_pods_where_it_has_one_and_the_containers_else() {
        let at = |path: &str| vec![LinuxNamespace { kind: "network".to_owned(), path: path.to_owned() }];
        let with = |of_pod: Option<&str>, of_container: Option<&str>| {
            let linux = of_pod.map(|path| LinuxPodSandbox { namespaces: at(path) });
            let pod = PodSandbox { linux, ..pod("web-0", &[]) };
            let linux = of_container.map(|path| LinuxContainer { namespaces: at(path) });
            container_network(&pod, &NriContainer { linux, ..container() })
        };
        assert_eq!(
            with(Some("/run/netns/cni-1"), Some("/proc/7/ns/net")),
            ContainerNetwork::Path("/run/netns/cni-1".into())
        );
        assert_eq!(with(None, Some("/proc/7/ns/net")), ContainerNetwork::Path("/proc/7/ns/net".into()));
        assert_eq!(with(None, Some("")), ContainerNetwork::New);
        assert_eq!(with(None, None), ContainerNetwork::Host);
    }

    /// One pod of `testdata/pods.json`: as NRI describes it, and as the wrapper reserves its container.
    #[derive(serde::Deserialize)]
    struct Described {
        name: String,
        nri: DescribedPod,
        /// A test of the wrapper compares this with its own reservation for the same pod.
        reserved: Reserved,
        /// Labels derived from the pod's own, which the wrapper does not get.
        from_labels: Vec<String>,
    }

    #[derive(serde::Deserialize)]
    struct DescribedPod {
        sandbox_id: String,
        name: String,
        namespace: String,
        uid: String,
        labels: std::collections::HashMap<String, String>,
        annotations: std::collections::HashMap<String, String>,
        container: String,
        image: String,
    }

    #[derive(serde::Deserialize)]
    struct Reserved {
        task_id: String,
        labels: crate::model::Labels,
        sandbox_id: String,
        pod_uid: Option<String>,
        image: String,
    }

    #[test]
    fn a_pod_has_the_same_origin_whether_the_plugin_or_the_wrapper_reserves_its_container() {
        let pods: Vec<Described> = serde_json::from_str(include_str!("../../testdata/pods.json")).unwrap();
        for Described { name, nri, reserved, from_labels } in pods {
            let pod = PodSandbox {
                id: nri.sandbox_id,
                name: nri.name,
                uid: nri.uid,
                namespace: nri.namespace,
                labels: nri.labels,
                annotations: nri.annotations,
                ..PodSandbox::default()
            };
            let image = Some(NriImage { name: nri.image });
            let plugin =
                build_reservation(&pod, &NriContainer { name: nri.container, image, ..container() }).unwrap();
            let mut wrapper = Reservation::new(plugin.container_id.clone());
            wrapper.task_id = Some(TaskId::new(&reserved.task_id).unwrap());
            wrapper.labels = reserved.labels;
            let (sandbox_id, image) = (Some(reserved.sandbox_id), Some(reserved.image));
            wrapper.details = Details { sandbox_id, pod_uid: reserved.pod_uid, image, ..Details::default() };
            assert_eq!(
                (plugin.effective_task_id(), plugin.task_alias()),
                (wrapper.effective_task_id(), wrapper.task_alias()),
                "{name}"
            );
            let usual = (aggregate::GaugeSign::Auto, aggregate::TimerUnit::Milliseconds);
            assert_eq!(plugin.gauge_sign_or(usual.0), wrapper.gauge_sign_or(usual.0), "{name}");
            assert_eq!(plugin.timer_unit_or(usual.1), wrapper.timer_unit_or(usual.1), "{name}");
            assert_eq!(plugin.unix_wish(), wrapper.unix_wish(), "{name}");
            assert_eq!(plugin.origin_labels(), plugin.labels, "{name}: the plugin's are whole");
            let mut labels = plugin.labels;
            for label in &from_labels {
                assert!(labels.remove(label).is_some(), "{name} has no {label}");
            }
            assert_eq!(labels, wrapper.origin_labels(), "{name}");
        }
    }
}
