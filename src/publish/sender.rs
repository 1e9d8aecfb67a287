//! The task of one publisher: it waits for the next round, sends it, repeats what fails, and goes on.
//!
//! While a backend takes what it is sent, the windows of a cut stay in hand until the cut is sent. As soon as it has to be
//! waited for, they are dropped: the task then holds the encoded request and its cursor alone, and reads the rest of the cut
//! again afterwards.

mod cut;
mod ended;
mod replay;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use self::cut::{Cut, CutProgress, StuckRequest};
use super::answer::Answer;
use super::backoff::Jitter;
use super::cursor_file::{CursorFile, Position};
use super::dead_letters::DeadLetters;
use super::follow::WindowFollower;
use super::lease::Leases;
use super::round::{RecordReading, RoundRules, RoundScope};
use super::selection::SeriesSelection;
use super::sinks::{Destination, SeriesForm};
use super::split::{Outcome, WaitReason};
use super::status::{PublisherState, PublisherStatus};
use super::tally::{EXPIRED, TOO_OLD};
use super::totals::RunningTotals;
use crate::config::{PublisherConfig, StartAt};
use crate::model::Timestamp;
use crate::net::clock;
use crate::render::publish::{EncodedRequest, RequestRoom};
use crate::store::Cursor;
use crate::wire::{PublisherCheckDocument, ReplayedDocument};

/// The fewest bytes that a request is made smaller to.
const LEAST_ROOM: usize = 1024;
/// Cuts in a row of which nothing was accepted, before a backend is taken to refuse everything.
const MOST_UNACCEPTED: u32 = 3;
/// Records after which a cut ends with its interval.
const CUT_RECORDS: usize = 50_000;
/// The most series whose totals are remembered.
const MOST_TOTALS: usize = 200_000;
/// How often a failed write of the cursor is logged.
const QUIET: Duration = Duration::from_mins(1);
/// The longest sleep: after it the clock is looked at again, which may have been set.
const LONGEST_SLEEP: Duration = Duration::from_secs(10);

/// What a publisher is asked for.
#[derive(Debug)]
pub(super) enum PublisherCall {
    /// To send one record and say what the backend answers.
    Check(oneshot::Sender<PublisherCheckDocument>),
    /// To send kept windows that end after this time again, or dead letters.
    Replay(Option<Timestamp>, oneshot::Sender<ReplayedDocument>),
    /// To open files and connections again.
    OpenAgain,
}

/// How a publisher is to end.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum StopOrder {
    /// At once, because another process goes on.
    AtOnce,
    /// After everything is sent, or at this time.
    Flush(Instant),
}

/// What all publishers share.
#[derive(Clone, Debug)]
pub(super) struct SharedParts {
    pub(super) node: String,
    pub(super) follower: WindowFollower,
    pub(super) directory: PathBuf,
    pub(super) leases: Arc<Mutex<Leases>>,
    /// The moment that leases are counted from.
    pub(super) began: Instant,
}

/// What a task knows of the series that it sends, for the next task of the publisher.
#[derive(Debug)]
pub(super) struct KeptSeries {
    form: SeriesForm,
    totals: RunningTotals,
    /// The cut that it was told to leave.
    unfinished: Option<(Cut, CutProgress)>,
}

/// The task of a publisher.
#[derive(Debug)]
pub(super) struct PublisherTask {
    config: PublisherConfig,
    settle: Duration,
    shared: SharedParts,
    status: Arc<PublisherStatus>,
    sink: Destination,
    selection: SeriesSelection,
    cursor_file: CursorFile,
    dead: DeadLetters,
    form: SeriesForm,
    /// Empty for destinations that overwrite.
    totals: RunningTotals,
    /// A cut that is partly sent, with totals that a cut of other places would not have.
    unfinished: Option<(Cut, CutProgress)>,
    position: Position,
    /// Places up to which windows may have been sent by an earlier agent, and the end of the last round that it sent.
    sent_before: Option<(u64, Timestamp)>,
    /// The start of the newest round that was sent.
    newest_sent: Option<Timestamp>,
    room: RequestRoom,
    unaccepted: u32,
    jitter: Jitter,
    cursor_logged: Option<Instant>,
    calls: mpsc::Receiver<PublisherCall>,
    stop: watch::Receiver<Option<StopOrder>>,
}

