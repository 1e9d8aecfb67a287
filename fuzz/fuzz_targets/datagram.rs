//! Datagrams of a container, through the parser and an aggregator with low limits.
//!
//! ```text
//! input = styles limits step *( NUL step )
//! step  = how datagram                        ; the datagram: any bytes but NUL
//! ```
//!
//! Each of `styles`, `limits` and `how` is one byte; `@@@` in front of a datagram means nothing special. See
//! [`Limited::settings`] and [`Run::step`] for their bits.

#![no_main]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tallyport::aggregate::{
    Aggregator, AggregatorSettings, ClosedWindow, Counting, EVENTS, GaugeSign, LimitMode, Limits,
};
use tallyport::model::{MetricType, Moment, TagSet, Timestamp};
use tallyport::render::parsed::describe_datagram;
use tallyport::statsd::style::TagStyles;
use tallyport::statsd::{self, MAX_WEIGHT, ParsedLine, Rejected, Sample, Values, tags};
use tallyport_fuzz::allocation::{self, Counted};
use tallyport_fuzz::{Merged, START, Trust, in_buckets};

/// Kept windows.
const KEEP: usize = 3;
/// Memory that a container may use beyond its limit: its empty state and the effect of one line.
const SLACK: usize = 16 << 10;

fuzz_target!(|input: &[u8]| {
    let [styles, limits, steps @ ..] = input else { return };
    let mut run = Run::new(*styles, *limits);
    for step in steps.split(|byte| *byte == 0) {
        if let [how, datagram @ ..] = step {
            read(datagram);
            run.step(*how, datagram);
        }
    }
    run.end();
});

/// Decodes the tag styles from three bits.
fn styles_of(bits: u8) -> TagStyles {
    let on = |bit: u8, style: TagStyles| if bits & bit != 0 { style } else { TagStyles::NONE };
    on(1, TagStyles::INFLUX).union(on(2, TagStyles::LIBRATO)).union(on(4, TagStyles::SIGNALFX))
}

/// Parses a datagram in every style, and checks the properties of the result.
fn read(datagram: &[u8]) {
    let mut bytes = 0;
    for line in statsd::split_lines(datagram) {
        assert!(!line.is_empty() && !line.contains(&b'\n'));
        assert!(datagram.as_ptr_range().contains(&line.as_ptr()));
        bytes += line.len();
        let plain = statsd::parse(line, TagStyles::NONE);
        let marked = line.iter().any(|byte| b",#[".contains(byte));
        if let Ok(item) = &plain {
            accepted(line, TagStyles::NONE, item);
        }
        for styles in (1..8).map(styles_of) {
            match statsd::parse(line, styles) {
                // Without its separator in the line, a style has no effect.
                read if !marked => assert_eq!(read, plain),
                Ok(item) => accepted(line, styles, &item),
                Err(code) => assert!(Rejected::ALL.contains(&code)),
            }
        }
    }
    assert!(bytes <= datagram.len());
    for styles in [TagStyles::NONE, TagStyles::ALL] {
        tallyport_fuzz::sound(&describe_datagram(datagram, styles));
    }
}

fn accepted(line: &[u8], styles: TagStyles, item: &ParsedLine<'_>) {
    // An unknown field changes nothing.
    let longer = [line, b"|zz"].concat();
    assert_eq!(statsd::parse(&longer, styles).as_ref(), Ok(item));
    match item {
        ParsedLine::Sample(read) => sample(line, read),
        ParsedLine::Event(event) => {
            assert!(!event.unescaped_title().is_empty());
            assert!(event.timestamp.is_none_or(|seconds| seconds > 0));
            tallyport_fuzz::tags(&tags::canonical_tags(event.tags).0);
        }
        ParsedLine::Check(check) => {
            assert!(!check.name.is_empty());
            assert!(check.timestamp.is_none_or(|seconds| seconds > 0));
            tallyport_fuzz::tags(&tags::canonical_tags(check.tags).0);
        }
    }
}

