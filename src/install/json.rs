//! Edits single values of a JSON text without changing the rest of it.

use std::ops::Range;

use crate::oci::document::{Object, to_json};

/// The positions of the parts of an object in its text.
struct ObjectLayout {
    /// After the `{`.
    open: usize,
    members: Vec<Member>,
    /// Before the `}`.
    close: usize,
}

struct Member {
    key: String,
    /// From the key's quote to the end of the value.
    whole: Range<usize>,
    value: Range<usize>,
}

impl ObjectLayout {
    fn read(text: &str) -> serde_json::Result<Self> {
        let object = Object::read(text)?;
        let open = text.find('{').unwrap_or_default() + 1;
        let mut members = Vec::new();
        let mut end = open;
        for (key, value) in object.entries() {
            // Values are slices of the text.
            let start = value.as_ptr().addr() - text.as_ptr().addr();
            let between = text.get(end..start).unwrap_or_default();
            let key_at = end + between.find('"').unwrap_or_default();
            end = start + value.len();
            members.push(Member { key: key.to_owned(), whole: key_at..end, value: start..end });
        }
        Ok(Self { open, members, close: text.rfind('}').unwrap_or(open) })
    }

    /// The effective member, which is the last one with this key.
    fn find(&self, key: &str) -> Option<(usize, &Member)> {
        self.members.iter().enumerate().rfind(|(_, member)| member.key == key)
    }
}

/// The text of a value; `None` if it is missing or `null`.
pub(super) fn get<'a>(text: &'a str, keys: &[&str]) -> serde_json::Result<Option<&'a str>> {
    let Some((key, rest)) = keys.split_first() else { return Ok(Some(text)) };
    let shape = ObjectLayout::read(text)?;
    let value = shape.find(key).and_then(|(_, member)| text.get(member.value.clone()));
    match value.filter(|value| *value != "null") {
        Some(value) => get(value, rest),
        None => Ok(None),
    }
}

/// Replaces a value in place, or adds it at the end of its object.
pub(super) fn set_value(text: &str, keys: &[&str], value: &str) -> serde_json::Result<String> {
    let Some((key, rest)) = keys.split_first() else { return Ok(value.to_owned()) };
    let shape = ObjectLayout::read(text)?;
    if let Some((_, member)) = shape.find(key) {
        let old = text.get(member.value.clone()).unwrap_or_default();
        let new = set_value(if old == "null" && !rest.is_empty() { "{}" } else { old }, rest, value)?;
        return Ok(splice_text(text, member.value.clone(), &new));
    }
    let nested =
        rest.iter().rev().fold(value.to_owned(), |inner, key| format!("{{{}: {inner}}}", to_json(key)));
    let member = format!("{}: {nested}", to_json(key));
    Ok(match (shape.members.first(), shape.members.last()) {
        (Some(first), Some(last)) => {
            // Use the same spacing as the existing members.
            let space = text.get(shape.open..first.whole.start).unwrap_or_default();
            let space = if space.contains('\n') { space } else { " " };
            splice_text(text, last.whole.end..last.whole.end, &format!(",{space}{member}"))
        }
        _ => splice_text(text, shape.open..shape.close, &format!("\n  {member}\n")),
    })
}

/// Removes a value and its key. A text without it stays unchanged.
pub(super) fn remove(text: &str, keys: &[&str]) -> serde_json::Result<String> {
    let Some((key, rest)) = keys.split_first() else { return Ok(text.to_owned()) };
    let shape = ObjectLayout::read(text)?;
    let Some((index, member)) = shape.find(key) else { return Ok(text.to_owned()) };
    if !rest.is_empty() {
        let old = text.get(member.value.clone()).unwrap_or_default();
        let new = if old == "null" { old.to_owned() } else { remove(old, rest)? };
        return Ok(splice_text(text, member.value.clone(), &new));
    }
    let before = index.checked_sub(1).and_then(|before| shape.members.get(before));
    Ok(match (before, shape.members.get(index + 1)) {
        (Some(before), _) => splice_text(text, before.whole.end..member.whole.end, ""),
        (None, Some(after)) => splice_text(text, member.whole.start..after.whole.start, ""),
        (None, None) => splice_text(text, shape.open..shape.close, ""),
    })
}

fn splice_text(text: &str, range: Range<usize>, new: &str) -> String {
    let (before, after) = (text.get(..range.start), text.get(range.end..));
    [before.unwrap_or_default(), new, after.unwrap_or_default()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "{\n\t\"log-driver\" : \"journald\",\n\t\"runtimes\": { \"x\":{\"path\":\"/x\"} },\n\t\"big\": 1e400\n}\n";

    #[test]
    fn a_value_is_added_as_its_neighbours_stand() {
        let added = set_value(FILE, &["runtimes", "t", "path"], "\"/t\"").unwrap();
        let expected = FILE.replace(r#"{"path":"/x"}"#, r#"{"path":"/x"}, "t": {"path": "/t"}"#);
        assert_eq!(added, expected);
        let added = set_value(FILE, &["default"], "\"t\"").unwrap();
        assert_eq!(added, FILE.replace("1e400", "1e400,\n\t\"default\": \"t\""));
        assert_eq!(set_value("{}\n", &["a", "b"], "1").unwrap(), "{\n  \"a\": {\"b\": 1}\n}\n");
        assert_eq!(set_value("{\"a\":null}", &["a", "b"], "1").unwrap(), "{\"a\":{\n  \"b\": 1\n}}");
    }

    #[test]
    fn a_value_is_replaced_where_it_stands() {
        assert_eq!(
            set_value(FILE, &["runtimes", "x", "path"], "\"/y\"").unwrap(),
            FILE.replace("\"/x\"", "\"/y\"")
        );
        assert_eq!(set_value(r#"{"a":1,"a":2}"#, &["a"], "3").unwrap(), r#"{"a":1,"a":3}"#);
    }

    #[test]
    fn what_is_taken_away_takes_its_comma_along() {
        let text = r#"{ "a": "}", "b" : {"c": 1}, "d":2 }"#;
        assert_eq!(remove(text, &["a"]).unwrap(), r#"{ "b" : {"c": 1}, "d":2 }"#);
        assert_eq!(remove(text, &["b"]).unwrap(), r#"{ "a": "}", "d":2 }"#);
        assert_eq!(remove(text, &["d"]).unwrap(), r#"{ "a": "}", "b" : {"c": 1} }"#);
        assert_eq!(remove(text, &["b", "c"]).unwrap(), r#"{ "a": "}", "b" : {}, "d":2 }"#);
        assert_eq!(remove(text, &["e"]).unwrap(), text);
    }

    #[test]
    fn what_is_added_and_taken_away_leaves_no_trace() {
        for keys in [&["new"][..], &["runtimes", "t"], &["log-driver2"]] {
            assert_eq!(remove(&set_value(FILE, keys, "{}").unwrap(), keys).unwrap(), FILE, "{keys:?}");
        }
    }

    #[test]
    fn values_are_found_and_what_is_no_object_is_refused() {
        assert_eq!(get(FILE, &["runtimes", "x", "path"]).unwrap(), Some("\"/x\""));
        assert_eq!(get(FILE, &["runtimes", "y", "path"]).unwrap(), None);
        assert!(set_value(FILE, &["log-driver", "t"], "1").is_err());
        for text in ["", "[]", "// no\n{}", "{\"a\":1,}"] {
            assert!(set_value(text, &["a"], "1").is_err(), "{text}");
        }
    }
}
