//! Which containers get a socket.

use super::identity;
use super::messages::{NriContainer, PodSandbox};
use crate::identity::annotation::ENABLED;
use crate::identity::read_switch;
use crate::model::Glob;

/// Which containers the plugin serves. The fields have the names of the settings under `kubernetes.`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SelectionRules {
    /// What holds for a pod that says nothing.
    pub mode: SelectionMode,
    /// Only pods of these namespaces; empty = of all.
    pub namespaces: Vec<Glob>,
    /// No pods of these namespaces.
    pub exclude_namespaces: Vec<Glob>,
    /// Only pods with all of these labels.
    pub pod_labels: Vec<LabelRule>,
    /// No pods with any of these labels.
    pub exclude_pod_labels: Vec<LabelRule>,
    /// Only containers with these names; empty = all.
    pub containers: Vec<Glob>,
    /// No containers with these names.
    pub exclude_containers: Vec<Glob>,
    /// Runtime handlers whose containers cannot reach a socket on the node, because they have their own network stack
    /// or kernel.
    pub sandboxed_handlers: Vec<Glob>,
}

/// What holds for a pod that says nothing.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum SelectionMode {
    /// It gets sockets, unless it opts out.
    #[default]
    All,
    /// It gets none, unless it opts in.
    OptIn,
    /// No container gets one; those that would have are counted.
    Observe,
}

/// `key` or `key=value`, where the value may be a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelRule {
    key: String,
    value: Option<Glob>,
}

impl LabelRule {
    /// Parses a rule.
    #[must_use]
    pub fn new(text: &str) -> Self {
        match text.split_once('=') {
            Some((key, value)) => Self { key: key.to_owned(), value: Some(Glob::new(value)) },
            None => Self { key: text.to_owned(), value: None },
        }
    }

    fn matches_pod(&self, pod: &PodSandbox) -> bool {
        let label = pod.labels.get(&self.key);
        label.is_some_and(|label| self.value.as_ref().is_none_or(|value| value.is_match(label)))
    }
}

/// What becomes of a container.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum SelectionVerdict {
    /// It gets a socket.
    Inject,
    /// It would get one, but the mode is `Observe`.
    Observe,
    /// It cannot reach a socket of the node.
    Sandboxed,
    /// It or its pod opted out.
    OptedOut,
    /// It did not opt in, which the mode requires.
    NotOptedIn,
    /// The configuration excludes it by this setting.
    Excluded(&'static str),
}

impl SelectionRules {
    /// Decides about a container. The administrator's exclusions come first, then the pod's annotations, then the mode.
    #[must_use]
    pub fn judge_container(&self, pod: &PodSandbox, container: &NriContainer) -> SelectionVerdict {
        if let Some(why) = self.exclusion_reason(pod, container) {
            return SelectionVerdict::Excluded(why);
        }
        let said = identity::find_annotation(pod, container, ENABLED).and_then(read_switch);
        match (said, self.mode) {
            (Some(false), _) => return SelectionVerdict::OptedOut,
            (None, SelectionMode::OptIn) => return SelectionVerdict::NotOptedIn,
            _ => {}
        }
        if matches_any(&self.sandboxed_handlers, &pod.runtime_handler) {
            return SelectionVerdict::Sandboxed;
        }
        match self.mode {
            SelectionMode::Observe => SelectionVerdict::Observe,
            SelectionMode::All | SelectionMode::OptIn => SelectionVerdict::Inject,
        }
    }

    fn exclusion_reason(&self, pod: &PodSandbox, container: &NriContainer) -> Option<&'static str> {
        let unlisted = |globs: &[Glob], text: &str| !globs.is_empty() && !matches_any(globs, text);
        let rules = [
            ("kubernetes.exclude_namespaces", matches_any(&self.exclude_namespaces, &pod.namespace)),
            ("kubernetes.namespaces", unlisted(&self.namespaces, &pod.namespace)),
            (
                "kubernetes.exclude_pod_labels",
                self.exclude_pod_labels.iter().any(|rule| rule.matches_pod(pod)),
            ),
            ("kubernetes.pod_labels", !self.pod_labels.iter().all(|rule| rule.matches_pod(pod))),
            ("kubernetes.exclude_containers", matches_any(&self.exclude_containers, &container.name)),
            ("kubernetes.containers", unlisted(&self.containers, &container.name)),
        ];
        rules.into_iter().find(|(_, excludes)| *excludes).map(|(name, _)| name)
    }
}

