//! Who may ask the HTTP listener: clients that use one of its own names and, where tokens are required, have one.
//!
//! A name is checked because browsers send requests to any address that a domain points to, and show the answer to a page of
//! that domain (DNS rebinding). They cannot be made to send another name than that of the page.
//!
//! Tokens are kept as hashes, so that no log or core file contains them, and so that comparing takes as long for a token
//! that is nearly right as for any other.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST};
use http::uri::Authority;
use http::{HeaderMap, Uri};
use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConstantTimeEq as _};

use super::error::ApiError;
use crate::model::Glob;

/// What may be read without a token: the page has nothing of the node in it, and probes of orchestrators have no tokens.
const OPEN: [&str; 3] = ["/", "/health", "/ready"];

/// Maximum length of a host name, in bytes (RFC 1035 §2.3.4). Longer ones are not matched against the patterns of
/// `http.hosts`: they could be as long as a request head.
const LONGEST_NAME: usize = 255;

/// What the HTTP listener requires of a request.
#[derive(Debug, Default)]
pub struct Access {
    hosts: Vec<Glob>,
    loopback: bool,
    tokens: Option<Tokens>,
}

impl Access {
    /// For a listener on a loopback address or not. `hosts` are patterns of further names it may be called by.
    #[must_use]
    pub fn new(loopback: bool, hosts: &[String], tokens: Option<Tokens>) -> Self {
        let hosts = hosts.iter().map(|host| Glob::new(&host.to_ascii_lowercase())).collect();
        Self { hosts, loopback, tokens }
    }

    /// Whether a request may be answered.
    ///
    /// # Errors
    /// With 421 where it is meant for another host, with 401 where it has no token that is known.
    pub fn check_request(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        // Clients that use a proxy send the host in the request line, which takes precedence (RFC 9112 §3.2.2).
        let said = uri.authority().map(Authority::as_str);
        let fields = headers.get_all(HOST).iter().map(|value| value.to_str().unwrap_or("?"));
        for host in said.into_iter().chain(fields) {
            if !self.is_called(host) {
                return Err(ApiError::misdirected_request(host));
            }
        }
        match &self.tokens {
            Some(tokens) if !OPEN.contains(&uri.path()) => check_token(tokens, headers),
            _ => Ok(()),
        }
    }

    /// Whether the listener may be called by this name. Requests without a host are accepted: they are not from a
    /// browser.
    fn is_called(&self, host: &str) -> bool {
        let Some(name) = name_of(host).filter(|name| name.len() <= LONGEST_NAME) else { return false };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        if self.hosts.iter().any(|pattern| pattern.is_match(&name)) {
            return true;
        }
        match (name.parse::<IpAddr>(), self.loopback) {
            (Ok(address), true) => address.is_loopback(),
            (Ok(_), false) => true,
            (Err(_), true) => name == "localhost" || name.ends_with(".localhost"),
            (Err(_), false) => self.hosts.is_empty(),
        }
    }
}

/// Checks that a request has a known token.
fn check_token(tokens: &Tokens, headers: &HeaderMap) -> Result<(), ApiError> {
    let Some(said) = headers.get(AUTHORIZATION) else { return Err(ApiError::no_token()) };
    let said = said.to_str().unwrap_or_default();
    match said.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && tokens.contains(token.trim()) => {
            Ok(())
        }
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("bearer") => Err(ApiError::unknown_token()),
        _ => Err(ApiError::no_token()),
    }
}

/// The name of `name`, `name:port`, `[address]` or `[address]:port`.
fn name_of(host: &str) -> Option<&str> {
    let (name, port) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?,
        None => match host.split_once(':') {
            Some((name, _)) => (name, host.get(name.len()..)?),
            None => (host, ""),
        },
    };
    let digits = port.strip_prefix(':').unwrap_or(port);
    (!name.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())).then_some(name)
}

/// Minimum length of a token, in characters: 96 bits, with 64 characters to choose from.
const SHORTEST: usize = 16;
/// Maximum length of a token, in characters.
const LONGEST: usize = 512;

/// The tokens that are known.
pub struct Tokens(Vec<[u8; 32]>);

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} tokens", self.0.len())
    }
}

/// What is wrong with a file of tokens. Never contains the token itself.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Mistake {
    /// A line is not a token.
    #[error("line {0} is no token of {SHORTEST} to {LONGEST} letters, digits or any of -._~+/=")]
    Line(usize),
    /// The file has no tokens.
    #[error("contains no token, so no request would be accepted; write one per line")]
    Empty,
}

