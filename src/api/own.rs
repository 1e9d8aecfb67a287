//! `GET /metrics`: the agent's own metrics, each family of the table with its values.

use std::collections::HashMap;
use std::sync::Arc;

use hdrhistogram::Histogram;

use super::error::ApiError;
use super::pages::{Asker, Counts, Lane, Request, Writer};
use super::{Agent, Answer};
use crate::aggregate::{Accounting, Dropped};
use crate::containers::{ContainerInfo, State};
use crate::model::{Allocation, Timestamp};
use crate::net::http::Refused;
use crate::query::Sink as _;
use crate::render::exposition::{Exposition, Format};
use crate::shard::ContainerStats;
use crate::stats::{self, Family, ListenerName, NriStats, Outcome, StateFile};
use crate::statsd::Rejected;

/// `GET /metrics`
pub(super) async fn metrics(agent: &Agent, asker: Asker, accept: Option<&str>) -> Result<Answer, ApiError> {
    let (format, escaping) = Format::negotiated(accept, &Format::TEXTS);
    let content_type = format.content_type(escaping);
    let request =
        Request { content_type, ..Request::new(asker, Lane::Short, "/metrics", content_type.to_owned()) };
    let of_node = agent.clone();
    let gather = move |_| async move {
        let containers = of_node.reading.data.directory.all();
        let stats_by_container = of_node.reading.data.counts(&containers).await?;
        Ok(move |writer: &mut Writer| {
            writer.put(page(&of_node, format, &containers, &stats_by_container).as_bytes())
        })
    };
    agent.reading.pages.answer(request, gather).await
}

fn page(
    agent: &Agent,
    format: Format,
    containers: &[Arc<ContainerInfo>],
    stats_by_container: &HashMap<Allocation, Arc<ContainerStats>>,
) -> String {
    let mut counts = agent.reading.data.directory.forgotten();
    stats_by_container.values().for_each(|stats| counts.merge(&stats.accounting));
    let series: usize = containers
        .iter()
        .filter(|info| info.last.is_none())
        .filter_map(|info| stats_by_container.get(&info.allocation))
        .map(|stats| stats.series)
        .sum();
    let mut page = Page(Exposition::new(format));
    page.agent(agent);
    page.containers(agent, series);
    page.received(&counts);
    page.windows(agent);
    page.window_log(agent);
    page.http(agent);
    page.pages(agent.reading.pages.counts());
    page.nri(&agent.reading.stats.nri, agent.reading.data.config().nri.enabled);
    page.process();
    page.0.finish()
}

struct Page(Exposition);

impl Page {
    fn family(&mut self, family: Family) -> &mut Exposition {
        self.0.family(family.name, family.kind, family.help);
        &mut self.0
    }

    fn one(&mut self, family: Family, value: f64) {
        self.family(family).sample(&[], value);
    }

    fn agent(&mut self, agent: &Agent) {
        self.family(stats::BUILD).sample(&[("version", env!("CARGO_PKG_VERSION"))], 1.0);
        self.one(stats::START, seconds(agent.started));
        self.one(stats::EPOCH, agent.reading.data.store.epoch() as f64);
        self.one(stats::READY, if agent.readiness.pending().is_empty() { 1.0 } else { 0.0 });
    }

    fn containers(&mut self, agent: &Agent, series: usize) {
        let all = agent.reading.data.directory.all();
        let family = self.family(stats::CONTAINERS);
        for state in State::ALL {
            let n = all.iter().filter(|info| info.state == state).count();
            family.sample(&[("state", state.as_str())], n as f64);
        }
        let adopted = all.iter().filter(|info| info.details.adopted && info.state.is_live()).count();
        self.one(stats::ADOPTED, adopted as f64);
        let buffers = agent.reading.data.pool.buffers().used();
        let config = agent.reading.data.config();
        self.one(stats::SERIES, series as f64);
        self.one(stats::MEMORY, agent.reading.data.pool.gauges().memory as f64);
        self.one(stats::MEMORY_LIMIT, config.node_limits.memory as f64);
        self.one(stats::CONTAINERS_LIMIT, config.node_limits.containers as f64);
        self.one(stats::RECEIVE_BUFFER, buffers as f64);
    }

