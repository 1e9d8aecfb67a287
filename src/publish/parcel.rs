//! What is sent together: the records of a batch, or a worker's share of them.
//!
//! A batch is one round, or several where rounds are gathered. Its records are counted through: round after round, and where types
//! have requests of their own, type after type. A request is then a range of these numbers, whether it has records of one round or of
//! several, and everything that repeats or divides requests need not know of rounds. The requests of rounds are encoded for each
//! round and joined, so the same range always has the same bytes.
//!
//! Rounds are divided between workers by the identity of their records, so a series always belongs to one worker.

use std::hash::{Hash as _, Hasher as _};
use std::ops::Range;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use crate::model::{MetricType, Origin, SeriesKey};
use crate::render::publish::{Encoded, EncodedRequest, Framing, LeftOut, RequestRoom, Round, RoundRecord};

/// Records that are sent together, of one or several rounds.
#[derive(Debug)]
pub(super) struct Parcel<'a> {
    /// Oldest first.
    rounds: Vec<Round<'a>>,
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

/// A round, and how many places of the sequence each of its records stands for.
pub(super) type PlacedRound<'a> = (Round<'a>, Vec<u64>);

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
    pub(super) fn new(rounds: Vec<PlacedRound<'a>>, group: fn(MetricType) -> u8) -> Self {
        let group_of = |record: &RoundRecord<'_>| group(record.series.metric_type);
        let mut pieces = Vec::new();
        for (round, (of, _)) in rounds.iter().enumerate() {
            let mut first = 0;
            for records in of.records.chunk_by(|a, b| group_of(a) == group_of(b)) {
                let range = first..first + records.len();
                first = range.end;
                let group = records.first().map_or(0, group_of);
                pieces.push(Piece { group, round, records: range, start: 0 });
            }
        }
        // Stable, so that rounds stay in order.
        pieces.sort_by_key(|piece| piece.group);
        let mut places = Vec::new();
        for piece in &mut pieces {
            piece.start = places.len();
            let of_round = rounds.get(piece.round).and_then(|(_, places)| places.get(piece.records.clone()));
            places.extend_from_slice(of_round.unwrap_or_default());
            // A record without a count stands for none.
            places.resize(piece.numbers().end, 0);
        }
        Self { rounds: rounds.into_iter().map(|(round, _)| round).collect(), pieces, places }
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
        let of = |piece: &&Piece| self.rounds.get(piece.round).is_some_and(&holds);
        self.pieces.iter().filter(of).map(Piece::numbers).collect()
    }

    /// Whether a series is among them of which nothing was sent before.
    #[must_use]
    pub(super) fn begins_series(&self) -> bool {
        let mut records = self.rounds.iter().flat_map(|round| &round.records);
        records.any(|record| record.running.is_some_and(|running| running.first))
    }

    /// The round of a record, and the index that it has there.
    #[must_use]
    pub(super) fn find_record(&self, number: usize) -> Option<(&Round<'a>, usize)> {
        let piece = self.pieces.iter().find_map(|piece| piece.clip(&(number..number.saturating_add(1))))?;
        Some((self.rounds.get(piece.round)?, piece.records.start))
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
            let Some(round) = self.rounds.get(piece.round) else { continue };
            let first = round.records.get(piece.records.start);
            joined.framing = first.map_or(Framing::BARE, |record| framing(record.series.metric_type));
            let Encoded { requests, left_out } = encode(round, piece.records.clone());
            let number = |index: usize| piece.start + index.saturating_sub(piece.records.start);
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
        let of_piece = |piece: &Piece| {
            let round = self.rounds.get(piece.round);
            let records = round.and_then(|round| round.records.get(piece.records.clone()));
            let start = round.map(|round| round.start);
            records.unwrap_or_default().iter().map(move |record| {
                let mut hasher = Xxh3::new();
                (start, record.identity.as_str(), SeriesKey(record.series)).hash(&mut hasher);
                // Of a merged record, any of its containers may be gone.
                if let Some(number) = record.number {
                    let Origin { container_id, generation, .. } = record.origin;
                    (container_id.as_str(), generation.0, record.span.start, number.rev).hash(&mut hasher);
                }
                hasher.finish()
            })
        };
        self.pieces.iter().flat_map(of_piece).collect()
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

/// Divides a round between workers by the identity of its records. Each share has its records in the order of the round.
#[must_use]
pub(super) fn divide_round((mut round, places): PlacedRound<'_>, workers: usize) -> Vec<PlacedRound<'_>> {
    if workers <= 1 {
        return vec![(round, places)];
    }
    let records = std::mem::take(&mut round.records);
    let mut shares = vec![(round, Vec::new()); workers];
    for (record, places) in records.into_iter().zip(places) {
        let worker = choose_worker(record.identity.as_str(), workers);
        if let Some((share, of_share)) = shares.get_mut(worker) {
            share.records.push(record);
            of_share.push(places);
        }
    }
    shares
}

/// The worker that sends the records of an identity; the same in every run of the agent.
fn choose_worker(identity: &str, workers: usize) -> usize {
    let workers = u64::try_from(workers.max(1)).unwrap_or(1);
    usize::try_from(xxh3_64(identity.as_bytes()) % workers).unwrap_or_default()
}

#[cfg(test)]
pub(super) mod tests;