/// Why waiting ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Woken {
    /// It is time, or there is something to read.
    Ready,
    /// The task is told to end.
    Stopped,
}

/// How a cut ended.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum CutEnd {
    /// Everything is sent or given up.
    Finished,
    /// The task ends.
    Stopped,
}

impl PublisherTask {
    /// A task that goes on where the publisher of this name was.
    pub(super) fn new(
        (config, settle): (PublisherConfig, Duration),
        shared: SharedParts,
        status: Arc<PublisherStatus>,
        calls: mpsc::Receiver<PublisherCall>,
        stop: watch::Receiver<Option<StopOrder>>,
    ) -> Result<Self, super::sinks::SinkError> {
        let sink = Destination::open(&config)?;
        // The configuration was checked; a query that cannot be read would have been refused.
        let selection = SeriesSelection::from_config(&config).unwrap_or_default();
        let cursor_file = CursorFile::new(&shared.directory, &config.name);
        let dead = DeadLetters::new(&shared.directory, &config.name);
        let end = shared.follower.end_cursor();
        let form = SeriesForm::from_config(&config);
        let kept = status.take_series().filter(|kept| kept.form == form);
        let knows_totals = kept.is_some();
        let (totals, unfinished) = match kept {
            Some(KeptSeries { totals, unfinished, .. }) => (totals, unfinished),
            None => (RunningTotals::new(MOST_TOTALS, sink.counts_in_buckets()), None),
        };
        let mut task = Self {
            form,
            totals,
            unfinished,
            room: Destination::request_room(),
            sink,
            selection,
            settle,
            status,
            cursor_file,
            dead,
            position: Position { cursor: end, through: None, sending: None },
            sent_before: None,
            newest_sent: None,
            unaccepted: MOST_UNACCEPTED,
            jitter: Jitter::from_seed(random_seed()),
            cursor_logged: None,
            calls,
            stop,
            config,
            shared,
        };
        task.take_position(end, knows_totals);
        Ok(task)
    }

    /// Goes on where the task before was, else where the file says, else where the configuration says.
    fn take_position(&mut self, end: Cursor, knows_totals: bool) {
        if let Some(position) = self.status.values().position.filter(|it| it.cursor.epoch == end.epoch) {
            self.position = position;
            if let Some(sending) = position.sending.filter(|_| !knows_totals) {
                self.pass_over_round(end, sending);
                let passed_over = self.count_sent_before();
                self.status.update_with(|status| status.sent_before += passed_over);
            }
            return;
        }
        let saved = self.cursor_file.read().unwrap_or_else(|error| {
            let name = &self.config.name;
            tracing::error!(publisher = name, %error, "the cursor cannot be read; it begins with the next window");
            None
        });
        let start = Cursor { epoch: end.epoch, seq: 0 };
        self.position = match saved {
            Some(position) if position.cursor.epoch == end.epoch && position.cursor.seq <= end.seq => {
                position
            }
            // The places are those of an earlier run. What is left of its windows is sent.
            Some(Position { through: Some(through), .. }) => {
                self.sent_before = Some((end.seq, through));
                Position { cursor: start, through: Some(through), sending: None }
            }
            Some(Position { through: None, .. }) => Position { cursor: start, through: None, sending: None },
            None if self.config.start == StartAt::Kept => {
                Position { cursor: start, through: None, sending: None }
            }
            // The interval under way is the first that is sent, also if the agent is restarted before its end.
            None => {
                let through = clock::wall_time().floor_to_window(self.config.interval);
                Position { cursor: end, through: Some(through), sending: None }
            }
        };
        if let Some(sending) = saved.and_then(|position| position.sending) {
            self.pass_over_round(end, sending);
        }
        let first_seq = self.position.cursor.seq;
        let sent_before = self.count_sent_before();
        let (position, dead_letters) = (self.position, self.dead.count());
        self.status.update_with(|status| {
            (status.position, status.first_seq) = (Some(position), first_seq);
            status.sent_before = sent_before;
            status.dead_letters = dead_letters;
        });
        self.save_position();
    }

