//! Finds containers that the wrapper started while no agent answered it, and shows them as mute.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::api::{MissedRequest, read_reservation};
use crate::containers::{ContainerTableHandle, ProcessRef, ReserveError, Unserved};
use crate::model::ContainerId;
use crate::oci::missed::{self, Missed};
use crate::shutdown::Drain;

/// Why they have no socket.
const NO_AGENT: &str = "no agent answered when it was started";
/// The interval at which the wrapper's notes are read.
const EVERY: Duration = Duration::from_secs(2);
/// How long a process may take to appear after its note. A container without one by then did not start, or has ended.
const APPEARS_WITHIN: Duration = Duration::from_mins(1);

/// Reads notes until the agent ends, now and then and at every request.
pub(super) async fn run(
    admin_socket: PathBuf,
    containers: ContainerTableHandle,
    mut asked: mpsc::Receiver<MissedRequest>,
    mut drain: Drain,
) {
    let directory = missed::notes_directory(&admin_socket);
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut said = false;
    loop {
        let reply = tokio::select! {
            _ = tick.tick() => None,
            Some(reply) = asked.recv() => Some(reply),
            () = drain.wait_for_start() => return,
        };
        let at = directory.clone();
        let Ok(read) = tokio::task::spawn_blocking(move || missed::read(&at)).await else { return };
        let found = match read {
            Ok(all) => {
                let mut found = Vec::new();
                for missed in all {
                    found.extend(show_missed(&containers, &missed).await);
                }
                Some(found)
            }
            Err(error) => {
                if !std::mem::replace(&mut said, true) {
                    tracing::warn!(directory = %directory.display(), %error, "cannot read the notes of the OCI wrapper");
                }
                None
            }
        };
        if let Some(reply) = reply {
            let _not_waited_for = reply.send(found);
        }
    }
}

/// Shows a running container, and returns its id if it was not shown before. Its note stays as long as it runs, for the
/// agent's next start.
async fn show_missed(containers: &ContainerTableHandle, missed: &Missed) -> Option<ContainerId> {
    let reservation = match read_reservation(&missed.request) {
        Ok(reservation) if reservation.opt_out_reason().is_none() => reservation,
        // It opted out, or its request is invalid.
        _ => {
            forget_note(missed);
            return None;
        }
    };
    let id = reservation.container_id.clone();
    let lives = containers.directory().find_container(&id).is_some_and(|info| info.state.is_live());
    match missed.process {
        // A container that is known has a socket, waits for its process, or is mute already.
        Some(_) if lives => {}
        Some((pid, ticks)) => {
            match containers.register_unserved(reservation, Unserved::Mute, NO_AGENT.to_owned()).await {
                Ok(_) => {
                    let process = ProcessRef { pid, start_ticks: Some(ticks) };
                    if let Err(error) = containers.attach_process(id.clone(), process).await {
                        // The process may have ended just now.
                        tracing::debug!(container = %id, pid, %error, "its process cannot be watched");
                        let _either_way = containers.release(id).await;
                        return None;
                    }
                    return Some(id);
                }
                Err(ReserveError::Ending) => {}
                Err(error) => tracing::warn!(container = %id, %error, "a container cannot be shown"),
            }
        }
        None if !lives && missed.age > APPEARS_WITHIN => forget_note(missed),
        None => {}
    }
    None
}

fn forget_note(missed: &Missed) {
    if let Err(error) = missed.remove_note() {
        tracing::debug!(%error, "cannot remove a note of the OCI wrapper");
    }
}
