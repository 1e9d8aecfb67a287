//! What is sent together: the records of a batch, or a worker's share of them.
//!
//! A batch is one round, or several where rounds are gathered. Its records are counted through: round after round, and where types
//! have requests of their own, type after type. A request is then a range of these numbers, whether it has records of one round or of
//! several, and everything that repeats or divides requests need not know of rounds. The requests of rounds are encoded for each
//! round and joined, so the same range always has the same bytes.
//!
//! Rounds are divided between workers by the identity of their records, so a series always belongs to one worker.

use std::ops::Range;

use xxhash_rust::xxh3::xxh3_64;

use crate::model::{MetricType, Timestamp};
use crate::render::prometheus::SeriesIdentity;
use crate::render::publish::{Encoded, EncodedRequest, Framing, LeftOut, RequestRoom, Round, RoundRecord};

/// The records of a round in order, each of which is made when it is needed: a round of them would take more memory than the
/// windows that it is made of.
pub(super) trait RoundSource: std::fmt::Debug + Sync {
    /// Number of records.
    fn len(&self) -> usize;
    /// The record at an index.
    fn record_at(&self, index: usize) -> Option<RoundRecord<'_>>;
    /// The type of its series.
    fn type_at(&self, index: usize) -> Option<MetricType>;
    /// Its identity.
    fn identity_at(&self, index: usize) -> Option<&SeriesIdentity>;
    /// How many places of the sequence it stands for.
    fn places_at(&self, index: usize) -> u64;
    /// Whether nothing was sent of its series before.
    fn begins_at(&self, index: usize) -> bool;
}

/// The records of a round, or those of them that one worker sends.
#[derive(Clone, Debug)]
pub(super) struct RoundShare<'a> {
    /// The round, without records.
    round: Round<'a>,
    source: &'a dyn RoundSource,
    /// The indices of the records in the source; `None` if it has all of them.
    chosen: Option<Vec<u32>>,
}

/// Records that are sent together, of one or several rounds.
#[derive(Debug)]
pub(super) struct Parcel<'a> {
    /// Oldest first.
    rounds: Vec<RoundShare<'a>>,
    /// In the order in which they are sent.
    pieces: Vec<Piece>,
    /// How many places of the sequence each record stands for.
    places: Vec<u64>,
}

/// Records of one round that can be in one request.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Piece {
    group: u8,
    /// The index of the round.
    round: usize,
    /// Which of its records.
    records: Range<usize>,
    /// The number of the first in the parcel.
    start: usize,
}

impl<'a> RoundShare<'a> {
    /// All records of a source, which are those of a round without records.
    #[must_use]
    pub(super) fn of_all(round: Round<'a>, source: &'a dyn RoundSource) -> Self {
        Self { round, source, chosen: None }
    }

    /// Number of records.
    #[must_use]
    pub(super) fn len(&self) -> usize {
        self.chosen.as_ref().map_or_else(|| self.source.len(), Vec::len)
    }

    fn index_of(&self, record: usize) -> Option<usize> {
        match &self.chosen {
            Some(chosen) => chosen.get(record).map(|index| *index as usize),
            None => Some(record),
        }
    }

    pub(super) fn record_at(&self, record: usize) -> Option<RoundRecord<'a>> {
        self.source.record_at(self.index_of(record)?)
    }

    fn identity_at(&self, record: usize) -> Option<&'a SeriesIdentity> {
        self.source.identity_at(self.index_of(record)?)
    }

    fn type_at(&self, record: usize) -> Option<MetricType> {
        self.source.type_at(self.index_of(record)?)
    }

    /// Divides records between workers by their identity. Each share has its records in the order of the round.
    #[must_use]
    pub(super) fn divide_records(self, workers: usize) -> Vec<Self> {
        if workers <= 1 {
            return vec![self];
        }
        let mut shares = vec![Self { chosen: Some(Vec::new()), ..self.clone() }; workers];
        for record in 0..self.len() {
            let identity = self.identity_at(record).map_or("", SeriesIdentity::as_str);
            let share = shares.get_mut(choose_worker(identity, workers));
            let chosen = share.and_then(|share| share.chosen.as_mut());
            let index = self.index_of(record).and_then(|index| u32::try_from(index).ok());
            chosen.into_iter().for_each(|chosen| chosen.extend(index));
        }
        shares
    }

    /// A round with these records, and the index of the first of them in it. It has all others of their identities as well, since
    /// their names decide how these are spelled.
    fn make_round(&self, records: &Range<usize>) -> (Round<'a>, usize) {
        let is_same = |a: usize, b: usize| self.identity_at(a) == self.identity_at(b);
        let (mut first, mut end) = (records.start, records.end);
        while first.checked_sub(1).is_some_and(|before| is_same(before, records.start)) {
            first -= 1;
        }
        while end < self.len() && end > records.start && is_same(end, end - 1) {
            end += 1;
        }
        let made = (first..end).filter_map(|record| self.record_at(record)).collect();
        (Round { records: made, ..self.round.clone() }, records.start - first)
    }
}

