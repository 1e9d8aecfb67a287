//! Connections beyond their client's limit. On the admin socket they wait briefly for room and then get a 503, so that
//! a launcher can report why its call failed; on the HTTP listener they are closed at once.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream as StdStream;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::UnixStream;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};

use super::clients::{Open, RefusalReason};
use super::opening::Socket;
use super::{ConnectionLimits, Connections, Peer};
use crate::model::setting_name::setting_name;
use crate::shutdown::Drain;

/// How long a connection waits for room: half of the OCI wrapper's time limit, so that the wrapper receives the
/// response.
const ROOM_WITHIN: Duration = Duration::from_millis(500);
/// How often a waiting connection looks for room.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// The maximum number of waiting connections is the connection limit divided by this: each holds a descriptor.
const WAITING: usize = 8;
/// Shortest time between two warnings, so that a busy client cannot fill the disk with them.
const QUIET: Duration = Duration::from_mins(1);
/// Maximum number of reads before the response: a client that keeps sending must not block this thread.
const READS: usize = 64;

/// The body of the answer, in the form of the API's other errors.
const BODY: &str = r#"{"code":"too_many_connections","message":"this client has as many connections to the admin socket as it may; reuse connections, or make fewer calls at a time"}"#;

/// Handles connections beyond their client's limit.
#[derive(Clone, Debug)]
pub(super) struct Overflow {
    connections: Connections,
    limits: ConnectionLimits,
    /// One permit for each connection that is served.
    places: Arc<Semaphore>,
    /// Notified when a connection waits for a place and all are taken.
    place_needed: Arc<Notify>,
    /// One permit for each connection that may wait.
    waiting_permits: Arc<Semaphore>,
    warning: Arc<Warning>,
}

/// A connection that waits until its client may have another one, and for a place.
pub(super) struct WaitingConnection {
    stream: UnixStream,
    peer: Peer,
    overflow: Overflow,
    _waiting_permit: OwnedSemaphorePermit,
}

impl Overflow {
    pub(super) fn new(connections: Connections, limits: ConnectionLimits, places: Arc<Semaphore>) -> Self {
        let waiting_permits = Arc::new(Semaphore::new((limits.connections / WAITING).max(1)));
        Self {
            connections,
            limits,
            places,
            place_needed: Arc::default(),
            waiting_permits,
            warning: Arc::default(),
        }
    }

    /// Waits until an accepted connection needs a place. The accept loop, which holds a free place for the next client,
    /// then gives it up.
    pub(super) async fn needs_place(&self) {
        self.place_needed.notified().await;
    }

    /// Lets a connection whose client has reached its limit wait for room. `None` if it was refused at once, because it
    /// is from the HTTP listener or too many are waiting.
    pub(super) fn queue_connection(&self, socket: Socket, peer: Peer) -> Option<WaitingConnection> {
        match (socket, Arc::clone(&self.waiting_permits).try_acquire_owned()) {
            (Socket::Unix(stream), Ok(permit)) => {
                Some(WaitingConnection { stream, peer, overflow: self.clone(), _waiting_permit: permit })
            }
            (Socket::Unix(stream), Err(_)) => {
                self.record_refusal(peer);
                reply_unavailable(stream, peer);
                None
            }
            (Socket::Tcp(..), _) => {
                self.record_refusal(peer);
                None
            }
        }
    }

    /// Counts a refused connection, and logs a warning about those since the last one if it is due.
    fn record_refusal(&self, peer: Peer) {
        self.connections.count_refused(RefusalReason::Client);
        tracing::debug!(%peer, "refused a connection beyond its client's share");
        let Some(refused) = self.warning.count_refusal(Instant::now()) else { return };
        match peer {
            Peer::Unix { .. } => tracing::warn!(
                refused,
                last = %peer,
                "refused connections to the admin socket: one process may have half of http.max_connections, and users other than \
                 root three quarters together; reuse connections, make fewer calls at a time, or raise {}",
                setting_name!("http.max_connections")
            ),
            Peer::Tcp(_) => tracing::warn!(
                refused,
                last = %peer,
                "refused HTTP connections of a client that has too many; reuse connections, or raise {}",
                setting_name!("http.max_connections_per_client")
            ),
        }
    }
}

