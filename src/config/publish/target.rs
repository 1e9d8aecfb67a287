//! How an HTTP server is reached.

use std::path::PathBuf;
use std::time::Duration;

use super::super::TlsFiles;

/// A server that takes requests over HTTP. Secrets are in files; nothing here is one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpTarget {
    /// `http://` or `https://`, without credentials.
    pub url: String,
    /// Time limit of a request, from connecting to the end of the response.
    pub timeout: Duration,
    pub proxy: ProxyChoice,
    /// The file of the only authorities to trust; `None` for those of the system.
    pub ca: Option<PathBuf>,
    /// The certificate that the client shows.
    pub client_certificate: Option<TlsFiles>,
    pub credentials: CredentialFiles,
    /// Header fields of every request.
    pub headers: Vec<(String, String)>,
    /// The file of further header fields, one `Name: value` on each line.
    pub headers_file: Option<PathBuf>,
}

/// Which proxy requests go through.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum ProxyChoice {
    /// The one that `HTTP_PROXY` or `HTTPS_PROXY` names, with the exceptions of `NO_PROXY`.
    #[default]
    Environment,
    /// None.
    Direct,
    /// The one at this URL.
    Url(String),
}

/// What a client proves its identity with. How a token is sent depends on the type of the destination.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum CredentialFiles {
    #[default]
    None,
    /// The token in this file.
    Token(PathBuf),
    /// A user and the password in a file.
    Basic { user: String, password_file: PathBuf },
}
