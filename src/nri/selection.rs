//! Which containers get a socket.

use super::annotation;
use super::messages::{Container, PodSandbox};
use crate::identity::annotation::ENABLED;
use crate::identity::read_switch;
use crate::model::Glob;

/// Whom the plugin serves. The same names as the settings below `kubernetes.`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Selection {
    /// What holds for a pod that says nothing.
    pub mode: Mode,
    /// Only pods of these namespaces; empty = of all.
    pub namespaces: Vec<Glob>,
    /// No pods of these namespaces.
    pub exclude_namespaces: Vec<Glob>,
    /// Only pods with all of these labels.
    pub pod_labels: Vec<LabelRule>,
    /// No pods with any of these labels.
    pub exclude_pod_labels: Vec<LabelRule>,
    /// Only containers with such names; empty = all.
    pub containers: Vec<Glob>,
    /// No containers with such names.
    pub exclude_containers: Vec<Glob>,
    /// Runtime handlers whose containers cannot reach a socket of the node: those with a network stack or a kernel of
    /// their own.
    pub sandboxed_handlers: Vec<Glob>,
}

/// What holds for a pod that says nothing.
#[derive(Copy, Clone, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// It gets sockets, unless it opts out.
    #[default]
    All,
    /// It gets none, unless it opts in.
    OptIn,
    /// Nobody gets one; who would have is counted.
    Observe,
}

/// `key` or `key=value`, where the value may be a pattern.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LabelRule {
    key: String,
    value: Option<Glob>,
}

impl LabelRule {
    /// Reads a rule.
    #[must_use]
    pub fn new(text: &str) -> Self {
        match text.split_once('=') {
            Some((key, value)) => Self { key: key.to_owned(), value: Some(Glob::new(value)) },
            None => Self { key: text.to_owned(), value: None },
        }
    }

    fn fits(&self, pod: &PodSandbox) -> bool {
        let label = pod.labels.get(&self.key);
        label.is_some_and(|label| self.value.as_ref().is_none_or(|value| value.matches(label)))
    }
}

/// What becomes of a container.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// It gets a socket.
    Inject,
    /// It would get one, were the mode not to observe.
    Observe,
    /// It cannot reach a socket of the node.
    Sandboxed,
    /// It, or its pod, said no.
    OptedOut,
    /// It did not say yes, where that is asked for.
    NotOptedIn,
    /// The configuration leaves it out, for this reason.
    Excluded(&'static str),
}

impl Selection {
    /// What becomes of a container. The administrator's exclusions are first, then what the pod says, then the mode.
    #[must_use]
    pub fn verdict(&self, pod: &PodSandbox, container: &Container) -> Verdict {
        if let Some(why) = self.excluded(pod, container) {
            return Verdict::Excluded(why);
        }
        let said = annotation::of(pod, container, ENABLED).and_then(read_switch);
        match (said, self.mode) {
            (Some(false), _) => return Verdict::OptedOut,
            (None, Mode::OptIn) => return Verdict::NotOptedIn,
            _ => {}
        }
        if any(&self.sandboxed_handlers, &pod.runtime_handler) {
            return Verdict::Sandboxed;
        }
        match self.mode {
            Mode::Observe => Verdict::Observe,
            Mode::All | Mode::OptIn => Verdict::Inject,
        }
    }

    fn excluded(&self, pod: &PodSandbox, container: &Container) -> Option<&'static str> {
        let unlisted = |globs: &[Glob], text: &str| !globs.is_empty() && !any(globs, text);
        let rules = [
            ("kubernetes.exclude_namespaces", any(&self.exclude_namespaces, &pod.namespace)),
            ("kubernetes.namespaces", unlisted(&self.namespaces, &pod.namespace)),
            ("kubernetes.exclude_pod_labels", self.exclude_pod_labels.iter().any(|rule| rule.fits(pod))),
            ("kubernetes.pod_labels", !self.pod_labels.iter().all(|rule| rule.fits(pod))),
            ("kubernetes.exclude_containers", any(&self.exclude_containers, &container.name)),
            ("kubernetes.containers", unlisted(&self.containers, &container.name)),
        ];
        rules.into_iter().find(|(_, excludes)| *excludes).map(|(name, _)| name)
    }
}

