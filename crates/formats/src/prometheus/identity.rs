//! The origin of series, as labels.

use std::borrow::Cow;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tallyport_core::model::{Labels, Origin};

use super::name::{NameSpelling, is_valid, sanitize_label as sanitized};
use crate::exposition::Escaping;

/// The level of detail of a series' origin.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub enum Level {
    /// The workload: everything that one definition starts.
    Low,
    /// Namespace, pod and container, or the task: the unit that an orchestrator places.
    #[default]
    Orchestrator,
    /// The container in its generation.
    High,
}

/// The labels by which a container's series are known at a level.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct SeriesIdentity(Arc<str>);

impl Level {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Low, Self::Orchestrator, Self::High];

    /// How it is written in settings and queries.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Orchestrator => "orchestrator",
            Self::High => "high",
        }
    }
}

impl SeriesIdentity {
    /// The identity of a container.
    #[must_use]
    pub fn from_origin(origin: &Origin, level: Level) -> Self {
        let mut text = String::new();
        for (name, value) in identity_labels(origin, level) {
            push_label(&mut text, name, &value);
        }
        Self(text.into())
    }

    /// Labels as they are written, commas between them.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Names and values, in the order they are written.
pub(crate) fn identity_labels(origin: &Origin, level: Level) -> Vec<(&'static str, String)> {
    let of = |key: &str| origin.labels.get(key).filter(|value| !value.is_empty()).cloned();
    let mut pairs = match (level, of("namespace"), of("pod"), of("container")) {
        (Level::Low, Some(namespace), Some(pod), Some(container)) => {
            let workload = of("workload").unwrap_or(pod);
            let job = of("workload_kind").is_some_and(|kind| kind == "Job");
            let workload = if job { of_schedule(&workload).to_owned() } else { workload };
            vec![("namespace", namespace), ("workload", workload), ("container", container)]
        }
        (_, Some(namespace), Some(pod), Some(container)) => {
            vec![("namespace", namespace), ("pod", pod), ("container", container)]
        }
        (Level::Low, ..) => {
            let named = of("workload").or_else(|| of("task_name"));
            // In Mesos a task's name is the part of its ID before the unique part.
            let task = origin.task_id.as_str().split('.').find(|part| !part.is_empty());
            let task = task.unwrap_or(origin.task_id.as_str());
            vec![("workload", named.unwrap_or_else(|| task.to_owned()))]
        }
        _ => vec![("task", origin.task_id.to_string())],
    };
    if level == Level::High {
        pairs.push(("container_id", origin.container_id.to_string()));
        pairs.push(("generation", origin.generation.to_string()));
    }
    pairs
}

/// The `CronJob` that created a Job: it appends the minute of its schedule to its own name.
fn of_schedule(job: &str) -> &str {
    let minute = |digits: &str| digits.len() >= 8 && digits.bytes().all(|byte| byte.is_ascii_digit());
    match job.rsplit_once('-') {
        Some((name, digits)) if minute(digits) && !name.is_empty() => name,
        _ => job,
    }
}

/// All labels of a container, its identity first. A container's labels never change, so the first of two colliding
/// keys, in their order, keeps the plain name, without a need to remember it.
pub(super) fn format_info_labels(origin: &Origin, level: Level, escaping: Escaping) -> String {
    let mut known = identity_labels(origin, level);
    for (name, value) in [
        ("container_id", origin.container_id.to_string()),
        ("generation", origin.generation.to_string()),
        ("task_id", origin.task_id.to_string()),
    ] {
        if known.iter().all(|(known, _)| *known != name) {
            known.push((name, value));
        }
    }
    let mut text = String::new();
    for (name, value) in &known {
        push_label(&mut text, name, value);
    }
    let mut rest = Labels::new();
    for (key, value) in origin.labels.iter().filter(|(_, value)| !value.is_empty()) {
        if known.iter().any(|(name, known)| name == key && known == value) {
            continue;
        }
        let taken = |name: &str| known.iter().any(|(known, _)| *known == name) || TARGET.contains(&name);
        let named = |mark| {
            let name = sanitize_container_label(key, NameSpelling { escaping, mark });
            if taken(&name) { format!("label_{name}") } else { name }
        };
        let names = [None, Some(0), Some(1)].map(named);
        if let Some(name) = names.into_iter().find(|name| !rest.contains_key(name)) {
            rest.insert(name, value.clone());
        }
    }
    for (name, value) in &rest {
        push_label(&mut text, name, value);
    }
    text
}

/// The Prometheus name of a container's label. Unlike a tag it may be part of the identity.
fn sanitize_container_label(key: &str, spelling: NameSpelling) -> String {
    let name = sanitized(key, spelling);
    let renamed = name.strip_prefix("client_").filter(|_| !key.starts_with("client_"));
    renamed.unwrap_or(&name).to_owned()
}

/// Labels that identify the scraped target.
const TARGET: [&str; 2] = ["instance", "job"];

/// Adds a label, after a comma unless it is the first.
pub(crate) fn push_label(out: &mut String, name: &str, value: &str) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(&format_label_name(name));
    out.push_str("=\"");
    push_escaped(out, non_empty(value), true);
    out.push('"');
}

