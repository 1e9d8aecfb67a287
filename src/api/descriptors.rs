//! The socket `<admin.socket>.fd`: takes descriptors instead of process ids, for launchers whose processes have no id
//! in this PID namespace, or whose network namespaces this program cannot open by id.
//!
//! One message on each connection (SEQPACKET keeps them apart): a JSON document of at most [`LONGEST`] bytes, with a
//! handle of the container's process, its network namespace if the launcher can open it, and a socket in that namespace
//! if the launcher has opened one itself. The reply is that of the admin socket, with the status inside. Descriptors
//! that are not kept are closed before it is sent.

use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{MsgFlags, send};
use tokio::io::Interest;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::LifecycleContext;
use super::error::ApiError;
use super::lifecycle::{container_id, parse_body};
use crate::containers::{AttachError, Handle};
use crate::net::sys::{self, ReceivedMessage};
use crate::wire::{Attachment, AttachmentAnswer};

/// Maximum length of a message, in bytes.
const LONGEST: usize = 4096;
/// Maximum number of connections at a time; more wait in the backlog.
const CONNECTIONS: usize = 64;
/// How long a connection may take, from accepting it to the reply.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(2);
/// How long to wait after a failed accept.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);

/// Serves the socket until the agent ends.
pub async fn serve_descriptors(lifecycle: LifecycleContext, listener: UnixListener) {
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let (mut drain, mut holding) = (lifecycle.reading.drain.clone(), lifecycle.reading.drain.clone());
    loop {
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // New connections wait in the kernel, for this process or the one that takes over.
            () = holding.wait_for_paused(true) => {
                tokio::select! {
                    () = holding.wait_for_paused(false) => continue,
                    () = drain.wait_for_start() => return,
                }
            }
            () = drain.wait_for_start() => return,
        };
        match accepted {
            Ok((caller, _)) => {
                let lifecycle = lifecycle.clone();
                tokio::spawn(async move {
                    if let Ok(Err(error)) =
                        tokio::time::timeout(CONNECTION_TIMEOUT, handle_connection(&lifecycle, &caller)).await
                    {
                        tracing::debug!(%error, "a caller with descriptors went away");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept at the socket for descriptors");
                // Descriptors that ran out are available again when a client leaves.
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

async fn handle_connection(lifecycle: &LifecycleContext, caller: &UnixStream) -> io::Result<()> {
    let mut buffer = [0; LONGEST];
    let message = loop {
        caller.readable().await?;
        let receive = || sys::receive_message(caller, &mut buffer).map_err(io::Error::from);
        match caller.try_io(Interest::READABLE, receive) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            received => break received?,
        }
    };
    let answered = handle_message(lifecycle, &buffer, message).await;
    let peer = caller.peer_cred().ok();
    let (uid, pid) = (peer.map(|peer| peer.uid()), peer.and_then(|peer| peer.pid()));
    tracing::info!(uid, pid, status = answered.status, code = answered.code.as_deref(), "descriptors");
    let answer = serde_json::to_vec(&answered).map_err(io::Error::other)?;
    send(caller.as_raw_fd(), &answer, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

async fn handle_message(
    lifecycle: &LifecycleContext,
    buffer: &[u8],
    message: ReceivedMessage,
) -> AttachmentAnswer {
    let mut address = None;
    match attach_container(lifecycle, buffer, message, &mut address).await {
        Ok(()) => AttachmentAnswer { status: 200, ..AttachmentAnswer::default() },
        Err(error) => AttachmentAnswer {
            status: error.status,
            code: Some(error.code.into()),
            message: Some(error.message),
            address: address.filter(|_| error.code == "cannot_enter"),
        },
    }
}

async fn attach_container(
    lifecycle: &LifecycleContext,
    buffer: &[u8],
    ReceivedMessage { length, passed, .. }: ReceivedMessage,
    address: &mut Option<SocketAddr>,
) -> Result<(), ApiError> {
    let text = buffer.get(..length).ok_or_else(|| ApiError::body_too_long(LONGEST))?;
    let Attachment { attach } = parse_body(text)?;
    let id = container_id(&attach)?;
    let handle = Handle::from_descriptors(passed).map_err(|error| ApiError::bad_descriptors(&error))?;
    if let Some(info) = lifecycle.reading.data.directory.find_container(&id) {
        *address = info.address;
    }
    let attached = lifecycle.containers.attach_handle(id, handle).await;
    attached.map(drop).map_err(|error| match error {
        // Hooks get their ids from the runtime: suggesting similar ones would not help.
        AttachError::Unknown { .. } => ApiError::unknown_container(&attach, Vec::new()),
        error => ApiError::from(&error),
    })
}
