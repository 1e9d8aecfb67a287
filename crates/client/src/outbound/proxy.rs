//! Which proxy a request goes through.

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::header::HeaderValue;
use percent_encoding::percent_decode_str;

use super::connect::{host_and_port, join_address};
use super::error::OutboundError;
use super::secret::{basic_value, secret_value};

/// Which proxy requests go through.
#[derive(Clone, PartialEq, Eq, Default)]
pub enum Proxy {
    /// None.
    #[default]
    Direct,
    /// The one at this URL, `http://HOST:PORT`, for every request.
    Url(String),
    /// The one that variables name.
    Variables(ProxyVariables),
}

/// The values of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`. URLs in them may contain a user and a password.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct ProxyVariables {
    http: Option<String>,
    https: Option<String>,
    exceptions: Option<String>,
}

impl ProxyVariables {
    /// Reads the variables. Of the two cases that are in use, the lower one is preferred, as in curl.
    #[must_use]
    pub fn read(get: impl Fn(&str) -> Option<String>) -> Self {
        let variable = |name: &str| {
            let set = |name: &str| get(name).map(|value| value.trim().to_owned());
            set(&name.to_lowercase()).or_else(|| set(name)).filter(|value| !value.is_empty())
        };
        Self {
            http: variable("HTTP_PROXY"),
            https: variable("HTTPS_PROXY"),
            exceptions: variable("NO_PROXY"),
        }
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct => f.write_str("Direct"),
            Self::Url(url) => match ProxyServer::parse(url) {
                Some(server) => write!(f, "Url({server})"),
                None => f.write_str("Url"),
            },
            Self::Variables(_) => f.write_str("Variables"),
        }
    }
}

impl fmt::Debug for ProxyVariables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyVariables").finish_non_exhaustive()
    }
}

/// How a request reaches its server.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Route<'r> {
    Direct,
    /// The proxy gets the request and forwards it.
    Forward(&'r ProxyServer),
    /// The proxy gets a `CONNECT`, and forwards bytes that it cannot read.
    Tunnel(&'r ProxyServer),
}

/// The proxies for the two schemes, and who is reached without one.
#[derive(Default, Debug)]
pub(super) struct ProxyRules {
    http: Option<ProxyServer>,
    https: Option<ProxyServer>,
    exceptions: Vec<Exception>,
    /// Whether the machine itself is reached without a proxy, which it is unless a proxy is set for this client alone.
    is_loopback_direct: bool,
}

impl ProxyRules {
    /// # Errors
    /// When a value is no URL of a proxy. It is not repeated, because it may contain a password.
    pub(super) fn new(proxy: &Proxy) -> Result<Self, OutboundError> {
        let server = |name: &str, url: &Option<String>| match url {
            None => Ok(None),
            Some(url) => ProxyServer::parse(url).map(Some).ok_or_else(|| OutboundError::Setting {
                why: format!("{name} is no URL of a proxy, http://HOST:PORT"),
            }),
        };
        match proxy {
            Proxy::Direct => Ok(Self::default()),
            Proxy::Url(url) => {
                let found = server("proxy", &Some(url.clone()))?;
                Ok(Self { http: found.clone(), https: found, ..Self::default() })
            }
            Proxy::Variables(variables) => {
                let exceptions = variables.exceptions.as_deref().unwrap_or_default();
                let words = exceptions.split([',', ' ']).filter(|word| !word.is_empty());
                Ok(Self {
                    http: server("HTTP_PROXY", &variables.http)?,
                    https: server("HTTPS_PROXY", &variables.https)?,
                    exceptions: words.map(Exception::parse).collect(),
                    is_loopback_direct: true,
                })
            }
        }
    }

    /// How a URL is reached.
    pub(super) fn route_to(&self, uri: &Uri) -> Route<'_> {
        let is_encrypted = uri.scheme_str() == Some("https");
        let proxy = if is_encrypted { &self.https } else { &self.http };
        let Some(proxy) = proxy else { return Route::Direct };
        let (host, port) = host_and_port(uri);
        if (self.is_loopback_direct && is_loopback(host))
            || self.exceptions.iter().any(|exception| exception.covers(host, port))
        {
            return Route::Direct;
        }
        if is_encrypted { Route::Tunnel(proxy) } else { Route::Forward(proxy) }
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// A proxy, and what it asks for.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct ProxyServer {
    host: String,
    port: u16,
    authorization: Option<HeaderValue>,
}

impl ProxyServer {
    /// Reads `[http://][USER:PASSWORD@]HOST[:PORT][/]`.
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let uri: Uri = match text.contains("://") {
            true => text.parse().ok()?,
            false => format!("http://{text}").parse().ok()?,
        };
        // A proxy that is spoken to with TLS would see no more and no less, and few are.
        if uri.scheme_str() != Some("http") {
            return None;
        }
        let address = uri.authority()?.as_str().rsplit('@').next()?;
        let has_port = !address.strip_prefix(uri.host()?)?.is_empty();
        if has_port && uri.port_u16().is_none() {
            return None;
        }
        let (host, port) = host_and_port(&uri);
        let user = uri.authority()?.as_str().rsplit_once('@').map(|(user, _)| user);
        let authorization = match user {
            Some(user) => {
                let (name, password) = user.split_once(':').unwrap_or((user, ""));
                let decode = |text| percent_decode_str(text).decode_utf8().ok();
                Some(secret_value(&basic_value(&decode(name)?, &decode(password)?))?)
            }
            None => None,
        };
        (!host.is_empty()).then(|| Self { host: host.to_owned(), port, authorization })
    }

    pub(super) fn host_name(&self) -> &str {
        &self.host
    }

    pub(super) fn port_number(&self) -> u16 {
        self.port
    }

    /// The value of `Proxy-Authorization`.
    pub(super) fn authorization_value(&self) -> Option<&HeaderValue> {
        self.authorization.as_ref()
    }
}

