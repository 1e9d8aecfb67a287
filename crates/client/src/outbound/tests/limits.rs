//! Servers that do not answer as they should.

use std::time::Instant;

use tokio::net::{TcpSocket, TcpStream};

use super::*;

const LIMIT: Duration = Duration::from_millis(400);

fn hasty() -> OutboundClient {
    OutboundClient::new(OutboundSettings {
        timeout: LIMIT,
        connect_timeout: LIMIT,
        ..OutboundSettings::default()
    })
}

/// The failure of a request to a server that does this. It comes within the time limit.
async fn failure_of(act: Act) -> OutboundError {
    let server = Server::start(act).await;
    let started = Instant::now();
    let error = post(&hasty(), &server.url("/")).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(5), "{error} after {:?}", started.elapsed());
    error
}

#[tokio::test]
async fn a_server_that_stops_is_given_up_after_the_time_limit() {
    let timeout = |phase| OutboundError::Timeout { phase, limit: LIMIT };
    assert_eq!(failure_of(Act::Hang(String::new())).await, timeout(Phase::Answer));
    assert_eq!(failure_of(Act::Hang("HTTP/1.1 200 OK\r\n".to_owned())).await, timeout(Phase::Answer));
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
    let error = failure_of(Act::Hang(half.to_owned())).await;
    assert_eq!(error, timeout(Phase::Body));
    assert_eq!(error.to_string(), "no end of the answer within 400 ms");
}

#[tokio::test]
async fn half_an_answer_is_none() {
    let half = "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf";
    let error = failure_of(Act::Last(half.to_owned())).await;
    let OutboundError::Body { status: 200, received: 4, .. } = error else { panic!("{error:?}") };
    let chunks = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    let error = failure_of(Act::Last(chunks.to_owned())).await;
    let OutboundError::Body { status: 200, received: 5, .. } = error else { panic!("{error:?}") };
    assert_eq!(failure_of(Act::Last(String::new())).await, OutboundError::Closed);
    assert_eq!(failure_of(Act::Last("HTTP/1.1 200 OK\r\n".to_owned())).await, OutboundError::Closed);
}

#[tokio::test]
async fn what_is_not_http_is_said_to_be_so() {
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "a: b\r\n".repeat(MOST_HEADERS + 1));
    for text in ["SSH-2.0-OpenSSH_9.2\r\n", "<html></html>\r\n\r\n", "HTTP/1.1 2OO OK\r\n\r\n", &many] {
        let error = failure_of(Act::Hang(text.to_owned())).await;
        assert_eq!(error.failure_code(), "garbled", "{text}: {error:?}");
    }
    let endless = failure_of(Act::Flood("HTTP/1.1 200 OK\r\na: ".to_owned(), 1 << 14)).await;
    assert_eq!(endless.failure_code(), "garbled", "{endless:?}");
}

#[tokio::test]
async fn of_a_body_of_a_gibibyte_the_start_is_kept_and_the_rest_is_not_sent() {
    for head in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n",
        "HTTP/1.1 500 No\r\nconnection: close\r\n\r\n",
    ] {
        let server = Server::start(Act::Flood(head.to_owned(), 1 << 16)).await;
        let client = OutboundClient::new(OutboundSettings::default());
        let response = post(&client, &server.url("/")).await.unwrap();
        assert_eq!((response.body.len(), response.is_cut), (64 << 10, true));
        let sent = || server.sent.load(std::sync::atomic::Ordering::SeqCst);
        // What the kernel holds for both sides is a few MiB.
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (before, started) = (sent(), Instant::now());
        tokio::time::sleep(Duration::from_millis(100)).await;
        assert!(sent() == before && before < 64 << 20, "{before} then {} in {:?}", sent(), started.elapsed());
        let _next = post(&client, &server.url("/")).await.unwrap();
        assert_eq!(server.connections(), 2, "the connection was closed");
    }
}

#[tokio::test]
async fn a_body_as_long_as_the_limit_is_whole() {
    for (length, is_cut) in [(10, false), (11, true)] {
        let server = Server::start(answer("200 OK", "", &"x".repeat(length))).await;
        let client = OutboundClient::new(OutboundSettings { body_limit: 10, ..OutboundSettings::default() });
        let response = post(&client, &server.url("/")).await.unwrap();
        assert_eq!((response.body.len(), response.is_cut), (10, is_cut));
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_named() {
    // Bound and not listening, so that no other test gets the port.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let error = post(&hasty(), &format!("http://{address}/")).await.unwrap_err();
    assert_eq!(error, OutboundError::Refused { address: address.clone() });
    assert_eq!(error.to_string(), format!("{address} refuses connections"));
    let client = OutboundClient::new(OutboundSettings {
        timeout: Duration::from_secs(30),
        connect_timeout: Duration::from_secs(30),
        ..OutboundSettings::default()
    });
    let error = post(&client, "http://tallyport.invalid/").await.unwrap_err();
    assert!(
        error.failure_code() == "dns" && error.to_string().starts_with("tallyport.invalid has no"),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_server_that_accepts_no_connection_is_given_up_after_the_time_limit() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // The kernel completes a few connections, and then drops further requests for one.
    let mut waiting = Vec::new();
    while let Ok(connected) = tokio::time::timeout(LIMIT, TcpStream::connect(address)).await {
        waiting.push(connected.unwrap());
        assert!(waiting.len() < 100, "no bound for connections");
    }
    let settings = OutboundSettings { connect_timeout: LIMIT, ..OutboundSettings::default() };
    let error = post(&OutboundClient::new(settings), &format!("http://{address}/")).await.unwrap_err();
    assert_eq!(error, OutboundError::Timeout { phase: Phase::Connect, limit: LIMIT });
}
