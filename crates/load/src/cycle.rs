//! One container's traffic, and the totals expected from it.

use std::collections::BTreeMap;

/// The series to which an agent adds the counters that exceed a container's series limit.
const OVERFLOW: &str = "tallyport.overflow";

/// What a container sends.
#[derive(Clone, Copy, Debug)]
pub struct TrafficShape {
    /// Seed of the random values, to make containers differ.
    pub seed: u64,
    /// Series, of all types.
    pub series: usize,
    /// Lines in a datagram.
    pub packing: usize,
    /// Percentage of invalid lines.
    pub bad_percent: usize,
    /// Series beyond the cap.
    pub flood: Option<Flood>,
}

/// More series than a container may have, sent once.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// The series limit.
    pub cap: usize,
    /// Number of series beyond the limit.
    pub excess: usize,
}

/// Datagrams that are sent repeatedly, and their totals.
#[derive(Clone, Debug)]
pub struct Cycle {
    /// Sent in every round.
    pub datagrams: Vec<Vec<u8>>,
    /// Sent once, after the first round.
    pub flood: Vec<Vec<u8>>,
    /// What one round adds up to, and the flood.
    pub expected: Expected,
}

/// The totals expected from traffic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    /// Datagrams.
    pub datagrams: u64,
    /// Values of lines that can be read.
    pub values: u64,
    /// Lines that cannot.
    pub bad_lines: u64,
    /// Values that are dropped at the series cap.
    pub dropped: u64,
    /// What each series adds up to, by name.
    pub series: BTreeMap<String, ExpectedTotal>,
    /// What the flood adds, once.
    pub flood: Option<Box<Expected>>,
}

/// What one series adds up to.
#[derive(Clone, Debug, PartialEq)]
pub enum ExpectedTotal {
    /// The sum.
    Counter(f64),
    /// The level at the end of a round.
    Level(f64),
    /// By how much the level changes in a round.
    Change(f64),
    /// How many values, weighted, and their sum.
    Values {
        /// Weighted by 1/rate.
        count: f64,
        /// Σ weight · value.
        sum: f64,
    },
    /// How many different members.
    Members(usize),
}

/// A small generator, good enough to make containers differ (Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014).
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }
}

/// Rates whose weights are whole.
const RATES: [(&str, f64); 3] = [("", 1.0), ("|@0.5", 2.0), ("|@0.1", 10.0)];
const TAGS: [&str; 3] = ["", "|#env:prod", "|#zone:b,env:prod,live"];
/// Invalid lines, each for a different reason.
const BAD: [&str; 6] = ["nothing", "a:|c", "b:x|c", "c:1|q", "d:1|c|@2", ":1|c"];
/// Lines of one series in a round.
const LINES: usize = 4;

impl Cycle {
    /// The cycle of a shape. The same shape has the same cycle.
    #[must_use]
    pub fn new(shape: &TrafficShape) -> Self {
        let mut random = Random(shape.seed);
        let mut expected = Expected::default();
        let mut lines = Vec::new();
        for index in 0..shape.series {
            let (name, total, values) = generate_series(&mut lines, index, &mut random);
            expected.values += values;
            expected.series.insert(name, total);
        }
        // One type after the other would let a parser that mixes up neighbours pass: series are shuffled, and take
        // turns. The lines of one stay in order, which a gauge needs.
        for index in (1..lines.len()).rev() {
            lines.swap(index, usize::try_from(random.next(index as u64 + 1)).unwrap_or(0));
        }
        lines.sort_by_key(|(turn, _)| *turn);
        let mut texts: Vec<String> = lines.into_iter().map(|(_, text)| text).collect();
        let bad = texts.len() * shape.bad_percent / 100;
        for line in BAD.iter().cycle().take(bad) {
            let at = usize::try_from(random.next(texts.len() as u64)).unwrap_or(0);
            texts.insert(at, (*line).to_owned());
            expected.bad_lines += 1;
        }
        let datagrams = pack_lines(&texts, shape.packing);
        expected.datagrams = datagrams.len() as u64;
        let (flood, of_flood) = shape.flood.map(|flood| generate_flood(flood, shape)).unwrap_or_default();
        expected.flood = of_flood.map(Box::new);
        Self { datagrams, flood, expected }
    }
}