fn matches_any(globs: &[Glob], text: &str) -> bool {
    globs.iter().any(|glob| glob.is_match(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn globs(patterns: &[&str]) -> Vec<Glob> {
        patterns.iter().map(|pattern| Glob::new(pattern)).collect()
    }

    fn pod(namespace: &str, labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> PodSandbox {
        let map = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
        };
        PodSandbox {
            namespace: namespace.to_owned(),
            labels: map(labels),
            annotations: map(annotations),
            ..PodSandbox::default()
        }
    }

    fn container(name: &str) -> NriContainer {
        NriContainer { name: name.to_owned(), ..NriContainer::default() }
    }

    fn verdict(selection: &SelectionRules, pod: &PodSandbox) -> SelectionVerdict {
        selection.judge_container(pod, &container("web"))
    }

    #[test]
    fn everybody_gets_a_socket_where_nothing_is_said() {
        assert_eq!(verdict(&SelectionRules::default(), &pod("shop", &[], &[])), SelectionVerdict::Inject);
    }

    #[test]
    fn a_pod_opts_out_whole_or_by_container() {
        let all = SelectionRules::default();
        let out = pod("shop", &[], &[("tallyport.enabled", "false")]);
        assert_eq!(verdict(&all, &out), SelectionVerdict::OptedOut);
        let one = pod("shop", &[], &[("tallyport.enabled/container.web", "no")]);
        assert_eq!(verdict(&all, &one), SelectionVerdict::OptedOut);
        assert_eq!(all.judge_container(&one, &container("sidecar")), SelectionVerdict::Inject);
    }

    #[test]
    fn opt_in_asks_for_a_yes() {
        let opt_in = SelectionRules { mode: SelectionMode::OptIn, ..SelectionRules::default() };
        assert_eq!(verdict(&opt_in, &pod("shop", &[], &[])), SelectionVerdict::NotOptedIn);
        let one = pod("shop", &[], &[("tallyport.enabled/container.web", "true")]);
        assert_eq!(verdict(&opt_in, &one), SelectionVerdict::Inject);
        assert_eq!(opt_in.judge_container(&one, &container("sidecar")), SelectionVerdict::NotOptedIn);
    }

    #[test]
    fn an_observer_changes_no_container() {
        let observe = SelectionRules { mode: SelectionMode::Observe, ..SelectionRules::default() };
        assert_eq!(
            verdict(&observe, &pod("shop", &[], &[("tallyport.enabled", "true")])),
            SelectionVerdict::Observe
        );
        assert_eq!(
            verdict(&observe, &pod("shop", &[], &[("tallyport.enabled", "false")])),
            SelectionVerdict::OptedOut
        );
    }

    #[test]
    fn a_container_with_a_kernel_of_its_own_is_reported() {
        let selection =
            SelectionRules { sandboxed_handlers: globs(&["runsc*", "kata*"]), ..SelectionRules::default() };
        for (handler, expected) in [
            ("kata-qemu", SelectionVerdict::Sandboxed),
            ("runsc", SelectionVerdict::Sandboxed),
            ("", SelectionVerdict::Inject),
        ] {
            let pod = PodSandbox { runtime_handler: handler.to_owned(), ..pod("shop", &[], &[]) };
            assert_eq!(verdict(&selection, &pod), expected, "{handler}");
        }
    }

    #[test]
    fn what_the_administrator_excludes_no_annotation_includes() {
        let yes = [("tallyport.enabled", "true")];
        for (selection, why) in [
            (
                SelectionRules { exclude_namespaces: globs(&["sh*"]), ..SelectionRules::default() },
                "kubernetes.exclude_namespaces",
            ),
            (
                SelectionRules { namespaces: globs(&["bank"]), ..SelectionRules::default() },
                "kubernetes.namespaces",
            ),
            (
                SelectionRules {
                    exclude_pod_labels: vec![LabelRule::new("app=w*")],
                    ..SelectionRules::default()
                },
                "kubernetes.exclude_pod_labels",
            ),
            (
                SelectionRules {
                    pod_labels: vec![LabelRule::new("app"), LabelRule::new("tier=back")],
                    ..SelectionRules::default()
                },
                "kubernetes.pod_labels",
            ),
            (
                SelectionRules { exclude_containers: globs(&["w?b"]), ..SelectionRules::default() },
                "kubernetes.exclude_containers",
            ),
            (
                SelectionRules { containers: globs(&["sidecar"]), ..SelectionRules::default() },
                "kubernetes.containers",
            ),
        ] {
            let pod = pod("shop", &[("app", "web")], &yes);
            assert_eq!(verdict(&selection, &pod), SelectionVerdict::Excluded(why));
        }
    }

    #[test]
    fn what_is_listed_is_in() {
        let selection = SelectionRules {
            namespaces: globs(&["shop", "bank*"]),
            pod_labels: vec![LabelRule::new("app"), LabelRule::new("tier=fr*t")],
            containers: globs(&["web"]),
            ..SelectionRules::default()
        };
        let pod = pod("bank-1", &[("app", "web"), ("tier", "front")], &[]);
        assert_eq!(verdict(&selection, &pod), SelectionVerdict::Inject);
    }
}
