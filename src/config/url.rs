//! URLs of servers in settings.

use http::Uri;

/// Words in the names of query parameters whose values are secrets. `p` is the password of `InfluxDB`'s first API.
const SECRETS: [&str; 8] = ["password", "passwd", "pwd", "secret", "token", "api_key", "apikey", "api-key"];

/// Maximum length of a host name, in bytes (RFC 1035 §2.3.4).
const LONGEST_NAME: usize = 253;

/// Checks the URL of a server that speaks HTTP.
///
/// # Errors
/// With the reason, which is printed after the key and does not repeat the URL: it may contain a secret.
pub(super) fn check_url(text: &str) -> Result<(), String> {
    let uri = parse(text, &["http", "https"])
        .ok_or("is not a URL such as https://server.example/path, with http or https")?;
    check_user(&uri, "set user and password_file")?;
    if text.contains('#') {
        return Err("has a fragment (#), which is not sent to a server".to_owned());
    }
    match uri.query().and_then(secret_parameter) {
        Some(name) => {
            Err(format!("has the secret {name} in its query; put it into token_file or headers_file"))
        }
        None => Ok(()),
    }
}

/// Checks the URL of a proxy.
///
/// # Errors
/// As [`check_url`].
pub(super) fn check_proxy(text: &str) -> Result<(), String> {
    let uri = parse(text, &["http"])
        .ok_or("is not env, nothing, or the URL of a proxy such as http://proxy.example:3128")?;
    check_user(&uri, "name the proxy in the variables HTTP_PROXY and HTTPS_PROXY, and set proxy to env")?;
    match uri.path() {
        "" | "/" if uri.query().is_none() => Ok(()),
        _ => Err("has a path, which a proxy's URL has not".to_owned()),
    }
}

/// Whether this is a host name or an IP address.
pub(super) fn is_host(text: &str) -> bool {
    let name = || {
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        text.len() <= LONGEST_NAME
            && !text.is_empty()
            && text.bytes().all(fits)
            && !text.starts_with(['.', '-'])
    };
    text.parse::<std::net::IpAddr>().is_ok() || name()
}

/// A URL with one of these schemes, a host, and a port between 1 and 65535 if it has one.
fn parse(text: &str, schemes: &[&str]) -> Option<Uri> {
    let uri: Uri = text.parse().ok()?;
    let authority = uri.authority()?;
    let is_known = uri.scheme_str().is_some_and(|scheme| schemes.contains(&scheme));
    let after_user = authority.as_str().rsplit('@').next()?;
    let port = after_user.strip_prefix(uri.host()?)?;
    let is_port = port.is_empty() || authority.port_u16().is_some_and(|port| port > 0);
    (is_known && !uri.host()?.is_empty() && is_port).then_some(uri)
}

fn check_user(uri: &Uri, remedy: &str) -> Result<(), String> {
    match uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        true => Err(format!("has a user or a password in it, which others would see; {remedy}")),
        false => Ok(()),
    }
}

/// The name of a parameter whose value is a secret, by its name.
fn secret_parameter(query: &str) -> Option<String> {
    let mut names = form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name.to_lowercase());
    names.find(|name| name == "p" || SECRETS.iter().any(|secret| name.contains(secret)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_a_scheme_a_host_and_no_secret() {
        for sound in [
            "http://localhost",
            "https://mimir.example:443/api/v1/push",
            "http://[::1]:8086",
            "http://10.1.2.3:8428/api/v1/write?extra_label=node=n1",
            "HTTPS://Mimir.example/",
        ] {
            assert_eq!(check_url(sound), Ok(()), "{sound}");
        }
        for (wrong, part) in [
            ("mimir.example:9009", "is not a URL"),
            ("mimir", "is not a URL"),
            ("/api/v1/push", "is not a URL"),
            ("ftp://h/", "is not a URL"),
            ("http://", "is not a URL"),
            ("http:///path", "is not a URL"),
            ("http://h:99999/", "is not a URL"),
            ("http://h:0/", "is not a URL"),
            ("http://h:/", "is not a URL"),
            ("http://h h/", "is not a URL"),
            ("http://ü/", "is not a URL"),
            ("http://h/#there", "fragment"),
            ("https://u:geheim@h/", "password_file"),
            ("https://geheim@h/", "password_file"),
            ("https://h/write?db=x&u=me&p=geheim", "secret p "),
            ("https://h/?api_key=geheim", "secret api_key"),
            ("https://h/?Access%54oken=geheim", "secret accesstoken"),
        ] {
            let why = check_url(wrong).unwrap_err();
            assert!(why.contains(part) && !why.contains("geheim"), "{wrong}: {why}");
        }
    }

    #[test]
    fn a_proxy_is_a_host_and_a_port() {
        assert_eq!(check_proxy("http://proxy.example:3128"), Ok(()));
        assert_eq!(check_proxy("http://[::1]:3128/"), Ok(()));
        for (wrong, part) in [
            ("proxy.example:3128", "is not env"),
            ("https://proxy.example", "is not env"),
            ("socks5://proxy.example", "is not env"),
            ("http://proxy.example/path", "has a path"),
            ("http://me:geheim@proxy.example", "HTTP_PROXY"),
        ] {
            let why = check_proxy(wrong).unwrap_err();
            assert!(why.contains(part) && !why.contains("geheim"), "{wrong}: {why}");
        }
    }

    #[test]
    fn a_host_is_a_name_or_an_address() {
        for host in ["localhost", "carbon-1.shop.svc", "10.1.2.3", "::1", "a_b"] {
            assert!(is_host(host), "{host}");
        }
        for wrong in ["", "http://h", "h:1", "[::1]", "a b", ".a", "-a", "ü", &"a".repeat(254)] {
            assert!(!is_host(wrong), "{wrong}");
        }
    }
}
