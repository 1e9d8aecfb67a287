//! The agent's own metrics: one table of names, and the counters that belong to no other module, with damage that was found
//! at start.
//!
//! The reference page is made from the table, so what is not in it does not exist.

mod nri;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

pub use nri::{FailureStreak, Link, NriOutcome, NriStats};

use crate::model::Timestamp;
use crate::render::exposition::{Escaping, FamilyKind, Format};

/// One family of the agent's own metrics.
#[derive(Copy, Clone, Debug)]
pub struct AgentMetricFamily {
    /// Its name, without the suffix that its kind adds.
    pub name: &'static str,
    /// Its type.
    pub kind: FamilyKind,
    /// The names of its labels.
    pub labels: &'static [&'static str],
    /// What it counts.
    pub help: &'static str,
}

macro_rules! families {
    ($($ident:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        $(#[doc = $help]
        pub const $ident: AgentMetricFamily =
            AgentMetricFamily { name: $name, kind: FamilyKind::$kind, labels: &[$($label),*], help: $help };)*
        /// Every family, in the order they are served.
        pub const FAMILIES: &[AgentMetricFamily] = &[$($ident),*];
    };
}

families! {
    BUILD = "tallyport_build", Info, ["version"], "The version of the agent.";
    START = "tallyport_start_time_seconds", Gauge, [], "When the agent started, in seconds since 1970.";
    EPOCH = "tallyport_epoch", Gauge, [], "The epoch of the agent's cursors.";
    READY = "tallyport_ready", Gauge, [], "1 if all required parts are ready, otherwise 0.";
    CONTAINERS = "tallyport_containers", Gauge, ["state"], "Containers by state, including finished ones until they are forgotten.";
    ADOPTED = "tallyport_pods_adopted", Gauge, [], "Pods with a socket at 127.0.0.1:8125, because one of their containers was found without a socket.";
    SERIES = "tallyport_series", Gauge, [], "Series of all containers, including idle ones.";
    MEMORY = "tallyport_memory_bytes", Gauge, [], "Memory held for containers, including ended ones: aggregators, windows, revisions and remembered totals.";
    MEMORY_LIMIT = "tallyport_memory_limit_bytes", Gauge, [], "The limit set by `limits.node_memory`.";
    CONTAINERS_LIMIT = "tallyport_containers_limit", Gauge, [], "The limit set by `limits.containers`.";
    RECEIVE_BUFFER = "tallyport_receive_buffer_bytes", Gauge, [], "Receive buffers of all open sockets together.";
    DATAGRAMS = "tallyport_datagrams_received", Counter, [], "Datagrams taken from containers' sockets.";
    BYTES = "tallyport_received_bytes", Counter, [], "Bytes of those datagrams.";
    KERNEL = "tallyport_datagrams_kernel_dropped", Counter, [], "Datagrams the kernel dropped because a socket's buffer was full.";
    LINES_ACCEPTED = "tallyport_lines_accepted", Counter, [], "Lines that could be parsed.";
    LINES_REJECTED = "tallyport_lines_rejected", Counter, ["code"], "Lines that could not be parsed.";
    VALUES = "tallyport_values_accepted", Counter, [], "Values of lines that could be parsed.";
    DROPPED = "tallyport_dropped", Counter, ["reason"], "Values that were dropped; for the reasons `datagram_rate`, `byte_rate`, `truncated`, `foreign_sender` and `ended_sender`, datagrams.";
    OVER_LIMIT = "tallyport_over_limit", Counter, ["reason"], "Values that would have been dropped with limits.mode = enforce.";
    FOLDED = "tallyport_values_folded", Counter, [], "Values of counters beyond the series limit, added to tallyport.overflow.";
    EVICTED = "tallyport_series_evicted", Counter, [], "Idle series that were evicted to make room for new ones.";
    TOTALS = "tallyport_totals_remembered", Gauge, [], "Remembered totals of series that are gone, from which counters of their workload or task continue.";
    TOTALS_EVICTED = "tallyport_totals_evicted", Counter, ["reason"], "Remembered totals that were forgotten early: their workload or task had as many as `limits.series` (`series_limit`), or the node had too many and theirs were among the largest (`node`).";
    INVALID_UTF8 = "tallyport_lines_invalid_utf8", Counter, [], "Lines in which bytes that are not UTF-8 became U+FFFD.";
    RENAMED_TAGS = "tallyport_tags_renamed", Counter, [], "Tags of new series that were renamed because they would forge the origin.";
    EVENTS = "tallyport_events", Counter, [], "Events kept.";
    RECORDS = "tallyport_records_published", Counter, [], "Records of closed windows, revisions included.";
    WINDOWS = "tallyport_windows_kept", Gauge, [], "Closed windows that can be read.";
    WINDOW_BYTES = "tallyport_windows_kept_bytes", Gauge, [], "Memory of those windows.";
    CLOSE = "tallyport_window_close_seconds", Summary, ["quantile"], "Time during which closing windows kept a shard from receiving, for each slice.";
    JOURNAL_FAILURES = "tallyport_journal_failures", Counter, [], "Failed writes of the container table to the journal; until a write succeeds, a crash loses addresses.";
    STATE_DAMAGED = "tallyport_state_damaged", Gauge, ["file"], "Places in files of `state_dir` that could not be read at start. Damage of the window log is counted in `tallyport_window_log_damaged`.";
    SHARD_FAILURES = "tallyport_shard_failures", Counter, [], "Panics of shards that continued; lost values are dropped with the reason `shard_failed`.";
    RESTORED = "tallyport_windows_restored", Gauge, ["state"], "Windows restored at start: closed ones, and open ones as of a checkpoint.";
    RESTORED_AHEAD = "tallyport_windows_restored_ahead", Gauge, [], "Restored windows that start after the agent did, because the clock was ahead when they were closed or is behind now.";
    GAP = "tallyport_gap_seconds", Gauge, [], "Time during which nothing was received before the agent started; 0 if unknown.";
    LOG_WINDOWS = "tallyport_window_log_windows", Counter, [], "Closed windows written to disk, revisions included.";
    LOG_WRITTEN = "tallyport_window_log_written_bytes", Counter, ["state"], "Bytes written to disk of closed windows and of open ones.";
    LOG_SIZE = "tallyport_window_log_size_bytes", Gauge, [], "Total size of the files of closed windows.";
    LOG_FAILING = "tallyport_window_log_failing", Gauge, [], "Whether windows cannot be written to disk: 1 or 0.";
    LOG_FAILURES = "tallyport_window_log_failures", Counter, [], "Attempts to write that failed, and entries that were too long to be written.";
    LOG_MISSED = "tallyport_window_log_missed", Counter, ["reason"], "Data that is not on disk: records that left memory before they could be written, beyond what is held back for that (`late`), windows discarded because of `windows.log_size`, or too long for an entry of the log (`size`).";
    LOG_DAMAGE = "tallyport_window_log_damaged", Gauge, ["what"], "Unusable parts of the log at start: damaged parts, entries without the entry they refer to, files.";
    CHECKPOINTS = "tallyport_checkpoints", Counter, [], "Checkpoints of open windows.";
    CHECKPOINT_INTERVAL = "tallyport_checkpoint_interval_seconds", Gauge, [], "Time between the last two checkpoints: the most received data that a crash loses.";
    PUBLISH_RECORDS = "tallyport_publish_records", Counter, ["publisher", "outcome"], "Closed records, by what became of them: `delivered`, `excluded` by the publisher's filters, or `dead` because the destination refused them.";
    PUBLISH_DROPPED = "tallyport_publish_dropped", Counter, ["publisher", "reason"], "Closed records that were not delivered: no longer kept (`expired`), beyond `publish.spool` (`spool`), older than `max_age` (`age`), corrections that cannot be sent (`late`), refused by a destination that does not say which (`refused`), too large for a request (`too_large`), or without a form in the protocol (`unsupported`, `no_value`, `clash`).";
    PUBLISH_REQUESTS = "tallyport_publish_requests", Counter, ["publisher", "answer"], "Requests, by what their answers meant: `ok`, `partly`, `retry`, `reject`, `auth`, `gone`, `too_large` or `unspoken`.";
    PUBLISH_PENDING = "tallyport_publish_pending_records", Gauge, ["publisher"], "Closed records that are still to be delivered.";
    PUBLISH_BEHIND = "tallyport_publish_behind_seconds", Gauge, ["publisher"], "How long ago the oldest round or batch ended that should have been delivered; 0 if there is none.";
    PUBLISH_HELD = "tallyport_publish_held", Gauge, ["publisher"], "1 if the publisher waits for a change of the destination or the configuration, otherwise 0.";
    PUBLISH_DEAD_LETTERS = "tallyport_publish_dead_letters", Gauge, ["publisher"], "Refused records that are kept for `tallyport publish replay`.";
    PUBLISH_RESTARTS = "tallyport_publish_restarts", Counter, ["publisher"], "How often the publisher was started again because it had failed or hung.";
    PUBLISH_SPOOL = "tallyport_publish_spool_bytes", Gauge, [], "Total size of the files of closed windows that are kept for publishers alone; at most `publish.spool`.";
    ARCHIVE_RECORDS = "tallyport_archive_records", Counter, [], "Closed records that were folded into the archive.";
    ARCHIVE_LEFT_OUT = "tallyport_archive_left_out", Counter, ["reason"], "Closed records that are not in the archive: gone before they were read (`missed`), more than ten minutes ahead of the clock (`ahead`), older than everything that is kept (`late`), of windows longer than ten minutes (`long`), or not readable (`unreadable`).";
    ARCHIVE_DELETED = "tallyport_archive_deleted_slots", Counter, ["reason"], "Steps of a container that were deleted: after their time (`expired`), or because the file was larger than `archive.size` (`size`).";
    ARCHIVE_DAMAGED = "tallyport_archive_damaged", Counter, ["what"], "Steps that were damaged and begun anew (`slot`), and files that were set aside (`file`).";
    ARCHIVE_SIZE = "tallyport_archive_size_bytes", Gauge, [], "Size of `archive.db`.";
    ARCHIVE_FAILING = "tallyport_archive_failing", Gauge, [], "Whether windows cannot be archived at present: 1 or 0. They are, once that works again.";
    SHARDS = "tallyport_shards", Gauge, ["state"], "Threads that receive, running and ended.";
    CLOCK_STEPS = "tallyport_clock_steps", Counter, ["direction"], "Steps of the wall clock by a second or more.";
    SHARD_PAUSES = "tallyport_shard_pauses", Counter, [], "Times that a receiving thread read nothing for two seconds or longer; the affected windows are partial.";
    ADDRESS_IN_USE = "tallyport_address_in_use", Counter, [], "Reservations on the host's network that failed because another process has `listeners.port` on every address.";
    CONNECTIONS = "tallyport_http_connections", Gauge, ["listener"], "Open connections.";
    REFUSED = "tallyport_http_connections_refused", Counter, ["listener", "reason"], "Connections that were closed before a request on them was served: the client had as many as it may (`client`; on the HTTP listener `http.max_connections_per_client`, on the admin socket half of `http.max_connections` for one process), or TLS was not agreed on (`handshake`).";
    CLOSED = "tallyport_http_connections_closed", Counter, ["listener", "reason"], "Accepted connections that were closed: the client read nothing of an answer for `http.write_timeout` (`slow`), or the connection was idle and another one needed its place (`idle`).";
    PAGE_BYTES = "tallyport_http_page_bytes", Gauge, [], "Memory of responses that are being built, or built and not sent yet.";
    PAGE_LIMIT = "tallyport_http_page_limit_bytes", Gauge, [], "The limit set by `http.page_memory`.";
    PAGES_BUILT = "tallyport_http_pages_built", Counter, [], "Responses that were built.";
    PAGES_SHARED = "tallyport_http_pages_shared", Counter, [], "Requests that shared a response that was being built, or had just been built, for another request.";
    PAGES_FAILED = "tallyport_http_pages_failed", Counter, ["reason"], "Responses that failed: too many were being built and the request got 429 (`busy`), the build exceeded its deadline (`late`), a slow reader was disconnected while `http.page_memory` was used up (`cut`).";
    TOKEN_FAILURES = "tallyport_http_token_failures", Counter, ["reason"], "Requests to the HTTP listener that were refused because they had no token (`missing`), or one that is not in `http.tokens` (`unknown`).";
    CERTIFICATE = "tallyport_http_certificate_expiration_timestamp_seconds", Gauge, [], "Earliest expiry of the HTTP listener's certificate and its intermediates, in seconds since 1970; 0 without TLS, or if it is unknown.";
    REQUESTS = "tallyport_http_requests", Counter, ["listener", "class"], "Requests answered, by the class of their status.";
    RELOADS = "tallyport_config_reloads", Counter, ["outcome"], "Configuration reloads, applied and refused.";
    NRI_ENABLED = "tallyport_nri_enabled", Gauge, [], "1 if the agent is configured as a plugin of the container runtime (`nri.enabled`), otherwise 0.";
    NRI_CONNECTED = "tallyport_nri_connected", Gauge, [], "1 if the container runtime has registered the plugin and listed its containers, otherwise 0.";
    NRI_FAILING = "tallyport_nri_failing_containers", Gauge, [], "Containers without a socket since the last one that got a socket.";
    NRI_CONTAINERS = "tallyport_nri_containers", Counter, ["outcome"], "Containers reported by the runtime, by outcome.";
    NRI_HANDLING = "tallyport_nri_handling_seconds", Summary, ["quantile"], "How long the plugin took to answer the runtime.";
    LAST_SCRAPE = "tallyport_last_scrape_time_seconds", Gauge, [], "When containers' metrics were last scraped, in seconds since 1970; 0 = never.";
    CLASHES = "tallyport_scrape_clashes", Counter, [], "Series omitted from a page of /metrics/tasks because prometheus.naming gives one name to several.";
    MARKED = "tallyport_names_marked", Gauge, [], "Names and tags of applications that have a mark on /metrics/tasks, because another metric of the same workload has the plain name.";
    CPU = "process_cpu_seconds", Counter, [], "CPU time of the agent, user and system.";
    RESIDENT = "process_resident_memory_bytes", Gauge, [], "Resident memory of the agent.";
    OPEN_FDS = "process_open_fds", Gauge, [], "Open file descriptors of the agent.";
    MAX_FDS = "process_max_fds", Gauge, [], "Maximum number of file descriptors the agent may open.";
}

/// The listener that received a request.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ListenerName {
    /// The HTTP listener.
    Http,
    /// The admin socket.
    Admin,
}

