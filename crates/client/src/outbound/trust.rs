//! Which servers are trusted, and what is shown to them.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::error::OutboundError;
use crate::tls;

/// The files of certificates and keys, and the connector that was made from what they contain.
pub(super) struct Trust {
    ca: Option<PathBuf>,
    client: Option<(PathBuf, PathBuf)>,
    made: Mutex<Option<MadeConnector>>,
}

struct MadeConnector {
    contents: Contents,
    connector: TlsConnector,
}

/// What the files contain. They are compared, and not their times, which may stay the same when a file is replaced.
#[derive(PartialEq, Eq)]
struct Contents {
    ca: Option<Vec<u8>>,
    client: Option<(Vec<u8>, Vec<u8>)>,
}

impl Trust {
    pub(super) fn new(ca: Option<PathBuf>, client: Option<(PathBuf, PathBuf)>) -> Self {
        Self { ca, client, made: Mutex::new(None) }
    }

    /// The name that the certificate of a host has to contain.
    pub(super) fn server_name(host: &str) -> Result<ServerName<'static>, OutboundError> {
        ServerName::try_from(host.to_owned()).map_err(|_| OutboundError::Tls {
            host: host.to_owned(),
            why: "no certificate can contain this name".to_owned(),
        })
    }

    /// The connector for the present contents of the files. As long as they do not change it is the same one, which resumes
    /// sessions.
    ///
    /// # Errors
    /// When a file cannot be used.
    pub(super) fn load_connector(&self) -> Result<TlsConnector, OutboundError> {
        let contents = self.read_files()?;
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = made.as_ref().filter(|made| made.contents == contents) {
            return Ok(made.connector.clone());
        }
        let connector = self.build_connector(&contents)?;
        *made = Some(MadeConnector { contents, connector: connector.clone() });
        Ok(connector)
    }

    fn read_files(&self) -> Result<Contents, OutboundError> {
        let client = self.client.as_ref();
        Ok(Contents {
            ca: self.ca.as_deref().map(read_file).transpose()?,
            client: client
                .map(|(certificate, key)| Ok((read_file(certificate)?, read_file(key)?)))
                .transpose()?,
        })
    }

    fn build_connector(&self, contents: &Contents) -> Result<TlsConnector, OutboundError> {
        let roots = match (&contents.ca, &self.ca) {
            (Some(text), Some(path)) => tls::parse_roots(text).map_err(|why| {
                OutboundError::unusable_file(
                    path,
                    format!("has no certificates of authorities to trust: {why}"),
                )
            })?,
            _ => system_authorities()?,
        };
        let builder =
            tls::trusting_roots(roots).map_err(|error| OutboundError::Setting { why: error.to_string() })?;
        let config = match (&contents.client, &self.client) {
            (Some((chain, key)), Some((chain_file, key_file))) => {
                let chain = parse_chain(chain, chain_file)?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| OutboundError::unusable_file(key_file, "contains no private key"))?;
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    OutboundError::unusable_file(
                        key_file,
                        format!("cannot be used with its certificate: {error}"),
                    )
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>, OutboundError> {
    tallyport_linux::files::read(path)
        .map_err(|error| OutboundError::unusable_file(path, format!("cannot be read: {error}")))
}

fn parse_chain(text: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, OutboundError> {
    let chain = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    match chain {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        _ => Err(OutboundError::unusable_file(path, "contains no certificate")),
    }
}

fn system_authorities() -> Result<RootCertStore, OutboundError> {
    let roots = tls::system_roots();
    match roots.is_empty() {
        true => Err(OutboundError::Setting {
            why: "the system trusts no certificate authorities; install ca-certificates, or set ca"
                .to_owned(),
        }),
        false => Ok(roots),
    }
}
