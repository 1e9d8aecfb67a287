//! A container's Unix socket on its shard, and what is known about its senders.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::net::listener::{Inbox, ReadOutcome};
use crate::net::process_identity::{ProcessIdentity, SenderVerdict};
use crate::net::unixgram::{RefusedDatagrams, Unixgram};

/// How long the verdict on a process holds for its pid; a new one costs several reads from `/proc`.
const BELIEVED: Duration = Duration::from_secs(1);
/// Maximum number of remembered senders.
const REMEMBERED: usize = 256;
/// Maximum number of searches for the cgroups of ended senders per read of the socket. A container can make them slow,
/// and the shard's other containers are not read meanwhile.
const SEARCHES: usize = 4;

#[derive(Debug)]
pub(super) struct Inlet {
    unix: Unixgram,
    senders: Senders,
}

/// The senders of a Unix socket: which processes may use it, and which have sent lately. A hand-over passes this on,
/// because datagrams of senders that have ended by then may still wait in the socket.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Senders {
    /// The container's processes, once its first one is known.
    process_identity: Option<ProcessIdentity>,
    seen: HashMap<i32, SeenSender>,
    /// Searches left for the current read of the socket.
    #[serde(skip)]
    searches: usize,
}

#[derive(Copy, Clone, Debug, Serialize, Deserialize)]
struct SeenSender {
    verdict: SenderVerdict,
    /// When it was judged, by this process's clock; `None` if the previous process judged it.
    #[serde(skip)]
    at: Option<Duration>,
}

impl Inlet {
    /// `senders` is the previous process's knowledge. Without it, all datagrams that wait in the socket would be
    /// foreign.
    pub(super) fn new(unix: Unixgram, senders: Senders) -> Self {
        Self { unix, senders }
    }

    /// What is known about its senders.
    pub(super) fn senders(&self) -> &Senders {
        &self.senders
    }

    pub(super) fn socket(&self) -> &UnixDatagram {
        &self.unix.socket
    }

    /// Datagrams that may wait in the socket; never zero.
    pub(super) fn queue_capacity(&self) -> usize {
        self.unix.queue.max(1)
    }

    /// Sets how to recognise the container's processes.
    pub(super) fn set_container_processes(&mut self, process_identity: ProcessIdentity) {
        self.senders.set_container_processes(process_identity);
    }

    pub(super) fn receive_into(
        &mut self,
        inbox: &mut Inbox,
        most: usize,
        now: Duration,
    ) -> (ReadOutcome, RefusedDatagrams) {
        let senders = &mut self.senders;
        senders.searches = SEARCHES;
        inbox.take_from_members(&self.unix.socket, most, |pid, handle| senders.judge_sender(pid, handle, now))
    }
}

impl Senders {
    fn set_container_processes(&mut self, process_identity: ProcessIdentity) {
        // A hand-over determines it again; if it is the same, verdicts on senders that have ended since still hold.
        if self.process_identity.as_ref() != Some(&process_identity) {
            *self = Self { process_identity: Some(process_identity), ..Self::default() };
        }
    }

    fn judge_sender(&mut self, pid: i32, handle: Option<&OwnedFd>, now: Duration) -> SenderVerdict {
        let Some(process_identity) = &self.process_identity else {
            // Nothing of a container runs before its first process is known, so a sender that can be seen is another process. If
            // processes of containers cannot be seen from here, senders cannot be distinguished.
            return if pid == 0 { SenderVerdict::Member } else { SenderVerdict::Foreign };
        };
        let known = self.seen.get(&pid).copied();
        let is_fresh = |seen: &SeenSender| seen.at.is_some_and(|at| now.saturating_sub(at) < BELIEVED);
        if let Some(seen) = known.filter(is_fresh) {
            return seen.verdict;
        }
        let verdict = match (process_identity.judge_within(pid, handle, &mut self.searches), known) {
            // The verdict from its lifetime is all that is known about it.
            (SenderVerdict::Ended, Some(seen)) => seen.verdict,
            (verdict, _) => verdict,
        };
        // A process that has ended is not remembered: its pid may be reused at any time.
        if verdict != SenderVerdict::Ended {
            if self.seen.len() >= REMEMBERED {
                self.seen.clear();
            }
            self.seen.insert(pid, SeenSender { verdict, at: Some(now) });
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    #[test]
    fn before_the_container_is_known_only_invisible_senders_are_believed() {
        let mut senders = Senders::default();
        assert_eq!(senders.judge_sender(0, None, NOW), SenderVerdict::Member);
        assert_eq!(senders.judge_sender(1, None, NOW), SenderVerdict::Foreign);
        assert!(senders.seen.is_empty(), "and nothing is kept of it");
    }

    #[test]
    fn what_was_seen_of_a_process_holds_for_a_second_and_beyond_its_end() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let process_identity = ProcessIdentity::from_process(pid, None).unwrap();
        let mut senders = Senders { process_identity: Some(process_identity), ..Senders::default() };
        senders.seen.insert(pid, SeenSender { verdict: SenderVerdict::Foreign, at: Some(NOW) });
        assert_eq!(senders.judge_sender(pid, None, NOW + BELIEVED / 2), SenderVerdict::Foreign);
        assert_eq!(senders.judge_sender(pid, None, NOW + BELIEVED), SenderVerdict::Member);
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn what_was_seen_of_a_sender_that_has_ended_holds_in_the_process_that_takes_over() {
        let mut sender = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = i32::try_from(sender.id()).unwrap();
        let process_identity = ProcessIdentity::with_cgroups_of("self").unwrap();
        let mut before = Senders::default();
        before.set_container_processes(process_identity.clone());
        assert_eq!(before.judge_sender(pid, None, NOW), SenderVerdict::Member);
        sender.kill().unwrap();
        sender.wait().unwrap();
        let mut after: Senders = postcard::from_bytes(&postcard::to_allocvec(&before).unwrap()).unwrap();
        after.set_container_processes(process_identity.clone());
        assert_eq!(after.judge_sender(pid, None, Duration::ZERO), SenderVerdict::Member);
        let mut stranger = Senders::default();
        stranger.set_container_processes(process_identity);
        assert_eq!(
            stranger.judge_sender(pid, None, Duration::ZERO),
            SenderVerdict::Ended,
            "an ended process that was never seen alive"
        );
        after.set_container_processes(ProcessIdentity::default());
        assert!(after.seen.is_empty(), "what was seen says nothing about another container");
    }

    #[test]
    fn a_container_with_many_processes_costs_no_more_than_a_few() {
        let process_identity =
            ProcessIdentity::from_process(std::process::id().try_into().unwrap(), None).unwrap();
        let mut senders = Senders { process_identity: Some(process_identity), ..Senders::default() };
        for pid in 1..10_000 {
            senders.judge_sender(pid, None, NOW);
            assert!(senders.seen.len() <= REMEMBERED);
        }
        assert!(!senders.seen.is_empty());
    }
}