impl ListenerName {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Http, Self::Admin];

    /// As a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Admin => "admin",
        }
    }
}

/// What was wrong with the token of a request.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum TokenFailure {
    /// There was no token.
    Missing,
    /// The token is unknown.
    Unknown,
}

impl TokenFailure {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Missing, Self::Unknown];

    /// As a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Unknown => "unknown",
        }
    }
}

/// The classes of HTTP statuses.
pub const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Formats with the escaping of names in them.
const STYLES: [(Format, Escaping); 6] = [
    (Format::OpenMetrics, Escaping::Underscores),
    (Format::OpenMetrics, Escaping::Utf8),
    (Format::Prometheus, Escaping::Underscores),
    (Format::Prometheus, Escaping::Utf8),
    (Format::Protobuf, Escaping::Underscores),
    (Format::Protobuf, Escaping::Utf8),
];

/// Counters that belong to no other module.
#[derive(Debug, Default)]
pub struct Stats {
    requests: [[AtomicU64; CLASSES.len()]; 2],
    token_failures: [AtomicU64; TokenFailure::ALL.len()],
    reloads_applied: AtomicU64,
    reloads_refused: AtomicU64,
    last_scrape: AtomicI64,
    /// One more than the index in [`STYLES`]; 0 if unknown.
    scrape_style: AtomicUsize,
    certificate_expires: AtomicI64,
    clashes: AtomicU64,
    /// The NRI plugin.
    pub nri: NriStats,
    /// State files that could not be read at startup.
    pub damage: DamagedFiles,
}