impl fmt::Display for ProxyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&join_address(&self.host, self.port))
    }
}

impl fmt::Debug for ProxyServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An entry of `NO_PROXY`.
#[derive(PartialEq, Eq, Debug)]
enum Exception {
    All,
    /// Addresses that have the same first bits.
    Network(IpAddr, u8),
    /// A name and everything below it, at one port or all.
    Domain(String, Option<u16>),
}

impl Exception {
    fn parse(word: &str) -> Self {
        if word == "*" {
            return Self::All;
        }
        let network =
            word.split_once('/').and_then(|(ip, bits)| Some((ip.parse().ok()?, bits.parse().ok()?)));
        if let Some((ip, bits)) = network {
            return Self::Network(ip, bits);
        }
        let bare = word.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Self::Network(ip, if ip.is_ipv4() { 32 } else { 128 });
        }
        let (name, port) = match word.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => (name, port.parse().ok()),
            _ => (word, None),
        };
        // Some programs write the dot or the star, and some do not; all of them mean the domain.
        let name = name.trim_start_matches('*').trim_start_matches('.');
        Self::Domain(name.trim_start_matches('[').trim_end_matches(']').to_lowercase(), port)
    }

    fn covers(&self, host: &str, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Network(network, bits) => {
                host.parse().is_ok_and(|ip: IpAddr| shares_bits(ip, *network, *bits))
            }
            Self::Domain(name, only) => {
                let host = host.to_lowercase();
                let below = host.strip_suffix(name.as_str());
                only.is_none_or(|only| only == port)
                    && !name.is_empty()
                    && below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
            }
        }
    }
}

