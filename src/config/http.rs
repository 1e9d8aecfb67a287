//! The HTTP listener: where it is, what it asks of those who come, and how many may.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::values::SettingValues;

/// The HTTP listener.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Whether it may lack TLS or tokens off loopback.
    pub insecure: bool,
    /// Its certificate; it speaks plain HTTP where there is none.
    pub tls: Option<TlsFiles>,
    /// The file of tokens; it asks for none where there is no file.
    pub tokens: Option<PathBuf>,
    /// Names by which it may be asked, as patterns.
    pub hosts: Vec<String>,
    /// Most connections at one time.
    pub max_connections: usize,
    /// Most connections from one address.
    pub max_connections_per_client: usize,
    /// How long a client may take to send a request's head.
    pub header_timeout: Duration,
    /// How long a client may take nothing of an answer.
    pub write_timeout: Duration,
    /// How many bytes answers that are built or being sent may hold together.
    pub page_memory: usize,
    /// Longest head of a request, in bytes.
    pub max_head: usize,
    /// Most header fields of a request.
    pub max_headers: usize,
}

/// The files of a certificate.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct TlsFiles {
    /// The chain of certificates.
    pub certificate: PathBuf,
    /// The key of the first.
    pub key: PathBuf,
}

impl HttpConfig {
    /// What is missing for an address that others reach, where it is one; `None` where nothing is.
    #[must_use]
    pub fn missing_protection(&self) -> Option<&'static str> {
        if self.listen.ip().is_loopback() || self.insecure {
            return None;
        }
        match (&self.tls, &self.tokens) {
            (Some(_), Some(_)) => None,
            (None, Some(_)) => Some("http.tls_certificate and http.tls_key"),
            (Some(_), None) => Some("http.tokens"),
            (None, None) => Some("http.tls_certificate, http.tls_key and http.tokens"),
        }
    }

    /// What another has that keeps readers out, and this one has not, with its verb; `None` where nothing is dropped.
    #[must_use]
    pub fn dropped_protection(&self, old: &Self) -> Option<&'static str> {
        match (old.tls.is_some() && self.tls.is_none(), old.tokens.is_some() && self.tokens.is_none()) {
            (true, true) => Some("http.tls_certificate, http.tls_key and http.tokens are"),
            (true, false) => Some("http.tls_certificate and http.tls_key are"),
            (false, true) => Some("http.tokens is"),
            (false, false) => None,
        }
    }
}

/// The HTTP listener that values mean.
pub(super) fn build_http(values: &SettingValues) -> HttpConfig {
    let certificate = values.optional_path("http.tls_certificate");
    let tls = certificate.zip(values.optional_path("http.tls_key"));
    HttpConfig {
        listen: values.address_value("http.listen"),
        insecure: values.bool_value("http.insecure"),
        tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
        tokens: values.optional_path("http.tokens"),
        hosts: values.word_values("http.hosts"),
        max_connections: values.count_value("http.max_connections"),
        max_connections_per_client: values.count_value("http.max_connections_per_client"),
        header_timeout: values.duration_value("http.header_timeout"),
        write_timeout: values.duration_value("http.write_timeout"),
        page_memory: values.count_value("http.page_memory"),
        max_head: values.count_value("http.max_head"),
        max_headers: values.count_value("http.max_headers"),
    }
}
