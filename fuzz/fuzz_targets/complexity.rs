//! The work and memory that a byte can cost. An input is a short program whose steps send thousands of lines, so that
//! any superlinear growth becomes visible; the target fails if work or memory exceeds a linear bound.
//!
//! ```text
//! input = *( kind count shape )    ; three bytes each, see [`Run::step`]
//! ```
//!
//! # What is allowed
//!
//! Work is allowed for bytes that arrive, for records that are published, and for records that are kept when a window
//! closes. The sum is the *allowance*, in bytes. Three measurements are compared with it:
//!
//! - all bytes requested from the allocator: deterministic. Code that copies or rebuilds per line is quadratic here;
//! - the peak of bytes held: deterministic;
//! - CPU time of the thread, for code that searches without allocating. It is compared with the cost of a byte in small
//!   programs of the same kinds in the same process, so neither the machine nor the instrumentation matters. A thread's
//!   CPU time excludes other threads, but caches and hyperthreads can double it. `SLOWER` has room for that, and only a
//!   program that is too slow three times in a row is a finding.
//!
//! `TALLYPORT_PLANTED=search` or `copy` adds a quadratic defect to the target itself, to show that it is found.

#![no_main]

use std::hint::black_box;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tallyport::aggregate::{Aggregator, AggregatorSettings, ClosedWindow, GaugeSign};
use tallyport::model::{Allocation, Glob, Moment, Timestamp};
use tallyport::store::Store;
use tallyport_fuzz::allocation::{self, Counted};
use tallyport_fuzz::{START, in_buckets, origin};

#[global_allocator]
static ALLOCATOR: Counted = Counted;

/// The factor by which a byte may cost more in a large program than in a small one.
const SLOWER: f64 = 25.0;
/// No program is too slow below this: the cost of one window of a thousand series.
const AT_ONCE: Duration = Duration::from_millis(20);
/// Bytes requested from the allocator, and held at one time, for each byte of the allowance.
const TAKEN: usize = 400;
const HELD: usize = 200;
/// The memory of an empty store and an aggregator.
const EMPTY: usize = 2 << 20;
/// The limit of lines in one input: a quadratic defect is hundreds of times slower, and some tens of inputs run per
/// second.
const LINES: usize = 20_000;
const KEEP: usize = 30;
const ALLOCATION: Allocation = Allocation(1);

fuzz_target!(|input: &[u8]| {
    let work = measure(input);
    let most = TAKEN * work.allowance + EMPTY;
    assert!(work.taken <= most, "{} bytes taken, {most} allowed for {} bytes", work.taken, work.allowance);
    let most = HELD * work.allowance + EMPTY;
    assert!(work.held <= most, "{} bytes held, {most} allowed for {} bytes", work.held, work.allowance);
    let most = AT_ONCE + Duration::from_secs_f64(*PER_BYTE * SLOWER * work.allowance as f64);
    if work.time > most {
        let again = (0..2).map(|_| measure(input).time).min().unwrap_or_default();
        assert!(
            again <= most,
            "{:?} of CPU time, {most:?} allowed for {} bytes, {:.0} times what a byte costs elsewhere",
            again.min(work.time),
            work.allowance,
            again.as_secs_f64() / (*PER_BYTE * work.allowance as f64)
        );
    }
});

/// CPU seconds per byte in small programs: the mean over all kinds of the fastest of several rounds.
static PER_BYTE: LazyLock<f64> = LazyLock::new(|| {
    let each = |kind: u8| {
        let program = [kind, 8, 3, 13, 0, 0].repeat(4);
        let rounds = (0..20).map(|_| measure(&program));
        rounds.map(|work| work.time.as_secs_f64() / work.allowance as f64).fold(f64::MAX, f64::min)
    };
    let kinds = [0, 1, 2, 3, 5, 7];
    kinds.into_iter().map(each).sum::<f64>() / kinds.len() as f64
});

static PLANTED: LazyLock<Option<String>> = LazyLock::new(|| std::env::var("TALLYPORT_PLANTED").ok());

/// The cost of a program.
struct Work {
    allowance: usize,
    taken: usize,
    held: usize,
    time: Duration,
}

