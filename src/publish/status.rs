//! What people see of a publisher: its state, its counts, and what to do.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::cursor_file::Position;
use super::sender::KeptSeries;
use super::split::WaitReason;
use super::tally::{EXPIRED, Fate, RecordTally};
use crate::config::{CredentialFiles, InfluxApi, PublisherConfig, SinkConfig};
use crate::model::Timestamp;
use crate::store::Cursor;
use crate::wire::{PublishedRecordsDocument, PublisherDocument};

/// What a publisher does.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub(super) enum PublisherState {
    /// It counts what is left to send.
    #[default]
    Starting,
    /// It waits for the next round.
    Idle,
    /// A request is under way.
    Sending,
    /// It waits to repeat a request.
    Waiting(WaitReason),
    /// It has ended.
    Stopped,
}

impl PublisherState {
    /// The name used in documents.
    #[must_use]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Idle => "idle",
            Self::Sending => "sending",
            Self::Waiting(WaitReason::Failing) => "retrying",
            Self::Waiting(_) => "held",
            Self::Stopped => "stopped",
        }
    }
}

impl WaitReason {
    /// The name used in documents.
    #[must_use]
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Auth => "auth",
            Self::Gone => "gone",
            Self::Refusing => "refusing",
        }
    }
}

/// The status of a publisher, which outlives the task that publishes.
#[derive(Debug, Default)]
pub(super) struct PublisherStatus {
    values: Mutex<StatusValues>,
    series: Mutex<Option<KeptSeries>>,
}

/// The values of a status.
#[derive(Clone, Debug, Default)]
pub(super) struct StatusValues {
    /// What it does.
    pub state: PublisherState,
    /// Where it is; `None` until what is left to send is counted.
    pub position: Option<Position>,
    /// Where it was when it began in this process.
    pub begun: Option<Cursor>,
    /// Records that there were to be sent when it began in this process.
    pub backlog: u64,
    /// The end of the sequence then.
    pub counted_from: u64,
    /// What became of records.
    pub tally: RecordTally,
    /// Requests, by what their answers meant.
    pub requests: BTreeMap<&'static str, u64>,
    /// When records were last accepted.
    pub last_delivery: Option<Timestamp>,
    /// What the backend said last, if it did not accept.
    pub last_answer: Option<String>,
    /// When the next attempt is made, or the batch is due for which rounds are gathered.
    pub next_attempt: Option<Timestamp>,
    /// The end of the oldest round, or batch, that should have been sent.
    pub oldest_due: Option<Timestamp>,
    /// Dead letters in the file.
    pub dead_letters: u64,
    /// Records that were sent again.
    pub replayed: u64,
    /// How often the task was started again.
    pub restarts: u64,
}

impl PublisherStatus {
    /// A copy of the values.
    #[must_use]
    pub(super) fn values(&self) -> StatusValues {
        self.lock().clone()
    }

    /// Changes the values.
    pub(super) fn update_with<T>(&self, change: impl FnOnce(&mut StatusValues) -> T) -> T {
        change(&mut self.lock())
    }

    /// Keeps what a task that ends knows of its series, for the next one of this publisher.
    pub(super) fn keep_series(&self, series: KeptSeries) {
        *self.series.lock().unwrap_or_else(PoisonError::into_inner) = Some(series);
    }

    /// Takes what the task before knew of its series.
    pub(super) fn take_series(&self) -> Option<KeptSeries> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    // Poisoning is ignored: values are only ever set or counted.
    fn lock(&self) -> MutexGuard<'_, StatusValues> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl StatusValues {
    /// The document of a publisher, where the sequence ends at `end`.
    #[must_use]
    pub(super) fn to_document(
        &self,
        config: &PublisherConfig,
        end: Cursor,
        now: Timestamp,
    ) -> PublisherDocument {
        let reason = match self.state {
            PublisherState::Waiting(reason) => Some(reason),
            _ => None,
        };
        let cursor = self.position.map_or(end, |position| position.cursor);
        let behind = self.oldest_due.map_or(0.0, |oldest| now.duration_since(oldest).as_secs_f64());
        PublisherDocument {
            name: config.name.clone(),
            sink_type: Cow::Borrowed(config.sink.sink_type().as_str()),
            destination: describe_destination(&config.sink),
            state: Cow::Borrowed(self.state.as_str()),
            reason: reason.map(|reason| Cow::Borrowed(reason.as_str())),
            cursor: cursor.to_string(),
            records: self.count_records(end),
            behind_seconds: (behind * 1000.0).round() / 1000.0,
            requests: self.requests.iter().map(|(class, n)| (Cow::Borrowed(*class), *n)).collect(),
            last_delivery: self.last_delivery,
            last_answer: self.last_answer.clone(),
            next_attempt: self.next_attempt,
            advice: reason.and_then(|reason| advise_operator(reason, &config.sink)),
            dead_letters: self.dead_letters,
            replayed: self.replayed,
            restarts: self.restarts,
        }
    }