impl Piece {
    /// Its numbers in the parcel.
    fn numbers(&self) -> Range<usize> {
        self.start..self.start + self.records.len()
    }

    /// The part of it that has numbers of a range.
    fn clip(&self, numbers: &Range<usize>) -> Option<Self> {
        let own = self.numbers();
        let (start, end) = (own.start.max(numbers.start), own.end.min(numbers.end));
        let skipped = start.checked_sub(own.start)?;
        let records = self.records.start + skipped..self.records.start + end.checked_sub(own.start)?;
        (start < end).then(|| Self { records, start, ..self.clone() })
    }
}

impl<'a> Parcel<'a> {
    /// The records of rounds, oldest first. Those of different groups are never in one request; a round has its records in the
    /// order of the groups.
    #[must_use]
    pub(super) fn new(rounds: Vec<RoundShare<'a>>, group: fn(MetricType) -> u8) -> Self {
        let mut pieces: Vec<Piece> = Vec::new();
        for (round, share) in rounds.iter().enumerate() {
            for record in 0..share.len() {
                let of_record = share.type_at(record).map_or(0, group);
                match pieces.last_mut().filter(|last| last.round == round && last.group == of_record) {
                    Some(last) => last.records.end = record + 1,
                    None => {
                        pieces.push(Piece { group: of_record, round, records: record..record + 1, start: 0 });
                    }
                }
            }
        }
        // Stable, so that rounds stay in order.
        pieces.sort_by_key(|piece| piece.group);
        let mut places = Vec::with_capacity(rounds.iter().map(RoundShare::len).sum());
        for piece in &mut pieces {
            piece.start = places.len();
            let Some(share) = rounds.get(piece.round) else { continue };
            let places_of = |record| share.index_of(record).map_or(0, |index| share.source.places_at(index));
            places.extend(piece.records.clone().map(places_of));
        }
        Self { rounds, pieces, places }
    }

    /// How many places of the sequence each record stands for.
    #[must_use]
    pub(super) fn record_places(&self) -> &[u64] {
        &self.places
    }

    /// Ranges of records that can be in one request.
    #[must_use]
    pub(super) fn group_ranges(&self) -> Vec<Range<usize>> {
        let groups = self.pieces.chunk_by(|a, b| a.group == b.group);
        let ends = |group: &[Piece]| Some(group.first()?.start..group.last()?.numbers().end);
        groups.filter_map(ends).collect()
    }

    /// The records of the rounds for which a condition holds.
    #[must_use]
    pub(super) fn ranges_of(&self, holds: impl Fn(&Round<'_>) -> bool) -> Vec<Range<usize>> {
        let of = |piece: &&Piece| self.rounds.get(piece.round).is_some_and(|share| holds(&share.round));
        self.pieces.iter().filter(of).map(Piece::numbers).collect()
    }

    /// Whether a series is among them of which nothing was sent before.
    #[must_use]
    pub(super) fn begins_series(&self) -> bool {
        let begins = |share: &RoundShare<'_>, record| {
            share.index_of(record).is_some_and(|index| share.source.begins_at(index))
        };
        self.rounds.iter().any(|share| (0..share.len()).any(|record| begins(share, record)))
    }

    /// A round with a record, and the index that it has there.
    #[must_use]
    pub(super) fn find_record(&self, number: usize) -> Option<(Round<'a>, usize)> {
        let piece = self.pieces.iter().find_map(|piece| piece.clip(&(number..number.saturating_add(1))))?;
        Some(self.rounds.get(piece.round)?.make_round(&piece.records))
    }

