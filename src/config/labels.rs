//! Labels of the node, from a file of lines: `key="value"` as Kubernetes' downward API writes them, or `key=value`.

use std::collections::BTreeMap;

/// Maximum size of the file, in bytes. Each label is in every record of the node.
pub(super) const LONGEST: usize = 64 << 10;

/// Labels that identify a container: a file must not set them for all containers.
const IDENTITY: [&str; 11] = [
    "container",
    "container_id",
    "generation",
    "image",
    "namespace",
    "node",
    "pod",
    "task_id",
    "uid",
    "workload",
    "workload_kind",
];
/// Prefix of labels that configure how the agent treats a container.
const ORDERS: &str = "tallyport.";

/// Reads a file's text.
///
/// # Errors
/// With every error and its line number.
pub(super) fn parse(text: &str) -> Result<BTreeMap<String, String>, Vec<(usize, String)>> {
    let (mut labels, mut mistakes) = (BTreeMap::new(), Vec::new());
    if text.len() > LONGEST {
        return Err(vec![(1, format!("the file is longer than {} KiB", LONGEST >> 10))]);
    }
    for (number, line) in (1..).zip(text.lines().map(str::trim)) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let mistake = match parse_label(line) {
            Ok((key, _)) if labels.contains_key(key) => format!("{key} is there twice"),
            Ok((key, value)) => {
                labels.insert(key.to_owned(), value);
                continue;
            }
            Err(why) => why,
        };
        mistakes.push((number, mistake));
    }
    if mistakes.is_empty() { Ok(labels) } else { Err(mistakes) }
}

fn parse_label(line: &str) -> Result<(&str, String), String> {
    let (key, value) = line.split_once('=').ok_or("is not key=\"value\"")?;
    let odd = |c: char| c.is_whitespace() || c.is_control() || c == '"';
    if key.is_empty() || key.contains(odd) {
        return Err(format!("{key:?} is not a label's name"));
    }
    if IDENTITY.contains(&key) || key.starts_with(ORDERS) {
        return Err(format!("{key} identifies a container and cannot be set for a node"));
    }
    let value = match value.strip_prefix('"') {
        Some(quoted) => parse_quoted_value(quoted)?,
        None => value.to_owned(),
    };
    match value.contains(char::is_control) {
        true => Err(format!("the value of {key} has a control character")),
        false => Ok((key, value)),
    }
}

/// Parses the text between quotes. Values of Kubernetes labels need no escapes; those of annotations may.
fn parse_quoted_value(rest: &str) -> Result<String, String> {
    let (mut value, mut characters) = (String::new(), rest.chars());
    loop {
        match characters.next() {
            None => return Err("the quotes are not closed".to_owned()),
            Some('"') if characters.as_str().is_empty() => return Ok(value),
            Some('"') => return Err(format!("{:?} is left over after the quotes", characters.as_str())),
            Some('\\') => match characters.next() {
                Some(escaped @ ('"' | '\\')) => value.push(escaped),
                _ => return Err("has an escape other than \\\" and \\\\".to_owned()),
            },
            Some(other) => value.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_of_writing_are_read() {
        let text = "# of this node\n\ntopology.kubernetes.io/zone=\"eu-1a\"\n  rack=r7  \nempty=\"\"\nnone=\n\
                    said=\"a \\\"b\\\" \\\\ c\"\nsum=1=1\n";
        let labels = parse(text).unwrap();
        let labels: Vec<_> = labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        assert_eq!(
            labels,
            [
                ("empty", ""),
                ("none", ""),
                ("rack", "r7"),
                ("said", "a \"b\" \\ c"),
                ("sum", "1=1"),
                ("topology.kubernetes.io/zone", "eu-1a")
            ]
        );
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn every_mistake_has_its_line() {
        let text = "zone=a\nzone=b\nnothing\n=x\nmy key=x\nopen=\"x\nmore=\"x\"y\nodd=\"\\n\"\nbell=\u{7}\n\
                    namespace=shop\ntallyport.task-id=web\n";
        let mistakes = parse(text).unwrap_err();
        let expected = [
            (2, "twice"),
            (3, "key=\"value\""),
            (4, "name"),
            (5, "name"),
            (6, "not closed"),
            (7, "left over"),
            (8, "escape"),
            (9, "control"),
            (10, "identifies a container"),
            (11, "identifies a container"),
        ];
        assert_eq!(mistakes.len(), expected.len(), "{mistakes:?}");
        for ((line, mistake), (expected_line, part)) in mistakes.iter().zip(expected) {
            assert!(*line == expected_line && mistake.contains(part), "{line} {mistake}");
        }
    }

    #[test]
    fn a_file_may_be_so_long_and_no_longer() {
        let text = |length: usize| format!("a={}", "x".repeat(length - 2));
        assert!(parse(&text(LONGEST)).is_ok());
        assert!(parse(&text(LONGEST + 1)).unwrap_err()[0].1.contains("longer than 64 KiB"));
    }
}
