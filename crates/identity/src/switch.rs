//! Yes and no.

const YES: [&str; 4] = ["true", "1", "yes", "on"];
const NO: [&str; 4] = ["false", "0", "no", "off"];

/// Reads a switch: `true`, `1`, `yes` and `on`, or `false`, `0`, `no` and `off`, in upper or lower case, with spaces around it or
/// none. `None` for everything else; what then holds is up to the caller.
#[must_use]
pub fn read_switch(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| text.trim().eq_ignore_ascii_case(word));
    if is(&YES) {
        return Some(true);
    }
    is(&NO).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_yes_nor_no_is_nothing() {
        for (text, expected) in [
            ("true", Some(true)),
            ("Yes", Some(true)),
            (" ON ", Some(true)),
            ("1", Some(true)),
            ("OFF", Some(false)),
            ("no", Some(false)),
            ("False", Some(false)),
            ("0", Some(false)),
            ("perhaps", None),
            ("only", None),
            ("", None),
            ("10", None),
        ] {
            assert_eq!(read_switch(text), expected, "{text:?}");
        }
    }
}
