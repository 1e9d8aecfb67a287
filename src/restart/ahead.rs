//! The part of a hand-over before the pause, while datagrams are still read: sends closed windows and snapshots of
//! aggregators, so that only later changes are left for the pause.
//!
//! The pause begins when no window is about to close. Closing a window changes every aggregator and the ledgers of all
//! containers: sending those changes in the pause would take longer than everything else.

use std::io;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::conversation::{AheadMessage, HAVE, PATIENCE, expect_word};
use super::holding::Holding;
use crate::aggregate::{checksum_of, encode};
use crate::model::Allocation;
use crate::net::clock;
use crate::net::passing::Channel;
use crate::shard::{SentAhead, ShardGone};
use crate::store;

/// Closed windows are sent in rounds, each with the new ones, until a round takes less than this: hardly any can have
/// been closed during it.
const LAST_ROUND_WITHIN: Duration = Duration::from_millis(20);
/// Maximum number of rounds, in case windows are closed as fast as they are sent.
const MAX_ROUNDS: usize = 8;
/// Approximate size of a message with windows, in bytes: both processes hold it in addition to their data.
const WINDOWS_BYTES: usize = 4 << 20;
/// The same for snapshots. They take longer to restore, and the other process has to reply in time.
const SNAPSHOTS_BYTES: usize = 512 << 10;

/// How long no window may be due when snapshots are sent for the first time. Later rounds use the measured time.
const QUIET_BEFORE_SNAPSHOTS: Duration = Duration::from_millis(500);
/// How long no window may be due when the pause begins: longer than most pauses take.
const QUIET_BEFORE_PAUSE: Duration = Duration::from_millis(200);
/// How often everything is sent because a window was closed meanwhile. A node that cannot send everything between two
/// windows starts the pause anyway.
const MAX_ATTEMPTS: usize = 3;
/// How long overdue windows may take to be closed before the pause begins anyway.
const CLOSING_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest time the old process sends nothing while it waits or collects snapshots.
const MAX_SILENCE: Duration = Duration::from_secs(1);
/// The shortest wait before the next check.
const MIN_WAIT: Duration = Duration::from_millis(5);

/// What has been sent to the other process.
#[derive(Debug, Default)]
pub(super) struct SentWindows {
    pub(super) windows: store::SentStore,
    pub(super) open: SentAhead,
}

/// The old process's side of the conversation before the pause.
pub(super) struct Sender<'a> {
    pub(super) channel: &'a Channel,
    pub(super) holding: &'a Holding,
    pub(super) handle: &'a Handle,
}

impl Sender<'_> {
    /// Sends everything, and returns when the pause may begin. A signal to end cancels the hand-over during the first
    /// round of windows; after that, the pause begins at once.
    ///
    /// # Errors
    /// When the other process does not reply as expected or in time, and when a shard has ended.
    pub(super) fn send(&self) -> io::Result<SentWindows> {
        let mut sent = SentWindows::default();
        self.send_windows(&mut sent.windows, true)?;
        let mut takes = QUIET_BEFORE_SNAPSHOTS;
        for _ in 0..MAX_ATTEMPTS {
            self.wait_until_quiet_for(takes, &mut sent.windows)?;
            let began = clock::since_boot();
            if self.holding.is_told_to_end() {
                break;
            }
            self.send_windows(&mut sent.windows, false)?;
            self.send_snapshots(&mut sent.open)?;
            if self.quiet_for()? >= QUIET_BEFORE_PAUSE {
                break;
            }
            takes = clock::since_boot().saturating_sub(began) + QUIET_BEFORE_PAUSE;
        }
        Ok(sent)
    }

    /// Sends closed windows. A signal to end fails this in the first round, if this is the `first` time; later, it
    /// leaves the rest for the pause.
    fn send_windows(&self, sent: &mut store::SentStore, first: bool) -> io::Result<()> {
        for round in 0..MAX_ROUNDS {
            let began = clock::since_boot();
            loop {
                let part = self.holding.movable_parts().store.next_part(sent, WINDOWS_BYTES);
                self.send_message(&AheadMessage::Windows(part.bytes.into()))?;
                if part.is_complete {
                    break;
                }
                if self.holding.is_told_to_end() {
                    let given_up = first && round == 0;
                    return if given_up {
                        Err(io::Error::other("the agent is shutting down"))
                    } else {
                        Ok(())
                    };
                }
            }
            if clock::since_boot().saturating_sub(began) < LAST_ROUND_WITHIN || self.holding.is_told_to_end()
            {
                break;
            }
        }
        Ok(())
    }

    /// Sends a snapshot of every aggregator. All shards take part, each in small steps. A signal to end stops this;
    /// aggregators not sent by then are sent whole in the pause.
    fn send_snapshots(&self, sent: &mut SentAhead) -> io::Result<()> {
        let (mut places, mut unsent) =
            (vec![Some(0); self.holding.movable_parts().pool.len()], Unsent::default());
        let mut told = clock::since_boot();
        while places.iter().any(Option::is_some) {
            if self.holding.is_told_to_end() {
                return Ok(());
            }
            let asked: Vec<_> = (0..)
                .zip(&places)
                .filter_map(|(shard, from)| {
                    Some((shard, self.holding.movable_parts().pool.snapshot_ahead(shard, (*from)?)))
                })
                .collect();
            for (shard, answer) in asked {
                let ahead = self.handle.block_on(answer).map_err(io::Error::other)?;
                if let Some(place) = places.get_mut(shard) {
                    *place = ahead.next;
                }
                unsent.add(ahead.snapshots);
            }
            if unsent.bytes >= SNAPSHOTS_BYTES || clock::since_boot().saturating_sub(told) >= MAX_SILENCE {
                told = clock::since_boot();
                unsent.send(sent, |message| self.send_message(message))?;
            }
        }
        unsent.send(sent, |message| self.send_message(message))
    }

    fn send_message(&self, message: &AheadMessage) -> io::Result<()> {
        self.channel.send_all(&encode(message), &[])?;
        expect_word(self.channel, HAVE, PATIENCE)
    }

    /// Waits until no window is due within `needed`, at most [`CLOSING_TIMEOUT`] longer than that.
    fn wait_until_quiet_for(&self, needed: Duration, sent: &mut store::SentStore) -> io::Result<()> {
        // Consecutive windows leave little more time than this.
        let needed = needed.min(self.holding.current_config().aggregation.window.mul_f64(0.9));
        let began = clock::since_boot();
        let mut told = began;
        while !self.holding.is_told_to_end() {
            if clock::since_boot().saturating_sub(told) >= MAX_SILENCE {
                self.send_windows(sent, false)?;
                told = clock::since_boot();
            }
            let waited = clock::since_boot().saturating_sub(began);
            match wait_time(self.quiet_for()?, needed, waited) {
                Some(time) => thread::sleep(time),
                None => break,
            }
        }
        Ok(())
    }

    fn quiet_for(&self) -> io::Result<Duration> {
        self.handle
            .block_on(self.holding.movable_parts().pool.quiet_for())
            .map_err(|gone: ShardGone| io::Error::other(gone))
    }
}

