//! What a person asks a publisher for: to try its destination, and to send something again.

use std::borrow::Cow;
use std::collections::HashSet;
use std::time::Duration;

use tokio::time::Instant;

use super::PublisherTask;
use crate::aggregate::{Counter, View, Weight, WindowSpan};
use crate::model::{
    ByIdentity, ContainerId, Generation, MetricType, Origin, Series, TagSet, TaskId, Timestamp,
};
use crate::net::clock;
use crate::publish::answer::Answer;
use crate::publish::dead_letters::request_body;
use crate::publish::round::CutRecords;
use crate::publish::split::WaitReason;
use crate::publish::status::advise_operator;
use crate::render::prometheus::{MarksOfAll, SeriesIdentity};
use crate::render::publish::{Round, RoundRecord, RunningTotal};
use crate::wire::{PublisherCheckDocument, ReplayedDocument};

/// How long a replay may take: the person who asked waits for it.
const PATIENCE: Duration = Duration::from_secs(4);
/// The name of the record that is sent to try a destination, and of its container and task.
const PROBE: &str = "tallyport.publish.check";

impl PublisherTask {
    /// Sends one record of its own, and says what the backend answers.
    pub(super) async fn check_sink(&mut self) -> PublisherCheckDocument {
        let answer = self.send_probe().await;
        let reason = match &answer {
            Answer::Auth { .. } => Some(WaitReason::Auth),
            Answer::Gone { .. } => Some(WaitReason::Gone),
            _ => None,
        };
        let why = answer.server_text().map(str::to_owned);
        PublisherCheckDocument {
            outcome: Cow::Borrowed(answer.class_name()),
            answer: why,
            advice: reason.and_then(|reason| advise_operator(reason, &self.config.sink)),
            series: self.count_series(),
        }
    }

    async fn send_probe(&mut self) -> Answer {
        if !self.sink.takes_probes() {
            // A line more would be a record more.
            return self.sink.send_body(&[], "").await;
        }
        let name = || ContainerId::new("tallyport").ok().zip(TaskId::new("tallyport").ok());
        let Some((container_id, task_id)) = name() else { return Answer::Ok };
        let end = clock::wall_time();
        let origin = Origin { container_id, generation: Generation(1), task_id, labels: [].into() };
        let identity = SeriesIdentity::from_origin(&origin, self.sink.identity_level());
        let series = Series {
            name: PROBE.into(),
            tags: TagSet::default(),
            metric_type: MetricType::Counter,
            created: end,
        };
        let counter = Counter { samples: 1, count: Weight::ONE, sum: 1.0, ..Counter::default() };
        let length = self.config.interval;
        let start = end.saturating_sub(length);
        let record = RoundRecord {
            origin: &origin,
            identity: &identity,
            span: WindowSpan { start, end, covered: length },
            series: &series,
            view: View::Counter { counter, total: 1.0 },
            number: None,
            merged: None,
            running: Some(RunningTotal {
                created: start,
                total: 1.0,
                count: 1.0,
                buckets: None,
                first: false,
            }),
        };
        let (marks, node) = (MarksOfAll::default(), self.shared.node.clone());
        let level = self.sink.identity_level();
        let round = Round { node: &node, epoch: 0, start, end, level, marks: &marks, records: vec![record] };
        loop {
            let encoded = self.sink.encode_round(&round, 0..1, self.room);
            let Some(request) = encoded.requests.first() else { return Answer::Ok };
            match self.sink.send_body(&request.body, request.content_type).await {
                // It is written in another version then.
                Answer::Unspoken { .. } => {}
                answer => return answer,
            }
        }
    }

    /// How many series the publisher would send of the windows that are kept.
    fn count_series(&self) -> u64 {
        let windows = self.follower.read_all_kept();
        let mut series = HashSet::new();
        for published in &windows {
            let chosen = self.selection.for_origin(published.origin());
            let identity = SeriesIdentity::from_origin(published.origin(), self.sink.identity_level());
            for record in published.window().records().filter(|record| chosen.contains(record.series)) {
                series.insert((identity.clone(), ByIdentity(record.series.clone())));
            }
        }
        series.len() as u64
    }

    /// Sends the kept windows that end after a moment again, as far as they were sent before.
    pub(super) async fn replay_windows(&mut self, since: Timestamp) -> ReplayedDocument {
        if self.adds_up() {
            let why = "this type of destination accepts only what is newer than what it has; only dead letters can be sent again";
            return ReplayedDocument { delivered: 0, refused: 0, answer: Some(why.to_owned()) };
        }
        let mut windows = self.follower.read_kept(self.position.cursor);
        windows.retain(|published| published.window().span.end > since);
        let records = CutRecords::collect_records(&windows, &[], 0..=u64::MAX, self.scope());
        let marks = self.follower.read_marks(self.sink.identity_level());
        let (node, began) = (self.shared.node.clone(), Instant::now());
        let mut replayed = ReplayedDocument { delivered: 0, refused: 0, answer: None };
        for interval in &records.intervals {
            let round = interval.as_round(&node, self.follower.epoch(), &marks);
            for group in interval.group_ranges(self.sink.type_groups()) {
                for request in self.sink.encode_round(&round, group, self.room).requests {
                    let answer = match began.elapsed() < PATIENCE {
                        true => self.send_request(&request).await,
                        false => out_of_time(),
                    };
                    self.count_replayed(&mut replayed, &answer, request.held as u64);
                }
            }
        }
        replayed
    }

    /// Sends the dead letters again. Those that are still refused are kept.
    pub(super) async fn replay_dead_letters(&mut self) -> ReplayedDocument {
        let mut replayed = ReplayedDocument { delivered: 0, refused: 0, answer: None };
        let letters = match self.dead.read_letters() {
            Ok(letters) => letters,
            Err(error) => return ReplayedDocument { answer: Some(error.to_string()), ..replayed },
        };
        let (began, mut left) = (Instant::now(), Vec::new());
        for letter in letters {
            let answer = match request_body(&letter.request) {
                Some(body) if began.elapsed() < PATIENCE => {
                    self.sink.send_body(&body, &letter.request.content_type).await
                }
                Some(_) => out_of_time(),
                None => Answer::Reject { why: "the kept request is damaged".to_owned() },
            };
            if answer != Answer::Ok {
                left.push(letter);
            }
            self.count_replayed(&mut replayed, &answer, 1);
        }
        if replayed.delivered > 0 {
            match self.dead.keep_only(&left) {
                Ok(()) => self.status.update_with(|status| status.dead_letters = left.len() as u64),
                Err(error) => {
                    replayed.answer = Some(format!("the letters that were sent are still kept: {error}"));
                }
            }
        }
        replayed
    }

    fn count_replayed(&self, replayed: &mut ReplayedDocument, answer: &Answer, records: u64) {
        let refused = match answer {
            Answer::Ok => 0,
            Answer::Partly { refused, .. } => (*refused).min(records),
            _ => records,
        };
        replayed.delivered += records - refused;
        replayed.refused += refused;
        if let Some(why) = answer.server_text() {
            replayed.answer = Some(why.to_owned());
        }
        self.status.update_with(|status| status.replayed += records - refused);
    }
}

fn out_of_time() -> Answer {
    let why = format!("not sent within {} s; replay again for the rest", PATIENCE.as_secs());
    Answer::Retry { after: None, why, of_content: false, in_doubt: false }
}
