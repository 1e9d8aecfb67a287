//! Reading a container's sockets, in bounded turns.

use std::time::Duration;

use super::ContainerListener;
use crate::aggregate::Dropped;
use crate::model::Moment;
use crate::net::listener::{self, Inbox, ReadOutcome};
use crate::shard::inlet::Inlet;
use crate::shard::turn::Drained;

/// Maximum number of datagrams read from one container before the next one's turn.
const DATAGRAMS_PER_TURN: usize = 256;
/// A turn ends after this time, whatever the datagrams contain, once the batch at hand is processed.
pub(super) const LONGEST_TURN: Duration = Duration::from_millis(2);
/// A lower bound on what any datagram occupies in a socket's buffer, in bytes.
const SMALLEST_CHARGE: usize = 512;

impl ContainerListener {
    /// Reads the UDP socket, for at most one turn.
    ///
    /// If the last read found a single datagram, this one takes one without checking for more, because the check costs
    /// as much as taking one. If there are more, the socket stays ready and the next read checks again.
    pub(in crate::shard) fn receive_udp(
        &mut self,
        inbox: &mut Inbox,
        now: Moment,
        mono: impl Fn() -> Duration,
    ) -> (Drained, ReadOutcome) {
        let turn = if self.lone { 1 } else { DATAGRAMS_PER_TURN };
        let before = self.aggregator.accounting().received;
        let (charge, emptied) = self.read(inbox, turn, now, mono);
        let datagrams = self.aggregator.accounting().received - before;
        self.lone = turn > 1 && datagrams == 1;
        let fullest = charge as f64 / (2 * self.receive_buffer) as f64;
        (Drained { datagrams, fullest, more: emptied == ReadOutcome::Partly && turn > 1 }, emptied)
    }

    /// Reads the Unix socket, for at most one turn.
    pub(in crate::shard) fn receive_unix(
        &mut self,
        inbox: &mut Inbox,
        now: Moment,
        mono: impl Fn() -> Duration,
    ) -> (Drained, ReadOutcome) {
        let (taken, emptied) = self.read_unix(inbox, DATAGRAMS_PER_TURN, now, mono);
        let queue = self.unix.as_ref().map_or(1, Inlet::queue_capacity);
        let fullest = taken as f64 / queue as f64;
        (Drained { datagrams: taken as u64, fullest, more: emptied == ReadOutcome::Partly }, emptied)
    }

    /// An upper bound on the datagrams that wait in its sockets.
    pub(in crate::shard) fn may_wait(&self) -> usize {
        let udp = self.socket.as_ref().map_or(0, |_| 2 * self.receive_buffer / SMALLEST_CHARGE + 1);
        udp + self.unix.as_ref().map_or(0, Inlet::queue_capacity)
    }

    /// Reads one turn from each socket and subtracts the datagrams from `left`. Returns whether `left` allows more and
    /// more may be waiting.
    pub(in crate::shard) fn empty_some(&mut self, inbox: &mut Inbox, left: &mut usize, now: Moment) -> bool {
        let standing_still = || Duration::ZERO;
        let before = self.aggregator.accounting().received;
        let (_charge, udp) = self.read(inbox, DATAGRAMS_PER_TURN.min(*left), now, standing_still);
        let read = self.aggregator.accounting().received - before;
        let (taken, unix) = self.read_unix(inbox, DATAGRAMS_PER_TURN.min(*left), now, standing_still);
        let taken = taken.saturating_add(usize::try_from(read).unwrap_or(usize::MAX));
        *left = left.saturating_sub(taken);
        *left > 0 && taken > 0 && [udp, unix].contains(&ReadOutcome::Partly)
    }

    /// Reads the UDP socket. Returns the freed bytes of its buffer, and whether it was emptied.
    fn read(
        &mut self,
        inbox: &mut Inbox,
        budget: usize,
        now: Moment,
        mono: impl Fn() -> Duration,
    ) -> (usize, ReadOutcome) {
        let mut charge = 0;
        let (_, emptied) = self.read_by(inbox, budget, now, mono, |listener, inbox, most| {
            let emptied = inbox.take_from_socket(listener.socket.as_ref()?, most);
            charge +=
                inbox.datagrams().map(|datagram| listener::buffer_charge(datagram.len())).sum::<usize>();
            Some((inbox.taken_count(), emptied))
        });
        (charge, emptied)
    }

    /// Reads the Unix socket. Returns the number of datagrams taken, and whether it was emptied.
    fn read_unix(
        &mut self,
        inbox: &mut Inbox,
        budget: usize,
        now: Moment,
        mono: impl Fn() -> Duration,
    ) -> (usize, ReadOutcome) {
        self.read_by(inbox, budget, now, mono, |listener, inbox, most| {
            let (emptied, refused) = listener.unix.as_mut()?.receive_into(inbox, most, now.mono);
            let strangers = refused.foreign.saturating_add(refused.ended);
            listener.aggregator.count_discarded(Dropped::ForeignSender, refused.foreign, now.wall);
            listener.aggregator.count_discarded(Dropped::EndedSender, refused.ended, now.wall);
            Some((
                inbox.taken_count().saturating_add(usize::try_from(strangers).unwrap_or(usize::MAX)),
                emptied,
            ))
        })
    }

    /// Reads a socket until it is empty or the datagram budget or the turn's time is used up. `take` fills the inbox
    /// and returns the number of datagrams and the outcome; `None` without such a socket. Returns the total and the
    /// outcome.
    #[inline]
    fn read_by(
        &mut self,
        inbox: &mut Inbox,
        budget: usize,
        now: Moment,
        mono: impl Fn() -> Duration,
        mut take: impl FnMut(&mut Self, &mut Inbox, usize) -> Option<(usize, ReadOutcome)>,
    ) -> (usize, ReadOutcome) {
        let mut taken: usize = 0;
        while taken < budget {
            let Some((some, emptied)) = take(self, inbox, budget - taken) else {
                return (taken, ReadOutcome::Fully);
            };
            taken = taken.saturating_add(some);
            self.process_inbox(inbox, now);
            if emptied != ReadOutcome::Partly {
                return (taken, emptied);
            }
            // A few long datagrams hold as many lines as many short ones.
            if taken < budget && mono().saturating_sub(now.mono) >= LONGEST_TURN {
                break;
            }
        }
        (taken, ReadOutcome::Partly)
    }

    /// Passes the received datagrams to the aggregator.
    #[inline]
    fn process_inbox(&mut self, inbox: &Inbox, now: Moment) {
        self.aggregator.count_truncated(inbox.truncated_count(), now.wall);
        let (aggregator, taps) = (&mut self.aggregator, &mut self.taps);
        if taps.is_empty() {
            aggregator.ingest_datagrams(inbox.datagrams(), now, None);
        } else {
            let mut tap = |line: &[u8], rejected| taps.retain_mut(|tap| tap.send(now.wall, line, rejected));
            aggregator.ingest_datagrams(inbox.datagrams(), now, Some(&mut tap));
        }
    }
}
