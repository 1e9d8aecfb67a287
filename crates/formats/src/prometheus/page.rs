//! Building a page: which series it has, which family each belongs to, and how families are declared.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tallyport_core::aggregate::{Buckets, Counting, Ledger, Scale, View, Window};
use tallyport_core::model::{MetricType, Origin, Series, Timestamp};

use super::family::{Family, PageItem, Sums, build_blocks};
use super::gathered::{Gathered, bare_names};
use super::identity::format_info_labels;
use super::scraped::{SeriesNames, format_help};
use super::shape::Shape;
use super::{Level, Marks, MarksOfAll, Naming, Page, SeriesIdentity};
use crate::exposition::{Escaping, Format, format_bound};

/// One container, with its published data.
#[derive(Debug)]
pub struct PageSource<'a, W> {
    /// The container's origin.
    pub origin: &'a Origin,
    /// Every live series of it.
    pub ledger: &'a Ledger,
    /// Its last windows, newest first.
    pub windows: Vec<PageWindow<W>>,
    /// Whether it is live, or ended so recently that scrapers may not have seen its last values.
    pub shown: bool,
}

/// One of its windows.
#[derive(Debug)]
pub struct PageWindow<W> {
    /// The window.
    pub window: Arc<W>,
    /// The indices of the records to show: all of them, or those that have not been revised since.
    pub records: Vec<usize>,
}

/// Builds a page.
#[derive(Debug)]
pub struct PageBuilder<W> {
    format: Format,
    naming: Naming,
    escaping: Escaping,
    marks_of_all: MarksOfAll,
    level: Level,
    created: bool,
    counting: Counting,
    /// The current time, and how long a gauge stays on the page after it was last set.
    now: Timestamp,
    carry: Duration,
    identities: Vec<SeriesIdentity>,
    /// The marks of each identity.
    marks: Vec<Option<Arc<Marks>>>,
    by_identity: HashMap<SeriesIdentity, usize>,
    /// The info labels of each identity's newest container.
    infos: BTreeMap<usize, String>,
    families: Vec<Family>,
    by_name: HashMap<(String, MetricType), usize>,
    /// A cache of the same by the applications' names, each of which is looked up many times.
    by_series: HashMap<(Box<str>, MetricType), Option<usize>>,
    items: Vec<PageItem>,
    windows: Vec<Arc<W>>,
    records: Vec<(usize, usize)>,
}

impl<W: AsRef<Window>> PageBuilder<W> {
    /// An empty page. A gauge is on it for `carry` after it was last set.
    #[must_use]
    pub fn new(format: Format, naming: Naming, level: Level, now: Timestamp, carry: Duration) -> Self {
        Self {
            format,
            naming,
            escaping: Escaping::default(),
            marks_of_all: MarksOfAll::default(),
            level,
            created: false,
            counting: Counting::Off,
            now,
            carry,
            identities: Vec::new(),
            marks: Vec::new(),
            by_identity: HashMap::new(),
            infos: BTreeMap::new(),
            families: Vec::new(),
            by_name: HashMap::new(),
            by_series: HashMap::new(),
            items: Vec::new(),
            windows: Vec::new(),
            records: Vec::new(),
        }
    }

    /// Sets the characters that the reader accepts, and the marks of names that would otherwise collide.
    #[must_use]
    pub fn with_names(self, escaping: Escaping, marks_of_all: MarksOfAll) -> Self {
        Self { escaping, marks_of_all, ..self }
    }

    /// Sets whether the page contains the creation time of each counter; the classic format has no place for it.
    #[must_use]
    pub fn with_created(self, created: bool) -> Self {
        Self { created: created && self.format != Format::Prometheus, ..self }
    }

    /// Sets how values are counted into histograms. Those counted with other bounds are left out, because they cannot be
    /// added up. Native histograms cannot be written as text, which has percentiles instead.
    #[must_use]
    pub fn with_histograms(self, counting: Counting) -> Self {
        match counting {
            Counting::Native if self.format != Format::Protobuf => Self { counting: Counting::Off, ..self },
            counting => Self { counting, ..self },
        }
    }

