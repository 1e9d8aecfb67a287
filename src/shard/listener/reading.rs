//! Reading a container's sockets, in bounded turns.

use std::time::Duration;

use super::ContainerListener;
use crate::aggregate::Dropped;
use crate::model::Moment;
use crate::net::listener::{self, Inbox, ReadOutcome};
use crate::shard::inlet::Inlet;
use crate::shard::turn::Drained;

/// Datagrams that one container may have read before the next has its turn.
const TURN: usize = 256;
/// A turn ends after this time, whatever is in the datagrams: at most with those that were taken together.
pub(super) const LONGEST_TURN: Duration = Duration::from_millis(2);
/// Less than a datagram takes of a socket's buffer, however small it is.
const SMALLEST_CHARGE: usize = 512;

impl ContainerListener {
    /// Reads what is there in the UDP socket, up to one turn.
    ///
    /// Where one datagram was all the last time, the next is taken without asking for another, which costs as much as
    /// taking one. If there is another, the socket stays ready, and the time after that it is asked again.
    pub(in crate::shard) fn receive_udp(
        &mut self,
        inbox: &mut Inbox,
        now: Moment,
        mono: impl Fn() -> Duration,
    ) -> (Drained, ReadOutcome) {
        let turn = if self.lone { 1 } else { TURN };
        let before = self.aggregator.accounting().received;
        let (charge, emptied) = self.read(inbox, turn, now, mono);
        let datagrams = self.aggregator.accounting().received - before;
        self.lone = turn > 1 && datagrams == 1;
        let fullest = charge as f64 / (2 * self.receive_buffer) as f64;
        (Drained { datagrams, fullest, more: emptied == ReadOutcome::Partly && turn > 1 }, emptied)
    }

    /// Reads what is there in the Unix socket, up to one turn.
    pub(in crate::shard) fn receive_unix(
        &mut self,
        inbox: &mut Inbox,
        now: Moment,
        mono: impl Fn() -> Duration,
    ) -> (Drained, ReadOutcome) {
        let (taken, emptied) = self.read_unix(inbox, TURN, now, mono);
        let queue = self.unix.as_ref().map_or(1, Inlet::queue_capacity);
        let fullest = taken as f64 / queue as f64;
        (Drained { datagrams: taken as u64, fullest, more: emptied == ReadOutcome::Partly }, emptied)
    }

    /// Datagrams that may wait in its sockets now, or a few more.
    pub(in crate::shard) fn may_wait(&self) -> usize {
        let udp = self.socket.as_ref().map_or(0, |_| 2 * self.receive_buffer / SMALLEST_CHARGE + 1);
        udp + self.unix.as_ref().map_or(0, Inlet::queue_capacity)
    }

    /// Reads a turn of what is there in each socket, and takes it from `left`. Answers whether more may be there, and is wanted.
    pub(in crate::shard) fn empty_some(&mut self, inbox: &mut Inbox, left: &mut usize, now: Moment) -> bool {
        let standing_still = || Duration::ZERO;
        let before = self.aggregator.accounting().received;
        let (_charge, udp) = self.read(inbox, TURN.min(*left), now, standing_still);
        let read = self.aggregator.accounting().received - before;
        let (taken, unix) = self.read_unix(inbox, TURN.min(*left), now, standing_still);
        let taken = taken.saturating_add(usize::try_from(read).unwrap_or(usize::MAX));
        *left = left.saturating_sub(taken);
        *left > 0 && taken > 0 && [udp, unix].contains(&ReadOutcome::Partly)
    }

    /// Reads the UDP socket. Answers how much of its buffer that freed, and how it ended.
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

    /// Reads the Unix socket. Answers how many datagrams it took, and how it ended.
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
            listener.aggregator.turn_away(Dropped::ForeignSender, refused.foreign, now.wall);
            listener.aggregator.turn_away(Dropped::EndedSender, refused.ended, now.wall);
            Some((
                inbox.taken_count().saturating_add(usize::try_from(strangers).unwrap_or(usize::MAX)),
                emptied,
            ))
        })
    }

    /// Reads a socket until it is empty, or the budget of datagrams or the time of a turn is used up. `take` takes some into the inbox
    /// and answers how many that were and how it ended; nothing where there is no such socket. Answers how many there were in all.
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

    /// Hands on what was taken.
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