impl Tokens {
    /// Reads tokens, one per line. Empty lines and lines that start with `#` are ignored.
    ///
    /// # Errors
    /// With the first invalid line, or when there are no tokens.
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

    /// Whether a token is known. Compares it with all tokens, so that the time does not depend on which one matches.
    #[must_use]
    pub fn contains(&self, token: &str) -> bool {
        let said = hash(token);
        self.0.iter().fold(Choice::from(0), |found, known| found | known.ct_eq(&said)).into()
    }
}

/// Whether the text may appear in a header without quoting (RFC 6750 §2.1).
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

    fn called(loopback: bool, hosts: &[&str], host: &str) -> bool {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        let access = Access::new(loopback, &hosts, None);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, host.parse().unwrap());
        access.check_request(&Uri::from_static("/v1/tasks"), &headers).is_ok()
    }

    #[test]
    fn on_loopback_only_names_of_loopback_and_those_that_were_set_are_answered() {
        for host in [
            "localhost",
            "LOCALHOST:9725",
            "a.localhost",
            "127.0.0.1:9725",
            "127.9.9.9",
            "[::1]:9725",
            "localhost.",
        ] {
            assert!(called(true, &[], host), "{host}");
        }
        for host in [
            "evil.example",
            "localhost.evil.example:9725",
            "evillocalhost",
            "10.0.0.1",
            "[2001:db8::1]:80",
            "localhost:80@evil.example",
            "localhost:x",
            "",
            ":80",
            "[::1",
            "[::1]x",
        ] {
            assert!(!called(true, &[], host), "{host}");
        }
        let of_length = |n: usize| format!("{}.example", "x".repeat(n - ".example".len()));
        assert!(called(true, &["*.example"], &of_length(255)) && !called(true, &["*"], &of_length(256)));
        assert!(
            called(true, &["*.example"], "Node-1.example:443") && !called(true, &["*.example"], "example")
        );
    }

    #[test]
    fn off_loopback_names_are_checked_where_there_are_some() {
        for host in ["node-1.example:9725", "10.0.0.1", "localhost"] {
            assert!(called(false, &[], host), "{host}");
        }
        assert!(called(false, &["node-1.example"], "node-1.example:9725"));
        assert!(called(false, &["node-1.example"], "10.0.0.1:9725"), "an address is no domain");
        assert!(!called(false, &["node-1.example"], "evil.example"));
    }

    #[test]
    fn a_name_in_the_first_line_counts_too() {
        let access = Access::new(true, &[], None);
        let mut headers = HeaderMap::new();
        headers.insert(HOST, "localhost".parse().unwrap());
        assert!(access.check_request(&Uri::from_static("http://localhost/v1/tasks"), &headers).is_ok());
        let error =
            access.check_request(&Uri::from_static("http://evil.example/v1/tasks"), &headers).unwrap_err();
        assert_eq!((error.status, error.code), (421, "misdirected"));
        assert!(
            access.check_request(&Uri::from_static("/"), &HeaderMap::new()).is_ok(),
            "no browser leaves it out"
        );
    }

    #[test]
    fn where_there_are_tokens_everything_but_the_page_and_probes_needs_one() {
        let tokens = Tokens::parse("first-token-of-two\nsecond-token-of-two\n").unwrap();
        let access = Access::new(true, &[], Some(tokens));
        let ask = |path: &'static str, said: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(said) = said {
                headers.insert(AUTHORIZATION, said.parse().unwrap());
            }
            access
                .check_request(&Uri::from_static(path), &headers)
                .map_err(|error| (error.status, error.code))
        };
        for path in OPEN {
            assert_eq!(ask(path, None), Ok(()));
        }
        for path in ["/metrics", "/v1/tasks", "//", "/health/", "/nowhere"] {
            assert_eq!(ask(path, None), Err((401, "no_token")), "{path}");
            assert_eq!(ask(path, Some("Bearer first-token-of-two")), Ok(()), "{path}");
            assert_eq!(ask(path, Some("bearer  second-token-of-two")), Ok(()), "{path}");
        }
        for wrong in ["Bearer first-token-of-tw", "Bearer first-token-of-two2", "Bearer "] {
            assert_eq!(ask("/metrics", Some(wrong)), Err((401, "unknown_token")), "{wrong}");
        }
        for none in ["Basic first-token-of-two", "first-token-of-two", "Bearer"] {
            assert_eq!(ask("/metrics", Some(none)), Err((401, "no_token")), "{none}");
        }
    }

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