impl Stats {
    /// Counts an answered request.
    pub fn count_request(&self, listener: ListenerName, status: u16) {
        let class = usize::from(status / 100).checked_sub(1);
        let counts = self.requests.get(listener as usize).zip(class);
        if let Some(count) = counts.and_then(|(classes, class)| classes.get(class)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests of a listener, by class.
    pub fn requests_by_class(&self, listener: ListenerName) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.requests.get(listener as usize).into_iter().flatten();
        CLASSES.into_iter().zip(counts.map(|count| count.load(Ordering::Relaxed)))
    }

    /// Counts a request that was refused for its token.
    pub fn count_token_failure(&self, failure: TokenFailure) {
        if let Some(count) = self.token_failures.get(failure as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Requests that were refused for their tokens, by reason.
    pub fn token_failures(&self) -> impl Iterator<Item = (TokenFailure, u64)> {
        let counts = self.token_failures.iter().map(|count| count.load(Ordering::Relaxed));
        TokenFailure::ALL.into_iter().zip(counts)
    }

    pub fn count_reload(&self, applied: bool) {
        let count = if applied { &self.reloads_applied } else { &self.reloads_refused };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Reloads, by outcome.
    #[must_use]
    pub fn reloads_by_outcome(&self) -> [(&'static str, u64); 2] {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [("applied", load(&self.reloads_applied)), ("refused", load(&self.reloads_refused))]
    }

    /// Records that containers' metrics were scraped.
    pub fn record_scrape(&self, at: Timestamp) {
        self.last_scrape.store(at.as_micros(), Ordering::Relaxed);
    }

    /// Records the format and the escaping of names that a scraper of containers' metrics asked for.
    pub fn record_scrape_style(&self, format: Format, escaping: Escaping) {
        let index = STYLES.iter().position(|style| *style == (format, escaping));
        self.scrape_style.store(index.map_or(0, |index| index + 1), Ordering::Relaxed);
    }

    /// The format and escaping that the last scraper asked for.
    #[must_use]
    pub fn last_scrape_style(&self) -> Option<(Format, Escaping)> {
        STYLES.get(self.scrape_style.load(Ordering::Relaxed).checked_sub(1)?).copied()
    }

    /// Records when the certificate for new connections expires.
    pub fn certificate_shown(&self, expires: Option<Timestamp>) {
        self.certificate_expires.store(expires.map_or(0, Timestamp::as_micros), Ordering::Relaxed);
    }

    /// When the certificate for new connections expires.
    #[must_use]
    pub fn certificate_expires(&self) -> Option<Timestamp> {
        load_time(&self.certificate_expires)
    }

    /// Counts series that were omitted from a page because their names clash with others.
    pub fn count_clashes(&self, series: u64) {
        self.clashes.fetch_add(series, Ordering::Relaxed);
    }

    /// The number of omitted series.
    #[must_use]
    pub fn clash_count(&self) -> u64 {
        self.clashes.load(Ordering::Relaxed)
    }

    /// When containers' metrics were last scraped.
    #[must_use]
    pub fn last_scrape(&self) -> Option<Timestamp> {
        load_time(&self.last_scrape)
    }
}

/// Loads a time; 0 means unknown.
fn load_time(micros: &AtomicI64) -> Option<Timestamp> {
    match micros.load(Ordering::Relaxed) {
        0 => None,
        micros => Some(Timestamp::from_micros(micros)),
    }
}

/// The reference page, in Markdown.
#[must_use]
pub fn render_reference() -> String {
    use std::fmt::Write as _;
    let mut page = String::from(
        "# The agent's own metrics\n\n\
         Generated by `tallyport config reference --metrics`; a test keeps this page and the program in step.\n\
         Served at `GET /metrics`, as OpenMetrics 1.0 or in the classic Prometheus format, whichever the reader accepts.\n\n\
         | name | type | labels | what it counts |\n|---|---|---|---|\n",
    );
    for family in FAMILIES {
        let (suffix, word) = match family.kind {
            FamilyKind::Counter => ("_total", "counter"),
            FamilyKind::Gauge => ("", "gauge"),
            FamilyKind::Summary => ("", "summary"),
            FamilyKind::Info => ("_info", "info"),
        };
        let labels = family.labels.join(", ");
        let _infallible =
            writeln!(page, "| `{}{suffix}` | {word} | {labels} | {} |", family.name, family.help);
    }
    page
}

/// A file of the state directory.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum StateFile {
    /// The journal of containers.
    Journal,
    /// The epoch of the agent.
    Epoch,
}

impl StateFile {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Journal, Self::Epoch];

    /// As a label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::Epoch => "epoch",
        }
    }
}

/// What is wrong with a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Damaged {
    /// Number of places that could not be read.
    pub places: usize,
    /// What is wrong, and the consequence.
    pub found: String,
}

