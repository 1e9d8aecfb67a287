//! Ends the series of containers that are gone, so that queries no longer return their last values.
//!
//! Markers are no records: they are counted nowhere, and one that is refused is no dead letter.

use super::{CutEnd, PublisherTask};
use crate::net::clock;
use crate::publish::answer::Answer;
use crate::publish::split::{Delivery, Outcome};
use crate::publish::totals::EndedIdentity;
use crate::render::publish::{ENDED_AFTER, EndedRound, EndedSeries};

/// How long markers are tried for: after that, receivers take a series that has no samples for ended.
const PATIENCE: std::time::Duration = std::time::Duration::from_mins(5);
/// Failures of the server, which a marker may be the cause of, before markers are given up.
const MOST_FAILURES: u32 = 3;

impl PublisherTask {
    /// Forgets the series of identities that are no longer served and of which everything is sent, and marks their end.
    pub(super) async fn end_series(&mut self) -> CutEnd {
        let Some(end) = self.position.through.filter(|_| self.adds_up() && !self.totals.is_empty()) else {
            return CutEnd::Finished;
        };
        let level = self.sink.identity_level();
        let live = self.follower.read_live_identities(level);
        // Where it is not known which are live, only those beyond the limit end.
        let is_live = |identity: &_| live.as_ref().is_none_or(|live| live.contains(identity));
        let ended = self.totals.take_ended(is_live);
        if ended.is_empty() || !self.sink.marks_series() {
            return CutEnd::Finished;
        }
        let (node, marks) = (self.shared.node.clone(), self.follower.read_marks(level));
        let series = ended.iter().flat_map(|EndedIdentity { identity, origin, series }| {
            series.iter().map(move |series| EndedSeries { origin, identity, series })
        });
        let series = series.collect();
        let at = end.saturating_add(ENDED_AFTER);
        let mut round = EndedRound { node: &node, at, level, marks: &marks, series };
        round.sort_series();
        self.send_markers(&round).await
    }

    async fn send_markers(&mut self, ended: &EndedRound<'_>) -> CutEnd {
        let until = clock::wall_time().saturating_add(PATIENCE);
        let mut delivery = Delivery::new(ended.series.len(), self.room.records, true);
        let mut failures = 0;
        while let Some(range) = delivery.next_range() {
            let requests = self.sink.encode_ended(ended, range, self.room);
            // A search that ends here has nothing to wait for.
            let _no_wait = delivery.replace_next(requests.iter().map(|request| request.records.clone()));
            for request in requests {
                if delivery.next_range().as_ref() != Some(&request.records) {
                    break;
                }
                if self.wait_for_server().await == CutEnd::Stopped {
                    return CutEnd::Stopped;
                }
                let answer = self.send_request(&request).await;
                failures += u32::from(matches!(answer, Answer::Retry { of_content: true, .. }));
                for outcome in delivery.take_answer(answer, self.jitter.next_number()) {
                    let Outcome::Wait { wait, reason, why } = outcome else {
                        if outcome == Outcome::Shrink {
                            self.shrink_room(self.room.bytes);
                        }
                        continue;
                    };
                    if failures >= MOST_FAILURES || clock::wall_time() >= until {
                        return CutEnd::Finished;
                    }
                    if self.repeat_later(wait, reason, why).await == CutEnd::Stopped {
                        return CutEnd::Stopped;
                    }
                }
            }
        }
        CutEnd::Finished
    }
}
