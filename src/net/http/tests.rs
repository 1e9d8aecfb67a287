use std::convert::Infallible;

use http_body_util::Full;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::shutdown::{DrainTrigger, drain_channel};

async fn start(limits: ConnectionLimits) -> (SocketAddr, DrainTrigger, Connections) {
    start_with(limits, None).await
}

async fn start_with(
    limits: ConnectionLimits,
    tls: Option<Arc<ServerConfig>>,
) -> (SocketAddr, DrainTrigger, Connections) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (trigger, drain) = drain_channel();
    let connections = Connections::default();
    let answer = hyper::service::service_fn(|request: http::Request<Incoming>| async move {
        let peer = request.extensions().get::<Peer>().copied();
        if request.uri().path() == "/large" {
            return Ok(http::Response::new(Full::new(vec![b'x'; 16 << 20].into())));
        }
        if request.uri().path() == "/never" {
            std::future::pending::<()>().await;
        }
        if request.uri().path() == "/slow" {
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
        Ok::<_, Infallible>(http::Response::new(Full::new(bytes::Bytes::from(format!("{peer:?}")))))
    });
    let (_never, tls) = watch::channel(tls);
    tokio::spawn(serve(Listener::Tcp(listener, tls), answer, limits, connections.clone(), drain));
    (address, trigger, connections)
}

const LIMITS: ConnectionLimits = ConnectionLimits {
    connections: 10,
    per_client: 10,
    header_timeout: Duration::from_secs(5),
    write_timeout: Duration::from_secs(5),
    head: 16 << 10,
    headers: 100,
};

