//! The names of a task's metrics for Prometheus, from the page that scrapers get.

use super::data::{Data, Error};
use super::exposition::{Wanted, build_page};
use super::parameters::{Filters, Query, parse_keys};
use super::sink::Sink;
use crate::aggregate::Counting;
use crate::config::AgentConfig;
use crate::containers::TaskContainers;
use crate::model::{SeriesId, Timestamp};
use crate::render::exposition::{Escaping, Format};
use crate::render::prometheus::{ExposedName, Grouping, NameView, Statistic};
use crate::wire;

/// The parameters of a list of names.
const PARAMETERS: [&str; 5] = ["name", "series", "compare", "by", "stat"];

/// Which names of a task's metrics are wanted, and for which expressions.
#[derive(Debug)]
pub struct WantedNames {
    /// The page that has the names.
    pub page: Wanted,
    series: Option<SeriesId>,
    grouping: Grouping,
    statistic: Statistic,
}

impl WantedNames {
    /// Reads the query for the names of a task. `style` is the format and escaping that the last scraper asked for;
    /// without one, names have underscores.
    ///
    /// # Errors
    /// When a parameter is unknown or cannot be read.
    pub fn read(
        config: &AgentConfig,
        raw: &str,
        style: Option<(Format, Escaping)>,
        listed: &TaskContainers,
    ) -> Result<Self, Error> {
        let query = Query::read(raw, &PARAMETERS)?;
        let filters = Filters::read(&query)?;
        // Only messages can contain native histograms, so scrapers of an agent that counts them ask for messages.
        let expected = match config.aggregation.counting {
            Counting::Native => Format::Protobuf,
            _ => Format::OpenMetrics,
        };
        let (format, escaping) = style.unwrap_or((expected, Escaping::default()));
        Ok(Self {
            page: Wanted::for_task(config, filters, (format, escaping), listed.task_id.clone()),
            series: query.parse_value("series")?,
            grouping: parse_grouping(&query)?,
            statistic: query.last_value("stat").map(parse_statistic).transpose()?.unwrap_or_default(),
        })
    }
}

fn parse_grouping(query: &Query) -> Result<Grouping, Error> {
    match (query.last_value("by"), query.parse_switch("compare")?) {
        (Some(by), false) => Ok(Grouping::Tags(parse_keys(by)?)),
        (Some(by), true) => {
            Err(Error::bad_parameter("by", by, "adds up containers, which compare keeps apart"))
        }
        (None, true) => Ok(Grouping::Containers),
        (None, false) => Ok(Grouping::None),
    }
}

fn parse_statistic(text: &str) -> Result<Statistic, Error> {
    let found = Statistic::ALL.into_iter().find(|statistic| statistic.as_str() == text);
    let names = Statistic::ALL.map(Statistic::as_str).join(", ");
    found.ok_or_else(|| Error::bad_parameter("stat", text, &format!("is not one of {names}")))
}

/// Writes the names of a task's metrics.
///
/// # Errors
/// When they are no longer wanted.
pub fn write_names<S: Sink>(
    data: &Data,
    wanted: &WantedNames,
    listed: &TaskContainers,
    now: Timestamp,
    writer: &mut S,
) -> Result<(), S::Stop> {
    let page = build_page(data, &wanted.page, now, writer)?;
    writer.hold_bytes(page.held_bytes());
    let config = data.current_config();
    let view = NameView {
        origins: listed.containers.iter().map(|info| &*info.origin).collect(),
        node: &config.node,
        level: wanted.page.identity_level(),
        series: wanted.series,
        grouping: wanted.grouping.clone(),
        statistic: wanted.statistic,
    };
    let names = page.list_names(&view).into_iter().map(name_document).collect();
    writer.write_json(&wire::TaskNames { task_id: listed.task_id.to_string(), names })
}

fn name_document(exposed: ExposedName) -> wire::ExposedNameDocument {
    wire::ExposedNameDocument {
        metric_type: exposed.metric_type.as_str().into(),
        unit: exposed.metric_type.unit().into(),
        name: exposed.name,
        scraped: exposed.scraped,
        samples: exposed.samples,
        selector: exposed.selector,
        promql: exposed.promql,
        reads: exposed.reads.into(),
        notes: exposed.notes.into_iter().map(wire::Word::from).collect(),
    }
}
