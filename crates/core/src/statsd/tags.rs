//! Canonicalizes the name and tags of a sample. Done once for each new series; later samples find it by their raw
//! bytes.

use std::borrow::Cow;

use super::line::Sample;
use super::style::escaped_key;
use crate::model::TagSet;
use crate::model::id::ORIGIN_KEYS;

/// Name and tags as stored and displayed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Canonical {
    /// The name, without tags.
    pub name: String,
    /// The tags.
    pub tags: TagSet,
    /// Whether bytes that are not UTF-8 were replaced by U+FFFD.
    pub replaced: bool,
    /// The number of tags that were renamed because their key is an origin key.
    pub renamed: u32,
}

/// The raw tags of a `#` field, including empty ones.
pub fn split_tags(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(|&byte| byte == b',').take(if text.is_empty() { 0 } else { usize::MAX })
}

/// Whether a tag is meant for the Datadog Agent's own enrichment. Datadog's clients send the pod's UID and the wanted
/// cardinality this way; as tags they would create a series per pod.
fn is_internal(key: &[u8]) -> bool {
    key.starts_with(b"dd.internal.")
}

/// Key and value of a tag, separated by the first `:`; a tag without `:` has an empty value.
#[must_use]
pub fn key_value(tag: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b':', tag).and_then(|at| tag.split_at_checked(at)) {
        Some((key, value)) => (key, value.get(1..).unwrap_or_default()),
        None => (tag, &[]),
    }
}

/// The canonical form of a sample's name and tags.
#[must_use]
pub fn canonicalize_sample(sample: &Sample<'_>) -> Canonical {
    let (head, tail) = sample.style.name(sample.name);
    let mut found = Canonicalizer::default();
    let mut name = found.decode_lossy(head).into_owned();
    name.push_str(&found.decode_lossy(tail));
    let mut pairs = Vec::new();
    for (key, value) in sample.style.tag_pairs(sample.name).filter(|(key, _)| !is_internal(key)) {
        found.replaced |= std::str::from_utf8(key).is_err();
        pairs.push((found.rename_origin_key(escaped_key(key)), found.decode_lossy(value).into_owned()));
    }
    pairs.extend(found.parse_tag_pairs(sample.tags));
    Canonical { name, tags: TagSet::from_pairs(pairs), replaced: found.replaced, renamed: found.renamed }
}

/// The canonical form of the tags of an event or a service check, and whether bytes had to be replaced.
#[must_use]
pub fn canonical_tags(text: &[u8]) -> (TagSet, bool) {
    let mut found = Canonicalizer::default();
    let pairs = found.parse_tag_pairs(text);
    (TagSet::from_pairs(pairs), found.replaced)
}

/// Canonicalizes texts, and records what had to be changed.
#[derive(Default)]
struct Canonicalizer {
    replaced: bool,
    renamed: u32,
}

impl Canonicalizer {
    fn decode_lossy<'a>(&mut self, bytes: &'a [u8]) -> Cow<'a, str> {
        let text = String::from_utf8_lossy(bytes);
        self.replaced |= matches!(text, Cow::Owned(_));
        text
    }

    /// Renames origin keys, so that clients cannot forge the origin of their samples.
    fn rename_origin_key(&mut self, key: String) -> String {
        if !ORIGIN_KEYS.contains(&key.as_str()) {
            return key;
        }
        self.renamed += 1;
        format!("client_{key}")
    }

    fn parse_tag_pairs(&mut self, text: &[u8]) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        let tags = split_tags(text).filter(|tag| !tag.is_empty()).map(key_value);
        for (key, value) in tags.filter(|(key, _)| !is_internal(key)) {
            let key = self.decode_lossy(key).into_owned();
            pairs.push((self.rename_origin_key(key), self.decode_lossy(value).into_owned()));
        }
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::super::line::{ParsedLine, parse};
    use super::super::style::TagStyles;
    use super::*;

    fn read(line: &[u8], styles: TagStyles) -> Canonical {
        match parse(line, styles) {
            Ok(ParsedLine::Sample(sample)) => canonicalize_sample(&sample),
            other => panic!("{other:?}"),
        }
    }

    fn pairs(canonical: &Canonical) -> Vec<(&str, &str)> {
        canonical.tags.iter().collect()
    }

    #[test]
    fn the_order_of_tags_does_not_matter_and_empty_ones_are_dropped() {
        let read = |line: &str| read(line.as_bytes(), TagStyles::NONE);
        assert_eq!(pairs(&read("x:1|c|#b:2,,a:1,")), [("a", "1"), ("b", "2")]);
        assert_eq!(read("x:1|c|#b:2,a:1"), read("x:1|c|#a:1,b:2,a:1"));
        assert_eq!(pairs(&read("x:1|c|#,,")), []);
    }

    #[test]
    fn a_bare_tag_has_an_empty_value_and_a_value_may_hold_colons() {
        let read = read(b"x:1|c|#live,url:http://h:80/p,:v", TagStyles::NONE);
        assert_eq!(pairs(&read), [("", "v"), ("live", ""), ("url", "http://h:80/p")]);
    }

    #[test]
    fn a_tag_that_would_forge_the_origin_is_renamed_and_counted() {
        let plain = read(b"x:1|c|#task_id:evil,container_id:evil,host:h", TagStyles::NONE);
        assert_eq!(
            pairs(&plain),
            [("client_container_id", "evil"), ("client_task_id", "evil"), ("host", "h")]
        );
        assert_eq!(plain.renamed, 2);
        let styled = read(b"x,task_id=evil:1|c", TagStyles::ALL);
        assert_eq!((pairs(&styled), styled.renamed), (vec![("client_task_id", "evil")], 1));
    }

    #[test]
    fn what_a_client_sends_for_enrichment_is_no_tag() {
        let line = b"hits:5|c|#dd.internal.entity_id:a1,route:/pay,dd.internal.card:low,dd.internal.jmx_check_name:x";
        assert_eq!(pairs(&read(line, TagStyles::NONE)), [("route", "/pay")]);
        assert_eq!(pairs(&read(b"hits,dd.internal.card=low,a=1:5|c", TagStyles::ALL)), [("a", "1")]);
        assert_eq!(canonical_tags(b"dd.internal.entity_id:a1,a:1").0, TagSet::from_pairs([("a", "1")]));
    }

    #[test]
    fn bare_tags_in_a_name_tell_series_apart() {
        let read = |line: &str| read(line.as_bytes(), TagStyles::ALL);
        for line in ["lvl#gold:1|g", "lvl,gold:1|g", "lvl[gold]:1|g", "[gold,]lvl:1|g"] {
            let read = read(line);
            assert_eq!((read.name.as_str(), pairs(&read)), ("lvl", vec![("gold", "")]), "{line}");
        }
        assert_eq!(pairs(&read("lvl#a=,=b,c=1:1|g")), [("", "b"), ("a", ""), ("c", "1")]);
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_replaced_and_noticed() {
        let bad = read(b"x\xff:1|c|#a:\xc3(", TagStyles::NONE);
        assert_eq!((bad.name.as_str(), pairs(&bad)), ("x\u{fffd}", vec![("a", "\u{fffd}(")]));
        assert!(bad.replaced);
        assert!(!read("é:1|c|#ü:ö".as_bytes(), TagStyles::NONE).replaced);
    }
}
