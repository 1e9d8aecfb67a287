//! Pages of containers' metrics for Prometheus: their parameters, and the series on them.

use std::collections::{HashMap, HashSet};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::data::{Data, Error};
use super::parameters::{FILTERS, Filters, Query};
use super::sink::Sink;
use crate::aggregate::Counting;
use crate::config::AgentConfig;
use crate::containers::ContainerInfo;
use crate::model::{Allocation, Origin, Series, TaskId, Timestamp};
use crate::render::exposition::{Escaping, Format};
use crate::render::prometheus::{
    Level, Naming, Page, PageBuilder, PageSource, PageWindow, SPAN_SECONDS, SeriesIdentity, Sums, Timers,
};
use crate::store::{History, Published, REMEMBERED};

/// The time span of percentiles and sets.
const SPAN: Duration = Duration::from_secs(SPAN_SECONDS);

/// The parameters of a page.
#[derive(Debug)]
pub struct Wanted {
    /// The format of the page.
    pub format: Format,
    /// How names that the format does not allow are escaped.
    pub escaping: Escaping,
    naming: Naming,
    level: Level,
    created: bool,
    counting: Counting,
    shard: Option<ScrapeShard>,
    /// The only task, if not all are wanted.
    task: Option<TaskId>,
    /// The filters of series.
    pub filters: Filters,
    window: Duration,
    carry: Duration,
    linger: Duration,
}

/// A part of the workloads, so that several servers can share the scraping.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
struct ScrapeShard {
    part: u64,
    parts: u64,
}

impl FromStr for ScrapeShard {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let numbers =
            text.split_once('/').and_then(|(part, parts)| Some((part.parse().ok()?, parts.parse().ok()?)));
        match numbers {
            Some((part, parts)) if part < parts && parts <= 1024 => Ok(Self { part, parts }),
            _ => Err("is not a part and how many there are, such as 0/4: the first of four"),
        }
    }
}

impl ScrapeShard {
    /// Selects by workload, so that all series of one sum are in the same part.
    fn has_origin(self, origin: &Origin) -> bool {
        self.has_workload(&SeriesIdentity::from_origin(origin, Level::Low))
    }

    fn has_workload(self, workload: &SeriesIdentity) -> bool {
        xxh3_64(workload.as_str().as_bytes()) % self.parts == self.part
    }
}

impl Wanted {
    /// Reads the query of a page, with defaults from the configuration. `media` is the `Accept` of the request.
    ///
    /// # Errors
    /// When a parameter is unknown or cannot be read.
    pub fn read(config: &AgentConfig, raw: &str, media: Option<&str>) -> Result<Self, Error> {
        let mut known = vec!["naming", "identity", "created", "timers", "shard"];
        known.extend(FILTERS);
        let query = Query::read(raw, &known)?;
        let naming = one_of(&query, "naming", &Naming::ALL.map(|naming| (naming.as_str(), naming)))?;
        let level = one_of(&query, "identity", &Level::ALL.map(|level| (level.as_str(), level)))?;
        let created = query.last_value("created").map(|_| query.parse_switch("created")).transpose()?;
        let (format, escaping) = Format::from_accept_header(media, &Format::ALL);
        Ok(Self {
            format,
            escaping,
            naming: naming.unwrap_or(config.prometheus.naming),
            level: level.unwrap_or(config.prometheus.identity),
            created: created.unwrap_or(config.prometheus.created),
            counting: parse_counting(&query, config)?,
            shard: query.parse_value("shard")?,
            task: None,
            filters: Filters::read(&query)?,
            window: config.aggregation.window,
            carry: config.aggregation.gauge_carry,
            linger: config.prometheus.linger,
        })
    }

    /// The series of one task, as the configuration says, in this format and escaping.
    pub(super) fn for_task(
        config: &AgentConfig,
        filters: Filters,
        (format, escaping): (Format, Escaping),
        task: TaskId,
    ) -> Self {
        Self {
            format,
            escaping,
            naming: config.prometheus.naming,
            level: config.prometheus.identity,
            created: config.prometheus.created,
            counting: config.aggregation.counting.clone(),
            shard: None,
            task: Some(task),
            filters,
            window: config.aggregation.window,
            carry: config.aggregation.gauge_carry,
            linger: config.prometheus.linger,
        }
    }

    /// The level of detail of the origin.
    pub(super) fn identity_level(&self) -> Level {
        self.level
    }

    fn matches_origin(&self, origin: &Origin) -> bool {
        self.task.as_ref().is_none_or(|task| *task == origin.task_id)
            && self.filters.matches_origin(origin)
            && self.shard.is_none_or(|shard| shard.has_origin(origin))
    }
}

/// The buckets that the query selects, if any.
fn parse_counting(query: &Query, config: &AgentConfig) -> Result<Counting, Error> {
    let choices = [Timers::Summary, Timers::Histogram].map(|timers| (timers.as_str(), timers));
    let known = config.prometheus.timers;
    match one_of(query, "timers", &choices)? {
        Some(Timers::Summary) => Ok(Counting::Off),
        Some(asked) if asked != known => {
            let why = format!("is not counted: prometheus.timers is {}", known.as_str());
            Err(Error::bad_parameter("timers", asked.as_str(), &why))
        }
        _ => Ok(config.aggregation.counting.clone()),
    }
}

