//! Which proxy a request goes through.

mod exception;

use std::fmt;
use std::net::IpAddr;

use http::Uri;
use http::header::HeaderValue;
use percent_encoding::percent_decode_str;

use exception::Exception;

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
            || self.exceptions.iter().any(|exception| exception.covers_host(host, port))
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

#[cfg(test)]
mod tests;
