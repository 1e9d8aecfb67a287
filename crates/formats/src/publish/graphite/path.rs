//! Paths of series, from a template such as `tallyport.{identity}.{type}.{name}`.

use std::fmt;
use std::str::FromStr;

use tallyport_core::model::Series;

use crate::prometheus::Level;
use crate::prometheus::identity::{control_picture, identity_labels};
use crate::publish::labels::LabelReader;
use crate::publish::{Round, RoundRecord};

/// A valid template of paths.
///
/// Placeholders: `{name}` and `{type}` of the series, `{node}`, `{identity}` (the values of all labels of the identity, a node
/// of the path each) and single labels: `{namespace}`, `{pod}`, `{container}`, `{workload}`, `{task}`, `{container_id}` and
/// `{generation}`. A label that the identity does not determine is `none`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PathTemplate {
    text: String,
    parts: Vec<PathPart>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum PathPart {
    Text(String),
    Name,
    Type,
    Node,
    Identity,
    Label(&'static str),
}

/// Why a text is not a template of paths.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TemplateError {
    /// A placeholder that does not exist.
    #[error("has an unknown placeholder {{{0}}}; use {known}", known = list_placeholders())]
    UnknownPlaceholder(String),
    /// A brace without its counterpart.
    #[error("has a brace without its counterpart")]
    Unbalanced,
    /// All series of a container would have one path.
    #[error("has no {{name}}, so that all series would have one path")]
    WithoutName,
    /// Two dots without anything between them, or one at an end. Servers store a path as directories.
    #[error("has an empty node: a dot at an end, or two in a row")]
    EmptyNode,
    /// A character that a path cannot have.
    #[error("has the character {0:?}, which a path cannot have")]
    Forbidden(char),
}

const LABELS: [&str; 7] = ["namespace", "pod", "container", "workload", "task", "container_id", "generation"];

fn list_placeholders() -> String {
    let all = ["name", "type", "node", "identity"].into_iter().chain(LABELS);
    all.map(|name| format!("{{{name}}}")).collect::<Vec<_>>().join(", ")
}

impl FromStr for PathTemplate {
    type Err = TemplateError;

    /// Reads a template.
    ///
    /// # Errors
    /// If it has no `{name}`, unknown placeholders, empty nodes, or characters other than letters, digits, dots, underscores and hyphens.
    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let (plain, after) = rest.split_at(rest.find('{').unwrap_or(rest.len()));
            if let Some(other) = plain.chars().find(|c| !is_plain(*c) && *c != '.') {
                return Err(if other == '}' {
                    TemplateError::Unbalanced
                } else {
                    TemplateError::Forbidden(other)
                });
            }
            if !plain.is_empty() {
                parts.push(PathPart::Text(plain.to_owned()));
            }
            let Some(placeholder) = after.strip_prefix('{') else { break };
            let (name, after) = placeholder.split_once('}').ok_or(TemplateError::Unbalanced)?;
            parts.push(
                PathPart::from_name(name)
                    .ok_or_else(|| TemplateError::UnknownPlaceholder(name.to_owned()))?,
            );
            rest = after;
        }
        if text.split('.').any(str::is_empty) {
            return Err(TemplateError::EmptyNode);
        }
        let named = parts.contains(&PathPart::Name);
        if named { Ok(Self { text: text.to_owned(), parts }) } else { Err(TemplateError::WithoutName) }
    }
}

impl PathTemplate {
    /// The template that is used if none is set: with tags, only the name, since everything else is in tags.
    #[must_use]
    pub fn default_for(tags: bool) -> Self {
        let dot = || PathPart::Text(".".to_owned());
        if tags {
            return Self { text: "{name}".to_owned(), parts: vec![PathPart::Name] };
        }
        let start = PathPart::Text("tallyport.".to_owned());
        let parts = vec![start, PathPart::Identity, dot(), PathPart::Type, dot(), PathPart::Name];
        Self { text: "tallyport.{identity}.{type}.{name}".to_owned(), parts }
    }

    /// Writes the path of a series.
    pub(super) fn push_path(&self, out: &mut Vec<u8>, place: &PathPlace, series: &Series) {
        for part in &self.parts {
            match part {
                PathPart::Text(text) => out.extend_from_slice(text.as_bytes()),
                PathPart::Name => push_name(out, &series.name),
                PathPart::Type => out.extend_from_slice(series.metric_type.as_str().as_bytes()),
                PathPart::Node => push_node(out, &place.node),
                PathPart::Identity => out.extend_from_slice(&place.identity),
                PathPart::Label(label) => push_node(out, place.find_label(label)),
            }
        }
    }
}

impl fmt::Display for PathTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl PathPart {
    fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "name" => Self::Name,
            "type" => Self::Type,
            "node" => Self::Node,
            "identity" => Self::Identity,
            name => Self::Label(LABELS.into_iter().find(|label| *label == name)?),
        })
    }
}

/// What templates can say about an identity.
#[derive(Default, Debug)]
pub(super) struct PathPlace {
    node: String,
    /// The values of its labels, as nodes.
    identity: Vec<u8>,
    labels: Vec<(&'static str, String)>,
}

impl PathPlace {
    pub(super) fn new(round: &Round<'_>, record: &RoundRecord<'_>, reader: &LabelReader<'_>) -> Self {
        let mut identity = Vec::new();
        let mut labels = reader.identity_labels().to_vec();
        for (index, (_, value)) in labels.iter().enumerate() {
            if index > 0 {
                identity.push(b'.');
            }
            push_node(&mut identity, value);
        }
        // The workload is determined by any identity.
        labels.extend(identity_labels(record.origin, Level::Low));
        Self { node: round.node.to_owned(), identity, labels }
    }

    fn find_label(&self, label: &str) -> &str {
        let found = self.labels.iter().find(|(name, _)| *name == label);
        found.map_or("none", |(_, value)| value)
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '_' | '-')
}

/// Writes a text as one node of a path. Its dots, too, become underscores, or they would begin another node.
pub(super) fn push_node(out: &mut Vec<u8>, text: &str) {
    let plain = |c: char| u8::try_from(c).ok().filter(|_| is_plain(c));
    out.extend(text.chars().map(|c| plain(c).unwrap_or(b'_')));
    if text.is_empty() {
        out.push(b'_');
    }
}

/// Writes the name of a metric, whose dots separate nodes. Empty nodes are left out, because servers store a path as
/// directories.
fn push_name(out: &mut Vec<u8>, name: &str) {
    let start = out.len();
    for node in name.split('.').filter(|node| !node.is_empty()) {
        if out.len() > start {
            out.push(b'.');
        }
        push_node(out, node);
    }
    if out.len() == start {
        out.push(b'_');
    }
}

/// Writes the key of a tag.
pub(super) fn push_tag_key(out: &mut Vec<u8>, key: &str) {
    push_replaced(out, key, |c| matches!(c, ';' | '!' | '^' | '='));
}

/// Writes the value of a tag. At its start a tilde has a meaning to Graphite.
pub(super) fn push_tag_value(out: &mut Vec<u8>, value: &str) {
    let rest = value.trim_start_matches('~');
    out.extend(std::iter::repeat_n(b'_', value.len() - rest.len()));
    push_replaced(out, rest, |c| c == ';');
}

/// Writes a text with underscores in place of characters that end a field or a line.
fn push_replaced(out: &mut Vec<u8>, text: &str, special: impl Fn(char) -> bool) {
    for c in text.chars() {
        let c = if special(c) || c.is_whitespace() { '_' } else { control_picture(c).unwrap_or(c) };
        let mut utf8 = [0; 4];
        out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
    }
}
