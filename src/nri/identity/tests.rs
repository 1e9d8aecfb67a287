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
    assert_eq!(build_reservation(&pod, &container()).unwrap().effective_task_id().as_str(), "shop_web-0_s1");
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

/// What `testdata/pods.json` has of one pod: as NRI describes it, and as the wrapper reserves its container.
#[derive(serde::Deserialize)]
struct Described {
    name: String,
    nri: DescribedPod,
    /// A test of the wrapper compares this with what it makes of the same pod.
    reserved: Reserved,
    /// Labels that come from the pod's own, which the wrapper is not given.
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
    let pods: Vec<Described> = serde_json::from_str(include_str!("../../../testdata/pods.json")).unwrap();
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
