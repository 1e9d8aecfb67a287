//! What a file of records has, read back. Only the file itself is read, not what a rotation has moved away.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::value::RawValue;
use xxhash_rust::xxh3::xxh3_64;

use super::ANY_SIZE;
use super::comparison::{DeliveryComparison, NumberPair, VerifyError};
use crate::config::FileSink;
use crate::model::Timestamp;
use crate::render::publish::{Round, encode_json};

/// How far from the end of a file records are looked for, in bytes.
const LONGEST_TAIL: u64 = 256 << 20;

/// The records that a file should have.
#[derive(Debug)]
pub(super) struct FileExpected {
    path: PathBuf,
    records: HashMap<RecordKey, RecordState>,
    /// The names and containers of series, by the hash that is their id.
    series: BTreeMap<String, SeriesName>,
}

/// The id of a series, and the start of a window.
type RecordKey = (String, Timestamp);

/// How often a record was revised, and a hash of its numbers.
type RecordState = (u32, u64);

#[derive(Clone, Debug)]
struct SeriesName {
    name: String,
    labels: Vec<(String, String)>,
}

/// What is read of a line.
#[derive(Debug, Deserialize)]
struct RecordLine<'l> {
    id: String,
    #[serde(default)]
    rev: u32,
    start: Timestamp,
    name: String,
    origin: LineOrigin,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(borrow)]
    agg: &'l RawValue,
}

#[derive(Debug, Deserialize)]
struct LineOrigin {
    #[serde(default)]
    container_id: String,
    #[serde(default)]
    task_id: String,
}

impl RecordLine<'_> {
    fn state(&self) -> RecordState {
        (self.rev, xxh3_64(self.agg.get().as_bytes()))
    }
}

impl FileExpected {
    pub(super) fn new(sink: &FileSink) -> Self {
        Self { path: sink.path.clone(), records: HashMap::new(), series: BTreeMap::new() }
    }

    pub(super) fn add_round(&mut self, round: &Round<'_>) {
        let encoded = encode_json(round, 0..round.records.len(), ANY_SIZE);
        for request in &encoded.requests {
            let lines = request.body.split(|byte| *byte == b'\n');
            for line in lines.filter_map(|line| serde_json::from_slice::<RecordLine<'_>>(line).ok()) {
                let state = line.state();
                self.records.insert((line.id.clone(), line.start), state);
                self.series.entry(line.id).or_insert_with(|| {
                    let origin =
                        [("container_id", line.origin.container_id), ("task_id", line.origin.task_id)];
                    let origin = origin.map(|(key, value)| (key.to_owned(), value));
                    SeriesName { name: line.name, labels: line.tags.into_iter().chain(origin).collect() }
                });
            }
        }
    }

    pub(super) async fn compare_file(self) -> Result<DeliveryComparison, VerifyError> {
        let path = self.path.display().to_string();
        let reading = tokio::task::spawn_blocking(move || self.compare_with_file());
        match reading.await {
            Ok(compared) => compared.map_err(|error| VerifyError::File(format!("{path}: {error}"))),
            Err(failed) => Err(VerifyError::File(failed.to_string())),
        }
    }

    fn compare_with_file(self) -> io::Result<DeliveryComparison> {
        let mut found: HashMap<&RecordKey, RecordState> = HashMap::new();
        read_lines(&self.path, |line| {
            let Ok(line) = serde_json::from_slice::<RecordLine<'_>>(line) else { return };
            let state = line.state();
            // Of a record that was revised, the last one counts.
            if let Some((key, _)) = self.records.get_key_value(&(line.id, line.start)) {
                let held = found.entry(key).or_insert(state);
                if state.0 >= held.0 {
                    *held = state;
                }
            }
        })?;
        let mut sums: BTreeMap<&str, (f64, f64, f64)> = BTreeMap::new();
        for (key, state) in &self.records {
            let (expected, held, other) = sums.entry(key.0.as_str()).or_default();
            *expected += 1.0;
            match found.get(key) {
                Some(found) if found == state => *held += 1.0,
                Some(_) => {
                    *held += 1.0;
                    *other += 1.0;
                }
                None => {}
            }
        }
        let mut comparison = DeliveryComparison::default();
        for (id, (expected, held, other)) in sums {
            let records = NumberPair::if_different("records", expected, Some(held), 0.0);
            let values = NumberPair::if_different("value", held, Some(held - other), 0.0);
            let series = self.series.get(id);
            let (name, labels) = series.map_or((id, Vec::new()), |it| (it.name.as_str(), it.labels.clone()));
            comparison.add_series(name, labels, records.into_iter().chain(values).collect());
        }
        Ok(comparison)
    }
}

/// Reads the whole lines at the end of a file.
fn read_lines(path: &Path, mut line: impl FnMut(&[u8])) -> io::Result<()> {
    let mut file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file, and cannot be read back"));
    }
    let skipped = metadata.len().saturating_sub(LONGEST_TAIL);
    file.seek(SeekFrom::Start(skipped))?;
    let mut reader = BufReader::with_capacity(1 << 16, file);
    let mut text = Vec::new();
    if skipped > 0 {
        reader.skip_until(b'\n')?;
    }
    while reader.read_until(b'\n', &mut text)? > 0 {
        line(text.trim_ascii_end());
        text.clear();
    }
    Ok(())
}
