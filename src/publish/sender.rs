//! The task of one publisher: it waits for the next round, sends it, repeats what fails, and goes on.
//!
//! While a backend takes what it is sent, the windows of a cut stay in hand until the cut is sent. As soon as it has to be
//! waited for, they are dropped: the task then holds the encoded request of each worker and its cursor alone, and reads the rest
//! of the cut again afterwards.

mod cut;
mod ended;
mod passing;
mod progress;
mod replay;
mod requests;
mod share;
mod taking;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::cut::Cut;
use self::passing::SentBefore;
use self::progress::CutProgress;
use self::requests::AnsweredRequest;
use self::share::ShareWait;
use super::backoff::Jitter;
use super::cursor_file::Position;
use super::dead_letters::DeadLetters;
use super::follow::{WindowFollower, WindowSource};
use super::lease::Leases;
use super::place::{PublisherPlace, PublisherPlaces};
use super::round::{RecordReading, RoundRules, RoundScope};
use super::selection::SeriesSelection;
use super::sinks::{Destination, SeriesForm};
use super::status::{PublisherState, PublisherStatus};
use super::tally::{EXPIRED, Fate, SPOOL, TOO_OLD};
use super::totals::RunningTotals;
use crate::config::{PublisherConfig, StartAt};
use crate::model::Timestamp;
use crate::net::clock;
use crate::render::publish::RequestRoom;
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
    sink: Arc<Destination>,
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
    /// The requests of workers that are not answered.
    under_way: JoinSet<AnsweredRequest>,
    /// The wait that the server has asked for before the next request, whatever that is.
    hold: Option<ShareWait>,
    /// The number of the last batch.
    batches: u64,
    unaccepted: u32,
    jitter: Jitter,
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
            under_way: JoinSet::new(),
            hold: None,
            batches: 0,
            sink: Arc::new(sink),
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

    fn rules(&self) -> RoundRules {
        let floor = self.adds_up().then(|| self.position.through.unwrap_or(Timestamp::MIN));
        let PublisherConfig { interval, batch, .. } = self.config;
        RoundRules { interval, batch, settle: self.settle, records: CUT_RECORDS, floor }
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
                None => self
                    .next_cut(clock::wall_time(), flushing)
                    .map(|cut| (cut, CutProgress::with_hold(self.hold.take()))),
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
            if !self.config.batch.is_zero() {
                self.status.update_with(|status| status.next_attempt = wake);
            }
            let wait =
                wake.map_or(LONGEST_SLEEP, |due| due.duration_since(clock::wall_time()).min(LONGEST_SLEEP));
            // What has been closed is due only once it has settled, and nothing that comes later is due before it.
            let newest = wake.is_none().then_some(&mut newest);
            if self.wait(wait, newest).await == Woken::Stopped && self.is_told_to_end_at_once() {
                break;
            }
        }
        self.set_state(PublisherState::Stopped);
        self.end_leases();
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

    /// Sends a cut, and goes on from its end.
    async fn send_cut(&mut self, mut cut: Cut, mut progress: CutProgress) -> CutEnd {
        while self.send_windows(&mut cut, &mut progress).await.is_err() {
            self.follower.let_go();
            if self.repeat_requests(&mut progress).await == CutEnd::Stopped {
                self.unfinished = Some((cut.without_windows(), progress)).filter(|_| self.adds_up());
                return CutEnd::Stopped;
            }
        }
        self.hold = progress.take_hold();
        self.finish_cut(&cut, &progress);
        CutEnd::Finished
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

    fn set_state(&self, state: PublisherState) {
        self.status.update_with(|status| {
            status.state = state;
            if !matches!(state, PublisherState::Waiting(_)) {
                status.next_attempt = None;
            }
        });
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