/// The damaged files.
#[derive(Debug, Default)]
pub struct DamagedFiles(Mutex<BTreeMap<StateFile, Damaged>>);

impl DamagedFiles {
    /// Records damage.
    pub fn record_damage(&self, file: StateFile, damaged: Damaged) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(file, damaged);
    }

    /// The damage of each file.
    #[must_use]
    pub fn damage_by_file(&self) -> BTreeMap<StateFile, Damaged> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_conventions_and_are_their_own() {
        let mut names: Vec<_> = FAMILIES.iter().map(|family| family.name).collect();
        assert!(names.iter().all(|name| name.starts_with("tallyport_") || name.starts_with("process_")));
        assert!(names.iter().all(|name| !name.ends_with("_total") && !name.ends_with("_info")));
        assert!(FAMILIES.iter().all(|family| family.help.ends_with('.')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), FAMILIES.len());
    }

    #[test]
    fn requests_are_counted_by_class() {
        let stats = Stats::default();
        for status in [200, 204, 404, 503, 42, 999] {
            stats.count_request(ListenerName::Admin, status);
        }
        let counts: Vec<_> = stats.requests_by_class(ListenerName::Admin).map(|(_, n)| n).collect();
        assert_eq!(counts, [0, 2, 0, 1, 1]);
        assert_eq!(stats.requests_by_class(ListenerName::Http).map(|(_, n)| n).sum::<u64>(), 0);
    }
}
