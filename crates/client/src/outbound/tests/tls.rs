//! Encrypted connections, with certificates that are made here.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::*;

/// An authority, and the file with its certificate.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    pub(super) file: PathBuf,
}

impl Authority {
    pub(super) fn new(directory: &Path, name: &str) -> Self {
        let mut wanted = CertificateParams::new(Vec::new()).unwrap();
        wanted.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        wanted.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(wanted, KeyPair::generate().unwrap()).unwrap();
        let file = write(&directory.join(format!("{name}.pem")), &issuer.pem());
        Self { issuer, file }
    }

    fn issue(&self, names: &[&str]) -> (rcgen::Certificate, KeyPair) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let (wanted, key) = (CertificateParams::new(names).unwrap(), KeyPair::generate().unwrap());
        (wanted.signed_by(&key, &*self.issuer).unwrap(), key)
    }

    /// A server with a certificate for these names. If there is a `client` authority, clients need a certificate of it.
    pub(super) fn acceptor(&self, names: &[&str], client: Option<&Self>) -> TlsAcceptor {
        let (certificate, key) = self.issue(names);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider));
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let mut roots = RootCertStore::empty();
                roots.add(client.issuer.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        TlsAcceptor::from(Arc::new(config))
    }

    /// The files of a certificate for a client.
    fn client_files(&self, directory: &Path, name: &str) -> (PathBuf, PathBuf) {
        let (certificate, key) = self.issue(&[name]);
        (
            write(&directory.join(format!("{name}.crt")), &certificate.pem()),
            write(&directory.join(format!("{name}.key")), &key.serialize_pem()),
        )
    }
}

async fn start(tls: TlsAcceptor) -> (Server, String) {
    let server = Server::start_with(Act::Answer(NO_CONTENT.to_owned()), Some(tls)).await;
    let url = format!("https://localhost:{}/", server.address.port());
    (server, url)
}

fn trusting(ca: &Path) -> OutboundSettings {
    OutboundSettings { ca: Some(ca.to_owned()), ..OutboundSettings::default() }
}

#[tokio::test]
async fn only_certificates_of_the_authority_for_the_name_are_trusted() {
    let directory = tempfile::tempdir().unwrap();
    let [ca, other] = ["ca", "other"].map(|name| Authority::new(directory.path(), name));
    let (server, url) = start(ca.acceptor(&["localhost"], None)).await;
    let client = OutboundClient::new(trusting(&ca.file));
    for _ in 0..2 {
        assert_eq!(post(&client, &url).await.unwrap().status, 204);
    }
    assert_eq!(server.connections(), 1);
    let numeric = format!("https://{}/", server.address);
    for (settings, url, part) in [
        (trusting(&other.file), &url, "no authority that is trusted"),
        (OutboundSettings::default(), &url, "no authority that is trusted"),
        (trusting(&ca.file), &numeric, "for another name"),
    ] {
        let error = post(&OutboundClient::new(settings), url).await.unwrap_err();
        // A machine without ca-certificates trusts no one, and says so.
        let is_expected = error.failure_code() == "tls" && error.to_string().contains(part);
        assert!(is_expected || error.to_string().contains("ca-certificates"), "{error:?}");
    }
    assert_eq!(server.requests().len(), 2, "nothing is sent to a server that is not trusted");
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_is_said_to_be_so() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        std::future::pending::<()>().await;
    });
    let directory = tempfile::tempdir().unwrap();
    let ca = Authority::new(directory.path(), "ca");
    let error = post(&OutboundClient::new(trusting(&ca.file)), &url).await.unwrap_err();
    assert!(error.failure_code() == "tls" && error.to_string().contains("does not speak TLS"), "{error:?}");
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let directory = tempfile::tempdir().unwrap();
    let [ca, clients, other] = ["ca", "clients", "other"].map(|name| Authority::new(directory.path(), name));
    let (server, url) = start(ca.acceptor(&["localhost"], Some(&clients))).await;
    let showing = |files| OutboundSettings { client_certificate: Some(files), ..trusting(&ca.file) };
    let right = clients.client_files(directory.path(), "node-1");
    assert_eq!(post(&OutboundClient::new(showing(right.clone())), &url).await.unwrap().status, 204);
    let none = post(&OutboundClient::new(trusting(&ca.file)), &url).await.unwrap_err();
    assert!(none.to_string().contains("requires a client certificate"), "{none:?}");
    let wrong = other.client_files(directory.path(), "node-2");
    let refused = post(&OutboundClient::new(showing(wrong)), &url).await.unwrap_err();
    assert!(refused.to_string().contains("does not accept the client certificate"), "{refused:?}");
    assert_eq!(server.requests().len(), 1);
    for (files, part) in [
        ((right.0.clone(), directory.path().join("none")), "No such file"),
        ((right.0.clone(), ca.file.clone()), "no private key"),
        ((right.1.clone(), right.1.clone()), "contains no certificate"),
        (
            (right.0.clone(), other.client_files(directory.path(), "x").1),
            "cannot be used with its certificate",
        ),
    ] {
        let error = post(&OutboundClient::new(showing(files)), &url).await.unwrap_err();
        assert!(error.failure_code() == "file" && error.to_string().contains(part), "{part}: {error:?}");
    }
}

#[tokio::test]
async fn a_new_authority_in_the_file_holds_for_new_connections() {
    let directory = tempfile::tempdir().unwrap();
    let [old, new] = ["old", "new"].map(|name| Authority::new(directory.path(), name));
    let trusted = directory.path().join("trusted.pem");
    std::fs::copy(&old.file, &trusted).unwrap();
    let client = OutboundClient::new(trusting(&trusted));
    let (_, first) = start(old.acceptor(&["localhost"], None)).await;
    let (_, second) = start(new.acceptor(&["localhost"], None)).await;
    assert_eq!(post(&client, &first).await.unwrap().status, 204);
    assert_eq!(post(&client, &second).await.unwrap_err().failure_code(), "tls");
    std::fs::copy(&new.file, &trusted).unwrap();
    assert_eq!(post(&client, &second).await.unwrap().status, 204);
    let broken = write(&trusted, "no certificate");
    let (_, third) = start(new.acceptor(&["localhost"], None)).await;
    let error = post(&client, &third).await.unwrap_err();
    assert!(
        error.failure_code() == "file" && error.to_string().contains(broken.to_str().unwrap()),
        "{error}"
    );
}
