//! `GET /metrics`: the agent's own metrics, each family of the table with its values.

use std::collections::HashMap;
use std::sync::Arc;

use hdrhistogram::Histogram;

use super::error::ApiError;
use super::pages::{Asker, BuildLane, PageCounts, PageRequest, PageWriter};
use super::{AgentContext, ApiResponse};
use crate::aggregate::{Accounting, Dropped};
use crate::archive::FoldCounts;
use crate::containers::{ContainerInfo, LifecycleState};
use crate::model::{Allocation, Timestamp};
use crate::net::http::RefusalReason;
use crate::publish::{ANSWER_CLASSES, DROP_REASONS};
use crate::query::Sink as _;
use crate::render::exposition::{Exposition, Format};
use crate::shard::ContainerStats;
use crate::stats::{self, AgentMetricFamily, ListenerName, NriOutcome, NriStats, StateFile};
use crate::statsd::Rejected;
use crate::wire::PublisherDocument;

/// `GET /metrics`
pub(super) async fn get_agent_metrics(
    agent: &AgentContext,
    asker: Asker,
    accept: Option<&str>,
) -> Result<ApiResponse, ApiError> {
    let (format, escaping) = Format::from_accept_header(accept, &Format::TEXTS);
    let content_type = format.content_type(escaping);
    let request = PageRequest {
        content_type,
        ..PageRequest::new(asker, BuildLane::Short, "/metrics", content_type.to_owned())
    };
    let of_node = agent.clone();
    let gather = move |_| async move {
        let containers = of_node.reading.data.directory.all_containers();
        let stats_by_container = of_node.reading.data.collect_container_stats(&containers).await?;
        Ok(move |writer: &mut PageWriter| {
            writer.write_bytes(render_page(&of_node, format, &containers, &stats_by_container).as_bytes())
        })
    };
    agent.reading.pages.answer_request(request, gather).await
}

fn render_page(
    agent: &AgentContext,
    format: Format,
    containers: &[Arc<ContainerInfo>],
    stats_by_container: &HashMap<Allocation, Arc<ContainerStats>>,
) -> String {
    let mut counts = agent.reading.data.directory.forgotten_accounting();
    stats_by_container.values().for_each(|stats| counts.merge(&stats.accounting));
    let series: usize = containers
        .iter()
        .filter(|info| info.last.is_none())
        .filter_map(|info| stats_by_container.get(&info.allocation))
        .map(|stats| stats.series)
        .sum();
    let mut page = MetricsPage(Exposition::new(format));
    page.write_agent(agent);
    page.write_containers(agent, series);
    page.write_received(&counts);
    page.write_windows(agent);
    page.write_window_log(agent);
    page.write_publishers(&agent.publishers.list_documents());
    page.write_spool(agent);
    page.write_archive(agent);
    page.write_http(agent);
    page.write_pages(agent.reading.pages.load_counts());
    page.write_nri(&agent.reading.stats.nri, agent.reading.data.current_config().nri.enabled);
    page.write_process();
    page.0.into_text()
}

struct MetricsPage(Exposition);

/// A family, and its value of a publisher.
type PublisherReading = (AgentMetricFamily, fn(&PublisherDocument) -> f64);

impl MetricsPage {
    fn start_family(&mut self, family: AgentMetricFamily) -> &mut Exposition {
        self.0.begin_family(family.name, family.kind, family.help);
        &mut self.0
    }

    fn write_value(&mut self, family: AgentMetricFamily, value: f64) {
        self.start_family(family).write_sample(&[], value);
    }

    fn write_agent(&mut self, agent: &AgentContext) {
        self.start_family(stats::BUILD).write_sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        self.write_value(stats::START, unix_seconds(agent.started));
        self.write_value(stats::EPOCH, agent.reading.data.store.epoch() as f64);
        self.write_value(
            stats::READY,
            if agent.readiness.pending_conditions().is_empty() { 1.0 } else { 0.0 },
        );
    }

    fn write_containers(&mut self, agent: &AgentContext, series: usize) {
        let all = agent.reading.data.directory.all_containers();
        let family = self.start_family(stats::CONTAINERS);
        for state in LifecycleState::ALL {
            let n = all.iter().filter(|info| info.state == state).count();
            family.write_sample(&[("state", state.as_str())], n as f64);
        }
        let adopted = all.iter().filter(|info| info.details.adopted && info.state.is_live()).count();
        self.write_value(stats::ADOPTED, adopted as f64);
        let buffers = agent.reading.data.pool.receive_buffers().used_bytes();
        let config = agent.reading.data.current_config();
        self.write_value(stats::SERIES, series as f64);
        self.write_value(stats::MEMORY, agent.reading.data.pool.read_measurements().memory as f64);
        self.write_value(stats::MEMORY_LIMIT, config.node_limits.memory as f64);
        self.write_value(stats::CONTAINERS_LIMIT, config.node_limits.containers as f64);
        self.write_value(stats::RECEIVE_BUFFER, buffers as f64);
    }

