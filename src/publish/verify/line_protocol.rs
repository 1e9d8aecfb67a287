//! Reads back the lines that the encoder for `InfluxDB` writes.

/// A point.
#[derive(Clone, PartialEq, Debug)]
pub(super) struct LinePoint {
    pub(super) measurement: String,
    /// In the order of the line, which is sorted by key.
    pub(super) tags: Vec<(String, String)>,
    /// Fields that are numbers.
    pub(super) numbers: Vec<(String, f64)>,
    /// Milliseconds since 1970.
    pub(super) at: i64,
}

/// Reads a line. `None` if it is none.
pub(super) fn parse_line(line: &str) -> Option<LinePoint> {
    let (measurement, mut rest) = take_text(line, &[',', ' ']);
    let mut tags = Vec::new();
    while let Some(tag) = rest.strip_prefix(',') {
        let (key, after) = take_text(tag, &['=']);
        let (value, after) = take_text(after.strip_prefix('=')?, &[',', ' ']);
        tags.push((key, value));
        rest = after;
    }
    rest = rest.strip_prefix(' ')?;
    let mut numbers = Vec::new();
    loop {
        let (key, after) = take_text(rest, &['=']);
        let after = after.strip_prefix('=')?;
        rest = match after.strip_prefix('"') {
            Some(text) => skip_string(text)?,
            None => {
                let end = after.find([',', ' '])?;
                let (number, after) = after.split_at(end);
                numbers.push((key, number.parse().ok()?));
                after
            }
        };
        match rest.strip_prefix(',') {
            Some(next) => rest = next,
            None => break,
        }
    }
    let at = rest.strip_prefix(' ')?.parse().ok()?;
    Some(LinePoint { measurement, tags, numbers, at })
}

/// The text up to one of the ends, without its escapes, and the rest from there.
fn take_text<'l>(line: &'l str, ends: &[char]) -> (String, &'l str) {
    let mut text = String::new();
    let mut chars = line.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let escaped = chars.peek().map(|(_, next)| *next).filter(|next| matches!(next, ',' | ' ' | '='));
        match (c, escaped) {
            ('\\', Some(next)) => {
                text.push(next);
                chars.next();
            }
            (end, _) if ends.contains(&end) => return (text, line.get(at..).unwrap_or_default()),
            _ => text.push(c),
        }
    }
    (text, "")
}

/// What follows a text field, whose first quote is passed.
fn skip_string(text: &str) -> Option<&str> {
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => drop(chars.next()),
            '"' => return text.get(at + 1..),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_with_its_escapes() {
        let line = r#"page\ load\,\ all,path=C:\dir,route\ to=/a\=b\,c value=0.5,unit="milli\"seconds, =",count=2,sum=1 1767225610000"#;
        let of =
            |pairs: &[(&str, f64)]| pairs.iter().map(|(key, n)| ((*key).to_owned(), *n)).collect::<Vec<_>>();
        let point = LinePoint {
            measurement: "page load, all".to_owned(),
            tags: vec![
                ("path".to_owned(), r"C:\dir".to_owned()),
                ("route to".to_owned(), "/a=b,c".to_owned()),
            ],
            numbers: of(&[("value", 0.5), ("count", 2.0), ("sum", 1.0)]),
            at: 1_767_225_610_000,
        };
        assert_eq!(parse_line(line), Some(point));
        let plain = parse_line("hits value=1 5").unwrap();
        assert_eq!((plain.measurement.as_str(), plain.tags.len(), plain.at), ("hits", 0, 5));
    }

    #[test]
    fn what_is_no_line_is_none() {
        for text in [
            "",
            "hits",
            "hits value=1",
            "hits value=x 5",
            "hits,task value=1 5",
            "hits value=\"open 5",
            "hits value=1 x",
        ] {
            assert_eq!(parse_line(text), None, "{text}");
        }
    }
}
