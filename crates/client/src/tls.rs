//! TLS on the client side.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

/// Trusts the authorities that the system trusts. If there are none, no server is trusted, and connecting fails with that reason.
pub(super) fn connector_from_system_roots() -> Option<TlsConnector> {
    let mut roots = RootCertStore::empty();
    let _some_are_odd = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    build_connector(roots).ok()
}

/// Trusts the authorities of a file.
pub(super) fn connector_from_ca_file(file: &Path) -> Result<TlsConnector, String> {
    let text = tallyport_linux::files::read(file).map_err(|error| error.to_string())?;
    let read = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let mut roots = RootCertStore::empty();
    for certificate in read.map_err(|error| error.to_string())? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("there is none in it".to_owned());
    }
    build_connector(roots).map_err(|error| error.to_string())
}

fn build_connector(roots: RootCertStore) -> Result<TlsConnector, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions()?;
    Ok(TlsConnector::from(Arc::new(builder.with_root_certificates(roots).with_no_client_auth())))
}

/// An encrypted connection to a server that has shown a certificate for the requested name.
///
/// # Errors
/// With `InvalidData` when the certificate is not one to trust.
pub(super) async fn wrap_stream(
    tls: Option<TlsConnector>,
    authority: &str,
    stream: TcpStream,
) -> io::Result<TlsStream<TcpStream>> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name =
        ServerName::try_from(host).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let tls = tls.ok_or_else(|| io::Error::other("no way to speak TLS"))?;
    tls.connect(name, stream).await
}
