//! What the archive counts and reports.

/// What became of the records of a batch.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct FoldCounts {
    /// Records that were folded.
    pub folded: u64,
    /// Records that start too far ahead of the clock.
    pub ahead: u64,
    /// Records that are older than everything that is kept.
    pub late: u64,
    /// Records of windows that are longer than every slot.
    pub long: u64,
    /// Records of which it is not known what they added, or that could not be read.
    pub unreadable: u64,
    /// Slots that were damaged and begun anew.
    pub damaged_slots: u64,
}

impl FoldCounts {
    /// Adds those of another batch.
    pub fn add_counts(&mut self, other: Self) {
        self.folded += other.folded;
        self.ahead += other.ahead;
        self.late += other.late;
        self.long += other.long;
        self.unreadable += other.unreadable;
        self.damaged_slots += other.damaged_slots;
    }
}

/// The state of the archive.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct ArchiveStatus {
    /// What became of records.
    pub counts: FoldCounts,
    /// Records that were gone before they were read.
    pub missed: u64,
    /// Slots that were removed because their time was over.
    pub expired: u64,
    /// Slots that were removed because the file was too large.
    pub for_size: u64,
    /// Damaged archives that were set aside.
    pub set_aside: u64,
    /// Bytes of the file.
    pub bytes: u64,
    /// Why nothing is archived at present.
    pub failing: Option<String>,
}
