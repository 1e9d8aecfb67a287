//! Requests through proxies.

use super::server::start_proxy;
use super::tls::Authority;
use super::*;

fn client(proxy: Proxy) -> OutboundClient {
    OutboundClient::new(OutboundSettings { proxy, ..OutboundSettings::default() })
}

fn variables(pairs: &[(&str, String)]) -> Proxy {
    let get = |name: &str| pairs.iter().find(|(set, _)| *set == name).map(|(_, value)| value.clone());
    Proxy::Variables(ProxyVariables::read(get))
}

#[tokio::test]
async fn a_proxy_forwards_plain_requests() {
    let server = Server::start(Act::Answer(NO_CONTENT.to_owned())).await;
    let (proxy, asked) = start_proxy(server.address).await;
    let client = client(variables(&[("http_proxy", format!("http://me:geheim@{proxy}"))]));
    for _ in 0..2 {
        assert_eq!(post(&client, "http://sink.test:8086/write?db=x").await.unwrap().status, 204);
    }
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1, "one connection for both");
    assert_eq!(asked[0].first_line(), "POST http://sink.test:8086/write?db=x HTTP/1.1");
    assert_eq!(asked[0].field("host"), Some("sink.test:8086"));
    // "me:geheim" in base64.
    assert_eq!(asked[0].field("proxy-authorization"), Some("Basic bWU6Z2VoZWlt"));
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test]
async fn an_encrypted_request_goes_through_a_tunnel() {
    let directory = tempfile::tempdir().unwrap();
    let authority = Authority::new(directory.path(), "ca");
    let tls = authority.acceptor(&["sink.test"], None);
    let server = Server::start_with(Act::Answer(NO_CONTENT.to_owned()), Some(tls)).await;
    let (proxy, asked) = start_proxy(server.address).await;
    let client = OutboundClient::new(OutboundSettings {
        proxy: variables(&[("HTTPS_PROXY", format!("http://me:geheim@{proxy}"))]),
        ca: Some(authority.file.clone()),
        ..OutboundSettings::default()
    });
    for _ in 0..2 {
        assert_eq!(post(&client, "https://sink.test/api/v1/push").await.unwrap().status, 204);
    }
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 1, "one tunnel for both");
    assert_eq!(asked[0].first_line(), "CONNECT sink.test:443 HTTP/1.1");
    assert_eq!(asked[0].field("host"), Some("sink.test:443"));
    assert_eq!(asked[0].field("proxy-authorization"), Some("Basic bWU6Z2VoZWlt"));
    let requests = server.requests();
    assert_eq!(requests[1].first_line(), "POST /api/v1/push HTTP/1.1");
    assert_eq!(
        (requests[1].field("host"), requests[1].field("proxy-authorization")),
        (Some("sink.test"), None)
    );
}

#[tokio::test]
async fn exceptions_and_the_machine_itself_are_reached_directly() {
    let server = Server::start(Act::Answer(NO_CONTENT.to_owned())).await;
    let (proxy, asked) = start_proxy(server.address).await;
    let url = format!("http://{proxy}");
    let loopback = client(variables(&[("HTTP_PROXY", url.clone())]));
    assert_eq!(post(&loopback, &server.url("/")).await.unwrap().status, 204);
    assert_eq!(asked.lock().unwrap().len(), 0);
    let exempt = variables(&[("HTTP_PROXY", url.clone()), ("NO_PROXY", "sink.invalid".to_owned())]);
    let error = post(&client(exempt), "http://sink.invalid/").await.unwrap_err();
    assert_ne!(error.failure_code(), "proxy", "{error}");
    assert_eq!(asked.lock().unwrap().len(), 0);
    assert_eq!(post(&client(Proxy::Url(url)), &server.url("/")).await.unwrap().status, 204);
    assert_eq!(asked.lock().unwrap().len(), 1, "a proxy that is set for the client is used for all");
}

#[tokio::test]
async fn a_proxy_that_does_not_connect_is_to_blame() {
    for (act, part) in [
        (answer("407 Who", "", ""), "asks for another user or password"),
        (answer("403 No", "", ""), "does not connect to sink.test:443 (403)"),
        (Act::Last("SSH-2.0-x\r\n\r\n".to_owned()), "does not answer in HTTP"),
        (Act::Last("HTTP/1.1 200".to_owned()), "closed the connection"),
        (Act::Flood("HTTP/1.1 200 OK\r\na: ".to_owned(), 1 << 12), "more than 8 KiB"),
    ] {
        let proxy = Server::start(act).await;
        let client = client(Proxy::Url(format!("http://{}", proxy.address)));
        let error = post(&client, "https://sink.test/").await.unwrap_err();
        let OutboundError::Proxy { proxy: named, why } = &error else { panic!("{error:?}") };
        assert!(*named == proxy.address.to_string() && why.contains(part), "{error}");
    }
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let gone = socket.local_addr().unwrap();
    let error = post(&client(Proxy::Url(format!("http://{gone}"))), "http://sink.test/").await.unwrap_err();
    assert_eq!(error.to_string(), format!("proxy {gone}: {gone} refuses connections"));
    let silent = Server::start(Act::Hang(String::new())).await;
    let client = OutboundClient::new(OutboundSettings {
        proxy: Proxy::Url(format!("http://{}", silent.address)),
        connect_timeout: Duration::from_millis(200),
        ..OutboundSettings::default()
    });
    let error = post(&client, "https://sink.test/").await.unwrap_err();
    assert!(matches!(error, OutboundError::Timeout { phase: Phase::Connect, .. }), "{error:?}");
}

#[tokio::test]
async fn a_proxy_that_cannot_be_read_fails_every_request() {
    let wrong = client(variables(&[("HTTPS_PROXY", "socks5://me:geheim@p:1".to_owned())]));
    let error = post(&wrong, "http://127.0.0.1:1/").await.unwrap_err();
    assert!(error.is_local() && error.to_string().contains("HTTPS_PROXY"), "{error}");
    assert!(!error.to_string().contains("geheim"), "{error}");
}