    /// Passes over the round that was being sent. The receiver may have it, and with totals that begin anew it would be refused
    /// or count twice.
    fn pass_over_round(&mut self, end: Cursor, sending: Timestamp) {
        let through = self.sent_before.map_or(sending, |(_, through)| through.max(sending));
        self.sent_before = Some((end.seq, through));
        self.position.through = self.position.through.max(Some(through));
        self.position.sending = None;
    }

    /// The records that are left of what an earlier agent may have sent.
    fn count_sent_before(&self) -> u64 {
        let followed = self.shared.follower.read_after(self.position.cursor);
        let before = followed.windows.iter().filter(|window| self.is_sent_before(window));
        before.map(|window| window.window().len() as u64).sum()
    }

    fn is_sent_before(&self, published: &crate::store::Published) -> bool {
        let round_start = self.rules().interval_start(published.window().span);
        self.sent_before.is_some_and(|(seq, through)| published.last_seq() <= seq && round_start < through)
    }

    fn rules(&self) -> RoundRules {
        let floor = self.adds_up().then(|| self.position.through.unwrap_or(Timestamp::MIN));
        RoundRules { interval: self.config.interval, settle: self.settle, records: CUT_RECORDS, floor }
    }

    /// Whether the destination is sent what was added, in order.
    fn adds_up(&self) -> bool {
        self.sink.record_reading() == RecordReading::Added
    }

