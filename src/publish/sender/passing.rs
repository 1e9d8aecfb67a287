//! What a publisher does not send, because the receiver may have it from before a restart.

use super::PublisherTask;
use super::cut::Cut;
use crate::model::Timestamp;
use crate::publish::cursor_file::{Position, SendingRound};
use crate::store::{Cursor, Published};
use crate::window_log::was_open_at_kill;

/// What a receiver may have of windows that are not done with.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct SentBefore {
    /// Nothing after this place, except windows that were open when the agent was killed.
    pub(super) to: Cursor,
    /// Only windows whose intervals start before this.
    through: Timestamp,
}

impl SentBefore {
    /// Whether there may be such windows after a cursor.
    pub(super) fn goes_on_after(self, cursor: Cursor, epoch: u64) -> bool {
        cursor < self.to || cursor.epoch < epoch
    }
}

impl PublisherTask {
    /// Passes over what the receiver may have, where the totals that it was sent with are not known: with totals that begin anew it
    /// would be refused or count twice.
    pub(super) fn pass_over_sent(&mut self) {
        if !self.adds_up() {
            self.position.sending = None;
            return;
        }
        let Position { cursor, through, sending, .. } = self.position;
        let through = through.max(sending.map(|sending| sending.end));
        let to = sending.map_or(cursor, |sending| sending.to);
        self.sent_before = through.map(|through| SentBefore { to, through });
        let sending = self.passed_over_after(cursor);
        if (through, sending) != (self.position.through, self.position.sending) {
            (self.position.through, self.position.sending) = (through, sending);
            self.place.note_position(self.position);
        }
    }

    /// Whether a window is passed over. One that was open when the agent was killed has only its beginning: if its interval was
    /// sent, the whole was sent from memory.
    pub(super) fn is_sent_before(&self, published: &Published) -> bool {
        let Some(SentBefore { to, through }) = self.sent_before else { return false };
        let birth = published.birth_in(self.follower.epoch());
        let may_be_sent = birth <= to || was_open_at_kill(birth);
        may_be_sent && self.rules().interval_start(published.window().span) < through
    }

    /// Notes in the file which round is being sent, before the receiver can have it.
    pub(super) fn note_sending(&mut self, sending: Option<SendingRound>) {
        if self.adds_up() && self.position.sending != sending {
            self.position.sending = sending;
            self.place.note_position(self.position);
        }
    }

    /// A round of a cut, as it is noted.
    pub(super) fn sending_round(&self, end: Timestamp, cut: &Cut) -> SendingRound {
        // What was sent before stays noted until it is done with.
        let to = self.sent_before.map_or(cut.to, |before| before.to.max(cut.to));
        SendingRound { end, to }
    }

    /// What is passed over after a cursor, as it is noted.
    pub(super) fn passed_over_after(&self, cursor: Cursor) -> Option<SendingRound> {
        let before = self.sent_before.filter(|before| cursor < before.to)?;
        Some(SendingRound { end: before.through, to: before.to })
    }
}