    /// Adds a container and its wanted series. Containers with the same identity must be added oldest first.
    pub fn add_container(&mut self, source: &PageSource<'_, W>, wanted: impl Fn(&Series) -> bool) {
        let identity =
            self.intern_identity(SeriesIdentity::from_origin(source.origin, self.level), Some(source.origin));
        if source.shown && self.level != Level::Low {
            self.infos.insert(identity, format_info_labels(source.origin, self.level, self.escaping));
        }
        let mut found: Vec<Vec<(usize, usize)>> = vec![Vec::new(); source.ledger.place_count()];
        for held in &source.windows {
            self.windows.push(Arc::clone(&held.window));
            self.collect_records(&mut found, self.windows.len() - 1, held, source.ledger);
        }
        for (place, records) in found.into_iter().enumerate() {
            let Some((series, row)) = source.ledger.get(place) else { continue };
            if !wanted(series) || (records.is_empty() && !is_cumulative(series.metric_type)) {
                continue;
            }
            let sums = Sums {
                created: series.created,
                total: row.total.into(),
                count: row.count,
                decremented: row.decremented,
            };
            let histogram = source.ledger.histogram_at(place).map(|histogram| {
                let (total, count) = (histogram.sum.into(), histogram.buckets.count());
                let decremented = row.decremented;
                (Sums { created: histogram.created, total, count, decremented }, &histogram.buckets)
            });
            let Some((family, sums, buckets)) = self.select_sums(identity, series, sums, histogram) else {
                continue;
            };
            let start = self.records.len();
            self.records.extend(records);
            let records = start..self.records.len();
            let (series, past) = (Arc::clone(series), !source.shown);
            self.push(PageItem { family, identity, past, series, sums, buckets, records });
        }
    }

    /// Adds the totals and buckets of a series from removed containers.
    pub fn add_past(
        &mut self,
        identity: &SeriesIdentity,
        series: &Arc<Series>,
        sums: Sums,
        histogram: Option<(Sums, &Arc<Buckets>)>,
    ) {
        let identity = self.intern_identity(identity.clone(), None);
        let Some((family, sums, buckets)) = self.select_sums(identity, series, sums, histogram) else {
            return;
        };
        let series = Arc::clone(series);
        self.push(PageItem { family, identity, past: true, series, sums, buckets, records: 0..0 });
    }

    /// Returns the family of a series and the sums to show: with buckets, those of the values in the buckets; without, those
    /// of all values. `None` if nothing can be shown.
    fn select_sums(
        &mut self,
        identity: usize,
        series: &Series,
        sums: Sums,
        histogram: Option<(Sums, &Arc<Buckets>)>,
    ) -> Option<(usize, Sums, Option<Arc<Buckets>>)> {
        let shape = Shape::for_metric_type(self.naming, series.metric_type)?;
        let Some((_, scale)) = self.find_histogram_shape(shape, series.metric_type) else {
            return Some((self.intern_family(identity, series)?, sums, None));
        };
        let (sums, buckets) = histogram.filter(|(_, buckets)| buckets.scale() == scale)?;
        Some((self.intern_family(identity, series)?, sums, Some(Arc::clone(buckets))))
    }

    /// The histogram form of a shape and its scale, if the type is counted into buckets and the naming scheme has histograms.
    fn find_histogram_shape(&self, shape: Shape, metric_type: MetricType) -> Option<(Shape, Scale<'_>)> {
        let scale = self.counting.scale_for(metric_type)?;
        Some((shape.in_buckets(scale)?, scale))
    }

    /// The page, ready to be written.
    #[must_use]
    pub fn build_page(mut self) -> Page<W> {
        for family in &mut self.families {
            family.items.sort_by_key(|index| self.items.get(*index).map(|item| item.identity));
        }
        let mut gathered = Gathered {
            naming: self.naming,
            escaping: self.escaping,
            infos: self.infos.into_values().collect(),
            bare: bare_names(&self.families),
            blocks: Vec::new(),
            identities: self.identities,
            marks: self.marks,
            families: self.families,
            items: self.items,
            windows: self.windows,
            records: self.records,
        };
        gathered.resolve_native_conflicts();
        // Protobuf messages have a field for the creation time.
        let created = self.created && self.format == Format::OpenMetrics;
        gathered.blocks = build_blocks(&gathered.families, &gathered.items, self.format, created);
        Page::new(self.format, self.level, self.created, gathered)
    }

