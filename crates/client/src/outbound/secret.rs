//! Secrets from files. A file is read whenever a secret is needed, so that a new one takes effect without a signal.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue};

use super::error::OutboundError;

/// Maximum size of a file of secrets, in bytes. The fields of a request have to fit the server's bound for a head.
const LONGEST: u64 = 16 << 10;

/// What a client proves its identity with.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub enum Credentials {
    /// Nothing.
    #[default]
    None,
    /// A token, in the field `Authorization`.
    Token {
        /// The word before the token, such as `Bearer`.
        scheme: &'static str,
        /// The file of the token.
        file: PathBuf,
    },
    /// A key, in a field of its own.
    Key {
        /// The name of the field in lower case, such as `dd-api-key`.
        header: &'static str,
        /// The file of the key.
        file: PathBuf,
    },
    /// A user and a password.
    Basic {
        /// The user.
        user: String,
        /// The file of the password.
        password_file: PathBuf,
    },
}

impl Credentials {
    /// The header field that proves the identity.
    ///
    /// # Errors
    /// When the file of the secret cannot be used.
    pub(super) fn read_header(&self) -> Result<Option<(HeaderName, HeaderValue)>, OutboundError> {
        let (name, file, value) = match self {
            Self::None => return Ok(None),
            Self::Token { scheme, file } => (AUTHORIZATION, file, format!("{scheme} {}", read_secret(file)?)),
            Self::Key { header, file } => (HeaderName::from_static(header), file, read_secret(file)?),
            Self::Basic { user, password_file } => {
                (AUTHORIZATION, password_file, basic_value(user, &read_secret(password_file)?))
            }
        };
        let value = secret_value(&value).ok_or_else(|| {
            OutboundError::unusable_file(file, "contains a character that no header field can have")
        })?;
        Ok(Some((name, value)))
    }
}

/// The value of a field with a user and a password (RFC 7617).
pub(super) fn basic_value(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// A value that no `Debug` text shows.
pub(super) fn secret_value(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// The text of a file without the white space around it.
fn read_secret(path: &Path) -> Result<String, OutboundError> {
    let text = read_text(path)?;
    match text.trim() {
        "" => Err(OutboundError::unusable_file(path, "is empty")),
        secret => Ok(secret.to_owned()),
    }
}

/// Header fields, one `Name: value` on each line. Empty lines and those that start with `#` are skipped.
///
/// # Errors
/// When the file cannot be read, or with the number of a line that is no field; never with its text.
pub(super) fn read_header_file(path: &Path) -> Result<HeaderMap, OutboundError> {
    let text = read_text(path)?;
    let lines = (1..).zip(text.lines().map(str::trim));
    let mut headers = HeaderMap::new();
    for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
        let field = line.split_once(':').and_then(|(name, value)| {
            let name = HeaderName::from_bytes(name.trim().as_bytes()).ok()?;
            Some((name, secret_value(value.trim())?))
        });
        let Some((name, value)) = field else {
            return Err(OutboundError::unusable_file(path, format!("has no header field in line {number}")));
        };
        headers.append(name, value);
    }
    Ok(headers)
}

fn read_text(path: &Path) -> Result<String, OutboundError> {
    let unreadable =
        |error: std::io::Error| OutboundError::unusable_file(path, format!("cannot be read: {error}"));
    let file = tallyport_linux::files::open(path).map_err(unreadable)?;
    let mut text = String::new();
    file.take(LONGEST + 1).read_to_string(&mut text).map_err(unreadable)?;
    match text.len() as u64 > LONGEST {
        true => Err(OutboundError::unusable_file(path, format!("is longer than {} KiB", LONGEST >> 10))),
        false => Ok(text),
    }
}
