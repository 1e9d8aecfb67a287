//! The tokens that are known. They are kept as hashes, so that no log or core file has them, and so that comparing takes
//! as long for a token that is nearly right as for any other.

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

/// Fewest characters: with 64 to choose from, 96 bits.
const SHORTEST: usize = 16;
/// Most characters of a token.
const LONGEST: usize = 512;

/// The tokens that are known.
pub struct Tokens(Vec<[u8; 32]>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

/// What is wrong with a file of tokens. It never says the token.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Mistake {
    /// A line is no token.
    #[error("line {0} is no token of {SHORTEST} to {LONGEST} letters, digits or any of -._~+/=")]
    Line(usize),
    /// There is none.
    #[error("has no token, one a line; nobody could read anything")]
    Empty,
}

impl Tokens {
    /// Reads tokens, one a line. Empty lines and those that start with `#` are none.
    ///
    /// # Errors
    /// With the first line that is neither, or when there are no tokens.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let tokens = lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#'));
        let read =
            |(number, line): (usize, &str)| is_token(line).then(|| hash(line)).ok_or(Mistake::Line(number));
        match tokens.map(read).collect::<Result<Vec<_>, _>>()? {
            tokens if tokens.is_empty() => Err(Mistake::Empty),
            tokens => Ok(Self(tokens)),
        }
    }

    /// Whether a token is one of them. Looks at all of them, whichever it is.
    #[must_use]
    pub fn contains(&self, token: &str) -> bool {
        let said = hash(token);
        self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&said)).into()
    }
}

/// What can stand in a header as it is (RFC 6750 §2.1).
fn is_token(text: &str) -> bool {
    let sound = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    (SHORTEST..=LONGEST).contains(&text.len()) && text.bytes().all(sound)
}

fn hash(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_stand_one_a_line_among_comments() {
        let tokens =
            Tokens::parse("# scraper\n  0123456789abcdef\r\n\n# people\nMTIzNDU2Nzg5MDEyMw==\n").unwrap();
        assert!(tokens.contains("0123456789abcdef") && tokens.contains("MTIzNDU2Nzg5MDEyMw=="));
        assert!(!tokens.contains("# scraper") && !tokens.contains("") && !tokens.contains("0123456789abcde"));
        assert_eq!(format!("{tokens:?}"), "2 tokens");
    }

    #[test]
    fn what_is_no_token_is_named_by_its_line() {
        assert_eq!(Tokens::parse("0123456789abcdef\nshort").unwrap_err(), Mistake::Line(2));
        assert_eq!(Tokens::parse("with a space in the midst").unwrap_err(), Mistake::Line(1));
        assert_eq!(Tokens::parse(&"x".repeat(LONGEST + 1)).unwrap_err(), Mistake::Line(1));
        assert!(Tokens::parse(&"x".repeat(LONGEST)).is_ok());
        assert_eq!(Tokens::parse("\n# nothing\n").unwrap_err(), Mistake::Empty);
        assert!(!Tokens::parse("secret token here").unwrap_err().to_string().contains("secret"));
    }
}