    /// Every code and reason is exported from the start: `increase()` misses the first event of a counter that appears
    /// with it.
    fn write_received(&mut self, counts: &Accounting) {
        self.write_value(stats::DATAGRAMS, counts.received as f64);
        self.write_value(stats::BYTES, counts.bytes as f64);
        self.write_value(stats::KERNEL, counts.kernel_drops as f64);
        self.write_value(stats::LINES_ACCEPTED, counts.accepted as f64);
        let rejected = self.start_family(stats::LINES_REJECTED);
        for code in Rejected::ALL {
            rejected.write_sample(&[("code", code.as_str())], counts.rejected.count_for(code) as f64);
        }
        self.write_value(stats::VALUES, counts.values as f64);
        for (family, tally) in [(stats::DROPPED, &counts.dropped), (stats::OVER_LIMIT, &counts.over_limit)] {
            let family = self.start_family(family);
            for reason in Dropped::ALL {
                family.write_sample(&[("reason", reason.as_str())], tally.count_for(reason) as f64);
            }
        }
        self.write_value(stats::FOLDED, counts.folded as f64);
        self.write_value(stats::EVICTED, counts.evicted as f64);
        self.write_value(stats::INVALID_UTF8, counts.invalid_utf8 as f64);
        self.write_value(stats::RENAMED_TAGS, counts.renamed_tags as f64);
        self.write_value(stats::EVENTS, counts.events as f64);
    }

    fn write_windows(&mut self, agent: &AgentContext) {
        let size = agent.reading.data.store.size();
        self.write_value(stats::RECORDS, size.records as f64);
        self.write_value(stats::WINDOWS, size.windows as f64);
        self.write_value(stats::WINDOW_BYTES, size.bytes as f64);
        let (remembered, evicted) = agent.reading.data.store.remembered_totals();
        self.write_value(stats::TOTALS, remembered as f64);
        let family = self.start_family(stats::TOTALS_EVICTED);
        family.write_sample(&[("reason", "series_limit")], evicted.series_limit as f64);
        family.write_sample(&[("reason", "node")], evicted.node as f64);
        let measured = agent.reading.data.pool.read_measurements();
        self.write_summary(stats::CLOSE, &measured.closing_times);
        let ended = agent.reading.data.pool.ended_shards().len();
        let shards = self.start_family(stats::SHARDS);
        shards.write_sample(&[("state", "running")], (agent.reading.data.pool.len() - ended) as f64);
        shards.write_sample(&[("state", "ended")], ended as f64);
        self.write_value(stats::JOURNAL_FAILURES, agent.containers.journal_health().failure_count() as f64);
        let damaged = self.start_family(stats::STATE_DAMAGED);
        let found = agent.reading.stats.damage.damage_by_file();
        for file in StateFile::ALL {
            let places = found.get(&file).map_or(0, |damaged| damaged.places);
            damaged.write_sample(&[("file", file.as_str())], places as f64);
        }
        self.write_value(stats::SHARD_FAILURES, measured.failures as f64);
        self.write_value(stats::SHARD_PAUSES, measured.pauses as f64);
        self.write_value(stats::ADDRESS_IN_USE, agent.containers.addresses_in_use() as f64);
        let steps = self.start_family(stats::CLOCK_STEPS);
        steps.write_sample(&[("direction", "forward")], measured.steps_forward as f64);
        steps.write_sample(&[("direction", "back")], measured.steps_back as f64);
    }

    fn write_window_log(&mut self, agent: &AgentContext) {
        let log = agent.window_log.as_ref().map(|status| status.snapshot()).unwrap_or_default();
        let restored = self.start_family(stats::RESTORED);
        restored.write_sample(&[("state", "closed")], log.report.windows as f64);
        restored.write_sample(&[("state", "open")], log.report.open as f64);
        self.write_value(stats::RESTORED_AHEAD, log.report.ahead as f64);
        self.write_value(stats::GAP, log.report.gap.as_secs_f64());
        self.write_value(stats::LOG_WINDOWS, log.windows as f64);
        let written = self.start_family(stats::LOG_WRITTEN);
        written.write_sample(&[("state", "closed")], log.bytes as f64);
        written.write_sample(&[("state", "open")], log.checkpoint_bytes as f64);
        self.write_value(stats::LOG_SIZE, log.size as f64);
        self.write_value(stats::LOG_FAILING, if log.failing.is_some() { 1.0 } else { 0.0 });
        self.write_value(stats::LOG_FAILURES, log.failures as f64);
        let missed = self.start_family(stats::LOG_MISSED);
        missed.write_sample(&[("reason", "late")], log.missed as f64);
        missed.write_sample(&[("reason", "size")], log.given_up as f64);
        let damage = log.report.damage;
        let damaged = self.start_family(stats::LOG_DAMAGE);
        damaged.write_sample(&[("what", "part")], damage.parts as f64);
        damaged.write_sample(&[("what", "entry")], damage.entries as f64);
        damaged.write_sample(&[("what", "file")], damage.files as f64);
        self.write_value(stats::CHECKPOINTS, log.checkpoints as f64);
        self.write_value(stats::CHECKPOINT_INTERVAL, log.interval.as_secs_f64());
    }