/// Generates one series' lines, and returns its name and expected total. Each line has a turn number, so that series
/// alternate.
fn generate_series(
    lines: &mut Vec<(usize, String)>,
    index: usize,
    random: &mut Random,
) -> (String, ExpectedTotal, u64) {
    let (rate, weight) = *pick_random(&RATES, random);
    let tags = *pick_random(&TAGS, random);
    let numbers: Vec<f64> = (0..LINES).map(|_| random.next(1000) as f64 / 2.0).collect();
    let sum: f64 = numbers.iter().sum();
    let mut line = |turn: usize, text: String| lines.push((turn, text));
    let plain = |name: &str, letter: &str, line: &mut dyn FnMut(usize, String)| {
        for (turn, number) in numbers.iter().enumerate() {
            line(turn, format!("{name}:{number}|{letter}{rate}{tags}"));
        }
    };
    let (name, total, values) = match index % 6 {
        0 => {
            let name = format!("requests.{index}");
            plain(&name, "c", &mut line);
            (name, ExpectedTotal::Counter(sum * weight), LINES)
        }
        1 => {
            let name = format!("depth.{index}");
            plain(&name, "g", &mut line);
            (name, ExpectedTotal::Level(numbers.last().copied().unwrap_or_default()), LINES)
        }
        2 => {
            let name = format!("level.{index}");
            for (turn, number) in numbers.iter().enumerate() {
                line(turn, format!("{name}:{}{number}|g{tags}", if turn % 2 == 0 { '+' } else { '-' }));
            }
            let change =
                numbers.iter().enumerate().map(|(turn, n)| if turn % 2 == 0 { *n } else { -n }).sum();
            (name, ExpectedTotal::Change(change), LINES)
        }
        3 => {
            // Packed: each line carries two values.
            let name = format!("latency.{index}");
            for (turn, number) in numbers.iter().enumerate() {
                line(turn, format!("{name}:{number}:{number}|ms{rate}{tags}"));
            }
            (
                name,
                ExpectedTotal::Values { count: 2.0 * LINES as f64 * weight, sum: 2.0 * sum * weight },
                2 * LINES,
            )
        }
        4 => {
            let name = format!("size.{index}");
            plain(&name, if index % 12 == 4 { "h" } else { "d" }, &mut line);
            (name, ExpectedTotal::Values { count: LINES as f64 * weight, sum: sum * weight }, LINES)
        }
        _ => {
            let name = format!("users.{index}");
            (0..LINES).for_each(|turn| line(turn, format!("{name}:user{turn}|s{tags}")));
            (name, ExpectedTotal::Members(LINES), LINES)
        }
    };
    (name, total, values as u64)
}

fn pick_random<'a, T>(list: &'a [T; 3], random: &mut Random) -> &'a T {
    let [first, second, third] = list;
    match random.next(3) {
        0 => first,
        1 => second,
        _ => third,
    }
}

fn pack_lines(lines: &[String], packing: usize) -> Vec<Vec<u8>> {
    lines.chunks(packing.max(1)).map(|lines| lines.join("\n").into_bytes()).collect()
}

/// Counters and gauges by turns: the first few fill the cap, then counters fold and gauges are dropped.
fn generate_flood(flood: Flood, shape: &TrafficShape) -> (Vec<Vec<u8>>, Option<Expected>) {
    let room = flood.cap.saturating_sub(shape.series);
    let mut expected = Expected::default();
    let mut lines = Vec::new();
    let mut folded = 0.0;
    for index in 0..room + flood.excess {
        let fits = index < room;
        expected.values += 1;
        if index % 2 == 0 {
            lines.push(format!("flood.c{index}:2|c"));
            if fits {
                expected.series.insert(format!("flood.c{index}"), ExpectedTotal::Counter(2.0));
            } else {
                folded += 2.0;
            }
        } else {
            lines.push(format!("flood.g{index}:7|g"));
            if fits {
                expected.series.insert(format!("flood.g{index}"), ExpectedTotal::Level(7.0));
            } else {
                expected.dropped += 1;
            }
        }
    }
    expected.series.insert(OVERFLOW.to_owned(), ExpectedTotal::Counter(folded));
    let datagrams = pack_lines(&lines, shape.packing);
    expected.datagrams = datagrams.len() as u64;
    (datagrams, Some(expected))
}

