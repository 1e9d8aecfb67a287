//! Why a request has no answer, in words for people and in a few codes for metrics.

use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use tokio_rustls::rustls;
use tokio_rustls::rustls::{AlertDescription, CertificateError};

/// What a request was doing.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Connecting, up to the end of the TLS handshake.
    Connect,
    /// Sending the request, and waiting for the head of the answer.
    Answer,
    /// Reading the body of the answer.
    Body,
}

/// Why a request has no complete answer. Never contains a secret.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum OutboundError {
    /// The request cannot be made as configured.
    #[error("the request cannot be made: {why}")]
    Setting {
        /// What is wrong.
        why: String,
    },
    /// A file that the request needs cannot be used.
    #[error("{} {why}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, as a verb and its object.
        why: String,
    },
    /// The host's name has no address.
    #[error("{host} has no address: {why}")]
    Dns {
        /// The name.
        host: String,
        /// What the resolver says.
        why: String,
    },
    /// The host rejects connections to the port.
    #[error("{address} refuses connections")]
    Refused {
        /// The address and port.
        address: String,
    },
    /// The host cannot be reached.
    #[error("{address} cannot be reached: {why}")]
    Unreachable {
        /// The address and port.
        address: String,
        /// What the system says.
        why: String,
    },
    /// There is no encrypted connection to the host.
    #[error("no TLS with {host}: {why}")]
    Tls {
        /// The host, with its port where it is known.
        host: String,
        /// What is wrong.
        why: String,
    },
    /// The proxy cannot be used, or refuses to forward.
    #[error("proxy {proxy}: {why}")]
    Proxy {
        /// Its host and port.
        proxy: String,
        /// What is wrong.
        why: String,
    },
    /// The time limit has passed.
    #[error("{} {}", phase.lack(), limit_text(*limit))]
    Timeout {
        /// What the request was doing.
        phase: Phase,
        /// The limit.
        limit: Duration,
    },
    /// The server closed the connection before the end of the head of an answer.
    #[error("the server closed the connection without an answer")]
    Closed,
    /// The server sends something else than HTTP, or a head that is too long.
    #[error("the server does not answer in HTTP: {why}")]
    Garbled {
        /// What the parser says.
        why: String,
    },
    /// The connection failed.
    #[error("the connection broke: {why}")]
    Broken {
        /// What the system says.
        why: String,
    },
    /// The body of the answer ended before its end.
    #[error("the answer ({status}) broke off after {received} bytes of its body: {why}")]
    Body {
        /// The HTTP status code, 100 to 999.
        status: u16,
        /// The number of bytes before it broke off.
        received: usize,
        /// What is wrong.
        why: String,
    },
}

impl Phase {
    const fn lack(self) -> &'static str {
        match self {
            Self::Connect => "no connection within",
            Self::Answer => "no answer within",
            Self::Body => "no end of the answer within",
        }
    }
}

fn limit_text(limit: Duration) -> String {
    match limit.subsec_millis() {
        0 => format!("{} s", limit.as_secs()),
        _ => format!("{} ms", limit.as_millis()),
    }
}

impl OutboundError {
    /// A name of the kind of failure, for metrics.
    #[must_use]
    pub const fn failure_code(&self) -> &'static str {
        match self {
            Self::Setting { .. } => "setting",
            Self::File { .. } => "file",
            Self::Dns { .. } => "dns",
            Self::Refused { .. } => "refused",
            Self::Unreachable { .. } => "unreachable",
            Self::Tls { .. } => "tls",
            Self::Proxy { .. } => "proxy",
            Self::Timeout { .. } => "timeout",
            Self::Closed => "closed",
            Self::Garbled { .. } => "garbled",
            Self::Broken { .. } => "broken",
            Self::Body { .. } => "body",
        }
    }

    /// Whether it is the configuration or a file that has to be changed, so that trying again does not help by itself.
    #[must_use]
    pub const fn is_local(&self) -> bool {
        matches!(self, Self::Setting { .. } | Self::File { .. })
    }

    pub(super) fn unusable_file(path: &std::path::Path, why: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), why: why.into() }
    }
}

/// The failure of a request, from the error of the library.
pub(super) fn explain_failure(error: &(dyn Error + 'static)) -> OutboundError {
    let causes = || std::iter::successors(Some(error), |error| (*error).source());
    if let Some(ours) = causes().find_map(|cause| cause.downcast_ref::<OutboundError>()) {
        return ours.clone();
    }
    // A server that does not accept a client's certificate says so when the handshake is over. The library then reports a
    // request that was canceled, because of that.
    if let Some(tls) = causes().find_map(find_tls_error) {
        return OutboundError::Tls { host: "the server".to_owned(), why: explain_tls(tls) };
    }
    let http = causes().find_map(|cause| cause.downcast_ref::<hyper::Error>().and_then(explain_http));
    http.unwrap_or_else(|| {
        let deepest = causes().last().map_or_else(String::new, ToString::to_string);
        OutboundError::Broken { why: deepest }
    })
}

fn explain_http(error: &hyper::Error) -> Option<OutboundError> {
    if error.is_incomplete_message() || error.is_canceled() || error.is_closed() {
        return Some(OutboundError::Closed);
    }
    error.is_parse().then(|| OutboundError::Garbled { why: error.to_string() })
}

/// The error of the TLS library in an error of a connection.
fn find_tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let inner = error.downcast_ref::<io::Error>()?.get_ref()?;
    inner.downcast_ref::<rustls::Error>()
}

/// The failure of a handshake in words.
pub(super) fn explain_handshake(error: &io::Error) -> String {
    match find_tls_error(error) {
        Some(tls) => explain_tls(tls),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the connection was closed during the handshake".to_owned()
        }
        None => error.to_string(),
    }
}

fn explain_tls(error: &rustls::Error) -> String {
    let known = match error {
        rustls::Error::InvalidCertificate(certificate) => match certificate {
            CertificateError::UnknownIssuer => "its certificate is from no authority that is trusted",
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                "its certificate has expired"
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                "its certificate is not valid yet; check the clock"
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                "its certificate is for another name"
            }
            CertificateError::Revoked => "its certificate was revoked",
            _ => "",
        },
        rustls::Error::AlertReceived(AlertDescription::CertificateRequired) => {
            "it requires a client certificate"
        }
        rustls::Error::AlertReceived(
            AlertDescription::UnknownCA
            | AlertDescription::BadCertificate
            | AlertDescription::CertificateUnknown
            | AlertDescription::DecryptError,
        ) => "it does not accept the client certificate",
        rustls::Error::InvalidMessage(_) => "it does not speak TLS at this port",
        _ => "",
    };
    if known.is_empty() { error.to_string() } else { known.to_owned() }
}