    fn write_publishers(&mut self, publishers: &[PublisherDocument]) {
        let records = self.start_family(stats::PUBLISH_RECORDS);
        for PublisherDocument { name, records: counts, .. } in publishers {
            for (outcome, n) in
                [("delivered", counts.delivered), ("excluded", counts.excluded), ("dead", counts.dead)]
            {
                records.write_sample(&[("publisher", name.as_str()), ("outcome", outcome)], n as f64);
            }
        }
        let dropped = self.start_family(stats::PUBLISH_DROPPED);
        for PublisherDocument { name, records: counts, .. } in publishers {
            for reason in DROP_REASONS {
                let n = counts.dropped.get(reason).copied().unwrap_or(0);
                dropped.write_sample(&[("publisher", name.as_str()), ("reason", reason)], n as f64);
            }
        }
        let requests = self.start_family(stats::PUBLISH_REQUESTS);
        for PublisherDocument { name, requests: counts, .. } in publishers {
            for answer in ANSWER_CLASSES {
                let n = counts.get(answer).copied().unwrap_or(0);
                requests.write_sample(&[("publisher", name.as_str()), ("answer", answer)], n as f64);
            }
        }
        let held = |publisher: &PublisherDocument| if publisher.state == "held" { 1.0 } else { 0.0 };
        let values: [PublisherReading; 5] = [
            (stats::PUBLISH_PENDING, |publisher| publisher.records.pending as f64),
            (stats::PUBLISH_BEHIND, |publisher| publisher.behind_seconds),
            (stats::PUBLISH_HELD, held),
            (stats::PUBLISH_DEAD_LETTERS, |publisher| publisher.dead_letters as f64),
            (stats::PUBLISH_RESTARTS, |publisher| publisher.restarts as f64),
        ];
        for (family, value) in values {
            let family = self.start_family(family);
            for publisher in publishers {
                family.write_sample(&[("publisher", publisher.name.as_str())], value(publisher));
            }
        }
    }

    /// The archive. Without one, its families have no samples.
    fn write_archive(&mut self, agent: &AgentContext) {
        let archive = &agent.reading.archive;
        let status = archive.is_enabled().then(|| archive.load_status());
        self.write_counts(
            stats::ARCHIVE_RECORDS,
            "",
            status.as_ref().map(|status| [("", status.counts.folded)]),
        );
        let left_out = status.as_ref().map(|status| {
            let FoldCounts { ahead, late, long, unreadable, .. } = status.counts;
            let reasons = [("ahead", ahead), ("late", late), ("long", long), ("unreadable", unreadable)];
            reasons.into_iter().chain([("missed", status.missed)])
        });
        self.write_counts(stats::ARCHIVE_LEFT_OUT, "reason", left_out);
        let deleted = status.as_ref().map(|status| [("expired", status.expired), ("size", status.for_size)]);
        self.write_counts(stats::ARCHIVE_DELETED, "reason", deleted);
        let damaged =
            status.as_ref().map(|status| [("slot", status.counts.damaged_slots), ("file", status.set_aside)]);
        self.write_counts(stats::ARCHIVE_DAMAGED, "what", damaged);
        self.write_counts(stats::ARCHIVE_SIZE, "", status.as_ref().map(|status| [("", status.bytes)]));
        let failing = status.as_ref().map(|status| [("", u64::from(status.failing.is_some()))]);
        self.write_counts(stats::ARCHIVE_FAILING, "", failing);
    }