    /// What became of the records up to `end`.
    #[must_use]
    pub(super) fn count_records(&self, end: Cursor) -> PublishedRecordsDocument {
        if self.position.is_none() {
            return PublishedRecordsDocument::default();
        }
        let closed = self.count_closed(end.seq);
        let dropped = self.tally.dropped.iter().map(|(reason, n)| (Cow::Borrowed(*reason), *n));
        PublishedRecordsDocument {
            closed: closed.saturating_sub(self.tally.sent_before),
            delivered: self.tally.delivered,
            excluded: self.tally.excluded,
            dropped: dropped.collect(),
            dead: self.tally.dead,
            pending: closed.saturating_sub(self.tally.sum()),
        }
    }

    /// The records that there were to be sent up to a place of this run.
    fn count_closed(&self, seq: u64) -> u64 {
        self.backlog.saturating_add(seq).saturating_sub(self.counted_from)
    }

    /// Counts, at a cursor of this run, records before it of which the sequence does not tell that they are lost: those of earlier
    /// runs.
    pub(super) fn count_unknown(&mut self, cursor: Cursor, tally: &mut RecordTally) {
        let (closed, counted) = (self.count_closed(cursor.seq), self.tally.sum() + tally.sum());
        tally.add(Fate::Dropped(EXPIRED), closed.saturating_sub(counted));
        self.backlog += counted.saturating_sub(closed);
    }
}

/// Where a publisher sends to, as people write it.
#[must_use]
pub(super) fn describe_destination(sink: &SinkConfig) -> String {
    match sink {
        SinkConfig::Debug(sink) => format!("log lines of {}", sink.logger),
        SinkConfig::File(sink) => sink.path.display().to_string(),
        SinkConfig::Graphite(sink) => format!("{}:{}", sink.host, sink.port),
        SinkConfig::Influxdb(sink) => sink.target.url.clone(),
        SinkConfig::RemoteWrite(sink) => sink.target.url.clone(),
        SinkConfig::Otlp(sink) => sink.target.url.clone(),
        SinkConfig::Datadog(sink) => sink.target.url.clone(),
    }
}

/// What to do about a publisher that waits.
#[must_use]
pub(super) fn advise_operator(reason: WaitReason, sink: &SinkConfig) -> Option<String> {
    match (reason, sink) {
        (WaitReason::Failing, _) => None,
        (WaitReason::Auth, sink) => Some(match sink.http_target().map(|target| &target.credentials) {
            Some(CredentialFiles::Token(file)) => {
                format!("check the token in {}; it is read again when the file changes", file.display())
            }
            Some(CredentialFiles::Basic { user, password_file }) => {
                format!("check the user {user} and the password in {}", password_file.display())
            }
            Some(CredentialFiles::None) => "the server wants credentials; set token_file, or user and password_file".to_owned(),
            None => "the agent may not write there; check the owner and the mode".to_owned(),
        }),
        (WaitReason::Gone, SinkConfig::Influxdb(sink)) => Some(match &sink.api {
            InfluxApi::V1 { database } | InfluxApi::V3 { database } => format!("create the database {database} on the server, or correct database or url"),
            InfluxApi::V2 { bucket, .. } => format!("create the bucket {bucket} on the server, or correct bucket, org or url"),
        }),
        (WaitReason::Gone, SinkConfig::File(sink)) => {
            Some(format!("create the directory of {}, or correct path", sink.path.display()))
        }
        (WaitReason::Gone, _) => Some("correct the address of the server".to_owned()),
        (WaitReason::Refusing, _) => {
            Some("the server refuses everything it is sent; see its answer. Nothing is lost that publish.spool has room for".to_owned())
        }
    }
}
