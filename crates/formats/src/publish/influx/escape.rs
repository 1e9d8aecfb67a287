//! Escaping of the line protocol.
//!
//! A backslash has no escape of its own outside of strings: before a comma, a space, an equals sign, another backslash or the
//! end of a text, servers disagree on whether it is one. It is replaced with a slash there. Control characters, of which a line
//! feed would end the line, are replaced with their pictures.

use crate::prometheus::identity::control_picture;

/// Writes the name of a measurement. A line that begins with `#` would be a comment.
pub(super) fn push_measurement(out: &mut Vec<u8>, name: &str) {
    let name = match name.strip_prefix('#') {
        Some(rest) => {
            out.push(b'_');
            rest
        }
        None => name,
    };
    push_escaped(out, name, |byte| matches!(byte, b',' | b' '));
}

/// Writes the key or the value of a tag, or the key of a field.
pub(super) fn push_key(out: &mut Vec<u8>, text: &str) {
    push_escaped(out, text, |byte| matches!(byte, b',' | b' ' | b'='));
}

/// Writes the value of a text field, with its quotes.
pub(super) fn push_string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if is_plain(text, |byte| byte == b'"') {
        out.extend_from_slice(text.as_bytes());
    } else {
        for c in text.chars() {
            if matches!(c, '"' | '\\') {
                out.push(b'\\');
            }
            push_char(out, c);
        }
    }
    out.push(b'"');
}

/// Writes a text. `special` says which bytes of ASCII have a backslash before them.
fn push_escaped(out: &mut Vec<u8>, text: &str, special: impl Fn(u8) -> bool) {
    if is_plain(text, &special) {
        return out.extend_from_slice(text.as_bytes());
    }
    let is_special = |c: char| u8::try_from(c).is_ok_and(&special);
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let next = chars.peek().copied();
        match c {
            '\\' if next.is_none_or(|next| next == '\\' || matches!(next, ',' | ' ' | '=')) => out.push(b'/'),
            c if is_special(c) => {
                out.push(b'\\');
                push_char(out, c);
            }
            c => push_char(out, c),
        }
    }
}

/// Whether a text is written as it is, as nearly all are. Looks at every byte, which is faster than to stop at one.
fn is_plain(text: &str, special: impl Fn(u8) -> bool) -> bool {
    let is_changed = |byte: u8| byte == b'\\' || byte.is_ascii_control() || special(byte);
    !text.bytes().fold(false, |found, byte| found | is_changed(byte))
}

fn push_char(out: &mut Vec<u8>, c: char) {
    let c = control_picture(c).unwrap_or(c);
    let mut utf8 = [0; 4];
    out.extend_from_slice(c.encode_utf8(&mut utf8).as_bytes());
}