    fn scope(&self) -> RoundScope<'_> {
        RoundScope {
            rules: self.rules(),
            level: self.sink.identity_level(),
            selection: &self.selection,
            reading: self.sink.record_reading(),
            group: self.sink.type_groups(),
        }
    }

    /// Publishes until it is told to end.
    pub(super) async fn run(mut self) {
        let mut newest = self.shared.follower.subscribe();
        loop {
            newest.mark_unchanged();
            let flushing = matches!(*self.stop.borrow(), Some(StopOrder::Flush(_)));
            let next = match self.unfinished.take() {
                Some(unfinished) => Ok(unfinished),
                None => self.next_cut(clock::wall_time(), flushing).map(|cut| (cut, CutProgress::default())),
            };
            let wake = match next {
                Ok((cut, progress)) => match self.send_cut(&cut, progress).await {
                    CutEnd::Finished => continue,
                    CutEnd::Stopped => break,
                },
                Err(due) => due,
            };
            if flushing || self.is_told_to_end() || self.end_series().await == CutEnd::Stopped {
                break;
            }
            self.set_state(PublisherState::Idle);
            let wait =
                wake.map_or(LONGEST_SLEEP, |due| due.duration_since(clock::wall_time()).min(LONGEST_SLEEP));
            // What has been closed is due only once it has settled, and nothing that comes later is due before it.
            let newest = wake.is_none().then_some(&mut newest);
            if self.wait(wait, newest).await == Woken::Stopped && self.is_told_to_end_at_once() {
                break;
            }
        }
        self.set_state(PublisherState::Stopped);
        self.end_lease();
        if self.adds_up() {
            let (form, totals, unfinished) = (self.form, self.totals, self.unfinished);
            self.status.keep_series(KeptSeries { form, totals, unfinished });
        }
    }

    fn is_told_to_end(&self) -> bool {
        self.stop.borrow().is_some()
    }

    fn is_told_to_end_at_once(&self) -> bool {
        match *self.stop.borrow() {
            Some(StopOrder::AtOnce) => true,
            Some(StopOrder::Flush(until)) => Instant::now() >= until,
            None => false,
        }
    }

    /// The next range of places to send, or when there may be one.
    fn next_cut(&mut self, now: Timestamp, flushing: bool) -> Result<Cut, Option<Timestamp>> {
        let from = self.position.cursor;
        let followed = self.shared.follower.read_after(from);
        let placed = followed.windows.iter().map(|window| cut::placed_window(window));
        let taken = match flushing {
            // Nothing comes any more, so nothing is waited for.
            true => followed.windows.len(),
            false => match self.rules().count_due(placed, now) {
                Ok(taken) => taken,
                // All of them are gone.
                Err(_) if followed.windows.is_empty() && followed.end.seq > from.seq => 0,
                Err(due) => return Err(due),
            },
        };
        if taken == 0 && followed.end.seq <= from.seq {
            return Err(None);
        }
        let to = match followed.windows.get(taken.wrapping_sub(1)).filter(|_| taken < followed.windows.len())
        {
            Some(last) => Cursor { epoch: from.epoch, seq: last.last_seq() },
            None => followed.end,
        };
        let ends = followed.windows.iter().take(taken).map(|window| window.window().span.end);
        let oldest_due = ends.min();
        self.status.update_with(|status| status.oldest_due = oldest_due);
        Ok(Cut { from, to })
    }

    /// Sends a cut, and goes on from its end.
    async fn send_cut(&mut self, cut: &Cut, mut progress: CutProgress) -> CutEnd {
        loop {
            let stuck = match self.send_windows(cut, &mut progress).await {
                Ok(()) => break,
                Err(stuck) => stuck,
            };
            match self.repeat_request(stuck, &mut progress).await {
                CutEnd::Finished => {}
                CutEnd::Stopped => {
                    self.unfinished = Some((*cut, progress)).filter(|_| self.adds_up());
                    return CutEnd::Stopped;
                }
            }
        }
        self.finish_cut(cut, &progress);
        CutEnd::Finished
    }

    /// Notes in the file which round is being sent, before the receiver can have it.
    fn note_sending(&mut self, sending: Option<Timestamp>) {
        if self.adds_up() && self.position.sending != sending {
            self.position.sending = sending;
            let position = self.position;
            self.status.update_with(|status| status.position = Some(position));
            self.save_position();
        }
    }

    /// Counts what became of a cut, together with the new cursor.
    fn finish_cut(&mut self, cut: &Cut, progress: &CutProgress) {
        let tally = progress.finish_tally(cut);
        self.unaccepted = match progress.is_accepted() {
            Some(true) => 0,
            Some(false) => self.unaccepted.saturating_add(1),
            // Nothing was sent, which proves nothing.
            None => self.unaccepted,
        };
        self.newest_sent = self.newest_sent.max(progress.newest_start());
        let through = self.position.through.max(progress.newest_end());
        self.position = Position { cursor: cut.to, through, sending: None };
        if self.sent_before.is_some_and(|(seq, _)| cut.to.seq >= seq) {
            self.sent_before = None;
        }
        let position = self.position;
        self.status.update_with(|status| {
            status.position = Some(position);
            status.tally.merge(&tally);
            status.oldest_due = None;
        });
        for (reason, records) in &tally.dropped {
            if [EXPIRED, TOO_OLD].contains(reason) {
                tracing::warn!(publisher = self.config.name, records, reason, "records were not published");
            }
        }
        self.save_position();
    }

    fn save_position(&mut self) {
        let Err(error) = self.cursor_file.write(self.position) else { return };
        let now = Instant::now();
        if self.cursor_logged.is_none_or(|logged| now.duration_since(logged) >= QUIET) {
            self.cursor_logged = Some(now);
            let name = &self.config.name;
            tracing::error!(publisher = name, %error, "the cursor cannot be saved; after a restart records may be sent again");
        }
    }

    /// Repeats a request until it is answered for good. Holds the request alone.
    async fn repeat_request(&mut self, stuck: StuckRequest, progress: &mut CutProgress) -> CutEnd {
        let StuckRequest { request, mut wait, mut reason, mut why } = stuck;
        let sending = self.position.sending;
        loop {
            if !progress.may_have_arrived() {
                self.note_sending(None);
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
    async fn repeat_later(&mut self, wait: Duration, reason: WaitReason, why: String) -> CutEnd {
        self.note_wait(wait, reason, &why);
        match self.wait(wait, None).await {
            Woken::Stopped if self.is_told_to_end_at_once() => CutEnd::Stopped,
            Woken::Ready | Woken::Stopped => CutEnd::Finished,
        }
    }

    fn note_wait(&self, wait: Duration, reason: WaitReason, why: &str) {
        let next = clock::wall_time().saturating_add(wait);
        let is_new = self.status.update_with(|status| {
            let is_new = status.state != PublisherState::Waiting(reason);
            (status.state, status.next_attempt) = (PublisherState::Waiting(reason), Some(next));
            status.last_answer = Some(why.to_owned());
            is_new
        });
        if is_new && self.unlogged(reason) {
            let (name, reason) = (&self.config.name, reason.as_str());
            let destination = super::status::describe_destination(&self.config.sink);
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
    fn unlogged(&self, reason: WaitReason) -> bool {
        reason != WaitReason::Failing
            || self.status.values().requests.get("retry").is_some_and(|n| *n % 10 == 1)
    }

    fn set_state(&self, state: PublisherState) {
        self.status.update_with(|status| {
            status.state = state;
            if !matches!(state, PublisherState::Waiting(_)) {
                status.next_attempt = None;
            }
        });
    }

    /// Sends a request, and counts its answer.
    async fn send_request(&mut self, request: &EncodedRequest) -> Answer {
        self.set_state(PublisherState::Sending);
        let now = self.shared.began.elapsed();
        self.leases().begin_request(&self.config.name, now);
        let answer = self.sink.send_body(&request.body, request.content_type).await;
        self.end_lease();
        let class = answer.class_name();
        self.status.update_with(|status| *status.requests.entry(class).or_default() += 1);
        answer
    }

    fn leases(&self) -> std::sync::MutexGuard<'_, Leases> {
        self.shared.leases.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_lease(&self) {
        self.leases().end_request(&self.config.name);
    }

    /// Applies an answer to what is under way. Returns the wait that it leads to.
    fn apply_answer(&mut self, answer: Answer, sent: usize, progress: &mut CutProgress) -> Option<Outcome> {
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
    fn shrink_room(&mut self, sent: usize) {
        self.room.bytes = (self.room.bytes.min(sent) / 2).max(LEAST_ROOM);
    }

    /// Waits for a time, for windows, or for the order to end, and answers calls meanwhile.
    async fn wait(&mut self, wait: Duration, mut newest: Option<&mut watch::Receiver<u64>>) -> Woken {
        let until = Instant::now() + wait;
        let mut stop = self.stop.clone();
        loop {
            let order = *stop.borrow_and_update();
            let deadline = match order {
                Some(StopOrder::AtOnce) => return Woken::Stopped,
                Some(StopOrder::Flush(deadline)) => until.min(deadline),
                None => until,
            };
            tokio::select! {
                () = tokio::time::sleep_until(deadline) => {
                    return if deadline < until { Woken::Stopped } else { Woken::Ready };
                }
                () = wait_for_windows(newest.as_deref_mut()) => return Woken::Ready,
                Ok(()) = stop.changed() => return Woken::Stopped,
                Some(call) = self.calls.recv() => self.answer_call(call).await,
            }
        }
    }

    async fn answer_call(&mut self, call: PublisherCall) {
        match call {
            PublisherCall::Check(reply) => {
                let checked = self.check_sink().await;
                let _not_waited_for = reply.send(checked);
            }
            PublisherCall::Replay(since, reply) => {
                let replayed = match since {
                    Some(since) => self.replay_windows(since).await,
                    None => self.replay_dead_letters().await,
                };
                let _not_waited_for = reply.send(replayed);
            }
            PublisherCall::OpenAgain => self.sink.open_again(),
        }
    }
}

/// Waits until the sequence has grown.
async fn wait_for_windows(newest: Option<&mut watch::Receiver<u64>>) {
    if let Some(newest) = newest
        && newest.changed().await.is_ok()
    {
        return;
    }
    // Nothing is waited for, or the store is gone, which outlives its readers.
    std::future::pending::<()>().await;
}

/// A number that differs between processes.
fn random_seed() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(std::process::id())
}
