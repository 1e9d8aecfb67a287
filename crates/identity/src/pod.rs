//! The origin of containers of pods.
//!
//! Identity comes only from the runtime. The author of a pod can add labels and an alias inside the pod's own
//! namespace, but cannot change the origin of samples.

use std::collections::BTreeMap;

/// Prefix of the labels that Kubernetes recommends.
const RECOMMENDED: &str = "app.kubernetes.io/";
/// Prefix of Datadog's unified service tags.
const DATADOG: &str = "tags.datadoghq.com/";
/// Labels that only the runtime sets.
const IDENTITY: [&str; 7] = ["namespace", "pod", "uid", "container", "image", "workload", "workload_kind"];

/// A pod, as its runtime describes it. What the runtime does not say is empty.
#[derive(Clone, Debug, Default)]
pub struct Pod<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its uid; empty without an API server.
    pub uid: &'a str,
    /// The id of its sandbox.
    pub sandbox_id: &'a str,
    /// Its labels. `None` where they are unknown: then nothing is derived from labels, not even that the pod has no controller.
    pub labels: Option<BTreeMap<&'a str, &'a str>>,
}

/// The controller of a pod, derived from the marks that controllers leave.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct PodWorkload<'a> {
    /// `Deployment`, `StatefulSet`, `DaemonSet`, `Job` or `Pod`.
    pub kind: &'static str,
    /// Its name.
    pub name: &'a str,
}

impl<'a> Pod<'a> {
    /// The task: `<namespace>_<pod>_<uid>`. Neither a namespace nor a pod can have `_` in its name, so no two pods share one.
    #[must_use]
    pub fn task_id(&self) -> String {
        // Without a uid the sandbox tells two pods of one name apart.
        let uid = if self.uid.is_empty() { self.sandbox_id } else { self.uid };
        format!("{}_{}_{uid}", self.namespace, self.name)
    }

    /// Another name for the task, from the annotation `tallyport.task-id`: `<namespace>/<name>`, so that a pod cannot
    /// use names of other namespaces.
    #[must_use]
    pub fn task_alias(&self, annotation: &str) -> Option<String> {
        let name = annotation.trim();
        (!name.is_empty()).then(|| format!("{}/{name}", self.namespace))
    }

    /// The labels of one of its containers. Later ones win: the recommended labels, Datadog's, the container's own of Datadog's.
    /// Identity labels come only from the runtime, so that no label can claim another origin, not even if the runtime
    /// does not provide one.
    #[must_use]
    pub fn container_labels(&self, container: &str, image: &str) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let mut set = |key: &str, value: &str| {
            if !value.is_empty() {
                labels.insert(key.to_owned(), value.to_owned());
            }
        };
        for (key, value) in self.labels.iter().flatten() {
            let Some(name) = key.strip_prefix(RECOMMENDED).map(|name| name.replace('-', "_")) else {
                continue;
            };
            // The application's name gets a label of its own below, since `name` could mean many things.
            if name != "name" && !IDENTITY.contains(&name.as_str()) {
                set(&name, value);
            }
        }
        if let Some(name) = self.pod_label("app.kubernetes.io/name") {
            set("app", name);
            set("service", name);
        }
        for prefix in [DATADOG.to_owned(), format!("{DATADOG}{container}.")] {
            for name in ["env", "service", "version"] {
                if let Some(value) = self.pod_label(&format!("{prefix}{name}")) {
                    set(name, value);
                }
            }
        }
        if let Some(workload) = self.pod_workload() {
            set("workload_kind", workload.kind);
            set("workload", workload.name);
        }
        set("image", image);
        set("uid", self.uid);
        set("namespace", self.namespace);
        set("pod", self.name);
        set("container", container);
        labels
    }

    /// The pod's controller. The runtime does not know it, but controllers leave marks: a label, and the pods' names.
    #[must_use]
    pub fn pod_workload(&self) -> Option<PodWorkload<'a>> {
        self.labels.as_ref()?;
        let workload = |kind, name| Some(PodWorkload { kind, name });
        let front = self.name.rsplit_once('-').map_or(self.name, |(front, _)| front);
        if let Some(job) =
            self.pod_label("batch.kubernetes.io/job-name").or_else(|| self.pod_label("job-name"))
        {
            return workload("Job", job);
        }
        if self.pod_label("statefulset.kubernetes.io/pod-name") == Some(self.name) {
            return workload("StatefulSet", front);
        }
        if let Some(hash) = self.pod_label("pod-template-hash") {
            // <deployment>-<hash>-<random>; a ReplicaSet without a Deployment has no such label.
            let deployment = front.strip_suffix(hash).and_then(|name| name.strip_suffix('-'))?;
            return workload("Deployment", deployment);
        }
        if self.pod_label("controller-revision-hash").is_some() {
            return workload("DaemonSet", front);
        }
        workload("Pod", self.name)
    }

    fn pod_label(&self, key: &str) -> Option<&'a str> {
        self.labels.as_ref()?.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod<'a>(name: &'a str, labels: &[(&'a str, &'a str)]) -> Pod<'a> {
        let labels = Some(labels.iter().copied().collect());
        Pod { namespace: "shop", name, uid: "u-1", sandbox_id: "s1", labels }
    }

    fn labels_of(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
        pod("web-0", labels).container_labels("web", "")
    }

    #[test]
    fn without_an_api_server_the_sandbox_tells_pods_apart() {
        assert_eq!(pod("web-0", &[]).task_id(), "shop_web-0_u-1");
        assert_eq!(Pod { uid: "", ..pod("web-0", &[]) }.task_id(), "shop_web-0_s1");
    }

    #[test]
    fn an_alias_stays_inside_its_namespace() {
        assert_eq!(pod("web-0", &[]).task_alias(" bank_vault ").as_deref(), Some("shop/bank_vault"));
        assert_eq!(pod("web-0", &[]).task_alias(" "), None);
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
        let nameless = Pod { uid: "", ..pod("web-0", &[("app.kubernetes.io/uid", "u-2")]) };
        assert_eq!(nameless.container_labels("web", "").get("uid"), None);
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
            ("web-7d4b9c-x2x4z", &[("pod-template-hash", "7d4b9c")][..], Some(("Deployment", "web"))),
            ("web-api-7d4b9c-x2x4z", &[("pod-template-hash", "7d4b9c")], Some(("Deployment", "web-api"))),
            ("odd", &[("pod-template-hash", "7d4b9c")], None),
            ("db-0", &[("statefulset.kubernetes.io/pod-name", "db-0")], Some(("StatefulSet", "db"))),
            ("logs-x2x4z", &[("controller-revision-hash", "66d8")], Some(("DaemonSet", "logs"))),
            ("night-1-abcde", &[("batch.kubernetes.io/job-name", "night-1")], Some(("Job", "night-1"))),
            ("night-1-abcde", &[("job-name", "night-1")], Some(("Job", "night-1"))),
            ("by-hand", &[], Some(("Pod", "by-hand"))),
            ("", &[], Some(("Pod", ""))),
        ] {
            let made = pod(name, labels).pod_workload().map(|made| (made.kind, made.name));
            assert_eq!(made, expected, "{name}");
        }
    }

    #[test]
    fn where_labels_are_unknown_nothing_is_derived_from_them() {
        let unknown = Pod { labels: None, ..pod("web-7d4b9c-x2x4z", &[]) };
        assert_eq!(unknown.pod_workload(), None, "it may be a Deployment's");
        let labels: Vec<_> = unknown.container_labels("web", "store:1").into_keys().collect();
        assert_eq!(labels, ["container", "image", "namespace", "pod", "uid"]);
    }
}