    /// Every code and reason is there from the start: a counter that appears with its first event has no increase.
    fn received(&mut self, counts: &Accounting) {
        self.one(stats::DATAGRAMS, counts.received as f64);
        self.one(stats::BYTES, counts.bytes as f64);
        self.one(stats::KERNEL, counts.kernel_drops as f64);
        self.one(stats::LINES_ACCEPTED, counts.accepted as f64);
        let rejected = self.family(stats::LINES_REJECTED);
        for code in Rejected::ALL {
            rejected.sample(&[("code", code.code())], counts.rejected.of(code) as f64);
        }
        self.one(stats::VALUES, counts.values as f64);
        for (family, tally) in [(stats::DROPPED, &counts.dropped), (stats::OVER_LIMIT, &counts.over_limit)] {
            let family = self.family(family);
            for reason in Dropped::ALL {
                family.sample(&[("reason", reason.reason())], tally.of(reason) as f64);
            }
        }
        self.one(stats::FOLDED, counts.folded as f64);
        self.one(stats::EVICTED, counts.evicted as f64);
        self.one(stats::INVALID_UTF8, counts.invalid_utf8 as f64);
        self.one(stats::RENAMED_TAGS, counts.renamed_tags as f64);
        self.one(stats::EVENTS, counts.events as f64);
    }

    fn windows(&mut self, agent: &Agent) {
        let size = agent.reading.data.store.size();
        self.one(stats::RECORDS, size.records as f64);
        self.one(stats::WINDOWS, size.windows as f64);
        self.one(stats::WINDOW_BYTES, size.bytes as f64);
        let (remembered, evicted) = agent.reading.data.store.remembered_totals();
        self.one(stats::TOTALS, remembered as f64);
        let family = self.family(stats::TOTALS_EVICTED);
        family.sample(&[("reason", "series_limit")], evicted.series_limit as f64);
        family.sample(&[("reason", "node")], evicted.node as f64);
        let gauges = agent.reading.data.pool.gauges();
        self.times(stats::CLOSE, &gauges.close);
        let ended = agent.reading.data.pool.ended().len();
        let shards = self.family(stats::SHARDS);
        shards.sample(&[("state", "running")], (agent.reading.data.pool.len() - ended) as f64);
        shards.sample(&[("state", "ended")], ended as f64);
        self.one(stats::JOURNAL_FAILURES, agent.containers.journal().failures() as f64);
        let damaged = self.family(stats::STATE_DAMAGED);
        let found = agent.reading.stats.damage.found();
        for file in StateFile::ALL {
            let places = found.get(&file).map_or(0, |damaged| damaged.places);
            damaged.sample(&[("file", file.as_str())], places as f64);
        }
        self.one(stats::SHARD_FAILURES, gauges.failures as f64);
        self.one(stats::SHARD_PAUSES, gauges.pauses as f64);
        self.one(stats::ADDRESS_IN_USE, agent.containers.addresses_in_use() as f64);
        let steps = self.family(stats::CLOCK_STEPS);
        steps.sample(&[("direction", "forward")], gauges.steps_forward as f64);
        steps.sample(&[("direction", "back")], gauges.steps_back as f64);
    }

    fn window_log(&mut self, agent: &Agent) {
        let log = agent.window_log.as_ref().map(|status| status.snapshot()).unwrap_or_default();
        let restored = self.family(stats::RESTORED);
        restored.sample(&[("state", "closed")], log.report.windows as f64);
        restored.sample(&[("state", "open")], log.report.open as f64);
        self.one(stats::RESTORED_AHEAD, log.report.ahead as f64);
        self.one(stats::GAP, log.report.gap.as_secs_f64());
        self.one(stats::LOG_WINDOWS, log.windows as f64);
        let written = self.family(stats::LOG_WRITTEN);
        written.sample(&[("state", "closed")], log.bytes as f64);
        written.sample(&[("state", "open")], log.checkpoint_bytes as f64);
        self.one(stats::LOG_SIZE, log.size as f64);
        self.one(stats::LOG_FAILING, if log.failing.is_some() { 1.0 } else { 0.0 });
        self.one(stats::LOG_FAILURES, log.failures as f64);
        let missed = self.family(stats::LOG_MISSED);
        missed.sample(&[("reason", "late")], log.missed as f64);
        missed.sample(&[("reason", "size")], log.given_up as f64);
        let damage = log.report.damage;
        let damaged = self.family(stats::LOG_DAMAGE);
        damaged.sample(&[("what", "part")], damage.parts as f64);
        damaged.sample(&[("what", "entry")], damage.entries as f64);
        damaged.sample(&[("what", "file")], damage.files as f64);
        self.one(stats::CHECKPOINTS, log.checkpoints as f64);
        self.one(stats::CHECKPOINT_INTERVAL, log.interval.as_secs_f64());
    }