/// Snapshots that were written and not sent yet.
#[derive(Default)]
struct Unsent {
    snapshots: Vec<(Allocation, Bytes)>,
    bytes: usize,
}

impl Unsent {
    fn add(&mut self, snapshots: Vec<(Allocation, Vec<u8>)>) {
        self.bytes += snapshots.iter().map(|(_, snapshot)| snapshot.len()).sum::<usize>();
        self.snapshots
            .extend(snapshots.into_iter().map(|(allocation, snapshot)| (allocation, snapshot.into())));
    }

    /// Sends them, if there are any. They count as sent once the other process has confirmed them: changes to a
    /// snapshot that it lacks would fail the hand-over.
    fn send(
        &mut self,
        sent: &mut SentAhead,
        tell: impl FnOnce(&AheadMessage) -> io::Result<()>,
    ) -> io::Result<()> {
        let Self { snapshots, .. } = std::mem::take(self);
        if snapshots.is_empty() {
            return Ok(());
        }
        let checksum =
            |(allocation, snapshot): &(Allocation, Bytes)| Some((*allocation, checksum_of(snapshot)?));
        let checksums: Vec<_> = snapshots.iter().filter_map(checksum).collect();
        tell(&AheadMessage::Open(snapshots))?;
        sent.extend(checksums);
        Ok(())
    }
}

/// How long to sleep before checking again when the next window ends. It ends in `quiet`; `needed` is the time required
/// before that, and `waited` the time waited so far. `None` when it is time to continue.
fn wait_time(quiet: Duration, needed: Duration, waited: Duration) -> Option<Duration> {
    let goes_on = quiet < needed && waited < needed + CLOSING_TIMEOUT;
    goes_on.then(|| quiet.clamp(MIN_WAIT, 10 * MIN_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_snapshot_counts_as_sent_once_the_other_process_has_it() {
        let (mut unsent, mut sent) = (Unsent::default(), SentAhead::default());
        unsent.add(vec![(Allocation(1), vec![1; 16]), (Allocation(2), vec![2; 16])]);
        assert_eq!((unsent.bytes, sent.len()), (32, 0), "a signal to end may come before it is sent");
        unsent.send(&mut sent, |_| Err(io::Error::other("the other process has ended"))).unwrap_err();
        assert!(sent.is_empty());
        unsent.add(vec![(Allocation(1), vec![1; 16])]);
        let has = |message: &AheadMessage| {
            assert!(matches!(message, AheadMessage::Open(all) if all.len() == 1));
            Ok(())
        };
        unsent.send(&mut sent, has).unwrap();
        assert_eq!(sent.get(&Allocation(1)), Some(&u64::from_le_bytes([1; 8])));
        assert_eq!((sent.len(), unsent.bytes), (1, 0));
    }

    #[test]
    fn a_window_that_is_due_is_waited_for_and_not_for_longer_than_closing_may_take() {
        let ms = Duration::from_millis;
        assert_eq!(wait_time(ms(9000), ms(500), ms(0)), None, "there is time");
        assert_eq!(wait_time(ms(30), ms(500), ms(0)), Some(ms(30)));
        assert_eq!(
            wait_time(ms(400), ms(500), ms(0)),
            Some(ms(50)),
            "a signal to end is looked for meanwhile"
        );
        assert_eq!(wait_time(ms(0), ms(500), ms(900)), Some(MIN_WAIT), "windows are being closed");
        assert_eq!(wait_time(ms(0), ms(500), ms(2500)), None, "for too long");
    }
}