    fn push(&mut self, item: PageItem) {
        if let Some(family) = self.families.get_mut(item.family) {
            family.negative |= item.sums.decremented;
            family.items.push(self.items.len());
            self.items.push(item);
        }
    }

    /// Returns the index of an identity, adding it if necessary. Its marks are those of its workload; if no container is
    /// given, the identity is a workload itself.
    fn intern_identity(&mut self, identity: SeriesIdentity, origin: Option<&Origin>) -> usize {
        *self.by_identity.entry(identity).or_insert_with_key(|identity| {
            self.identities.push(identity.clone());
            let marks = match origin {
                _ if self.marks_of_all.is_empty() => None,
                Some(origin) => self.marks_of_all.get(&SeriesIdentity::from_origin(origin, Level::Low)),
                None => self.marks_of_all.get(identity),
            };
            self.marks.push(marks.cloned());
            self.identities.len() - 1
        })
    }

    /// Collects the records of a window by place. Of a gauge, only the newest record counts, unless it is too old.
    fn collect_records(
        &self,
        found: &mut [Vec<(usize, usize)>],
        window: usize,
        held: &PageWindow<W>,
        ledger: &Ledger,
    ) {
        let (now, carry) = (self.now, self.carry);
        let contents = held.window.as_ref().as_ref();
        let of = |index: &usize| Some((*index, contents.record_at(*index)?));
        for (index, record) in held.records.iter().filter_map(of) {
            let place = record.place as usize;
            let Some(slot) = found.get_mut(place) else { continue };
            // A place is reused after its series was dropped.
            let same = ledger.get(place).is_some_and(|(series, _)| series.is_the_same(record.series));
            let counts = match record.view {
                View::Gauge(gauge) => slot.is_empty() && now.duration_since(gauge.last_at) <= carry,
                View::Distribution { .. } | View::Set { .. } => true,
                View::Counter { .. } | View::Check { .. } => false,
            };
            if same && counts {
                slot.push((window, index));
            }
        }
    }

    fn intern_family(&mut self, identity: usize, series: &Series) -> Option<usize> {
        let marks = self.marks.get(identity).and_then(Option::as_deref);
        let names = self.series_names(marks);
        if names.metric_mark(&series.name, series.metric_type).is_some() {
            let (name, shape) = names.family_name(series)?;
            return Some(self.new_family(series, name, shape));
        }
        let key = (series.name.clone(), series.metric_type);
        if let Some(known) = self.by_series.get(&key) {
            return *known;
        }
        let named = self.series_names(None).family_name(series);
        let family = named.map(|(name, shape)| self.new_family(series, name, shape));
        self.by_series.insert(key, family);
        family
    }

    fn series_names<'m>(&self, marks: Option<&'m Marks>) -> SeriesNames<'m> {
        SeriesNames { naming: self.naming, escaping: self.escaping, marks }
    }

    /// The family of this name and type, which another application name that maps to the same name may have created.
    fn new_family(&mut self, series: &Series, name: String, shape: Shape) -> usize {
        let (shape, bounds, negative) = match self.find_histogram_shape(shape, series.metric_type) {
            Some((shape, Scale::Bounds(bounds))) => {
                let shown = bounds.iter_scaled(shape.places).chain([f64::INFINITY]);
                // OpenMetrics allows no sum with such bounds.
                (
                    shape,
                    shown.map(|bound| (format_bound(bound), bound)).collect(),
                    bounds.lowest_bound() < 0.0,
                )
            }
            Some((shape, Scale::Powers { .. })) => (shape, Vec::new(), false),
            None => (shape, Vec::new(), false),
        };
        *self.by_name.entry((name, series.metric_type)).or_insert_with_key(|(name, _)| {
            let mut help = format_help(series);
            help.extend(shape.describe_span());
            self.families.push(Family {
                name: name.clone(),
                shape,
                bounds,
                help,
                negative,
                items: Vec::new(),
            });
            self.families.len() - 1
        })
    }
}

/// Whether the ledger alone provides values to show.
fn is_cumulative(metric_type: MetricType) -> bool {
    !matches!(metric_type, MetricType::Gauge | MetricType::Set | MetricType::ServiceCheck)
}
