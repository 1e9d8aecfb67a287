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
use super::cursor_file::{Position, SendingRound};
use super::dead_letters::DeadLetters;
use super::follow::{ReadState, TakenWindows, WindowFollower, WindowSource};
use super::lease::Leases;
use super::place::{PublisherPlace, PublisherPlaces};
use super::round::{PlacedWindow, RecordReading, RoundRules, RoundScope};
use super::selection::SeriesSelection;
use super::sinks::{Destination, SeriesForm};
use super::split::{Outcome, WaitReason};
use super::status::{PublisherState, PublisherStatus};
use super::tally::{EXPIRED, Fate, SPOOL, TOO_OLD};
use super::totals::RunningTotals;
use crate::config::{PublisherConfig, StartAt};
use crate::model::Timestamp;
use crate::net::clock;
use crate::render::publish::{EncodedRequest, RequestRoom};
use crate::store::{Cursor, Published};
use crate::window_log::{SpoolHandout, was_open_at_kill};
use crate::wire::{PublisherCheckDocument, ReplayedDocument};

/// The fewest bytes that a request is made smaller to.
const LEAST_ROOM: usize = 1024;
/// Cuts in a row of which nothing was accepted, before a backend is taken to refuse everything.
const MOST_UNACCEPTED: u32 = 3;
/// Records after which a cut ends with its interval.
const CUT_RECORDS: usize = 50_000;
/// The most series whose totals are remembered.
const MOST_TOTALS: usize = 200_000;
/// How soon windows are looked at again that cannot be read, or are not on the disk yet.
const SOON: Duration = Duration::from_millis(50);
/// How long after its time a round is held back because it is not on the disk yet. A disk that hangs must not stop publishing.
const LOG_PATIENCE: Duration = Duration::from_secs(2);
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
    pub(super) source: WindowSource,
    pub(super) places: Arc<PublisherPlaces>,
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
    follower: WindowFollower,
    place: Arc<PublisherPlace>,
    dead: DeadLetters,
    form: SeriesForm,
    /// Empty for destinations that overwrite.
    totals: RunningTotals,
    /// A cut that is partly sent, with totals that a cut of other places would not have.
    unfinished: Option<(Cut, CutProgress)>,
    position: Position,
    /// What is not sent, because the receiver may have it.
    sent_before: Option<SentBefore>,
    /// The start of the newest round that was sent.
    newest_sent: Option<Timestamp>,
    room: RequestRoom,
    unaccepted: u32,
    jitter: Jitter,
    calls: mpsc::Receiver<PublisherCall>,
    stop: watch::Receiver<Option<StopOrder>>,
}

/// What a receiver may have of windows that are not done with.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct SentBefore {
    /// Nothing after this place, except windows that were open when the agent was killed.
    to: Cursor,
    /// Only windows whose intervals start before this.
    through: Timestamp,
}

