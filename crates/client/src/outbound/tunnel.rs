//! Tunnels through proxies: `CONNECT` (RFC 9110 §9.3.6).

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::error::OutboundError;
use super::proxy::ProxyServer;

/// Maximum size of the head of a proxy's answer, in bytes.
const LONGEST_HEAD: usize = 8 << 10;

/// Makes a connection to a proxy one to a server. `target` is the server's host and port.
pub(super) async fn open_tunnel(
    mut stream: TcpStream,
    proxy: &ProxyServer,
    target: &str,
) -> Result<TcpStream, OutboundError> {
    let failed = |why: String| OutboundError::Proxy { proxy: proxy.to_string(), why };
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nhost: {target}\r\n").into_bytes();
    request.extend_from_slice(format!("user-agent: {}\r\n", crate::USER_AGENT).as_bytes());
    if let Some(authorization) = proxy.authorization_value() {
        request.extend_from_slice(b"proxy-authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    stream.write_all(&request).await.map_err(|error| failed(error.to_string()))?;
    let head = read_head(&mut stream).await.map_err(&failed)?;
    match parse_status(&head) {
        Some(200..=299) => Ok(stream),
        Some(407) => Err(failed("asks for another user or password (407)".to_owned())),
        Some(status) => Err(failed(format!("does not connect to {target} ({status})"))),
        None => Err(failed("does not answer in HTTP".to_owned())),
    }
}

/// Reads up to the empty line. What follows it is the server's, so it is not read.
async fn read_head(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= LONGEST_HEAD {
            return Err(format!("answers with a head of more than {} KiB", LONGEST_HEAD >> 10));
        }
        // The head is short and there is one for each connection. The kernel has all of it after the first byte.
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err("closed the connection without an answer".to_owned());
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(head)
}

/// The status in the first line of a head.
fn parse_status(head: &[u8]) -> Option<u16> {
    let line = head.split(|byte| *byte == b'\r').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok().filter(|status| (100..1000).contains(status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_the_second_word_of_http() {
        assert_eq!(parse_status(b"HTTP/1.1 200 Connection established\r\n\r\n"), Some(200));
        assert_eq!(parse_status(b"HTTP/1.0 407\r\n\r\n"), Some(407));
        for wrong in ["", "\r\n\r\n", "SSH-2.0-x\r\n\r\n", "HTTP/1.1 \r\n\r\n", "HTTP/1.1 99999\r\n\r\n"] {
            assert_eq!(parse_status(wrong.as_bytes()), None, "{wrong:?}");
        }
    }
}
