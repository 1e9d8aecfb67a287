//! Access settings of the HTTP listener: TLS, tokens and host names, from files that a reload reads again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;

use crate::api::{Access, Mistake, Tokens};
use crate::config::HttpConfig;
use crate::model::Timestamp;
use crate::net::clock;
use crate::net::http::Tls;
use crate::net::tls::{self, TlsError};
use crate::stats::Stats;

/// Why clients cannot be checked as configured.
#[derive(Debug, thiserror::Error)]
pub enum EntranceError {
    /// The certificate or its key.
    #[error("http.tls_certificate: {0}")]
    Tls(#[from] TlsError),
    /// The file of tokens cannot be read.
    #[error("http.tokens: {} cannot be read: {source}", path.display())]
    Unreadable {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The file of tokens contains an invalid line or no token.
    #[error("http.tokens: {}: {mistake}", path.display())]
    Tokens {
        /// Where.
        path: PathBuf,
        mistake: Mistake,
    },
    /// The listener is not on loopback, and TLS or tokens are missing.
    #[error("http.listen = \"{}\" is off loopback and stays so until a restart; without {lacks} everyone could read everything", http.listen)]
    Open {
        /// What is missing.
        lacks: &'static str,
        /// The listener.
        http: Box<HttpConfig>,
    },
}

/// What is asked of requests at the moment.
pub(super) type AccessReceiver = watch::Receiver<Arc<Access>>;

/// TLS and access settings as they were read.
pub(super) struct EntranceSettings {
    tls: Option<tls::Server>,
    access: Arc<Access>,
}

/// Reads the files that a configuration names.
///
/// # Errors
/// When one cannot be used.
pub(super) fn read(http: &HttpConfig) -> Result<EntranceSettings, EntranceError> {
    if let Some(lacks) = http.missing_protection() {
        return Err(EntranceError::Open { lacks, http: Box::new(http.clone()) });
    }
    let server =
        http.tls.as_ref().map(|files| tls::load_server(&files.certificate, &files.key)).transpose()?;
    let tokens = http.tokens.as_deref().map(read_tokens).transpose()?;
    let access = Access::new(http.listen.ip().is_loopback(), &http.hosts, tokens);
    Ok(EntranceSettings { tls: server, access: Arc::new(access) })
}

fn read_tokens(path: &Path) -> Result<Tokens, EntranceError> {
    let text = crate::files::read_to_string(path)
        .map_err(|source| EntranceError::Unreadable { path: path.to_owned(), source })?;
    Tokens::parse(&text).map_err(|mistake| EntranceError::Tokens { path: path.to_owned(), mistake })
}

/// Checks that the files named in a configuration can be used.
///
/// # Errors
/// When one cannot be used.
pub fn check_entrance(http: &HttpConfig) -> Result<(), EntranceError> {
    read(http).map(drop)
}

/// What is asked of requests at the moment, for the listeners; and the way to change it.
#[derive(Debug)]
pub(super) struct Entrance {
    tls: watch::Sender<Option<Arc<ServerConfig>>>,
    access: watch::Sender<Arc<Access>>,
    stats: Arc<Stats>,
}

impl Entrance {
    pub(super) fn new(http: &HttpConfig, asked: EntranceSettings, stats: &Arc<Stats>) -> Self {
        let (tls, access) = (watch::Sender::new(None), watch::Sender::new(Arc::clone(&asked.access)));
        let entrance = Self { tls, access, stats: Arc::clone(stats) };
        entrance.apply_settings(http, asked);
        entrance
    }

    /// Applies settings to new connections and requests.
    pub(super) fn apply_settings(&self, http: &HttpConfig, asked: EntranceSettings) {
        warn_of_unsafe_settings(http);
        let expires = asked.tls.as_ref().and_then(|server| server.expires);
        warn_of_expiry(expires);
        if asked.tls.as_ref().is_some_and(|server| server.is_authority) {
            tracing::warn!(
                "http.tls_certificate is a CA certificate (basicConstraints CA:TRUE), which `tallyport` commands and other strict clients refuse; \
                 issue a server certificate with basicConstraints=CA:FALSE"
            );
        }
        self.stats.certificate_shown(expires);
        self.tls.send_replace(asked.tls.map(|server| server.config));
        self.access.send_replace(asked.access);
    }

    pub(super) fn subscribe_tls(&self) -> Tls {
        self.tls.subscribe()
    }

    pub(super) fn subscribe_access(&self) -> AccessReceiver {
        self.access.subscribe()
    }
}

fn warn_of_expiry(expires: Option<Timestamp>) {
    let Some(expires) = expires else { return };
    let left = expires.duration_since(clock::wall_time());
    if left.is_zero() {
        tracing::warn!(%expires, "http.tls_certificate has expired: clients refuse it");
    } else if left < tls::RENEWAL {
        tracing::warn!(%expires, "http.tls_certificate expires soon");
    }
}

/// Warns of settings that work but are not safe.
fn warn_of_unsafe_settings(http: &HttpConfig) {
    let secrets = http.tls.iter().map(|files| &files.key).chain(&http.tokens);
    for path in secrets {
        if std::fs::metadata(path).is_ok_and(|file| crate::files::is_open_to_others(&file)) {
            tracing::warn!(path = %path.display(), "everybody on this machine may read this secret; chmod o= it");
        }
    }
    if !http.listen.ip().is_loopback() && http.tls.is_none() && http.tokens.is_some() {
        tracing::warn!("tokens cross the network unencrypted and can be read in transit; enable TLS as well");
    }
}
