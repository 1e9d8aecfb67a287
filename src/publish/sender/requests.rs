//! Requests of a publisher: sent, judged, and repeated until they are answered for good.

use std::sync::PoisonError;
use std::time::Duration;

use super::cut::{self, CutProgress, StuckRequest};
use super::{CutEnd, LEAST_ROOM, PublisherTask, Woken};
use crate::net::clock;
use crate::publish::answer::Answer;
use crate::publish::lease::Leases;
use crate::publish::split::{Outcome, WaitReason};
use crate::publish::status::{PublisherState, describe_destination};
use crate::render::publish::EncodedRequest;

impl PublisherTask {
    /// Repeats a request until it is answered for good. Holds the request alone.
    pub(super) async fn repeat_request(&mut self, stuck: StuckRequest, progress: &mut CutProgress) -> CutEnd {
        let StuckRequest { request, mut wait, mut reason, mut why } = stuck;
        let sending = self.position.sending;
        loop {
            if !progress.may_have_arrived() {
                self.note_sending(self.passed_over_after(self.position.cursor));
            }
            self.note_wait(wait, reason, &why);
            if self.wait(wait, None).await == Woken::Stopped && self.is_told_to_end_at_once() {
                return CutEnd::Stopped;
            }
            let Some(request) = &request else { return CutEnd::Finished };
            self.note_sending(sending);
            let answer = self.send_request(request).await;
            let Some(Outcome::Wait { wait: next, reason: because, why: said }) =
                self.apply_answer(answer, cut::measure_request(request), progress)
            else {
                return CutEnd::Finished;
            };
            (wait, reason, why) = (next, because, said);
            if progress.next_range().as_ref() != Some(&request.records) {
                // A search was given up, and everything is sent as one again.
                return self.repeat_later(wait, reason, why).await;
            }
        }
    }

    /// Waits before the cut goes on with another request.
    pub(super) async fn repeat_later(&mut self, wait: Duration, reason: WaitReason, why: String) -> CutEnd {
        self.note_wait(wait, reason, &why);
        match self.wait(wait, None).await {
            Woken::Stopped if self.is_told_to_end_at_once() => CutEnd::Stopped,
            Woken::Ready | Woken::Stopped => CutEnd::Finished,
        }
    }

    pub(super) fn note_wait(&self, wait: Duration, reason: WaitReason, why: &str) {
        let next = clock::wall_time().saturating_add(wait);
        let is_new = self.status.update_with(|status| {
            let is_new = status.state != PublisherState::Waiting(reason);
            (status.state, status.next_attempt) = (PublisherState::Waiting(reason), Some(next));
            status.last_answer = Some(why.to_owned());
            is_new
        });
        if is_new && self.is_wait_logged(reason) {
            let (name, reason) = (&self.config.name, reason.as_str());
            let destination = describe_destination(&self.config.sink);
            tracing::warn!(
                publisher = name,
                destination,
                reason,
                answer = why,
                "not delivered; trying again"
            );
        }
    }

    /// Whether a wait for this reason is worth a line of the log: a server that is busy for a moment is not.
    pub(super) fn is_wait_logged(&self, reason: WaitReason) -> bool {
        reason != WaitReason::Failing
            || self.status.values().requests.get("retry").is_some_and(|n| *n % 10 == 1)
    }

    /// Sends a request, and counts its answer.
    pub(super) async fn send_request(&mut self, request: &EncodedRequest) -> Answer {
        self.set_state(PublisherState::Sending);
        let now = self.shared.began.elapsed();
        self.lock_leases().begin_request(&self.config.name, now);
        let answer = self.sink.send_body(&request.body, request.content_type).await;
        self.end_lease();
        let class = answer.class_name();
        self.status.update_with(|status| *status.requests.entry(class).or_default() += 1);
        answer
    }

    pub(super) fn lock_leases(&self) -> std::sync::MutexGuard<'_, Leases> {
        self.shared.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn end_lease(&self) {
        self.lock_leases().end_request(&self.config.name);
    }

    /// Applies an answer to what is under way. Returns the wait that it leads to.
    pub(super) fn apply_answer(
        &mut self,
        answer: Answer,
        sent: usize,
        progress: &mut CutProgress,
    ) -> Option<Outcome> {
        if matches!(answer, Answer::Ok | Answer::Partly { .. }) {
            let said = answer.server_text().map(str::to_owned);
            self.status.update_with(|status| {
                status.last_delivery = Some(clock::wall_time());
                status.last_answer = said;
            });
        }
        let mut waits = None;
        for outcome in progress.take_answer(answer, self.jitter.next_number()) {
            match outcome {
                Outcome::Shrink => self.shrink_room(sent),
                Outcome::Partly { refused, why, .. } => {
                    let name = &self.config.name;
                    tracing::warn!(publisher = name, records = refused, answer = why, "records were refused");
                }
                wait => waits = Some(wait),
            }
        }
        waits
    }

    /// Makes requests smaller. What was sent was too large, however much more a request might have held.
    pub(super) fn shrink_room(&mut self, sent: usize) {
        self.room.bytes = (self.room.bytes.min(sent) / 2).max(LEAST_ROOM);
    }
}