/// Whether the first bits of two addresses of one family are the same.
fn shares_bits(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let differ = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => return false,
    };
    differ >= u32::from(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(variables: &[(&str, &str)]) -> ProxyRules {
        let get =
            |name: &str| variables.iter().find(|(set, _)| *set == name).map(|(_, value)| (*value).to_owned());
        ProxyRules::new(&Proxy::Variables(ProxyVariables::read(get))).unwrap()
    }

    fn route(rules: &ProxyRules, url: &str) -> String {
        match rules.route_to(&url.parse().unwrap()) {
            Route::Direct => "direct".to_owned(),
            Route::Forward(proxy) => format!("forward {proxy}"),
            Route::Tunnel(proxy) => format!("tunnel {proxy}"),
        }
    }

    #[test]
    fn each_scheme_has_its_proxy_and_the_lower_case_is_preferred() {
        let found = rules(&[
            ("HTTP_PROXY", "http://upper:1"),
            ("http_proxy", "lower:3128"),
            ("HTTPS_PROXY", "http://tls.example/"),
        ]);
        assert_eq!(route(&found, "http://sink:8086/write"), "forward lower:3128");
        assert_eq!(route(&found, "https://sink/write"), "tunnel tls.example:80");
        for own in ["http://localhost:1/", "http://127.0.0.9/", "https://[::1]/"] {
            assert_eq!(route(&found, own), "direct", "{own}");
        }
        let empty = rules(&[("http_proxy", ""), ("HTTP_PROXY", " ")]);
        assert_eq!(route(&empty, "http://sink/"), "direct");
    }

    #[test]
    fn exceptions_are_names_networks_and_ports() {
        let no_proxy = "internal.example, .dotted.example *.star.example,10.0.0.0/8,192.168.1.7 [fd00::1],fd01::/16,port.example:8086";
        let found = rules(&[("HTTP_PROXY", "http://p:1"), ("no_proxy", no_proxy)]);
        for direct in [
            "internal.example",
            "a.b.Internal.example",
            "dotted.example",
            "a.dotted.example",
            "x.star.example",
            "10.255.0.1",
            "192.168.1.7",
            "[fd00::1]",
            "[fd01:2::3]:80",
            "port.example:8086",
        ] {
            assert_eq!(route(&found, &format!("http://{direct}/")), "direct", "{direct}");
        }
        for proxied in [
            "notinternal.example",
            "example",
            "11.0.0.1",
            "192.168.1.8",
            "[fd02::1]",
            "port.example",
            "port.example:80",
        ] {
            assert_eq!(route(&found, &format!("http://{proxied}/")), "forward p:1", "{proxied}");
        }
        let all = rules(&[("HTTP_PROXY", "http://p:1"), ("NO_PROXY", "*")]);
        assert_eq!(route(&all, "http://sink/"), "direct");
    }

    #[test]
    fn a_url_of_its_own_has_no_exceptions() {
        let own = ProxyRules::new(&Proxy::Url("http://[::1]:3128".to_owned())).unwrap();
        assert_eq!(route(&own, "http://localhost/"), "forward [::1]:3128");
        assert_eq!(route(&own, "https://sink/"), "tunnel [::1]:3128");
    }

    #[test]
    fn what_is_no_proxy_is_refused_without_being_repeated() {
        for wrong in
            ["socks5://me:geheim@p:1", "https://me:geheim@p", "http://", "http://me:geheim@p:x", "a b"]
        {
            let error = ProxyRules::new(&Proxy::Url(wrong.to_owned())).unwrap_err();
            assert!(!error.to_string().contains("geheim") && error.to_string().contains("HOST"), "{error}");
        }
    }

    #[test]
    fn a_password_of_a_proxy_is_sent_and_not_shown() {
        let url = "http://me:ge%40heim@proxy:3128";
        let server = ProxyServer::parse(url).unwrap();
        // "me:ge@heim" in base64.
        assert_eq!(server.authorization_value().unwrap(), "Basic bWU6Z2VAaGVpbQ==");
        let variables = ProxyVariables::read(|_| Some(url.to_owned()));
        let texts = [
            format!("{server:?} {server} {:?}", Proxy::Url(url.to_owned())),
            format!("{:?} {variables:?}", Proxy::Variables(variables.clone())),
        ];
        for text in texts {
            assert!(!text.contains("heim") && !text.contains("bWU6"), "{text}");
        }
    }
}
