//! Resources: where series come from, by OpenTelemetry's names.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

use tallyport_core::model::Origin;

use super::write_key_value;
use crate::prometheus::Level;
use crate::prometheus::identity::{identity_labels, label_value};
use crate::publish::labels::LabelOf;
use crate::publish::protobuf::ProtoWriter;

/// The field `resource` of the resource of an identity, encoded.
///
/// `service.name` is the workload, and `service.instance.id` distinguishes its series from those of the same workload's other
/// instances and on other nodes, since receivers such as Prometheus keep these two of a resource and nothing else.
pub(super) fn encode_resource(node: &str, origin: &Origin, identity: &[LabelOf<'_>]) -> Arc<[u8]> {
    let mut out = ProtoWriter::default();
    out.write_message(1, |out| {
        for (key, value) in resource_attributes(node, origin, identity) {
            out.write_message(1, |out| write_key_value(out, key, &value));
        }
    });
    out.into_bytes().into()
}

fn resource_attributes<'a>(
    node: &'a str,
    origin: &Origin,
    identity: &'a [LabelOf<'_>],
) -> BTreeMap<&'static str, Cow<'a, str>> {
    let workload = identity_labels(origin, Level::Low).into_iter().find(|(name, _)| *name == "workload");
    let workload = workload.map(|(_, name)| label_value(&name).into_owned());
    let instance = std::iter::once(node).chain(identity.iter().map(|(_, value)| &**value));
    let mut attributes = BTreeMap::from([
        ("host.name", Cow::Borrowed(node)),
        ("service.instance.id", Cow::Owned(instance.collect::<Vec<_>>().join("/"))),
    ]);
    if let Some(workload) = workload {
        attributes.insert("service.name", Cow::Owned(workload));
    }
    for (name, value) in identity {
        let keys: &[&str] = match &**name {
            "namespace" => &["k8s.namespace.name", "service.namespace"],
            "pod" => &["k8s.pod.name"],
            "container" => &["k8s.container.name"],
            "container_id" => &["container.id"],
            "generation" => &["tallyport.generation"],
            "task" => &["tallyport.task"],
            _ => &[],
        };
        attributes.extend(keys.iter().map(|key| (*key, Cow::Borrowed(&**value))));
    }
    attributes
}

#[cfg(test)]
mod tests {
    use tallyport_core::model::{ContainerId, Generation, TaskId};

    use super::*;

    fn attributes(labels: &[(&str, &str)], level: Level) -> Vec<String> {
        let origin = Origin {
            container_id: ContainerId::new("c-42").unwrap(),
            generation: Generation(3),
            task_id: TaskId::new("web.3f9a").unwrap(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        let identity = identity_labels(&origin, level);
        let identity: Vec<LabelOf<'_>> =
            identity.iter().map(|(name, value)| (Cow::Borrowed(*name), Cow::Borrowed(&**value))).collect();
        let attributes = resource_attributes("n1", &origin, &identity);
        attributes.iter().map(|(key, value)| format!("{key}={value}")).collect()
    }

    #[test]
    fn a_task_is_an_instance_of_its_workload() {
        assert_eq!(
            attributes(&[], Level::Orchestrator),
            [
                "host.name=n1",
                "service.instance.id=n1/web.3f9a",
                "service.name=web",
                "tallyport.task=web.3f9a"
            ]
        );
        assert_eq!(
            attributes(&[], Level::Low),
            ["host.name=n1", "service.instance.id=n1/web", "service.name=web"]
        );
        assert!(attributes(&[], Level::High).contains(&"container.id=c-42".to_owned()));
    }

    #[test]
    fn a_container_of_a_pod_has_the_names_of_kubernetes() {
        let pod = [("namespace", "shop"), ("pod", "cart-0"), ("container", "main"), ("workload", "cart")];
        assert_eq!(
            attributes(&pod, Level::Orchestrator),
            [
                "host.name=n1",
                "k8s.container.name=main",
                "k8s.namespace.name=shop",
                "k8s.pod.name=cart-0",
                "service.instance.id=n1/shop/cart-0/main",
                "service.name=cart",
                "service.namespace=shop",
            ]
        );
    }
}