fn sample(line: &[u8], sample: &Sample<'_>) {
    assert!(!sample.name.is_empty() && !sample.name.iter().any(|byte| b":|".contains(byte)));
    assert!(line.starts_with(sample.name));
    assert!(sample.rate > 0.0 && sample.rate <= 1.0, "{}", sample.rate);
    assert!(sample.weight >= 1.0 && sample.weight <= MAX_WEIGHT, "{}", sample.weight);
    assert!(sample.timestamp.is_none_or(|seconds| seconds > 0));
    assert_ne!(sample.metric_type, MetricType::ServiceCheck);
    assert_eq!(sample.metric_type == MetricType::Set, matches!(sample.values, Values::Member(_)));
    if let Values::Member(member) = sample.values {
        assert!(!member.is_empty() && sample.values.numbers().next().is_none());
    } else {
        numbers(line, sample);
    }
    let canonical = tags::canonicalize_sample(sample);
    assert!(!canonical.name.is_empty(), "{sample:?}");
    tallyport_fuzz::tags(&canonical.tags);
    assert_eq!(TagSet::from_pairs(canonical.tags.iter()), canonical.tags, "canonical form is its own");
}

/// Compares parsed numbers with those that the standard library parses.
fn numbers(line: &[u8], sample: &Sample<'_>) {
    let text = line.get(sample.name.len() + 1..).unwrap_or_default();
    let text = text.split(|byte| *byte == b'|').next().unwrap_or_default();
    let texts = text.split(|byte| *byte == b':').filter(|text| !text.is_empty());
    let texts: Vec<&str> = texts.map(|text| std::str::from_utf8(text).expect("a number is ASCII")).collect();
    let numbers: Vec<_> = sample.values.numbers().collect();
    assert_eq!((texts.len(), numbers.len() as u64), (numbers.len(), u64::from(sample.values.count())));
    for (text, number) in texts.iter().zip(&numbers) {
        assert!(number.value.is_finite());
        assert_eq!(number.signed, text.starts_with(['+', '-']), "{text}");
        let wanted: f64 = text.parse().expect("a number");
        assert_eq!(number.value.to_bits(), wanted.to_bits(), "{text} is {wanted}, not {}", number.value);
    }
    assert_eq!(sample.values.has_sign(), numbers.iter().any(|number| number.signed));
}

/// An aggregator, and the figures that it must agree with.
struct Run {
    settings: Arc<AggregatorSettings>,
    aggregator: Aggregator,
    now: Moment,
    merged: Merged,
    /// Samples in records so far.
    in_records: u64,
    /// Lines reported to the tap, and the rejected ones among them.
    tapped: (u64, u64),
    /// Bytes of the kept windows.
    history: VecDeque<usize>,
    /// The longest line, and the largest window.
    longest: (usize, usize),
    /// Whether limits have been changed.
    changed: bool,
}

struct Limited(u8);

impl Limited {
    /// ```text
    /// bits 0-1  series: 10,000, 50, 3, 1
    /// bits 2-3  memory: 64 MiB, 256 KiB, 64 KiB, 1 KiB
    /// bit  4    short names and tags, and values counted in buckets
    /// bit  5    few datagrams and bytes
    /// bit  6    limits are kept (as opposed to only observed)
    /// bit  7    windows of a second (as opposed to ten)
    /// ```
    fn settings(&self, tag_styles: TagStyles) -> AggregatorSettings {
        let on = |bit: u8| self.0 & bit != 0;
        let limits = Limits {
            mode: if on(0x40) { LimitMode::Enforce } else { LimitMode::Observe },
            datagrams_per_second: on(0x20).then_some(5),
            bytes_per_second: on(0x20).then_some(500),
            series: [10_000, 50, 3, 1][usize::from(self.0 & 3)],
            name_bytes: if on(0x10) { 8 } else { 1024 },
            tags_bytes: if on(0x10) { 16 } else { 8192 },
            late_records: if on(0x10) { 4 } else { 10_000 },
            memory: [64 << 20, 256 << 10, 64 << 10, 1 << 10][usize::from(self.0 >> 2 & 3)],
        };
        AggregatorSettings {
            window: Duration::from_secs(if on(0x80) { 1 } else { 10 }),
            keep: KEEP,
            gauge_carry: Duration::from_secs(25),
            series_idle: Duration::from_mins(1),
            tag_styles,
            limits,
            counting: match (on(0x10), on(0x80)) {
                (true, _) => in_buckets(),
                (false, true) => Counting::Native,
                (false, false) => Counting::Off,
            },
        }
    }
}

