use super::*;
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

fn labels_of(labels: &[(&str, &str)]) -> Labels {
    container_labels(&pod("web-0", labels), &container())
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
fn no_label_can_claim_another_origin() {
    let labels = labels_of(&[
        ("app.kubernetes.io/namespace", "bank"),
        ("app.kubernetes.io/pod", "vault"),
        ("app.kubernetes.io/uid", "u-2"),
        ("app.kubernetes.io/container", "safe"),
    ]);
    let of = |key: &str| labels.get(key).map(String::as_str);
    assert_eq!(
        [of("namespace"), of("pod"), of("uid"), of("container")],
        [Some("shop"), Some("web-0"), Some("u-1"), Some("web")]
    );
}

#[test]
fn no_label_can_claim_what_the_runtime_does_not_say() {
    let nameless = PodSandbox { uid: String::new(), ..pod("web-0", &[("app.kubernetes.io/uid", "u-2")]) };
    assert_eq!(container_labels(&nameless, &container()).get("uid"), None);
    assert_eq!(labels_of(&[("app.kubernetes.io/image", "trusted:1")]).get("image"), None);
}

#[test]
fn the_containers_own_tags_are_over_the_pods_and_those_over_the_recommended_labels() {
    let all = [
        ("app.kubernetes.io/name", "store"),
        ("app.kubernetes.io/version", "1"),
        ("app.kubernetes.io/part-of", "market"),
        ("tags.datadoghq.com/version", "2"),
        ("tags.datadoghq.com/env", "prod"),
        ("tags.datadoghq.com/web.version", "3"),
        ("tags.datadoghq.com/sidecar.version", "4"),
        ("team", "blue"),
    ];
    let labels = labels_of(&all);
    let of = |key: &str| labels.get(key).map(String::as_str);
    assert_eq!((of("app"), of("service"), of("version")), (Some("store"), Some("store"), Some("3")));
    assert_eq!((of("part_of"), of("env"), of("team")), (Some("market"), Some("prod"), None));
    assert_eq!(labels_of(&all[..4]).get("version").map(String::as_str), Some("2"));
    assert_eq!(labels_of(&all[..3]).get("version").map(String::as_str), Some("1"));
}

#[test]
fn what_made_the_pod_is_read_from_its_marks() {
    for (name, labels, expected) in [
        ("web-7d4b9c-x2x4z", &[("pod-template-hash", "7d4b9c")][..], ("Deployment", "web")),
        ("web-api-7d4b9c-x2x4z", &[("pod-template-hash", "7d4b9c")], ("Deployment", "web-api")),
        ("odd", &[("pod-template-hash", "7d4b9c")], ("", "")),
        ("db-0", &[("statefulset.kubernetes.io/pod-name", "db-0")], ("StatefulSet", "db")),
        ("logs-x2x4z", &[("controller-revision-hash", "66d8")], ("DaemonSet", "logs")),
        ("night-1-abcde", &[("batch.kubernetes.io/job-name", "night-1")], ("Job", "night-1")),
        ("night-1-abcde", &[("job-name", "night-1")], ("Job", "night-1")),
        ("by-hand", &[], ("Pod", "by-hand")),
        ("", &[], ("Pod", "")),
    ] {
        let pod = pod(name, labels);
        assert_eq!(pod_workload(&pod), expected, "{name}");
    }
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
