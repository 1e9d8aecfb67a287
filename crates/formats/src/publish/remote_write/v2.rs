//! A request of remote write 2.0: every text is in one table, and series refer to it (`proto/remote_write_2.proto`).
//!
//! The table is sorted, so it begins with the empty text, which the protocol demands, and neighbours have common beginnings,
//! which compresses well. A text's place in it is known only at the end, so series are kept with the numbers in which texts
//! came.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use foldhash::fast::RandomState;

use super::labels::SampleLabels;
use super::point::{FamilyText, FamilyType, PointTags, SamplePoint, SeriesBody};
use crate::publish::protobuf::{ProtoWriter, varint_length};
use crate::publish::remote_write::{RemoteWriteProtocol, compress};
use crate::publish::split::{EncodedBody, RequestBody};

const TAGS: PointTags =
    PointTags { samples: 2, histograms: 3, sample_created: Some(3), histogram_created: Some(17) };

/// The key and the length of a message or list: at most four bytes of length, since a request has at most 128 MiB.
const HEADER: usize = 1 + 4;

/// A request being written.
#[derive(Default, Debug)]
pub(super) struct InternedRequest {
    symbols: SymbolTable,
    /// The labels of all series.
    references: Vec<u32>,
    /// The samples of all series, as fields.
    points: ProtoWriter,
    series: Vec<InternedSeries>,
    recent: RecentTexts,
}

/// The numbers of texts that the last series had, which are those of the next one as well in most cases.
#[derive(Default, Debug)]
struct RecentTexts {
    /// Name and value of the label in each slot.
    of_slots: Vec<(u32, u32)>,
    help: u32,
    unit: u32,
}

/// One series.
#[derive(Debug)]
struct InternedSeries {
    labels: Range<usize>,
    point: Range<usize>,
    family: Option<InternedFamily>,
}

/// What is known of its family.
#[derive(Copy, Clone, Debug)]
struct InternedFamily {
    kind: FamilyType,
    help: u32,
    unit: u32,
}

/// Texts, by the order in which they came.
#[derive(Default, Debug)]
struct SymbolTable {
    numbers: HashMap<Arc<str>, u32, RandomState>,
    texts: Vec<Arc<str>>,
    /// Bytes of all texts as elements of the table.
    bytes: usize,
}

impl SymbolTable {
    /// The number of a text that probably has this number already.
    fn intern_again(&mut self, text: &str, number: u32) -> u32 {
        match self.texts.get(number as usize) {
            Some(known) if **known == *text => number,
            _ => self.intern(text),
        }
    }

    fn intern(&mut self, text: &str) -> u32 {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = u32::try_from(self.texts.len()).unwrap_or(u32::MAX);
        let text: Arc<str> = text.into();
        self.bytes += element_length(&text);
        self.texts.push(Arc::clone(&text));
        self.numbers.insert(text, number);
        number
    }

    fn truncate_to(&mut self, len: usize) {
        for text in self.texts.drain(len.min(self.texts.len())..) {
            self.bytes -= element_length(&text);
            self.numbers.remove(&text);
        }
    }

    /// The texts in order, and for each number its place among them.
    fn sort(&self) -> (Vec<&str>, Vec<u32>) {
        let mut sorted: Vec<(&str, usize)> =
            self.texts.iter().enumerate().map(|(number, text)| (&**text, number)).collect();
        sorted.sort_unstable();
        let mut places = vec![0; sorted.len()];
        for (place, (_, number)) in (0..).zip(&sorted) {
            if let Some(slot) = places.get_mut(*number) {
                *slot = place;
            }
        }
        (sorted.into_iter().map(|(text, _)| text).collect(), places)
    }
}

fn element_length(text: &str) -> usize {
    1 + varint_length(text.len() as u64) + text.len()
}

impl SeriesBody for InternedRequest {
    fn push_series(
        &mut self,
        labels: SampleLabels<'_>,
        point: &SamplePoint<'_>,
        family: Option<FamilyText<'_>>,
    ) {
        if self.symbols.texts.is_empty() {
            self.symbols.intern("");
        }
        let (first, start) = (self.references.len(), self.points.len());
        let Self { symbols, references, recent, .. } = self;
        recent.of_slots.resize(recent.of_slots.len().max(labels.count_slots()), (0, 0));
        labels.for_each(|slot, name, value| {
            let Some(numbers) = recent.of_slots.get_mut(slot) else { return };
            *numbers = (symbols.intern_again(name, numbers.0), symbols.intern_again(value, numbers.1));
            references.extend([numbers.0, numbers.1]);
        });
        point.write_fields(&mut self.points, TAGS);
        let family = family.map(|family| {
            recent.help = symbols.intern_again(family.help, recent.help);
            recent.unit = symbols.intern_again(family.unit, recent.unit);
            InternedFamily { kind: family.kind, help: recent.help, unit: recent.unit }
        });
        let (labels, point) = (first..self.references.len(), start..self.points.len());
        self.series.push(InternedSeries { labels, point, family });
    }
}

impl RequestBody for InternedRequest {
    type Mark = (usize, usize);

    fn mark(&mut self) -> (usize, usize) {
        (self.series.len(), self.symbols.texts.len())
    }

    fn roll_back(&mut self, (series, texts): (usize, usize)) {
        if let Some(first) = self.series.get(series) {
            self.references.truncate(first.labels.start);
            self.points.truncate_to(first.point.start);
        }
        self.series.truncate(series);
        self.symbols.truncate_to(texts);
    }

    fn body_len(&self) -> usize {
        let reference = varint_length(self.symbols.texts.len() as u64);
        // The series, its labels, and its family: a message with a type and two references.
        let series = HEADER + HEADER + 2 + 2 + 2 * (1 + reference);
        self.symbols.bytes
            + self.points.len()
            + self.references.len() * reference
            + self.series.len() * series
    }

    fn take_body(&mut self) -> EncodedBody {
        let done = std::mem::take(self);
        let (texts, places) = done.symbols.sort();
        let place = |number: &u32| places.get(*number as usize).copied().unwrap_or_default();
        let mut out = ProtoWriter::default();
        texts.iter().for_each(|text| out.write_element(4, text));
        for series in &done.series {
            let labels = done.references.get(series.labels.clone()).unwrap_or_default();
            let point = done.points.as_bytes().get(series.point.clone()).unwrap_or_default();
            out.write_message(5, |out| {
                out.write_packed_uints(1, labels.iter().map(|number| u64::from(place(number))));
                out.append_fields(point);
                if let Some(family) = series.family {
                    out.write_message(5, |out| {
                        out.write_uint(1, u64::from(family.kind as u8));
                        out.write_uint(3, place(&family.help).into());
                        out.write_uint(4, place(&family.unit).into());
                    });
                }
            });
        }
        compress(out.as_bytes(), RemoteWriteProtocol::V2)
    }
}
