//! Patterns for names, tasks and containers.

use std::collections::HashMap;

/// A pattern: `*` matches any sequence of characters, `?` exactly one.
///
/// The parts between stars are searched from left to right without backtracking, so matching takes time proportional to
/// the length of the text times the pattern's length divided by 64. Both are untrusted: readers send patterns, and
/// containers choose the texts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Glob {
    /// The part before the first star; the whole pattern if there is none.
    first: GlobPart,
    /// The parts after the first star; `None` if there is none.
    rest: Option<Rest>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Rest {
    /// The parts between stars, in order.
    middle: Vec<GlobPart>,
    /// The part after the last star.
    last: GlobPart,
}

/// A part of a pattern that contains no star.
#[derive(Clone, PartialEq, Eq, Debug)]
enum GlobPart {
    /// A part without `?`.
    Literal(String),
    /// A part with `?`.
    Wild(Wild),
}

impl Glob {
    /// Parses a pattern; every text is a valid one.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        let mut parts = pattern.split('*').map(GlobPart::new);
        let first = parts.next().unwrap_or_else(|| GlobPart::new(""));
        let mut middle: Vec<GlobPart> = parts.collect();
        let rest = middle.pop().map(|last| {
            middle.retain(|part| !part.is_empty());
            Rest { middle, last }
        });
        Self { first, rest }
    }

    /// Whether only one text matches.
    #[must_use]
    pub const fn is_literal(&self) -> bool {
        self.rest.is_none() && matches!(self.first, GlobPart::Literal(_))
    }

    /// Whether the whole text matches.
    #[must_use]
    pub fn is_match(&self, text: &str) -> bool {
        let Some(text) = self.first.strip_from_start(text) else { return false };
        let Some(Rest { middle, last }) = &self.rest else { return text.is_empty() };
        let Some(text) = last.strip_from_end(text) else { return false };
        middle.iter().try_fold(text, |text, part| text.get(part.find_end(text)?..)).is_some()
    }
}

impl GlobPart {
    fn new(text: &str) -> Self {
        if text.contains('?') { Self::Wild(Wild::new(text)) } else { Self::Literal(text.to_owned()) }
    }

    fn is_empty(&self) -> bool {
        matches!(self, Self::Literal(text) if text.is_empty())
    }

    fn strip_from_start<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Literal(literal) => text.strip_prefix(literal.as_str()),
            Self::Wild(wild) => {
                let mut chars = text.chars();
                wild.chars
                    .iter()
                    .all(|wanted| chars.next().is_some_and(|c| matches_char(*wanted, c)))
                    .then_some(chars.as_str())
            }
        }
    }

    fn strip_from_end<'t>(&self, text: &'t str) -> Option<&'t str> {
        match self {
            Self::Literal(literal) => text.strip_suffix(literal.as_str()),
            Self::Wild(wild) => {
                let mut chars = text.chars();
                let mut wanted = wild.chars.iter().rev();
                wanted
                    .all(|wanted| chars.next_back().is_some_and(|c| matches_char(*wanted, c)))
                    .then_some(chars.as_str())
            }
        }
    }

    /// The end of the first match in a text.
    fn find_end(&self, text: &str) -> Option<usize> {
        match self {
            // The standard library searches in linear time (two-way).
            Self::Literal(literal) => text.find(literal.as_str()).map(|at| at + literal.len()),
            Self::Wild(wild) => wild.find_end(text),
        }
    }
}

fn matches_char(wanted: char, c: char) -> bool {
    wanted == '?' || wanted == c
}

/// A part with `?`, searched with one bit per character (Baeza-Yates and Gonnet, "A new approach to text searching",
/// 1992): a bit is set if the part up to that character matches the end of the text read so far.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Wild {
    chars: Vec<char>,
    /// For each character of the part, the places that it matches.
    places: HashMap<char, Vec<u64>>,
    /// The places that any other character matches.
    others: Vec<u64>,
}