impl Run {
    /// Bits 0-2 of `styles` are tag styles; bit 3: a signed gauge is a level; bit 4: it comes within a window.
    fn new(styles: u8, limits: u8) -> Self {
        let settings = Arc::new(Limited(limits).settings(styles_of(styles)));
        let signs = [GaugeSign::Delta, GaugeSign::Absolute, GaugeSign::Auto, GaugeSign::Auto];
        let sign = signs.get(usize::from(styles >> 3 & 3)).copied().unwrap_or_default();
        let mono = Duration::from_millis(if styles & 16 == 0 { 0 } else { 400 });
        let now = Moment { wall: Timestamp::from_secs(START).saturating_add(mono), mono };
        Self {
            aggregator: Aggregator::new(Arc::clone(&settings), sign, now.wall),
            settings,
            now,
            merged: Merged::default(),
            in_records: 0,
            tapped: (0, 0),
            history: VecDeque::new(),
            longest: (0, 0),
            changed: false,
        }
    }

    /// ```text
    /// bits 0-2  time advances by: nothing, 1 ms, 1 s, to the window's end, a window, all that are kept,
    ///           so that gauges are no longer carried, so that series are idle
    /// bits 3-5  first: nothing, peek, move to another process, change settings, node full or no longer,
    ///           close every window in between, kernel drops, peek and move
    /// bits 6-7  the datagram: line by line, whole, 8 times, 32 times; a % in those is the number
    /// ```
    fn step(&mut self, how: u8, datagram: &[u8]) {
        let window = self.settings.window;
        let by = match how & 7 {
            0 => Duration::ZERO,
            1 => Duration::from_millis(1),
            2 => Duration::from_secs(1),
            3 => self.aggregator.window_end().duration_since(self.now.wall),
            4 => window,
            5 => window.saturating_mul(4),
            6 => self.settings.gauge_carry + window,
            _ => self.settings.series_idle + window,
        };
        self.now = self.now.saturating_add(by);
        let action = how >> 3 & 7;
        if action == 5 {
            while self.aggregator.window_end() <= self.now.wall {
                self.roll(self.aggregator.window_end());
            }
        }
        self.roll(self.now.wall);
        match action {
            1 => self.peek(),
            2 => self.move_on(),
            3 => self.reconfigure(datagram),
            4 => self.aggregator.set_node_full(!datagram.is_empty()),
            6 => self.aggregator.set_kernel_drops(self.aggregator.accounting().kernel_drops + 7),
            7 => {
                self.peek();
                self.move_on();
            }
            _ => {}
        }
        match how >> 6 {
            0 => datagram.split_inclusive(|byte| *byte == b'\n').for_each(|line| self.datagram(line)),
            1 => self.datagram(datagram),
            2 => (0..8).for_each(|n| self.datagram(&numbered(datagram, n))),
            _ => (0..32).for_each(|n| self.datagram(&numbered(datagram, n))),
        }
    }

    fn datagram(&mut self, datagram: &[u8]) {
        let longest = statsd::split_lines(datagram).map(<[u8]>::len).max().unwrap_or(0);
        self.longest.0 = self.longest.0.max(longest);
        let (lines, rejected) = &mut self.tapped;
        let mut tap = |_: &[u8], code: Option<Rejected>| {
            *lines += 1;
            *rejected += u64::from(code.is_some());
        };
        self.aggregator.ingest_datagram(datagram, self.now, Some(&mut tap));
        self.check();
    }

    /// Checks the invariants.
    fn check(&self) {
        let (accounting, open) = (self.aggregator.accounting(), self.aggregator.open_values());
        assert!(accounting.is_balanced(open), "{open} open, {accounting:?}");
        assert_eq!(accounting.in_records, self.in_records);
        assert_eq!((accounting.lines, accounting.rejected.total_count()), self.tapped);
        assert_eq!(accounting.arrived_datagrams(), accounting.received + accounting.kernel_drops);
        assert!(accounting.received >= accounting.dropped.datagram_count());
        assert!(self.aggregator.rejected_lines().iter().count() <= tallyport::aggregate::REJECTED_LINES);
        let limits = self.settings.limits;
        if limits.mode == LimitMode::Observe || self.changed {
            return;
        }
        assert!(self.aggregator.series_count() <= limits.series);
        let (line, window) = self.longest;
        let events = usize::try_from(accounting.events).unwrap_or(EVENTS).min(EVENTS);
        // The last series that fits may double the tables that index it.
        let tables = limits.memory / 2;
        let allowed = limits.memory + tables + KEEP * window + events * (3 * line + 512) + SLACK;
        let memory = self.aggregator.memory_bytes();
        assert!(memory <= allowed, "{memory} bytes, {allowed} allowed at a limit of {}", limits.memory);
    }