impl WaitingConnection {
    /// Waits until the client may have another connection and there is a place for it. `None` if that takes too long or
    /// the agent ends: the connection got a 503 and was closed.
    pub(super) async fn for_room(self, drain: &mut Drain) -> Option<(Socket, Open, OwnedSemaphorePermit)> {
        let admitted = tokio::select! {
            admitted = tokio::time::timeout(ROOM_WITHIN, self.wait_for_admission()) => admitted.ok(),
            () = drain.wait_for_start() => None,
        };
        match admitted {
            Some((open, place)) => Some((Socket::Unix(self.stream), open, place)),
            None => {
                self.overflow.record_refusal(self.peer);
                reply_unavailable(self.stream, self.peer);
                None
            }
        }
    }

    async fn wait_for_admission(&self) -> (Open, OwnedSemaphorePermit) {
        let Overflow { connections, limits, places, place_needed, .. } = &self.overflow;
        loop {
            if places.available_permits() == 0 {
                place_needed.notify_one();
            }
            // The place comes first: once registered, an idle connection can be closed in favour of another.
            if let Ok(place) = Arc::clone(places).acquire_owned().await
                && let Ok(open) = connections.admit_peer(self.peer, limits)
            {
                return (open, place);
            }
            tokio::time::sleep(CHECK_INTERVAL).await;
        }
    }
}

/// Sends a 503 without parsing the request, and closes the connection. Does not block: the response fits an empty
/// buffer.
fn reply_unavailable(stream: UnixStream, peer: Peer) {
    if let Err(error) = stream.into_std().and_then(write_answer) {
        tracing::debug!(%error, %peer, "cannot tell a client that its connection was refused: the client has closed it");
    }
}

fn write_answer(mut stream: StdStream) -> std::io::Result<()> {
    // Closing with unread bytes resets the connection, and the client could get that instead of the response.
    let mut request = [0; 4096];
    for _ in 0..READS {
        if !stream.read(&mut request).is_ok_and(|length| length > 0) {
            break;
        }
    }
    let length = BODY.len();
    let text = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\
         retry-after: 1\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n{BODY}"
    );
    stream.write_all(text.as_bytes())
}

/// Rate-limits warnings.
#[derive(Debug, Default)]
struct Warning(Mutex<PendingWarning>);

#[derive(Debug, Default)]
struct PendingWarning {
    warned: Option<Instant>,
    refused: u64,
}