    fn http(&mut self, agent: &Agent) {
        let connections = self.family(stats::CONNECTIONS);
        for (listener, open) in ListenerName::ALL.iter().zip(&agent.connections) {
            connections.sample(&[("listener", listener.as_str())], open.open() as f64);
        }
        let refused = self.family(stats::REFUSED);
        for (listener, connections) in ListenerName::ALL.iter().zip(&agent.connections) {
            for (why, n) in connections.refused() {
                // The admin socket has no TLS to agree on.
                if (*listener, why) != (ListenerName::Admin, Refused::Handshake) {
                    refused.sample(&[("listener", listener.as_str()), ("reason", why.as_str())], n as f64);
                }
            }
        }
        let closed = self.family(stats::CLOSED);
        for (listener, connections) in ListenerName::ALL.iter().zip(&agent.connections) {
            for (why, n) in connections.closed() {
                closed.sample(&[("listener", listener.as_str()), ("reason", why.as_str())], n as f64);
            }
        }
        let failures = self.family(stats::TOKEN_FAILURES);
        for (failure, n) in agent.reading.stats.token_failures() {
            failures.sample(&[("reason", failure.as_str())], n as f64);
        }
        self.one(stats::CERTIFICATE, agent.reading.stats.certificate_expires().map_or(0.0, seconds));
        let requests = self.family(stats::REQUESTS);
        for listener in ListenerName::ALL {
            for (class, n) in agent.reading.stats.requests(listener) {
                requests.sample(&[("listener", listener.as_str()), ("class", class)], n as f64);
            }
        }
        let reloads = self.family(stats::RELOADS);
        for (outcome, n) in agent.reading.stats.reloads() {
            reloads.sample(&[("outcome", outcome)], n as f64);
        }
        self.one(stats::LAST_SCRAPE, agent.reading.stats.last_scrape().map_or(0.0, seconds));
        self.one(stats::CLASHES, agent.reading.stats.clashes() as f64);
        self.one(stats::MARKED, agent.reading.data.store.marked_names() as f64);
    }

    fn pages(&mut self, counts: Counts) {
        let Counts { held, limit, built, shared, busy, late, cut } = counts;
        self.one(stats::PAGE_BYTES, held as f64);
        self.one(stats::PAGE_LIMIT, limit as f64);
        self.one(stats::PAGES_BUILT, built as f64);
        self.one(stats::PAGES_SHARED, shared as f64);
        let unanswered = self.family(stats::PAGES_FAILED);
        for (reason, n) in [("busy", busy), ("late", late), ("cut", cut)] {
            unanswered.sample(&[("reason", reason)], n as f64);
        }
    }

    fn nri(&mut self, nri: &NriStats, enabled: bool) {
        self.one(stats::NRI_ENABLED, f64::from(u8::from(enabled)));
        self.one(stats::NRI_CONNECTED, f64::from(u8::from(nri.is_connected())));
        self.one(stats::NRI_FAILING, nri.failing().map_or(0.0, |failing| failing.containers as f64));
        let outcomes = self.family(stats::NRI_CONTAINERS);
        for outcome in Outcome::ALL {
            outcomes.sample(&[("outcome", outcome.as_str())], nri.of(outcome) as f64);
        }
        self.times(stats::NRI_HANDLING, &nri.handling());
    }

    /// A summary of times in microseconds.
    fn times(&mut self, family: Family, times: &Histogram<u64>) {
        let family = self.family(family);
        for (label, quantile) in [("0.5", 0.5), ("0.99", 0.99), ("1", 1.0)] {
            let micros = times.value_at_quantile(quantile) as f64;
            family.sample(&[("quantile", label)], micros / 1e6);
        }
        let sum: f64 =
            times.iter_recorded().map(|v| v.value_iterated_to() as f64 * v.count_at_value() as f64).sum();
        family.part("_sum", &[], sum / 1e6);
        family.part("_count", &[], times.len() as f64);
    }

    fn process(&mut self) {
        let usage = crate::net::process::usage();
        self.one(stats::CPU, usage.cpu.as_secs_f64());
        self.one(stats::RESIDENT, usage.resident as f64);
        self.one(stats::OPEN_FDS, usage.open_fds as f64);
        self.one(stats::MAX_FDS, usage.max_fds as f64);
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_micros() as f64 / 1e6
}