    fn roll(&mut self, now: Timestamp) {
        let end = self.aggregator.window_end();
        match self.aggregator.roll_window(now) {
            Some(closed) => {
                assert!(end <= now && closed.window.span.end == end);
                assert!(self.aggregator.window_end() > now);
                self.closed(&closed);
            }
            None => assert!(now < end),
        }
    }

    fn closed(&mut self, closed: &ClosedWindow) {
        self.in_records += tallyport_fuzz::closed(closed, Trust::Sampled);
        assert_eq!(self.aggregator.open_values(), 0);
        let bytes = closed.window.bytes();
        self.longest.1 = self.longest.1.max(bytes);
        if !closed.window.is_empty() {
            self.history.push_back(bytes);
        }
        while self.history.len() > KEEP {
            self.history.pop_front();
        }
        self.merged.add(&closed.window);
        closed.revisions.iter().for_each(|revision| self.merged.add(revision));
        self.check();
    }

    fn peek(&self) {
        tallyport_fuzz::window(&self.aggregator.peek_open_window(self.now.wall), true, Trust::Sampled);
        tallyport_fuzz::summary(&self.aggregator.build_summary(), Trust::Sampled);
    }

    /// Continues from a snapshot, as in another process, which must make no difference.
    fn move_on(&mut self) {
        let snapshot = self.aggregator.encode_snapshot();
        let restored =
            Aggregator::from_snapshot(Arc::clone(&self.settings), &snapshot).expect("it was just made");
        assert!(restored.encode_snapshot() == snapshot, "a snapshot of what was restored is another");
        let (old, new) = (&self.aggregator, &restored);
        assert_eq!(new.accounting(), old.accounting());
        assert_eq!((new.open_values(), new.series_count()), (old.open_values(), old.series_count()));
        assert_eq!(new.window_end(), old.window_end());
        let shown = |aggregator: &Aggregator| {
            tallyport_fuzz::window(&aggregator.peek_open_window(self.now.wall), true, Trust::Sampled).1
        };
        assert_eq!(shown(new), shown(old));
        self.aggregator = restored;
    }

    /// Changes limits, idle times and styles, according to the first two bytes of the datagram.
    fn reconfigure(&mut self, datagram: &[u8]) {
        let [styles, limits, ..] = datagram else { return };
        let settings = Limited(*limits).settings(styles_of(*styles));
        self.aggregator.apply_settings(&settings);
        // The window keeps its length.
        self.settings = Arc::new(AggregatorSettings { window: self.settings.window, ..settings });
        self.changed = true;
    }

    /// Ends the container: every accepted value must be in a record or dropped.
    fn end(mut self) {
        self.peek();
        let closed = self.aggregator.close_final_window(self.now.wall);
        self.closed(&closed);
        drop(closed);
        assert!(self.aggregator.accounting().is_balanced(0));
        std::mem::take(&mut self.merged).check();
        let Self { aggregator, history, .. } = self;
        let slots = aggregator.build_summary().ledger.iter().count();
        let counted = aggregator.memory_bytes() - history.iter().sum::<usize>();
        let before = allocation::held();
        drop(aggregator);
        let held = before - allocation::held();
        // Not counted: slots of series, spare capacity of vectors, the last rejected lines.
        let most = 2 * counted + 64 * slots + SLACK;
        assert!(held <= most, "{held} bytes were held, {counted} counted");
    }
}

/// The datagram with `n` for every `%`.
fn numbered(datagram: &[u8], n: u32) -> Vec<u8> {
    let text = n.to_string();
    let one = |byte: &u8| if *byte == b'%' { text.as_bytes().to_vec() } else { vec![*byte] };
    datagram.iter().flat_map(one).collect()
}

#[global_allocator]
static ALLOCATOR: Counted = Counted;
