//! Records as JSON, one line each: the documents that `/v1/metrics` serves.

use std::ops::Range;
use std::ptr;

use tallyport_core::aggregate::WindowSpan;
use tallyport_core::model::Origin;

use super::body::{BodyFormat, split_records};
use super::text::push_json;
use super::{Encoded, Framing, RequestRoom, Round, RoundRecord};
use crate::record::RecordFrame;

const FORMAT: BodyFormat = BodyFormat { content_type: "application/x-ndjson", framing: Framing::BARE };

/// Encodes records as lines of JSON. Bodies can be joined with [`Framing::BARE`].
#[must_use]
pub fn encode_json(round: &Round<'_>, records: Range<usize>, room: RequestRoom) -> Encoded {
    let mut frames = FrameCache { round, key: None, frame: None };
    split_records(round, records, room, FORMAT, |record, out| {
        let document = frames.enter_window(record).series_document(record.number, record.series, record.view);
        push_json(out, &document);
        out.push(b'\n');
        Ok(())
    })
}

/// Keeps the frame of a window for its records that follow.
struct FrameCache<'r, 'a> {
    round: &'r Round<'a>,
    key: Option<(*const Origin, WindowSpan)>,
    frame: Option<RecordFrame<'a>>,
}

impl<'a> FrameCache<'_, 'a> {
    fn enter_window(&mut self, record: &RoundRecord<'a>) -> &RecordFrame<'a> {
        let key = record.merged.is_none().then_some((ptr::from_ref(record.origin), record.span));
        if key.is_none() || key != self.key {
            (self.key, self.frame) = (key, None);
        }
        let round = self.round;
        self.frame.get_or_insert_with(|| {
            let frame = RecordFrame::new(round.node, round.epoch, record.origin, record.span);
            match record.merged {
                Some(merged) => frame.into_merged(merged.records, merged.others),
                None => frame,
            }
        })
    }
}
