//! Names and filters as parts of a request target.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Characters that need no encoding in a path segment (RFC 3986, unreserved).
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name as a part of a path. `.` and `..` would be taken for directories by a proxy.
pub(super) fn encode_segment(name: &str) -> String {
    match name {
        "." => "%2E".to_owned(),
        ".." => "%2E%2E".to_owned(),
        name => utf8_percent_encode(name, SEGMENT).to_string(),
    }
}

/// Encodes keys and values as a query.
pub(super) fn encode_query<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(pairs);
    match query.finish() {
        empty if empty.is_empty() => empty,
        query => format!("?{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_names_become_one_part_of_a_path() {
        assert_eq!(encode_segment("/prod/web 1#ä"), "%2Fprod%2Fweb%201%23%C3%A4");
        assert_eq!(
            [encode_segment("."), encode_segment(".."), encode_segment("web.1")],
            ["%2E", "%2E%2E", "web.1"]
        );
    }

    #[test]
    fn a_query_is_escaped() {
        assert_eq!(encode_query([("tag", "a=b&c"), ("name", "x*")]), "?tag=a%3Db%26c&name=x*");
        assert_eq!(encode_query([]), "");
    }
}
