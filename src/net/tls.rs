//! TLS of the HTTP listener: a certificate and its key, from files.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{self, ServerConfig};
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::BasicConstraints;

use crate::files;
use crate::model::Timestamp;

/// A certificate should have been replaced this long before it expires: 90-day certificates are renewed 30 days before.
pub const RENEWAL: Duration = Duration::from_hours(14 * 24);

/// Why a listener cannot use TLS with these files.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read, or is no PEM.
    #[error("{what} {} cannot be read: {source}", path.display())]
    Unreadable {
        /// The expected contents.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{} has no certificate; it should be PEM, the listener's own certificate first", path.display())]
    Empty {
        /// Where.
        path: PathBuf,
    },
    /// The certificate and the key do not match, or their type is not supported.
    #[error("the certificate {} and the key {} cannot be used: {source}", certificate.display(), key.display())]
    Unusable {
        certificate: PathBuf,
        key: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
}

/// What a listener needs for TLS 1.2 and 1.3.
#[derive(Clone, Debug)]
pub struct Server {
    /// The certificate chain, the server's own first, and its key.
    pub config: Arc<ServerConfig>,
    /// The earliest expiry in the chain (`notAfter`, RFC 5280 §4.1.2.5), after which clients reject it; `None` if it
    /// cannot be read.
    pub expires: Option<Timestamp>,
    /// Whether the server certificate is marked as a CA certificate, as `openssl req -x509` does by default. Clients that
    /// follow RFC 5280 §4.2.1.9 strictly, ours among them, refuse a server that presents one.
    pub is_authority: bool,
}

/// Reads a certificate chain, and the key of its first certificate.
///
/// # Errors
/// When a file cannot be read, or the key is another certificate's.
pub fn load_server(certificate: &Path, key: &Path) -> Result<Server, TlsError> {
    let pem = |path| files::read(path).map_err(pem::Error::Io);
    let chain = pem(certificate)
        .and_then(|text| CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>())
        .map_err(|source| unreadable_error("the certificate", certificate, source))?;
    if chain.is_empty() {
        return Err(TlsError::Empty { path: certificate.to_owned() });
    }
    let expires = chain.iter().filter_map(not_after).min();
    let is_authority = chain.first().is_some_and(is_authority);
    let secret = pem(key)
        .and_then(|text| PrivateKeyDer::from_pem_slice(&text))
        .map_err(|source| unreadable_error("the key", key, source))?;
    let unusable =
        |source| TlsError::Unusable { certificate: certificate.to_owned(), key: key.to_owned(), source };
    // The provider is explicit, so that other code's choice of a process-wide default has no effect.
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .map_err(unusable)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Server { config: Arc::new(config), expires, is_authority })
}

fn not_after(certificate: &CertificateDer<'_>) -> Option<Timestamp> {
    let read = Certificate::from_der(certificate).ok()?;
    let since_1970 = read.tbs_certificate.validity.not_after.to_unix_duration();
    since_1970.as_secs().try_into().ok().map(Timestamp::from_secs)
}

fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    let read = Certificate::from_der(certificate).ok();
    let constraints = read.and_then(|read| read.tbs_certificate.get::<BasicConstraints>().ok().flatten());
    constraints.is_some_and(|(_, constraints)| constraints.ca)
}

fn unreadable_error(what: &'static str, path: &Path, source: pem::Error) -> TlsError {
    TlsError::Unreadable { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_no_certificate_and_key_are_named() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let made = |name: &str| {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            std::fs::write(at(&format!("{name}.crt")), made.cert.pem()).unwrap();
            std::fs::write(at(&format!("{name}.key")), made.signing_key.serialize_pem()).unwrap();
        };
        made("a");
        made("b");
        std::fs::write(at("empty"), "").unwrap();
        std::fs::write(at("torn.crt"), "-----BEGIN CERTIFICATE-----\nAAAA\n").unwrap();
        assert!(load_server(&at("a.crt"), &at("a.key")).is_ok());
        for (certificate, key, said) in [
            ("a.crt", "b.key", "cannot be used"),
            ("missing", "a.key", "the certificate"),
            ("torn.crt", "a.key", "the certificate"),
            ("a.crt", "missing", "the key"),
            ("a.crt", "empty", "the key"),
            ("empty", "a.key", "has no certificate"),
        ] {
            let error = load_server(&at(certificate), &at(key)).unwrap_err().to_string();
            assert!(error.contains(said), "{certificate} {key}: {error}");
        }
    }

    #[test]
    fn a_certificate_that_is_an_authority_is_known_as_one() {
        let directory = tempfile::tempdir().unwrap();
        let (certificate, key) = (directory.path().join("crt"), directory.path().join("key"));
        for (is_ca, expected) in [
            (rcgen::IsCa::NoCa, false),
            (rcgen::IsCa::ExplicitNoCa, false),
            (rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained), true),
        ] {
            let mut wanted = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            wanted.is_ca = is_ca;
            let pair = rcgen::KeyPair::generate().unwrap();
            std::fs::write(&key, pair.serialize_pem()).unwrap();
            std::fs::write(&certificate, wanted.self_signed(&pair).unwrap().pem()).unwrap();
            assert_eq!(load_server(&certificate, &key).unwrap().is_authority, expected);
        }
    }

    #[test]
    fn a_chain_is_valid_for_as_long_as_all_of_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let certified = |days: u64, name: &str| {
            let mut wanted = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
            wanted.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(86_400 * days);
            let key = rcgen::KeyPair::generate().unwrap();
            std::fs::write(directory.path().join(name), key.serialize_pem()).unwrap();
            wanted.self_signed(&key).unwrap().pem()
        };
        let (own, above) = (certified(30_000, "own.key"), certified(29_000, "above.key"));
        let expires = |chain: &str| {
            let file = directory.path().join("chain.crt");
            std::fs::write(&file, chain).unwrap();
            load_server(&file, &directory.path().join("own.key")).unwrap().expires
        };
        assert_eq!(expires(&own), Some(Timestamp::from_secs(86_400 * 30_000)));
        assert_eq!(expires(&format!("{own}{above}")), Some(Timestamp::from_secs(86_400 * 29_000)));
    }
}