    /// Samples of a family by the value of a label, which is empty in a family without labels.
    fn write_counts(
        &mut self,
        family: AgentMetricFamily,
        key: &str,
        samples: Option<impl IntoIterator<Item = (&'static str, u64)>>,
    ) {
        let family = self.start_family(family);
        for (value, n) in samples.into_iter().flatten() {
            match key.is_empty() {
                true => family.write_sample(&[], n as f64),
                false => family.write_sample(&[(key, value)], n as f64),
            }
        }
    }

    /// What is kept for publishers and the archive. Without any, nothing is.
    fn write_spool(&mut self, agent: &AgentContext) {
        let (spool, has_publishers) = (agent.publishers.spool_status(), agent.publishers.is_any_running());
        let has_followers = has_publishers || agent.reading.archive.is_enabled();
        let family = self.start_family(stats::PUBLISH_SPOOL);
        if has_followers {
            family.write_sample(&[], spool.bytes as f64);
        }
    }

    fn write_http(&mut self, agent: &AgentContext) {
        let connections = self.start_family(stats::CONNECTIONS);
        for (listener, open) in ListenerName::ALL.iter().zip(&agent.connections) {
            connections.write_sample(&[("listener", listener.as_str())], open.open() as f64);
        }
        let refused = self.start_family(stats::REFUSED);
        for (listener, connections) in ListenerName::ALL.iter().zip(&agent.connections) {
            for (why, n) in connections.refused_counts() {
                // The admin socket has no TLS to agree on.
                if (*listener, why) != (ListenerName::Admin, RefusalReason::Handshake) {
                    refused
                        .write_sample(&[("listener", listener.as_str()), ("reason", why.as_str())], n as f64);
                }
            }
        }
        let closed = self.start_family(stats::CLOSED);
        for (listener, connections) in ListenerName::ALL.iter().zip(&agent.connections) {
            for (why, n) in connections.closed_counts() {
                closed.write_sample(&[("listener", listener.as_str()), ("reason", why.as_str())], n as f64);
            }
        }
        let failures = self.start_family(stats::TOKEN_FAILURES);
        for (failure, n) in agent.reading.stats.token_failures() {
            failures.write_sample(&[("reason", failure.as_str())], n as f64);
        }
        self.write_value(
            stats::CERTIFICATE,
            agent.reading.stats.certificate_expires().map_or(0.0, unix_seconds),
        );
        let requests = self.start_family(stats::REQUESTS);
        for listener in ListenerName::ALL {
            for (class, n) in agent.reading.stats.requests_by_class(listener) {
                requests.write_sample(&[("listener", listener.as_str()), ("class", class)], n as f64);
            }
        }
        let reloads = self.start_family(stats::RELOADS);
        for (outcome, n) in agent.reading.stats.reloads_by_outcome() {
            reloads.write_sample(&[("outcome", outcome)], n as f64);
        }
        self.write_value(stats::LAST_SCRAPE, agent.reading.stats.last_scrape().map_or(0.0, unix_seconds));
        self.write_value(stats::CLASHES, agent.reading.stats.clash_count() as f64);
        self.write_value(stats::MARKED, agent.reading.data.store.marked_names() as f64);
    }

    fn write_pages(&mut self, counts: PageCounts) {
        let PageCounts { held, limit, built, shared, busy, late, cut } = counts;
        self.write_value(stats::PAGE_BYTES, held as f64);
        self.write_value(stats::PAGE_LIMIT, limit as f64);
        self.write_value(stats::PAGES_BUILT, built as f64);
        self.write_value(stats::PAGES_SHARED, shared as f64);
        let unanswered = self.start_family(stats::PAGES_FAILED);
        for (reason, n) in [("busy", busy), ("late", late), ("cut", cut)] {
            unanswered.write_sample(&[("reason", reason)], n as f64);
        }
    }

    fn write_nri(&mut self, nri: &NriStats, enabled: bool) {
        self.write_value(stats::NRI_ENABLED, f64::from(u8::from(enabled)));
        self.write_value(stats::NRI_CONNECTED, f64::from(u8::from(nri.is_connected())));
        self.write_value(
            stats::NRI_FAILING,
            nri.failure_streak().map_or(0.0, |failing| failing.containers as f64),
        );
        let outcomes = self.start_family(stats::NRI_CONTAINERS);
        for outcome in NriOutcome::ALL {
            outcomes.write_sample(&[("outcome", outcome.as_str())], nri.count_for(outcome) as f64);
        }
        self.write_summary(stats::NRI_HANDLING, &nri.handling_times());
    }

    /// A summary of times in microseconds.
    fn write_summary(&mut self, family: AgentMetricFamily, times: &Histogram<u64>) {
        let family = self.start_family(family);
        for (label, quantile) in [("0.5", 0.5), ("0.99", 0.99), ("1", 1.0)] {
            let micros = times.value_at_quantile(quantile) as f64;
            family.write_sample(&[("quantile", label)], micros / 1e6);
        }
        let sum: f64 =
            times.iter_recorded().map(|v| v.value_iterated_to() as f64 * v.count_at_value() as f64).sum();
        family.write_summary_part("_sum", &[], sum / 1e6);
        family.write_summary_part("_count", &[], times.len() as f64);
    }

    fn write_process(&mut self) {
        let usage = crate::net::process::own_usage();
        self.write_value(stats::CPU, usage.cpu.as_secs_f64());
        self.write_value(stats::RESIDENT, usage.resident as f64);
        self.write_value(stats::OPEN_FDS, usage.open_fds as f64);
        self.write_value(stats::MAX_FDS, usage.max_fds as f64);
    }
}

fn unix_seconds(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}