impl Wild {
    fn new(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let places = |c: Option<char>| {
            let word = |chars: &[char]| {
                let bits = chars.iter().zip(0..).filter(|(wanted, _)| **wanted == '?' || Some(**wanted) == c);
                bits.fold(0_u64, |word, (_, bit)| word | (1 << bit))
            };
            chars.chunks(64).map(word).collect::<Vec<u64>>()
        };
        let of_each = chars.iter().map(|c| (*c, places(Some(*c)))).collect();
        Self { places: of_each, others: places(None), chars }
    }

    fn find_end(&self, text: &str) -> Option<usize> {
        let mut fitting = vec![0_u64; self.others.len()];
        let end = 1 << ((self.chars.len() + 63) % 64);
        for (at, c) in text.char_indices() {
            let places = self.places.get(&c).unwrap_or(&self.others);
            let mut carry = 1;
            for (word, places) in fitting.iter_mut().zip(places) {
                let next = *word >> 63;
                *word = ((*word << 1) | carry) & places;
                carry = next;
            }
            if fitting.last().is_some_and(|word| word & end != 0) {
                return Some(at + c.len_utf8());
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_the_whole_text() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("*", "", true),
            ("web.*", "web.1", true),
            ("web.?", "web.12", false),
            ("*.latency", "a.b.latency", true),
            ("*lat*cy*", "response.latency", true),
            ("a*b*c", "a.b.b.c", true),
            ("a*b*c", "a.b.b.d", false),
            ("web", "web.1", false),
            ("?", "é", true),
            ("**", "x", true),
        ] {
            assert_eq!(Glob::new(pattern).is_match(text), fits, "{pattern} on {text}");
        }
    }

    /// A reference implementation of matching, without regard to run time.
    fn means(pattern: &[char], text: &[char]) -> bool {
        match (pattern, text) {
            ([], text) => text.is_empty(),
            (['*', rest @ ..], text) => (0..=text.len()).any(|n| means(rest, &text[n..])),
            ([wanted, pattern @ ..], [c, text @ ..]) => matches_char(*wanted, *c) && means(pattern, text),
            _ => false,
        }
    }

    fn all_up_to(longest: usize, alphabet: &[char]) -> Vec<String> {
        let mut all = vec![String::new()];
        let mut from = 0;
        for _ in 0..longest {
            let longer: Vec<_> = all[from..]
                .iter()
                .flat_map(|text| alphabet.iter().map(move |c| format!("{text}{c}")))
                .collect();
            from = all.len();
            all.extend(longer);
        }
        all
    }

    #[test]
    fn every_short_pattern_means_what_its_definition_says() {
        let chars = |text: &String| text.chars().collect::<Vec<_>>();
        let texts = all_up_to(5, &['a', 'é']);
        for pattern in all_up_to(5, &['a', 'é', '*', '?']) {
            let glob = Glob::new(&pattern);
            for text in &texts {
                let expected = means(&chars(&pattern), &chars(text));
                assert_eq!(glob.is_match(text), expected, "{pattern} on {text}");
            }
        }
    }

    #[test]
    fn a_part_with_question_marks_may_be_longer_than_a_machine_word() {
        for length in [63, 64, 65, 127, 128, 129, 300] {
            let part = format!("?{}b", "a".repeat(length - 2));
            let glob = Glob::new(&format!("*{part}*"));
            let text = format!("{}b", "a".repeat(length + 50));
            assert!(glob.is_match(&text), "{length}");
            assert!(glob.is_match(&format!("{text}c")), "{length}");
            assert!(!glob.is_match(&text.chars().skip(52).collect::<String>()), "{length}");
        }
    }

    #[test]
    fn a_pattern_full_of_stars_takes_no_for_ever() {
        assert!(!Glob::new(&"*a".repeat(200)).is_match(&"a".repeat(150)));
    }
}