impl Expected {
    /// The totals of this many rounds and the flood.
    #[must_use]
    pub fn after_rounds(&self, rounds: u64) -> Self {
        let n = rounds as f64;
        let times = |total: &ExpectedTotal| match total {
            ExpectedTotal::Counter(sum) => ExpectedTotal::Counter(sum * n),
            ExpectedTotal::Change(by) => ExpectedTotal::Change(by * n),
            ExpectedTotal::Values { count, sum } => ExpectedTotal::Values { count: count * n, sum: sum * n },
            same => same.clone(),
        };
        let mut all = Self {
            datagrams: self.datagrams * rounds,
            values: self.values * rounds,
            bad_lines: self.bad_lines * rounds,
            dropped: self.dropped * rounds,
            series: self.series.iter().map(|(name, total)| (name.clone(), times(total))).collect(),
            flood: None,
        };
        if let Some(flood) = &self.flood {
            all.datagrams += flood.datagrams;
            all.values += flood.values;
            all.dropped += flood.dropped;
            all.series.extend(flood.series.clone());
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tallyport_core::aggregate::{Aggregator, AggregatorSettings, GaugeSign, Limits, View};
    use tallyport_core::model::{Moment, Timestamp};

    use super::*;

    const SHAPE: TrafficShape = TrafficShape { seed: 7, series: 60, packing: 8, bad_percent: 2, flood: None };

    #[test]
    fn a_shape_has_one_cycle() {
        assert_eq!(Cycle::new(&SHAPE).datagrams, Cycle::new(&SHAPE).datagrams);
        assert_ne!(Cycle::new(&SHAPE).datagrams, Cycle::new(&TrafficShape { seed: 8, ..SHAPE }).datagrams);
    }

    #[test]
    fn the_expectation_is_what_an_aggregator_makes_of_it() {
        let cycle = Cycle::new(&TrafficShape { flood: Some(Flood { cap: 100, excess: 50 }), ..SHAPE });
        let settings = AggregatorSettings {
            limits: Limits { series: 100, ..Limits::default() },
            ..AggregatorSettings::default()
        };
        let now = Moment { wall: Timestamp::from_secs(1_767_225_600), mono: Duration::ZERO };
        let mut aggregator = Aggregator::new(Arc::new(settings), GaugeSign::Delta, now.wall);
        let rounds = 3;
        for round in 0..rounds {
            let flood = if round == 0 { cycle.flood.as_slice() } else { &[] };
            for datagram in cycle.datagrams.iter().chain(flood) {
                aggregator.ingest_datagram(datagram, now, None);
            }
        }
        let expected = cycle.expected.after_rounds(rounds);
        let window = aggregator.roll_window(now.wall.saturating_add(Duration::from_secs(10))).unwrap().window;
        let counts = aggregator.accounting();
        assert_eq!(counts.rejected.total_count(), expected.bad_lines);
        assert_eq!((counts.values, counts.dropped.total_count()), (expected.values, expected.dropped));
        assert_eq!(counts.received, expected.datagrams);
        assert_eq!(window.len(), expected.series.len());
        for record in window.records() {
            let found = match record.view {
                View::Counter { counter, .. } => ExpectedTotal::Counter(counter.sum),
                View::Gauge(gauge) if record.series.name.starts_with("level") => {
                    ExpectedTotal::Change(gauge.last)
                }
                View::Gauge(gauge) => ExpectedTotal::Level(gauge.last),
                View::Distribution { summary, .. } => {
                    ExpectedTotal::Values { count: summary.count.as_f64(), sum: summary.sum }
                }
                _ => ExpectedTotal::Members(4),
            };
            assert_eq!(Some(&found), expected.series.get(&*record.series.name), "{}", record.series.name);
        }
    }
}