    /// Encodes a range of records, which are of one group. `framing` says how the bodies of rounds are joined.
    #[must_use]
    pub(super) fn encode_range(
        &self,
        numbers: Range<usize>,
        room: RequestRoom,
        framing: impl Fn(MetricType) -> Framing,
        encode: impl Fn(&Round<'a>, Range<usize>) -> Encoded,
    ) -> Encoded {
        let mut joined =
            JoinedRequests { room, framing: Framing::BARE, encoded: Encoded::default(), open: Vec::new() };
        for piece in self.pieces.iter().filter_map(|piece| piece.clip(&numbers)) {
            let Some(share) = self.rounds.get(piece.round) else { continue };
            joined.framing = share.type_at(piece.records.start).map_or(Framing::BARE, &framing);
            let (round, first) = share.make_round(&piece.records);
            let Encoded { requests, left_out } = encode(&round, first..first + piece.records.len());
            let number = |index: usize| piece.start + index.saturating_sub(first);
            for request in requests {
                let records = number(request.records.start)..number(request.records.end);
                joined.push_request(EncodedRequest { records, ..request });
            }
            let left_out =
                left_out.into_iter().map(|LeftOut { record, why }| LeftOut { record: number(record), why });
            joined.encoded.left_out.extend(left_out);
        }
        joined.finish()
    }

    /// A hash of what each record is of. It is the same when the batch is read again, from memory or from files.
    #[must_use]
    pub(super) fn record_keys(&self) -> Vec<u64> {
        let mut keys = Vec::with_capacity(self.places.len());
        let mut text = Vec::new();
        for piece in &self.pieces {
            let Some(share) = self.rounds.get(piece.round) else { continue };
            for record in piece.records.clone() {
                text.clear();
                write_key(&mut text, share.round.start, share.record_at(record).as_ref());
                keys.push(xxh3_64(&text));
            }
        }
        keys
    }
}

/// Writes what a record is of, so that different records are different bytes.
fn write_key(text: &mut Vec<u8>, start: Timestamp, record: Option<&RoundRecord<'_>>) {
    let Some(record) = record else { return };
    let mut push_text = |part: &str| {
        text.extend_from_slice(part.as_bytes());
        text.push(0xff);
    };
    push_text(record.identity.as_str());
    push_text(&record.series.name);
    record.series.tags.iter().for_each(|(key, value)| {
        push_text(key);
        push_text(value);
    });
    // Of a merged record, any of its containers may be gone.
    if record.number.is_some() {
        push_text(record.origin.container_id.as_str());
    }
    text.push(record.series.metric_type as u8);
    text.extend_from_slice(&start.as_micros().to_le_bytes());
    if let Some(number) = record.number {
        text.extend_from_slice(&record.origin.generation.0.to_le_bytes());
        text.extend_from_slice(&record.span.start.as_micros().to_le_bytes());
        text.extend_from_slice(&number.rev.to_le_bytes());
    }
}

/// Requests of rounds that are joined while there is room.
#[derive(Debug)]
struct JoinedRequests {
    room: RequestRoom,
    framing: Framing,
    encoded: Encoded,
    /// Those that become the next one.
    open: Vec<EncodedRequest>,
}

impl JoinedRequests {
    fn push_request(&mut self, request: EncodedRequest) {
        let bytes: usize = self.open.iter().map(|open| open.body.len()).sum();
        let held: usize = self.open.iter().map(|open| open.held).sum();
        let fits = bytes + request.body.len() <= self.room.bytes
            && held + request.held <= self.room.records.max(1)
            // Compressed bodies and messages with a table of their own cannot be joined.
            && request.content_encoding.is_none();
        if !fits {
            self.end_request();
        }
        self.open.push(request);
    }

    fn end_request(&mut self) {
        let mut open = std::mem::take(&mut self.open);
        let held = open.iter().map(|request| request.held).sum();
        let end = open.last().map(|request| request.records.end);
        let joined =
            (open.len() > 1).then(|| self.framing.join(open.iter().map(|request| request.body.as_slice())));
        open.truncate(1);
        if let (Some(first), Some(end)) = (open.pop(), end) {
            let records = first.records.start..end;
            let body = joined.unwrap_or(first.body);
            self.encoded.requests.push(EncodedRequest { body, records, held, ..first });
        }
    }

    fn finish(mut self) -> Encoded {
        self.end_request();
        self.encoded
    }
}

/// The worker that sends the records of an identity; the same in every run of the agent.
fn choose_worker(identity: &str, workers: usize) -> usize {
    let workers = u64::try_from(workers.max(1)).unwrap_or(1);
    usize::try_from(xxh3_64(identity.as_bytes()) % workers).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests;
