//! Writes a page in pieces, because the text for many containers would take too much memory at once.

use tallyport_core::aggregate::Window;

use super::exposed::list_names;
use super::family::{Block, BlockPart, PageItem};
use super::gathered::Gathered;
use super::protobuf::Protobuf;
use super::shape::{Declared, Shape, Stat};
use super::stat::combine_sums;
use super::text::{PIECE, TextWriter};
use super::{ExposedName, Level, NameView};
use crate::exposition::Format;

/// A page, being written.
#[derive(Debug)]
pub struct Page<W> {
    out: PageOutput,
    level: Level,
    created: bool,
    gathered: Gathered<W>,
    /// The next block, whether its header is written, and the next of its items.
    block: usize,
    headed: bool,
    item: usize,
    stage: Stage,
    clashes: u64,
}

#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Stage {
    Infos,
    Blocks,
    Done,
}

/// The encoder of the page's format.
#[derive(Debug)]
enum PageOutput {
    Text(TextWriter),
    Protobuf(Box<Protobuf>),
}

impl PageOutput {
    fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Protobuf(messages) => messages.len(),
        }
    }
}

impl<W: AsRef<Window>> Page<W> {
    /// `created` adds the creation time of counters and histograms to messages; in text that is a part of its own.
    pub(super) fn new(format: Format, level: Level, created: bool, gathered: Gathered<W>) -> Self {
        let out = match format {
            Format::Protobuf => PageOutput::Protobuf(Box::default()),
            format => PageOutput::Text(TextWriter::new(format)),
        };
        Self {
            out,
            level,
            created,
            gathered,
            block: 0,
            headed: false,
            item: 0,
            stage: Stage::Infos,
            clashes: 0,
        }
    }

    /// The number of series omitted so far because their names collide with others. The OpenMetrics scheme prevents
    /// that; other schemes can map several names to one.
    #[must_use]
    pub fn clash_count(&self) -> u64 {
        self.clashes
    }

    /// The approximate memory of the gathered data, in bytes, without windows and series, which are shared.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.gathered.held_bytes()
    }

    /// The metrics on the page and the names of their samples, by the applications' names, with expressions for a view.
    #[must_use]
    pub fn list_names(&self, view: &NameView<'_>) -> Vec<ExposedName> {
        list_names(&self.gathered, view)
    }

    /// The next piece; `None` after the last. A family message is never split, since its length precedes it.
    pub fn next_piece(&mut self) -> Option<Vec<u8>> {
        if self.stage == Stage::Infos {
            self.write_infos();
            self.stage = Stage::Blocks;
        }
        while self.stage == Stage::Blocks && self.out.len() < PIECE {
            if self.block == self.gathered.blocks.len() {
                if let PageOutput::Text(text) = &mut self.out {
                    text.end_page();
                }
                self.stage = Stage::Done;
            } else {
                self.some_of_a_block();
            }
        }
        let piece = match &mut self.out {
            PageOutput::Text(text) => text.take_output(),
            PageOutput::Protobuf(messages) => messages.take_output(),
        };
        (!piece.is_empty()).then_some(piece)
    }

    fn write_infos(&mut self) {
        const NAME: &str = "tallyport_task_info";
        const HELP: &str = "What is known of the container behind a task's series.";
        let infos = &self.gathered.infos;
        match &mut self.out {
            _ if infos.is_empty() => {}
            PageOutput::Text(text) => text.write_infos(NAME, HELP, infos),
            PageOutput::Protobuf(messages) => messages.write_infos(NAME, HELP, infos),
        }
    }

    /// Writes the next identities of a block until the piece is full or the block ends.
    fn some_of_a_block(&mut self) {
        let Self { out, gathered, level, created, .. } = self;
        let Some(block) = gathered.blocks.get(self.block) else { return };
        let series = BlockWriter { gathered, block, level: *level, created: *created };
        if !std::mem::replace(&mut self.headed, true) {
            match out {
                PageOutput::Text(text) => text.begin_block(block),
                PageOutput::Protobuf(messages) => messages.begin_block(block),
            }
        }
        let identity = |index: &usize| gathered.items.get(*index).map(|item| item.identity);
        while out.len() < PIECE {
            let rest = block.items.get(self.item..).unwrap_or_default();
            let Some(first) = rest.first().and_then(identity) else {
                if let PageOutput::Protobuf(messages) = out {
                    messages.end_family();
                }
                (self.block, self.headed, self.item) = (self.block + 1, false, 0);
                return;
            };
            let of_one = rest.iter().take_while(|index| identity(index) == Some(first)).count();
            self.clashes += series.write_identity(out, rest.get(..of_one).unwrap_or_default());
            self.item += of_one;
        }
    }
}

