//! Requests of a publisher: each worker has one under way, which is judged, and repeated until it is answered for good.
//!
//! While a worker goes on, the batch stays in hand, and other workers wait and repeat their requests beside it. As soon as none goes on,
//! windows are let go, and the workers hold one encoded request each.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::cut::HeldUp;
use super::progress::CutProgress;
use super::share::{PreparedRequest, ShareWait};
use super::{CutEnd, LEAST_ROOM, PublisherTask, Woken};
use crate::net::clock;
use crate::publish::answer::Answer;
use crate::publish::lease::Leases;
use crate::publish::parcel::Parcel;
use crate::publish::sinks::RoundStage;
use crate::publish::split::{Outcome, WaitReason};
use crate::publish::status::{PublisherState, describe_destination};
use crate::publish::tally::Fate;
use crate::render::publish::{Encoded, EncodedRequest};

/// The worker of requests that are not part of a batch.
const FIRST_WORKER: usize = 0;

/// A request that is answered.
#[derive(Debug)]
pub(super) struct AnsweredRequest {
    worker: usize,
    /// The number of its batch.
    batch: u64,
    request: PreparedRequest,
    answer: Answer,
}

impl PublisherTask {
    /// Sends what is left of a batch.
    ///
    /// # Errors
    /// When no worker goes on.
    pub(super) async fn send_batch(
        &mut self,
        parcels: &[Parcel<'_>],
        progress: &mut CutProgress,
    ) -> Result<(), HeldUp> {
        loop {
            self.encode_requests(parcels, progress);
            self.keep_dead(parcels, progress);
            if progress.is_batch_sent() {
                return Ok(());
            }
            self.begin_requests(progress);
            if progress.is_held_up(Instant::now()) {
                return Err(HeldUp);
            }
            self.take_next_answer(progress).await;
        }
    }

    /// Encodes the next requests of workers that have none.
    fn encode_requests(&self, parcels: &[Parcel<'_>], progress: &mut CutProgress) {
        progress.end_waits(Some(Instant::now()));
        for (worker, parcel) in parcels.iter().enumerate() {
            while let Some((stage, range)) = progress.next_to_encode(worker, self.request_rules()) {
                let framing = |metric_type| self.sink.body_framing(metric_type);
                let encoded = parcel.encode_range(range, self.room, framing, |round, records| match stage {
                    RoundStage::Zeros => Encoded {
                        requests: self.sink.encode_zeros(round, records, self.room),
                        left_out: Vec::new(),
                    },
                    RoundStage::Records | RoundStage::Suspects => {
                        self.sink.encode_round(round, records, self.room)
                    }
                });
                for left_out in &encoded.left_out {
                    let records = left_out.record..left_out.record.saturating_add(1);
                    progress.settle_records(worker, records, Fate::Dropped(left_out.why.as_str()));
                }
                progress.take_encoded(worker, encoded.requests, self.room.bytes);
            }
        }
    }

    /// Repeats requests until a worker needs its records again, or nothing is left of the batch. Holds requests alone.
    pub(super) async fn repeat_requests(&mut self, progress: &mut CutProgress) -> CutEnd {
        progress.keep_next_requests();
        loop {
            let now = Instant::now();
            progress.end_waits(Some(now));
            if progress.is_batch_sent() {
                return CutEnd::Finished;
            }
            // Nothing is begun any more: also where a worker only waited for another's `Retry-After`.
            let ends = self.is_told_to_end_at_once();
            if ends && self.under_way.is_empty() {
                progress.start_over();
                return CutEnd::Stopped;
            }
            if !ends && progress.needs_batch(now) {
                return CutEnd::Finished;
            }
            if let Some(ShareWait { until, reason, why }) = progress.next_wait() {
                self.note_wait(time_until(until), reason, &why);
                if self.under_way.is_empty() && progress.is_held_up(now) && !progress.may_repeat(now) {
                    self.wait_to_repeat(until, progress).await;
                    continue;
                }
            }
            if !ends {
                self.begin_requests(progress);
            }
            if !self.under_way.is_empty() {
                self.take_next_answer(progress).await;
            }
        }
    }

    /// Waits until a request may be repeated, while none is under way.
    async fn wait_to_repeat(&mut self, until: Instant, progress: &mut CutProgress) {
        if !progress.may_have_arrived() {
            // What the backend has not taken is sent by whichever process comes next.
            self.note_sending(self.passed_over_after(self.position.cursor));
        }
        if self.wait(time_until(until), None).await == Woken::Stopped {
            progress.end_waits(None);
        }
    }

    /// Begins the requests that can be sent now.
    fn begin_requests(&mut self, progress: &mut CutProgress) {
        let Some(heading) = progress.batch_heading() else { return };
        let begun = progress.begin_requests(Instant::now());
        if !begun.is_empty() {
            self.note_sending(Some(heading.sending));
        }
        for (worker, request, is_repeat) in begun {
            if !is_repeat {
                self.set_state(PublisherState::Sending);
            }
            self.begin_lease(worker);
            let sink = Arc::clone(&self.sink);
            self.under_way.spawn(async move {
                let EncodedRequest { body, content_type, .. } = &request.request;
                let answer = sink.send_body(body, content_type).await;
                AnsweredRequest { worker, batch: heading.number, request, answer }
            });
        }
    }

    /// Waits for the answers to requests whose records were all given up: a worker has one request under way.
    pub(super) async fn await_answers(&mut self, progress: &mut CutProgress) {
        while !self.under_way.is_empty() {
            progress.end_waits(Some(Instant::now()));
            self.take_next_answer(progress).await;
        }
    }

    /// Waits for an answer, and applies it; or until a worker may repeat its request.
    async fn take_next_answer(&mut self, progress: &mut CutProgress) {
        let wake = progress.next_wait().map(|wait| wait.until);
        let answered = tokio::select! {
            Some(answered) = self.under_way.join_next() => answered,
            () = sleep_until(wake) => return,
        };
        let AnsweredRequest { worker, batch, request, answer } = match answered {
            Ok(answered) => answered,
            Err(failed) => match failed.try_into_panic() {
                // As if it had been sent here: the thread ends, and is started again.
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => return,
            },
        };
        self.end_lease(worker);
        self.count_answer(&answer);
        if matches!(answer, Answer::Ok | Answer::Partly { .. }) {
            let said = answer.server_text().map(str::to_owned);
            self.status.update_with(|status| {
                status.last_delivery = Some(clock::wall_time());
                status.last_answer = said;
            });
        }
        let (size, moment) = (request.size, (self.jitter.next_number(), Instant::now()));
        for outcome in progress.take_answer((worker, batch), request, answer, moment) {
            match outcome {
                Outcome::Shrink => self.shrink_room(size),
                Outcome::Partly { refused, why, .. } => {
                    let name = &self.config.name;
                    tracing::warn!(publisher = name, records = refused, answer = why, "records were refused");
                }
                Outcome::Wait { reason, why, .. } => {
                    self.log_wait(reason, &why);
                    self.status.update_with(|status| status.last_answer = Some(why));
                }
                Outcome::Delivered(_) | Outcome::Dead { .. } => {}
            }
        }
    }

    /// Waits as long as the server has asked for, before a request that is not part of a batch.
    pub(super) async fn wait_for_server(&mut self) -> CutEnd {
        match self.hold.take() {
            Some(ShareWait { until, reason, why }) if until > Instant::now() => {
                self.repeat_later(time_until(until), reason, why).await
            }
            _ => CutEnd::Finished,
        }
    }

    /// Waits before a request is repeated that is not part of a batch.
    pub(super) async fn repeat_later(&mut self, wait: Duration, reason: WaitReason, why: String) -> CutEnd {
        self.log_wait(reason, &why);
        self.note_wait(wait, reason, &why);
        match self.wait(wait, None).await {
            Woken::Stopped if self.is_told_to_end_at_once() => CutEnd::Stopped,
            Woken::Ready | Woken::Stopped => CutEnd::Finished,
        }
    }

    fn note_wait(&self, wait: Duration, reason: WaitReason, why: &str) {
        let next = clock::wall_time().saturating_add(wait);
        self.status.update_with(|status| {
            (status.state, status.next_attempt) = (PublisherState::Waiting(reason), Some(next));
            status.last_answer = Some(why.to_owned());
        });
    }

    fn log_wait(&self, reason: WaitReason, why: &str) {
        if !self.is_wait_logged(reason) {
            return;
        }
        let (name, reason) = (&self.config.name, reason.as_str());
        let destination = describe_destination(&self.config.sink);
        tracing::warn!(publisher = name, destination, reason, answer = why, "not delivered; trying again");
    }

    /// Whether a wait for this reason is worth a line of the log: a server that is busy for a moment is not, nor the same reason
    /// again.
    fn is_wait_logged(&self, reason: WaitReason) -> bool {
        let values = self.status.values();
        match reason {
            WaitReason::Failing => values.requests.get("retry").is_some_and(|n| *n % 10 == 1),
            WaitReason::Auth | WaitReason::Gone | WaitReason::Refusing => {
                values.state != PublisherState::Waiting(reason)
            }
        }
    }

    /// Sends a request that is not part of a batch, and counts its answer.
    pub(super) async fn send_request(&mut self, request: &EncodedRequest) -> Answer {
        self.set_state(PublisherState::Sending);
        self.begin_lease(FIRST_WORKER);
        let answer = self.sink.send_body(&request.body, request.content_type).await;
        self.end_lease(FIRST_WORKER);
        self.count_answer(&answer);
        answer
    }

    fn count_answer(&self, answer: &Answer) {
        let class = answer.class_name();
        self.status.update_with(|status| *status.requests.entry(class).or_default() += 1);
    }

    fn begin_lease(&self, worker: usize) {
        let now = self.shared.began.elapsed();
        self.lock_leases().begin_request(&self.config.name, worker, now);
    }

    fn end_lease(&self, worker: usize) {
        self.lock_leases().end_request(&self.config.name, worker);
    }

    /// Notes that no request is under way.
    pub(super) fn end_leases(&self) {
        self.lock_leases().end_requests(&self.config.name);
    }

    fn lock_leases(&self) -> std::sync::MutexGuard<'_, Leases> {
        self.shared.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes requests smaller than one of this size, which was too large, however much more it might have held. Several workers may
    /// have sent one.
    pub(super) fn shrink_room(&mut self, sent: usize) {
        self.room.bytes = self.room.bytes.min(sent / 2).max(LEAST_ROOM);
    }
}

fn time_until(moment: Instant) -> Duration {
    moment.saturating_duration_since(Instant::now())
}

/// Waits until a time, or for ever.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}