fn any(globs: &[Glob], text: &str) -> bool {
    globs.iter().any(|glob| glob.matches(text))
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

    fn container(name: &str) -> Container {
        Container { name: name.to_owned(), ..Container::default() }
    }

    fn verdict(selection: &Selection, pod: &PodSandbox) -> Verdict {
        selection.verdict(pod, &container("web"))
    }

    #[test]
    fn everybody_gets_a_socket_where_nothing_is_said() {
        assert_eq!(verdict(&Selection::default(), &pod("shop", &[], &[])), Verdict::Inject);
    }

    #[test]
    fn a_pod_opts_out_whole_or_by_container() {
        let all = Selection::default();
        let out = pod("shop", &[], &[("tallyport.enabled", "false")]);
        assert_eq!(verdict(&all, &out), Verdict::OptedOut);
        let one = pod("shop", &[], &[("tallyport.enabled/container.web", "no")]);
        assert_eq!(verdict(&all, &one), Verdict::OptedOut);
        assert_eq!(all.verdict(&one, &container("sidecar")), Verdict::Inject);
    }

    #[test]
    fn opt_in_asks_for_a_yes() {
        let opt_in = Selection { mode: Mode::OptIn, ..Selection::default() };
        assert_eq!(verdict(&opt_in, &pod("shop", &[], &[])), Verdict::NotOptedIn);
        let one = pod("shop", &[], &[("tallyport.enabled/container.web", "true")]);
        assert_eq!(verdict(&opt_in, &one), Verdict::Inject);
        assert_eq!(opt_in.verdict(&one, &container("sidecar")), Verdict::NotOptedIn);
    }

    #[test]
    fn who_observes_changes_nobody() {
        let observe = Selection { mode: Mode::Observe, ..Selection::default() };
        assert_eq!(verdict(&observe, &pod("shop", &[], &[("tallyport.enabled", "true")])), Verdict::Observe);
        assert_eq!(
            verdict(&observe, &pod("shop", &[], &[("tallyport.enabled", "false")])),
            Verdict::OptedOut
        );
    }

    #[test]
    fn a_container_with_a_kernel_of_its_own_is_reported() {
        let selection = Selection { sandboxed_handlers: globs(&["runsc*", "kata*"]), ..Selection::default() };
        for (handler, expected) in
            [("kata-qemu", Verdict::Sandboxed), ("runsc", Verdict::Sandboxed), ("", Verdict::Inject)]
        {
            let pod = PodSandbox { runtime_handler: handler.to_owned(), ..pod("shop", &[], &[]) };
            assert_eq!(verdict(&selection, &pod), expected, "{handler}");
        }
    }

    #[test]
    fn what_the_administrator_excludes_no_annotation_includes() {
        let yes = [("tallyport.enabled", "true")];
        for (selection, why) in [
            (
                Selection { exclude_namespaces: globs(&["sh*"]), ..Selection::default() },
                "kubernetes.exclude_namespaces",
            ),
            (Selection { namespaces: globs(&["bank"]), ..Selection::default() }, "kubernetes.namespaces"),
            (
                Selection { exclude_pod_labels: vec![LabelRule::new("app=w*")], ..Selection::default() },
                "kubernetes.exclude_pod_labels",
            ),
            (
                Selection {
                    pod_labels: vec![LabelRule::new("app"), LabelRule::new("tier=back")],
                    ..Selection::default()
                },
                "kubernetes.pod_labels",
            ),
            (
                Selection { exclude_containers: globs(&["w?b"]), ..Selection::default() },
                "kubernetes.exclude_containers",
            ),
            (Selection { containers: globs(&["sidecar"]), ..Selection::default() }, "kubernetes.containers"),
        ] {
            let pod = pod("shop", &[("app", "web")], &yes);
            assert_eq!(verdict(&selection, &pod), Verdict::Excluded(why));
        }
    }

    #[test]
    fn what_is_listed_is_in() {
        let selection = Selection {
            namespaces: globs(&["shop", "bank*"]),
            pod_labels: vec![LabelRule::new("app"), LabelRule::new("tier=fr*t")],
            containers: globs(&["web"]),
            ..Selection::default()
        };
        let pod = pod("bank-1", &[("app", "web"), ("tier", "front")], &[]);
        assert_eq!(verdict(&selection, &pod), Verdict::Inject);
    }
}