/// The series of a block.
struct BlockWriter<'p, W> {
    gathered: &'p Gathered<W>,
    block: &'p Block,
    level: Level,
    created: bool,
}

impl<W: AsRef<Window>> BlockWriter<'_, W> {
    /// Writes one identity's samples of a block; returns the number of omitted series.
    fn write_identity(&self, out: &mut PageOutput, indices: &[usize]) -> u64 {
        let mut rows: Vec<(String, &PageItem)> = indices
            .iter()
            .filter_map(|index| self.gathered.items.get(*index))
            .map(|item| (self.gathered.format_labels(item), item))
            .collect();
        // When a counter was created is said last: a gauge of that name is more than that.
        let yields = |family: usize| {
            let mut parts = self.block.parts.iter().filter(|(of, ..)| *of == family);
            parts.all(|(_, stat, _)| *stat == Stat::Created)
        };
        let rank = |item: &PageItem| (yields(item.family), item.family);
        rows.sort_by(|(a, first), (b, second)| a.cmp(b).then_with(|| rank(first).cmp(&rank(second))));
        let mut clashes = 0;
        for same in rows.chunk_by(|(a, _), (b, _)| a == b) {
            let (mut plain, mut labelled) = (false, false);
            for of_family in same.chunk_by(|(_, a), (_, b)| a.family == b.family) {
                let Some((labels, item)) = of_family.first() else { continue };
                // Series that exist only as remembered totals are shown at the workload level only.
                if self.level != Level::Low && of_family.iter().all(|(_, item)| item.past) {
                    continue;
                }
                let parts: Vec<_> =
                    self.block.parts.iter().filter(|(family, ..)| *family == item.family).collect();
                let (has_labelled, has_plain) = (
                    parts.iter().any(|(_, stat, _)| Shape::is_labelled(*stat)),
                    parts.iter().any(|(_, stat, _)| !Shape::is_labelled(*stat)),
                );
                if (has_plain && plain) || (has_labelled && labelled) {
                    clashes += u64::from(!yields(item.family));
                    continue;
                }
                plain |= has_plain;
                labelled |= has_labelled;
                let items: Vec<&PageItem> = of_family.iter().map(|(_, item)| *item).collect();
                self.write_series(out, labels, &parts, &items);
            }
        }
        clashes
    }

    fn write_series(&self, out: &mut PageOutput, labels: &str, parts: &[&BlockPart], items: &[&PageItem]) {
        match out {
            PageOutput::Text(text) => {
                for (_, stat, suffix) in parts {
                    let name = (self.block.name.as_str(), *suffix);
                    self.gathered.emit_readings(*stat, items, &mut |reading| {
                        text.write_reading(name, labels, &reading);
                    });
                }
            }
            PageOutput::Protobuf(messages) => {
                let declared = self.block.declared;
                let begins = matches!(declared, Declared::Counter | Declared::Histogram | Declared::Native);
                let created = (self.created && begins).then(|| combine_sums(items).created);
                messages.begin_series(labels, created);
                for (_, stat, _) in parts {
                    self.gathered.emit_readings(*stat, items, &mut |reading| {
                        messages.add_reading(declared, *stat, &reading);
                    });
                }
                messages.end_series();
            }
        }
    }
}
