//! Patterns that people write to name several things at once.

/// A pattern: `*` is any run of characters, `?` is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Glob(Vec<char>);

impl Glob {
    /// A pattern.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        Self(pattern.chars().collect())
    }

    /// Whether the whole text fits. Takes time in proportion to the product of both lengths at worst: the patterns
    /// come from strangers.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut p, mut t) = (0, 0);
        // Where to go back to: behind the last star, and one character further in the text.
        let mut back = None;
        while t < text.len() {
            match self.0.get(p) {
                Some('*') => {
                    back = Some((p + 1, t + 1));
                    p += 1;
                }
                Some(c) if *c == '?' || Some(c) == text.get(t) => {
                    p += 1;
                    t += 1;
                }
                _ => match back {
                    Some((behind_star, next)) => {
                        (p, t) = (behind_star, next);
                        back = Some((behind_star, next + 1));
                    }
                    None => return false,
                },
            }
        }
        self.0.iter().skip(p).all(|c| *c == '*')
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
            assert_eq!(Glob::new(pattern).matches(text), fits, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_pattern_full_of_stars_takes_no_for_ever() {
        assert!(!Glob::new(&"*a".repeat(200)).matches(&"a".repeat(150)));
    }
}