fn one_of<T: Copy>(query: &Query, key: &'static str, choices: &[(&str, T)]) -> Result<Option<T>, Error> {
    let find = |text: &str| {
        let found = choices.iter().find(|(name, _)| *name == text).map(|(_, value)| *value);
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        found.ok_or_else(|| Error::bad_parameter(key, text, &format!("is not one of {}", names.join(", "))))
    };
    query.last_value(key).map(find).transpose()
}

/// Gathers the series of a page.
///
/// # Errors
/// When the page is no longer wanted.
pub fn build_page<S: Sink>(
    data: &Data,
    wanted: &Wanted,
    now: Timestamp,
    writer: &S,
) -> Result<Page<Published>, S::Stop> {
    let (histories, past, marks) = data.store.snapshot_at_level(wanted.level);
    // Read after the store: containers added in between have nothing to show yet.
    let containers = data.directory.all_containers();
    let known: HashMap<Allocation, Arc<ContainerInfo>> =
        containers.into_iter().map(|info| (info.allocation, info)).collect();
    let fits = |series: &Series| writer.goes_on() && wanted.filters.matches_series(series);
    let mut page = PageBuilder::new(wanted.format, wanted.naming, wanted.level, now, wanted.carry)
        .with_names(wanted.escaping, marks)
        .with_created(wanted.created)
        .with_histograms(wanted.counting.clone());
    let mut identities = HashSet::new();
    for (allocation, history) in &histories {
        writer.ensure_wanted()?;
        let Some(summary) = history.summary() else { continue };
        let origin = history.origin();
        if !writer.goes_on() || !wanted.matches_origin(origin) {
            continue;
        }
        let shown = known.get(allocation).is_some_and(|info| {
            info.finished_at.is_none_or(|ended| now.duration_since(ended) <= wanted.linger)
        });
        let windows = if shown { recent_windows(history, now, SPAN.max(wanted.window)) } else { Vec::new() };
        let source = PageSource { origin, ledger: &summary.ledger, windows, shown };
        page.add_container(&source, fits);
        identities.insert(SeriesIdentity::from_origin(origin, wanted.level));
    }
    // Remembered totals have only the labels of their identity, so filters by origin cannot be applied to them.
    let everyone = wanted.level == Level::Low && wanted.task.is_none() && !wanted.filters.names_origins();
    for (identity, gone) in past.iter() {
        let workload = wanted.shard.is_none_or(|shard| shard.has_workload(identity));
        if !(identities.contains(identity) || everyone && workload) {
            continue;
        }
        writer.ensure_wanted()?;
        for counted in gone.iter().filter(|counted| fits(&counted.series)) {
            if wanted.level != Level::Low || now.duration_since(counted.last_seen) <= REMEMBERED {
                let (created, total, count) = (counted.created, counted.total, counted.count);
                let histogram = counted.histogram.as_ref().map(|histogram| {
                    let (total, count) = (histogram.sum, histogram.buckets.count());
                    let decremented = counted.decremented;
                    (Sums { created: histogram.created, total, count, decremented }, &histogram.buckets)
                });
                let sums = Sums { created, total, count, decremented: counted.decremented };
                page.add_past(identity, &counted.series, sums, histogram);
            }
        }
    }
    // A build that stopped early has only some of the series.
    writer.ensure_wanted()?;
    Ok(page.build_page())
}

/// The windows that ended within `span`, newest first, with the newest revision of each record.
fn recent_windows(history: &History, now: Timestamp, span: Duration) -> Vec<PageWindow<Published>> {
    let mut held = Vec::new();
    for kept in history.kept_intervals().rev() {
        if kept.span().is_none_or(|of| now.duration_since(of.end) > span) {
            break;
        }
        let mut published = kept.published_windows();
        match (published.next(), published.next()) {
            (Some(alone), None) => {
                held.push(PageWindow {
                    window: Arc::clone(alone),
                    records: (0..alone.window().len()).collect(),
                });
            }
            _ => {
                for (window, number, _) in kept.newest_records() {
                    let record = usize::try_from(number.seq - window.first_seq()).unwrap_or(usize::MAX);
                    match held.last_mut() {
                        Some(PageWindow { window: last, records }) if Arc::ptr_eq(last, window) => {
                            records.push(record);
                        }
                        _ => held.push(PageWindow { window: Arc::clone(window), records: vec![record] }),
                    }
                }
            }
        }
    }
    held
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_is_a_part_of_several() {
        assert_eq!("0/4".parse(), Ok(ScrapeShard { part: 0, parts: 4 }));
        assert_eq!("3/4".parse(), Ok(ScrapeShard { part: 3, parts: 4 }));
        for wrong in ["4/4", "0/0", "1", "-1/4", "0/1025", "a/b", ""] {
            assert!(wrong.parse::<ScrapeShard>().is_err(), "{wrong}");
        }
    }
}