async fn get(stream: &mut TcpStream, path: &str) -> String {
    stream
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_request_knows_its_peer() {
    let (address, _trigger, _) = start(LIMITS).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    let me = stream.local_addr().unwrap();
    assert!(get(&mut stream, "/").await.ends_with(&format!("Some(Tcp({me}))")));
}

#[tokio::test]
async fn a_client_that_does_not_finish_its_head_is_disconnected() {
    let limits = ConnectionLimits { header_timeout: Duration::from_millis(100), ..LIMITS };
    let (address, _trigger, _) = start(limits).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_client_that_sends_its_head_byte_by_byte_has_no_longer() {
    let limits = ConnectionLimits { header_timeout: Duration::from_millis(200), ..LIMITS };
    let (address, _trigger, connections) = start(limits).await;
    let (mut reading, mut writing) = TcpStream::connect(address).await.unwrap().into_split();
    let slow = tokio::spawn(async move {
        for byte in b"GET / HTTP/1.1\r\nhost: ".iter().chain(std::iter::repeat(&b'x')) {
            tokio::time::sleep(Duration::from_millis(20)).await;
            if writing.write_all(&[*byte]).await.is_err() {
                break;
            }
        }
    });
    let mut answer = Vec::new();
    // Closing while bytes are still arriving resets the connection.
    let _either_way =
        tokio::time::timeout(Duration::from_secs(5), reading.read_to_end(&mut answer)).await.unwrap();
    assert_eq!(connections.open(), 0);
    slow.await.unwrap();
}

#[tokio::test]
async fn a_head_that_is_too_long_is_refused_and_one_byte_less_is_not() {
    for head in [8 << 10, 16 << 10] {
        let (address, _trigger, _) = start(ConnectionLimits { head, ..LIMITS }).await;
        let padded = async |over: usize| {
            let rest = "GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\np: \r\n\r\n".len();
            let pad = "x".repeat(head - rest - 1 + over);
            let mut stream = TcpStream::connect(address).await.unwrap();
            let text = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\np: {pad}\r\n\r\n");
            stream.write_all(text.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        assert!(padded(0).await.starts_with("HTTP/1.1 200"), "{head}");
        assert!(padded(2).await.starts_with("HTTP/1.1 431"), "{head}");
    }
}

#[tokio::test]
async fn a_head_of_too_many_fields_is_refused() {
    let (address, _trigger, _) = start(ConnectionLimits { headers: 10, ..LIMITS }).await;
    let with = async |more: usize| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let more = "a: b\r\n".repeat(more);
        let text = format!("GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{more}\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    assert!(with(8).await.starts_with("HTTP/1.1 200"));
    assert!(with(9).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn a_client_has_so_many_connections_and_the_next_is_closed() {
    let (address, _trigger, connections) = start(ConnectionLimits { per_client: 1, ..LIMITS }).await;
    let first = TcpStream::connect(address).await.unwrap();
    while connections.open() == 0 {
        tokio::task::yield_now().await;
    }
    let mut second = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(Duration::from_secs(5), second.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert_eq!((answer.len(), connections.open()), (0, 1));
    assert_eq!(connections.refused_counts().next(), Some((RefusalReason::Client, 1)));
    drop(first);
    while connections.open() > 0 {
        tokio::task::yield_now().await;
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    assert!(get(&mut third, "/").await.starts_with("HTTP/1.1 200"), "who went makes room");
}

#[tokio::test]
async fn where_tls_is_spoken_everything_else_is_told_or_closed_in_time() {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let [certificate, key] = ["crt", "key"].map(|name| directory.path().join(name));
    std::fs::write(&certificate, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let tls = crate::net::tls::load_server(&certificate, &key).unwrap().config;
    let limits = ConnectionLimits { header_timeout: Duration::from_millis(200), ..LIMITS };
    let (address, _trigger, connections) = start_with(limits, Some(tls)).await;
    let mut plain = TcpStream::connect(address).await.unwrap();
    let answer = get(&mut plain, "/").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("https://"), "{answer}");
    let mut silent = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(&[22, 3, 1, 2]).await.unwrap();
    for stream in [&mut silent, &mut half] {
        let mut rest = Vec::new();
        let _either_way =
            tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await.unwrap();
    }
    while connections.open() > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(connections.refused_counts().last(), Some((RefusalReason::Handshake, 3)));
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_and_one_that_reads_slowly_is_not() {
    let limits = ConnectionLimits { write_timeout: Duration::from_millis(500), ..LIMITS };
    let (address, _trigger, connections) = start(limits).await;
    let request = b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    let mut unread = TcpStream::connect(address).await.unwrap();
    unread.write_all(request).await.unwrap();
    while connections.closed_counts().next() != Some((CloseReason::Slow, 1)) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(request).await.unwrap();
    let (mut answer, mut part) = (0, vec![0; 1 << 20]);
    loop {
        let read = slow.read(&mut part).await.unwrap();
        if read == 0 {
            break;
        }
        answer += read;
        // Longer in total than the timeout.
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert!(answer > 16 << 20, "{answer} bytes arrived");
    assert_eq!(connections.closed_counts().next(), Some((CloseReason::Slow, 1)));
}

#[tokio::test]
async fn one_connection_too_many_waits_until_another_ends() {
    let (address, _trigger, connections) = start(ConnectionLimits { connections: 1, ..LIMITS }).await;
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    while connections.open() == 0 {
        tokio::task::yield_now().await;
    }
    let mut second = TcpStream::connect(address).await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(300), get(&mut second, "/")).await;
    assert!(waiting.is_err(), "only one connection is served");
    drop(first);
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(5), second.read_to_string(&mut answer)).await.unwrap().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test]
async fn an_idle_connection_gives_its_place_to_a_client_that_waits() {
    let limits = ConnectionLimits { connections: 2, header_timeout: Duration::from_mins(10), ..LIMITS };
    let (address, _trigger, connections) = start(limits).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HT").await.unwrap();
    let mut busy = TcpStream::connect(address).await.unwrap();
    busy.write_all(b"GET /never HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    while connections.open() < 2 {
        tokio::task::yield_now().await;
    }
    let mut third = TcpStream::connect(address).await.unwrap();
    let answer = tokio::time::timeout(Duration::from_secs(30), get(&mut third, "/")).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(connections.closed_counts().last(), Some((CloseReason::Idle, 1)));
    let mut rest = Vec::new();
    let _either_way =
        tokio::time::timeout(Duration::from_secs(30), idle.read_to_end(&mut rest)).await.unwrap();
    assert!(rest.starts_with(b"HTTP/1.1 200"), "it had been answered before it was closed");
    assert_eq!(connections.open(), 1, "the one with a request under way stays");
}

#[tokio::test]
async fn a_client_that_connected_before_the_drain_is_answered_after_it() {
    let (address, trigger, _) = start(LIMITS).await;
    let mut connected = Vec::new();
    for _ in 0..5 {
        connected.push(TcpStream::connect(address).await.unwrap());
    }
    // Give the listener time to accept them.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let draining = tokio::spawn(trigger.start(Duration::from_secs(5)));
    tokio::time::sleep(FIRST_REQUEST / 5).await;
    for stream in &mut connected {
        assert!(get(stream, "/").await.starts_with("HTTP/1.1 200"));
    }
    assert!(draining.await.unwrap(), "no connection holds up the end");
}

#[tokio::test]
async fn a_client_that_never_asks_holds_up_no_drain() {
    let (address, trigger, connections) = start(LIMITS).await;
    let _silent = TcpStream::connect(address).await.unwrap();
    while connections.open() == 0 {
        tokio::task::yield_now().await;
    }
    let long = LIMITS.header_timeout / 2;
    assert!(trigger.start(long).await);
}

#[tokio::test]
async fn a_drain_lets_an_answer_finish_and_then_refuses() {
    let (address, trigger, _) = start(LIMITS).await;
    let mut busy = TcpStream::connect(address).await.unwrap();
    let mut idle = TcpStream::connect(address).await.unwrap();
    let answer = tokio::spawn(async move { get(&mut busy, "/slow").await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(trigger.start(Duration::from_secs(5)).await);
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 200"));
    let mut rest = Vec::new();
    idle.read_to_end(&mut rest).await.unwrap();
    assert!(rest.is_empty(), "an idle connection is closed");
    assert!(TcpStream::connect(address).await.is_err());
}
