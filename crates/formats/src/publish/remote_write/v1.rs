//! A request of remote write 1.0: every series with all its labels as text (`proto/remote_write.proto`).

use std::collections::BTreeSet;

use super::labels::SampleLabels;
use super::point::{FamilyText, PointTags, SamplePoint, SeriesBody};
use crate::publish::protobuf::ProtoWriter;
use crate::publish::remote_write::{RemoteWriteProtocol, compress};
use crate::publish::split::{EncodedBody, RequestBody};

const TAGS: PointTags =
    PointTags { samples: 2, histograms: 4, sample_created: None, histogram_created: None };

/// A request being written.
#[derive(Debug)]
pub(super) struct WriteRequest {
    series: ProtoWriter,
    /// The descriptions of families, if they are wanted.
    metadata: Option<ProtoWriter>,
    /// The names of described families.
    described: BTreeSet<String>,
    /// Those of them since the last mark.
    newly_described: Vec<String>,
    /// The name of the last family.
    family: String,
}

impl WriteRequest {
    pub(super) fn new(metadata: bool) -> Self {
        Self {
            series: ProtoWriter::default(),
            metadata: metadata.then(ProtoWriter::default),
            described: BTreeSet::new(),
            newly_described: Vec::new(),
            family: String::new(),
        }
    }

    fn describe(&mut self, family: FamilyText<'_>) {
        let Some(metadata) = &mut self.metadata else { return };
        self.family.clear();
        self.family.push_str(family.name.0);
        self.family.push_str(family.name.1);
        let name = &self.family;
        if self.described.contains(name) {
            return;
        }
        metadata.write_message(3, |out| {
            out.write_uint(1, u64::from(family.kind as u8));
            out.write_string(2, name);
            out.write_string(4, family.help);
            out.write_string(5, family.unit);
        });
        self.described.insert(name.clone());
        self.newly_described.push(name.clone());
    }

    fn metadata_len(&self) -> usize {
        self.metadata.as_ref().map_or(0, ProtoWriter::len)
    }
}

impl SeriesBody for WriteRequest {
    fn push_series(
        &mut self,
        labels: SampleLabels<'_>,
        point: &SamplePoint<'_>,
        family: Option<FamilyText<'_>>,
    ) {
        self.series.write_message(1, |out| {
            labels.for_each(|_, name, value| {
                out.write_message(1, |out| {
                    out.write_string(1, name);
                    out.write_string(2, value);
                });
            });
            point.write_fields(out, TAGS);
        });
        if let Some(family) = family {
            self.describe(family);
        }
    }
}

impl RequestBody for WriteRequest {
    type Mark = (usize, usize);

    fn mark(&mut self) -> (usize, usize) {
        self.newly_described.clear();
        (self.series.len(), self.metadata_len())
    }

    fn roll_back(&mut self, (series, metadata): (usize, usize)) {
        self.series.truncate_to(series);
        if let Some(out) = &mut self.metadata {
            out.truncate_to(metadata);
        }
        for name in self.newly_described.drain(..) {
            self.described.remove(&name);
        }
    }

    fn body_len(&self) -> usize {
        self.series.len() + self.metadata_len()
    }

    fn take_body(&mut self) -> EncodedBody {
        let done = std::mem::replace(self, Self::new(self.metadata.is_some()));
        let mut message = done.series;
        message.append_fields(done.metadata.as_ref().map_or(&[], ProtoWriter::as_bytes));
        compress(message.as_bytes(), RemoteWriteProtocol::V1)
    }
}