impl SentBefore {
    /// Whether there may be such windows after a cursor.
    fn goes_on_after(self, cursor: Cursor, epoch: u64) -> bool {
        cursor < self.to || cursor.epoch < epoch
    }
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
        let place = shared.places.open_place(&config.name);
        let (position, lost) = take_place(&place, &config, &shared.source);
        let follower = WindowFollower::new(shared.source.clone(), &config.name, position);
        let dead = DeadLetters::new(&shared.directory, &config.name);
        let dead_letters = dead.count();
        status.update_with(|status| {
            status.tally.add(Fate::Dropped(SPOOL), lost);
            status.dead_letters = dead_letters;
        });
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
            follower,
            place,
            dead,
            position,
            sent_before: None,
            newest_sent: None,
            unaccepted: MOST_UNACCEPTED,
            jitter: Jitter::from_seed(random_seed()),
            calls,
            stop,
            config,
            shared,
        };
        if !knows_totals {
            task.pass_over_sent();
        }
        Ok(task)
    }

    /// Passes over what the receiver may have, where the totals that it was sent with are not known: with totals that begin anew it
    /// would be refused or count twice.
    fn pass_over_sent(&mut self) {
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
    fn is_sent_before(&self, published: &Published) -> bool {
        let Some(SentBefore { to, through }) = self.sent_before else { return false };
        let birth = published.birth_in(self.follower.epoch());
        let may_be_sent = birth <= to || was_open_at_kill(birth);
        may_be_sent && self.rules().interval_start(published.window().span) < through
    }

    /// Counts what is left to send, for a publisher that begins in this process. What earlier runs of the agent have left is in
    /// files. Returns whether it is to go on.
    async fn begin_counting(&mut self) -> bool {
        while self.status.values().position.is_none() {
            if self.count_lost() {
                self.count_backlog();
            }
            if self.status.values().position.is_none()
                && self.wait(SOON, None).await == Woken::Stopped
                && self.is_told_to_end_at_once()
            {
                return false;
            }
        }
        true
    }

    fn count_backlog(&mut self) {
        let Some((left, end)) = self.follower.count_backlog() else { return };
        let position = self.position;
        self.status.update_with(|status| {
            // What was lost is counted already.
            let lost = status.tally.sum();
            (status.position, status.begun) = (Some(position), Some(position.cursor));
            (status.backlog, status.counted_from) = (left + lost, end.seq);
        });
    }

    /// Counts what the spool has dropped before this publisher. Returns whether windows can be handed out.
    fn count_lost(&mut self) -> bool {
        let handout = self.follower.check_handout();
        if handout == SpoolHandout::Closed {
            return false;
        }
        if let Some((position, records)) = self.place.count_lost() {
            self.position = position;
            self.status.update_with(|status| {
                status.position = status.position.map(|_| position);
                status.tally.add(Fate::Dropped(SPOOL), records);
            });
        }
        // Nothing is in hand, so everything before is done with.
        self.position.cursor = self.position.cursor.max(self.follower.handed_cursor());
        true
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
            epoch: self.follower.epoch(),
            reading: self.sink.record_reading(),
            group: self.sink.type_groups(),
        }
    }

    /// Publishes until it is told to end.
    pub(super) async fn run(mut self) {
        let mut newest = self.follower.subscribe();
        let mut goes_on = self.begin_counting().await;
        while goes_on {
            newest.mark_unchanged();
            let flushing = matches!(*self.stop.borrow(), Some(StopOrder::Flush(_)));
            let next = match self.resume_cut() {
                Some(unfinished) => Ok(unfinished),
                None => self.next_cut(clock::wall_time(), flushing).map(|cut| (cut, CutProgress::default())),
            };
            let wake = match next {
                Ok((cut, progress)) => {
                    goes_on =
                        self.send_cut(cut, progress).await == CutEnd::Finished && self.limit_totals().await;
                    continue;
                }
                Err(due) => due,
            };
            self.follower.let_go();
            if wake.is_none() {
                self.follower.release_rounds(&self.config.name, clock::wall_time());
            }
            // What is to be flushed may be on the disk in a moment.
            let ends = match self.is_told_to_end() {
                true => !(flushing && wake.is_some()),
                false => self.end_series().await == CutEnd::Stopped,
            };
            if ends {
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

    /// The next windows to send, or when there may be some.
    fn next_cut(&mut self, now: Timestamp, flushing: bool) -> Result<Cut, Option<Timestamp>> {
        let soon = Err(Some(now.saturating_add(SOON)));
        let mut wanted = CUT_RECORDS;
        loop {
            if !self.count_lost() {
                return soon;
            }
            let read = match self.follower.read_ahead(wanted) {
                Ok(read) => read,
                Err(error) => {
                    let name = &self.config.name;
                    tracing::warn!(publisher = name, %error, "the window log cannot be read; trying again");
                    return soon;
                }
            };
            let placed: Vec<_> = self.follower.placed_ahead().collect();
            let due = match flushing {
                // Nothing comes any more, so nothing is waited for.
                true => placed.len(),
                false => match self.rules().count_due(placed.iter().copied(), now) {
                    Ok(due) => due,
                    // All of them are gone.
                    Err(None) if placed.is_empty() && self.follower.is_past_last_cut() => 0,
                    Err(None) if read == ReadState::Waiting => return soon,
                    Err(due) => return Err(due),
                },
            };
            if due == placed.len() && read == ReadState::More && !self.follower.has_whole_run() {
                wanted += CUT_RECORDS;
                continue;
            }
            let taken = self.limit_to_written(due, &placed, now);
            match placed.is_empty() {
                true if !self.follower.is_past_last_cut() => {
                    return if read == ReadState::Waiting { soon } else { Err(None) };
                }
                false if taken == 0 => return soon,
                _ => {}
            }
            let from = self.follower.handed_cursor();
            // Otherwise some of them were dropped since.
            if let Some(windows) = self.follower.take_windows(taken) {
                return Ok(self.begin_cut(from, windows));
            }
        }
    }

    /// How many of the windows that are due are sent now: only what is on the disk, because a window that was not would come back
    /// after a kill with less in it.
    fn limit_to_written(&self, due: usize, placed: &[PlacedWindow], now: Timestamp) -> usize {
        let written = self.follower.count_written();
        match placed.get(written) {
            Some(first) if written < due => {
                let rules = self.rules();
                if rules.due_at(first.span).saturating_add(LOG_PATIENCE) < now {
                    return due;
                }
                // Of a round that cannot get another part, nothing is sent before everything is there.
                let is_before = |window: &PlacedWindow| {
                    !self.adds_up() || rules.round_start(window.span) < rules.round_start(first.span)
                };
                placed.iter().take(written).rposition(is_before).map_or(0, |last| last + 1)
            }
            _ => due,
        }
    }

    fn begin_cut(&mut self, from: Cursor, windows: TakenWindows) -> Cut {
        let oldest_due = windows.windows.iter().map(|window| window.window().span.end).min();
        self.status.update_with(|status| status.oldest_due = oldest_due);
        Cut::new(from, windows)
    }

    /// Sends a cut, and goes on from its end.
    async fn send_cut(&mut self, mut cut: Cut, mut progress: CutProgress) -> CutEnd {
        loop {
            let stuck = match self.send_windows(&mut cut, &mut progress).await {
                Ok(()) => break,
                Err(stuck) => stuck,
            };
            self.follower.let_go();
            match self.repeat_request(stuck, &mut progress).await {
                CutEnd::Finished => {}
                CutEnd::Stopped => {
                    self.unfinished = Some((cut.without_windows(), progress)).filter(|_| self.adds_up());
                    return CutEnd::Stopped;
                }
            }
        }
        self.finish_cut(&cut, &progress);
        CutEnd::Finished
    }

    /// Notes in the file which round is being sent, before the receiver can have it.
    fn note_sending(&mut self, sending: Option<SendingRound>) {
        if self.adds_up() && self.position.sending != sending {
            self.position.sending = sending;
            self.place.note_position(self.position);
        }
    }

    /// A round of a cut, as it is noted.
    fn sending_round(&self, end: Timestamp, cut: &Cut) -> SendingRound {
        // What was sent before stays noted until it is done with.
        let to = self.sent_before.map_or(cut.to, |before| before.to.max(cut.to));
        SendingRound { end, to }
    }

    /// What is passed over after a cursor, as it is noted.
    fn passed_over_after(&self, cursor: Cursor) -> Option<SendingRound> {
        let before = self.sent_before.filter(|before| cursor < before.to)?;
        Some(SendingRound { end: before.through, to: before.to })
    }

    /// The cut that the task before was told to leave, if all of it is still there.
    fn resume_cut(&mut self) -> Option<(Cut, CutProgress)> {
        let (cut, progress) = self.unfinished.take()?;
        if cut.from == self.position.cursor && self.follower.hand_out_again(cut.to) {
            return Some((cut, progress));
        }
        // The spool has dropped some of it. A cut of other windows would not have the totals that were sent.
        self.totals = RunningTotals::new(MOST_TOTALS, self.sink.counts_in_buckets());
        self.pass_over_sent();
        None
    }

    /// Ends series if there are too many, which may be long before everything is sent. Returns whether the task goes on.
    async fn limit_totals(&mut self) -> bool {
        self.totals.len() <= MOST_TOTALS || self.end_series().await == CutEnd::Finished
    }

    /// Counts what became of a cut, together with the new cursor.
    fn finish_cut(&mut self, cut: &Cut, progress: &CutProgress) {
        let reason = if self.place.has_lost() { SPOOL } else { EXPIRED };
        let mut tally = progress.finish_tally(cut, reason);
        self.unaccepted = match progress.is_accepted() {
            Some(true) => 0,
            Some(false) => self.unaccepted.saturating_add(1),
            // Nothing was sent, which proves nothing.
            None => self.unaccepted,
        };
        self.newest_sent = self.newest_sent.max(progress.newest_start());
        let newest_end = progress.newest_end();
        // Where records are added up, no round gets another part.
        let gets_parts = newest_end.filter(|_| !self.adds_up());
        let earlier = self.follower.finish_cut(&self.config.name, cut.from, gets_parts);
        let through = self.position.through.max(newest_end);
        // What was sent before may go on in the next cut.
        self.sent_before =
            self.sent_before.filter(|before| before.goes_on_after(cut.to, self.follower.epoch()));
        let sending = self.passed_over_after(cut.to);
        let position = Position { cursor: cut.to, earlier, through, sending };
        self.position = position;
        let is_of_this_run = cut.to.epoch == self.follower.epoch();
        self.status.update_with(|status| {
            status.position = Some(position);
            status.oldest_due = None;
            if is_of_this_run {
                status.count_unknown(cut.to, &mut tally);
            }
            status.tally.merge(&tally);
        });
        for (reason, records) in &tally.dropped {
            if [EXPIRED, SPOOL, TOO_OLD].contains(reason) {
                tracing::warn!(publisher = self.config.name, records, reason, "records were not published");
            }
        }
        self.place.finish_through(position);
    }

    /// Repeats a request until it is answered for good. Holds the request alone.
    async fn repeat_request(&mut self, stuck: StuckRequest, progress: &mut CutProgress) -> CutEnd {
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

/// Where a publisher goes on, and how many records before that are lost and not counted.
fn take_place(place: &PublisherPlace, config: &PublisherConfig, source: &WindowSource) -> (Position, u64) {
    // Nothing is in hand now.
    if let Some(after_loss) = place.count_lost() {
        return after_loss;
    }
    let position = place.current_position().unwrap_or_else(|| {
        let first = first_position(config, source);
        place.finish_through(first);
        first
    });
    (position, 0)
}

/// Where a publisher begins that has no position.
fn first_position(config: &PublisherConfig, source: &WindowSource) -> Position {
    let (cursor, through) = match config.start {
        StartAt::Kept => (Cursor { epoch: 0, seq: 0 }, None),
        // The interval under way is the first that is sent, also if the agent is restarted before its end.
        StartAt::Now => {
            (source.store.end_cursor(), Some(clock::wall_time().floor_to_window(config.interval)))
        }
    };
    Position { cursor, earlier: cursor, through, sending: None }
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