/// The name of a label as it is written.
pub(super) fn format_label_name(name: &str) -> Cow<'_, str> {
    if is_valid(name) {
        return Cow::Borrowed(name);
    }
    let mut quoted = String::new();
    push_quoted(&mut quoted, name);
    Cow::Owned(quoted)
}

/// A label with an empty value would be equivalent to none.
fn non_empty(value: &str) -> &str {
    if value.is_empty() { "true" } else { value }
}

/// The value of a label, as a page has it once its escapes are read.
pub(crate) fn label_value(value: &str) -> Cow<'_, str> {
    let value = non_empty(value);
    let is_changed = |byte: u8| byte != b'\n' && byte.is_ascii_control();
    // Looks at every byte, which is faster than to stop at one.
    if !value.bytes().fold(false, |found, byte| found | is_changed(byte)) {
        return Cow::Borrowed(value);
    }
    let shown = |c| if c == '\n' { c } else { control_picture(c).unwrap_or(c) };
    Cow::Owned(value.chars().map(shown).collect())
}

/// Unicode's picture of an ASCII control character. Not every parser accepts the character itself.
pub(crate) fn control_picture(c: char) -> Option<char> {
    match c {
        '\u{7f}' => Some('\u{2421}'),
        '\0'..'\u{20}' => char::from_u32(0x2400 + u32::from(c)),
        _ => None,
    }
}

/// Writes a name that older readers would not accept.
pub(super) fn push_quoted(out: &mut String, name: &str) {
    out.push('"');
    push_escaped(out, name, true);
    out.push('"');
}

/// Writes a text so that it stays on one line, with pictures in place of control characters.
pub(super) fn push_escaped(out: &mut String, text: &str, quoted: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quoted => out.push_str("\\\""),
            c => out.push(control_picture(c).unwrap_or(c)),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use tallyport_core::model::{ContainerId, Generation, TaskId};

    use super::*;

    pub(in super::super) fn origin(task: &str, labels: &[(&str, &str)]) -> Origin {
        Origin {
            container_id: ContainerId::new("c-42").unwrap(),
            generation: Generation(3),
            task_id: TaskId::new(task).unwrap(),
            labels: labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        }
    }

    fn text(origin: &Origin, level: Level) -> String {
        SeriesIdentity::from_origin(origin, level).as_str().to_owned()
    }

    pub(in super::super) const POD: [(&str, &str); 5] = [
        ("namespace", "shop"),
        ("pod", "report-28123456-x7x2k"),
        ("container", "main"),
        ("workload", "report-28123456"),
        ("workload_kind", "Job"),
    ];

    #[test]
    fn a_container_of_a_pod_is_known_by_the_names_kubernetes_gave() {
        let pod = origin("shop_report_u", &POD);
        let known = "namespace=\"shop\",pod=\"report-28123456-x7x2k\",container=\"main\"";
        assert_eq!(text(&pod, Level::Orchestrator), known);
        assert_eq!(text(&pod, Level::High), format!("{known},container_id=\"c-42\",generation=\"3\""));
        assert_eq!(
            text(&pod, Level::Low),
            "namespace=\"shop\",workload=\"report\",container=\"main\"",
            "every Job of a CronJob is one workload"
        );
    }

    #[test]
    fn any_other_container_is_known_by_its_task() {
        let task = origin("web.3f9a", &[("team", "shop")]);
        assert_eq!(text(&task, Level::Orchestrator), "task=\"web.3f9a\"");
        assert_eq!(text(&task, Level::Low), "workload=\"web\"");
        assert_eq!(text(&origin("x.1", &[("task_name", "web")]), Level::Low), "workload=\"web\"");
    }

    #[test]
    fn everything_else_is_told_once_and_never_twice_by_one_name() {
        let task = origin(
            "a\"b\\c",
            &[
                ("team", "shop\n\u{0}"),
                ("job", "x"),
                ("container_id", "forged"),
                ("com.docker.image", "i"),
                ("none", ""),
            ],
        );
        let told = format_info_labels(&task, Level::Orchestrator, Escaping::Underscores);
        assert!(told.starts_with("task=\"a\\\"b\\\\c\""), "{told}");
        assert!(told.contains("label_job=\"x\"") && told.contains("label_container_id=\"forged\""), "{told}");
        assert!(
            told.contains("com_docker_image=\"i\"") && told.contains("team=\"shop\\n\u{2400}\""),
            "{told}"
        );
        assert!(!told.contains("none=") && told.matches("container_id=\"c-42\"").count() == 1, "{told}");
        let quoted = format_info_labels(&task, Level::Orchestrator, Escaping::Utf8);
        assert!(quoted.contains("\"com.docker.image\"=\"i\""), "{quoted}");
    }

    #[test]
    fn two_labels_of_a_container_that_would_become_one_are_told_apart() {
        let task = origin("a", &[("a.b", "dot"), ("a_b", "plain"), ("task-id", "x"), ("__a", "y")]);
        let told = format_info_labels(&task, Level::Orchestrator, Escaping::Underscores);
        assert!(told.contains("a_b=\"dot\"") && told.contains("a_b__"), "{told}");
        assert!(told.contains("label_task_id=\"x\"") && told.contains("_a=\"y\""), "{told}");
    }
}