fn measure(program: &[u8]) -> Work {
    allocation::forget_peak();
    let (held, taken, began) = (allocation::held(), allocation::total(), cpu_time());
    let allowance = Run::new().run(program);
    Work {
        allowance,
        taken: allocation::total() - taken,
        held: allocation::peak().saturating_sub(held),
        time: cpu_time().saturating_sub(began),
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: it writes to the given struct, which is valid.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    assert_eq!(failed, 0);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// A container, its kept windows, and its allowance so far.
struct Run {
    aggregator: Aggregator,
    store: Store,
    now: Moment,
    lines: usize,
    allowance: usize,
    /// The data that a planted defect searches and copies.
    names: Vec<Vec<u8>>,
}

impl Run {
    fn new() -> Self {
        let settings = AggregatorSettings {
            window: Duration::from_secs(1),
            keep: KEEP,
            counting: in_buckets(),
            ..AggregatorSettings::default()
        };
        let now = Moment { wall: Timestamp::from_secs(START), mono: Duration::ZERO };
        let store = Store::new(7, KEEP);
        store.open(ALLOCATION, Arc::new(origin()), now.wall);
        let aggregator = Aggregator::new(settings.into(), GaugeSign::Delta, now.wall);
        Self { aggregator, store, now, lines: 0, allowance: 0, names: Vec::new() }
    }

    fn run(mut self, program: &[u8]) -> usize {
        for step in program.chunks_exact(3) {
            let [kind, count, shape] = step else { continue };
            self.step(*kind, usize::from(*count) * 32 + 1, usize::from(*shape));
        }
        let closed = self.aggregator.close_final_window(self.now.wall);
        self.push(closed);
        self.allowance
    }

    /// Executes one step `count` times. `shape` selects a name, a window or a length.
    ///
    /// ```text
    /// 0 counters under fresh names          1 counters under the same names
    /// 2 gauges                              3 timers
    /// 4 a distribution, every value in another octave
    /// 5 members of one set                  6 one counter with ever more tags
    /// 7 counters of a closed window         8 members of a set of a closed window
    /// 9 values in octaves of a closed window
    /// 10 names against patterns             11 what cannot be read
    /// 12 events                             13 a window ends
    /// ```
    fn step(&mut self, kind: u8, count: usize, shape: usize) {
        let back = START + i64::try_from(self.now.mono.as_secs()).unwrap_or(0) - 1 - (shape % KEEP) as i64;
        match kind % 14 {
            0 => self.send(count, |n| format!("fresh.{shape}.{n}:1|c")),
            1 => self.send(count, |n| format!("again.{}:1|c", n % 256)),
            2 => self.send(count, |n| format!("level.{shape}.{n}:7|g")),
            3 => self.send(count, |n| format!("timer.{}:{n}|ms", n % (shape + 1))),
            4 => self.send(count, |n| format!("octaves.{shape}:{:e}|d", octave(n))),
            5 => self.send(count, |n| format!("set.{shape}:{n}|s")),
            6 => self.send(count, |n| format!("tags:1|c|#{}", "k:v,".repeat(n % (4 * shape + 1)))),
            7 => self.send(count, |n| format!("fresh.{shape}.{n}:1|c|T{back}")),
            8 => self.send(count, |n| format!("set.{shape}:{n}|s|T{back}")),
            9 => self.send(count, |n| format!("octaves.{shape}:{:e}|d|T{back}", octave(n))),
            10 => self.look(count, shape),
            11 => self.send(count, |n| format!("bad:{n}x|{shape}")),
            12 => self.send(count, |n| format!("_e{{5,{}}}:title|{n:08}", 8)),
            _ => self.roll(),
        }
    }

    fn send(&mut self, count: usize, line: impl Fn(usize) -> String) {
        let count = count.min(LINES.saturating_sub(self.lines));
        self.lines += count;
        for n in 0..count {
            let line = line(n);
            self.allowance += line.len();
            self.aggregator.ingest_datagram(line.as_bytes(), self.now, None);
            self.planted(line.as_bytes());
        }
    }

    /// Matches names against a pattern that almost fits them, from many positions.
    fn look(&mut self, count: usize, shape: usize) {
        let length = count.min(1000);
        let patterns =
            ["*a".repeat(length / 2) + "*b", "?".repeat(length / 4) + "*a?b*c", "a*".repeat(shape)];
        let name = "a".repeat(length.max(shape));
        for pattern in patterns {
            let glob = Glob::new(&pattern);
            for _ in 0..4 {
                black_box(glob.is_match(&name));
                self.allowance += pattern.len() + name.len();
            }
        }
    }

    fn roll(&mut self) {
        self.now = self.now.saturating_add(Duration::from_secs(1));
        if let Some(closed) = self.aggregator.roll_window(self.now.wall) {
            self.push(closed);
        }
    }

    fn push(&mut self, closed: ClosedWindow) {
        // Closing visits every series once, and a revision visits the window that it revises.
        let revised = closed.revisions.iter().map(|revision| revision.len() * BYTES_OF_RECORD).sum::<usize>();
        let kept = if closed.revisions.is_empty() { 0 } else { self.kept() };
        self.allowance +=
            (closed.window.len() + self.aggregator.series_count() + kept) * BYTES_OF_RECORD + revised;
        let filed = self.store.push(ALLOCATION, closed);
        self.aggregator.set_kept_bytes(filed.held);
    }

    /// Records of the kept windows.
    fn kept(&self) -> usize {
        let history = self.store.find_history(ALLOCATION);
        history
            .map_or(0, |history| history.published_windows().map(|published| published.window().len()).sum())
    }

    fn planted(&mut self, line: &[u8]) {
        match PLANTED.as_deref() {
            Some("search") => {
                let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
                if !black_box(&self.names).iter().any(|known| known == name) {
                    self.names.push(name.to_vec());
                }
            }
            Some("copy") => {
                self.names.push(line.to_vec());
                self.names = black_box(self.names.clone());
            }
            _ => {}
        }
    }
}

/// The allowance for a record that is visited or created, in bytes that arrive: a short line.
const BYTES_OF_RECORD: usize = 16;

/// Returns a number in another octave each time, from the smallest to the largest, with both signs.
fn octave(n: usize) -> f64 {
    let power = i32::try_from(n / 2 % 2000).unwrap_or(0) - 1000;
    if n.is_multiple_of(2) { 1.5 * 2f64.powi(power) } else { -1.5 * 2f64.powi(power) }
}
