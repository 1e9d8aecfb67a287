//! The labels of containers in selectors: those that they have in common, and those that tell them apart.

use tallyport_core::model::Origin;

use super::super::identity::{Level, format_label_name, identity_labels, push_label};

/// The labels that the identities of all these containers have in common, as they are written. They select the series of
/// the containers. Container id and generation are not among them, because they change with every restart.
pub(super) fn format_common_labels<'o>(
    origins: impl IntoIterator<Item = &'o Origin>,
    level: Level,
) -> String {
    let mut origins =
        origins.into_iter().map(|origin| identity_labels(origin, level.min(Level::Orchestrator)));
    let mut common = origins.next().unwrap_or_default();
    for labels in origins {
        common.retain(|label| labels.contains(label));
    }
    let mut text = String::new();
    for (name, value) in common {
        push_label(&mut text, name, &value);
    }
    text
}

/// The names of the labels that tell these containers apart, as they are written. The generation is not one of them: generations
/// of one container id are shown as one container.
pub(super) fn find_differing_labels<'o>(
    origins: impl IntoIterator<Item = &'o Origin>,
    level: Level,
) -> Vec<String> {
    let labels: Vec<_> = origins.into_iter().map(|origin| identity_labels(origin, level)).collect();
    let mut names: Vec<&str> = Vec::new();
    for (name, value) in labels.iter().flatten() {
        let same = labels.iter().all(|other| other.iter().any(|label| label == &(*name, value.clone())));
        if !same && *name != "generation" && !names.contains(name) {
            names.push(name);
        }
    }
    names.into_iter().map(|name| format_label_name(name).into_owned()).collect()
}

#[cfg(test)]
mod tests {
    use tallyport_core::model::{ContainerId, Generation};

    use super::super::super::identity::tests::{POD, origin};
    use super::*;

    #[test]
    fn the_series_of_a_task_are_selected_by_what_its_containers_have_in_common() {
        let sidecar: Vec<_> =
            POD.iter().map(|(key, value)| (*key, if *value == "main" { "sidecar" } else { value })).collect();
        let pod = [origin("shop_report_u", &POD), origin("shop_report_u", &sidecar)];
        assert_eq!(
            format_common_labels(&pod, Level::High),
            "namespace=\"shop\",pod=\"report-28123456-x7x2k\"",
            "a restart changes neither"
        );
        assert_eq!(format_common_labels(&pod, Level::Low), "namespace=\"shop\",workload=\"report\"");
        assert_eq!(format_common_labels(&[origin("a\"b", &[])], Level::default()), "task=\"a\\\"b\"");
        assert_eq!(format_common_labels(&[], Level::default()), "");
    }

    #[test]
    fn containers_are_told_apart_by_the_labels_that_differ() {
        let sidecar: Vec<_> =
            POD.iter().map(|(key, value)| (*key, if *value == "main" { "sidecar" } else { value })).collect();
        let pod = [origin("shop_report_u", &POD), origin("shop_report_u", &sidecar)];
        assert_eq!(find_differing_labels(&pod, Level::Orchestrator), ["container"]);
        let replicas = [origin("web", &[]), Origin { generation: Generation(4), ..origin("web", &[]) }];
        assert_eq!(find_differing_labels(&replicas, Level::High), Vec::<String>::new(), "it was replaced");
        let other = Origin { container_id: ContainerId::new("c-43").unwrap(), ..origin("web", &[]) };
        assert_eq!(find_differing_labels(&[origin("web", &[]), other], Level::High), ["container_id"]);
    }
}