impl Warning {
    /// Counts a refused connection; returns the number since the last warning if the next one is due.
    fn count_refusal(&self, now: Instant) -> Option<u64> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pending.refused += 1;
        if pending.warned.is_some_and(|warned| now.saturating_duration_since(warned) < QUIET) {
            return None;
        }
        let refused = pending.refused;
        *pending = PendingWarning { warned: Some(now), refused: 0 };
        Some(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_warning_a_minute_with_the_number_of_refused_connections_since() {
        let (warning, start) = (Warning::default(), Instant::now());
        assert_eq!(warning.count_refusal(start), Some(1));
        for n in 1..60 {
            assert_eq!(warning.count_refusal(start + Duration::from_secs(n)), None);
        }
        assert_eq!(warning.count_refusal(start + QUIET), Some(60));
    }

    const LIMITS: ConnectionLimits = ConnectionLimits {
        connections: 4,
        per_client: 4,
        header_timeout: Duration::from_secs(5),
        write_timeout: Duration::from_secs(5),
        head: 16 << 10,
        headers: 100,
    };
    const PEER: Peer = Peer::Unix { uid: 1000, pid: Some(7) };

    /// A process that has reached its limit of connections, and another connection of it that has sent a request.
    fn full() -> (Vec<Open>, Overflow, StdStream, Socket) {
        let (connections, places) = (Connections::default(), Arc::new(Semaphore::new(LIMITS.connections)));
        let open = (0..2).map(|_| connections.admit_peer(PEER, &LIMITS).unwrap()).collect();
        assert!(connections.admit_peer(PEER, &LIMITS).is_err());
        let (mut client, server) = StdStream::pair().unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        server.set_nonblocking(true).unwrap();
        let socket = Socket::Unix(UnixStream::from_std(server).unwrap());
        (open, Overflow::new(connections, LIMITS, places), client, socket)
    }

    fn read_to_end(client: &mut StdStream) -> String {
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        answer
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_beyond_the_share_is_served_once_another_ends() {
        let (mut open, overflow, _client, socket) = full();
        let (_trigger, mut drain) = crate::shutdown::drain_channel();
        let waiting = overflow.queue_connection(socket, PEER).unwrap();
        let mut served = std::pin::pin!(waiting.for_room(&mut drain));
        assert!(tokio::time::timeout(Duration::ZERO, served.as_mut()).await.is_err(), "it waits");
        open.pop();
        assert!(served.await.is_some());
        assert_eq!(overflow.connections.refused_counts().next(), Some((RefusalReason::Client, 0)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_waits_for_a_place_is_not_open_yet() {
        let (mut open, overflow, _client, socket) = full();
        // The client has room again, but other clients hold all places.
        open.clear();
        let taken = Arc::clone(&overflow.places).acquire_many_owned(4).await.unwrap();
        let (_trigger, mut drain) = crate::shutdown::drain_channel();
        let waiting = overflow.queue_connection(socket, PEER).unwrap();
        let mut served = std::pin::pin!(waiting.for_room(&mut drain));
        assert!(tokio::time::timeout(Duration::ZERO, served.as_mut()).await.is_err(), "it waits");
        assert_eq!(overflow.connections.open(), 0, "it could be closed as one that is idle");
        drop(taken);
        assert!(served.await.is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_place_is_that_of_a_connection_that_waits_and_not_of_the_accept_loop() {
        let (mut open, overflow, _client, socket) = full();
        open.clear();
        let (_trigger, mut drain) = crate::shutdown::drain_channel();
        let _others = Arc::clone(&overflow.places).acquire_many_owned(3).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let listener = tokio::net::UnixListener::bind(directory.path().join("s")).unwrap();
        let listener = super::super::Listener::Unix(listener);
        let (places, connections) = (Arc::clone(&overflow.places), overflow.connections.clone());
        let mut accepts = std::pin::pin!(super::super::next(&places, &listener, &connections, &overflow));
        assert!(tokio::time::timeout(Duration::ZERO, accepts.as_mut()).await.is_err(), "no client comes");
        assert_eq!(places.available_permits(), 0);
        let waiting = overflow.queue_connection(socket, PEER).unwrap();
        tokio::select! {
            served = waiting.for_room(&mut drain) => assert!(served.is_some()),
            _ = accepts => panic!("no client has come"),
        }
    }

    #[tokio::test]
    async fn a_client_that_has_gone_is_refused_like_any_other() {
        let (_open, overflow, client, socket) = full();
        let taken = Arc::clone(&overflow.waiting_permits).acquire_many_owned(1).await.unwrap();
        drop(client);
        assert!(overflow.queue_connection(socket, PEER).is_none());
        assert_eq!(overflow.connections.refused_counts().next(), Some((RefusalReason::Client, 1)));
        drop(taken);
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_for_which_there_is_no_room_in_time_is_answered_and_counted() {
        let (_open, overflow, mut client, socket) = full();
        let (_trigger, mut drain) = crate::shutdown::drain_channel();
        let started = tokio::time::Instant::now();
        assert!(overflow.queue_connection(socket, PEER).unwrap().for_room(&mut drain).await.is_none());
        assert_eq!(started.elapsed(), ROOM_WITHIN);
        let answer = read_to_end(&mut client);
        assert!(answer.starts_with("HTTP/1.1 503 ") && answer.ends_with(BODY), "{answer}");
        assert_eq!(overflow.connections.refused_counts().next(), Some((RefusalReason::Client, 1)));
    }

    #[tokio::test]
    async fn where_too_many_wait_the_next_one_is_answered_at_once() {
        let (_open, overflow, mut client, socket) = full();
        let taken = Arc::clone(&overflow.waiting_permits).acquire_many_owned(1).await.unwrap();
        assert!(overflow.queue_connection(socket, PEER).is_none());
        assert!(read_to_end(&mut client).starts_with("HTTP/1.1 503 "));
        assert_eq!(overflow.connections.refused_counts().next(), Some((RefusalReason::Client, 1)));
        drop(taken);
    }

    #[test]
    fn the_answer_is_a_document_like_the_other_errors() {
        let body: serde_json::Value = serde_json::from_str(BODY).unwrap();
        assert_eq!(body["code"], "too_many_connections");
        assert!(body["message"].as_str().unwrap().contains("reuse connections"));
    }
}
