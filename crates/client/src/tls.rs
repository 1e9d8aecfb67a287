//! TLS on the client side.

use std::io;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::WantsClientCert;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, ConfigBuilder, RootCertStore};

/// The authorities that the system trusts.
pub(super) fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let _some_are_odd = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

/// Trusts the authorities that the system trusts. If there are none, no server is trusted, and connecting fails with that reason.
pub(super) fn connector_from_system_roots() -> Option<TlsConnector> {
    build_connector(system_roots()).ok()
}

/// Trusts the authorities of a file.
pub(super) fn connector_from_ca_file(file: &Path) -> Result<TlsConnector, String> {
    let text = tallyport_linux::files::read(file).map_err(|error| error.to_string())?;
    build_connector(parse_roots(&text)?).map_err(|error| error.to_string())
}

/// The authorities in the text of a PEM file, of which there is at least one.
pub(super) fn parse_roots(text: &[u8]) -> Result<RootCertStore, String> {
    let read = CertificateDer::pem_slice_iter(text).collect::<Result<Vec<_>, _>>();
    let mut roots = RootCertStore::empty();
    for certificate in read.map_err(|error| error.to_string())? {
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() { Err("there is none in it".to_owned()) } else { Ok(roots) }
}

fn build_connector(roots: RootCertStore) -> Result<TlsConnector, rustls::Error> {
    Ok(TlsConnector::from(Arc::new(trusting_roots(roots)?.with_no_client_auth())))
}

/// The start of a configuration that trusts these authorities.
pub(super) fn trusting_roots(
    roots: RootCertStore,
) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()));
    Ok(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots))
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
