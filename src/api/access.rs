//! Who may ask the HTTP listener: those who call it by a name of its own, and who have a token, where tokens are asked for.
//!
//! A name is checked because browsers will ask any address that somebody's domain points to, and show the answer to that
//! somebody's page (DNS rebinding). They cannot be made to say another name than that of the page.

mod tokens;

use std::net::IpAddr;

use http::header::{AUTHORIZATION, HOST};
use http::uri::Authority;
use http::{HeaderMap, Uri};

use super::error::ApiError;
use crate::model::Glob;
pub use tokens::{Mistake, Tokens};

/// What everybody may read: the page has nothing of the node in it, and probes of orchestrators have no tokens.
const OPEN: [&str; 3] = ["/", "/health", "/ready"];

/// Bytes of the longest name that a host can have (RFC 1035 §2.3.4). A longer one is not compared with the patterns of
/// `http.hosts`: it could be as long as a head.
const LONGEST_NAME: usize = 255;

/// What is asked of those who come.
#[derive(Debug, Default)]
pub struct Access {
    hosts: Vec<Glob>,
    loopback: bool,
    tokens: Option<Tokens>,
}

impl Access {
    /// For a listener on loopback or off it, which may be called by names that fit `hosts`.
    #[must_use]
    pub fn new(loopback: bool, hosts: &[String], tokens: Option<Tokens>) -> Self {
        let hosts = hosts.iter().map(|host| Glob::new(&host.to_ascii_lowercase())).collect();
        Self { hosts, loopback, tokens }
    }

    /// Whether a request may be answered.
    ///
    /// # Errors
    /// With 421 where it is meant for somebody else, with 401 where it has no token that is known.
    pub fn check_request(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        // A client that is told to use a proxy says it in the first line, and that counts (RFC 9112 §3.2.2).
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

    /// Whether the listener may be called so. Who calls it nothing is no browser.
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

/// Whether a request has a token that is known.
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
        assert!(called(false, &["node-1.example"], "10.0.0.1:9725"), "an address is nobody's domain");
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
}
