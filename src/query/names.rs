//! The names of a task's metrics for Prometheus, from the page that scrapers get.

use super::data::{Data, Error};
use super::exposition::{Wanted, build_page};
use super::parameters::{Filters, Query};
use super::sink::Sink;
use crate::aggregate::Counting;
use crate::config::AgentConfig;
use crate::containers::TaskContainers;
use crate::model::Timestamp;
use crate::render::exposition::{Escaping, Format};
use crate::render::prometheus::{ExposedName, format_common_labels};
use crate::wire;

/// The filters of a list of names.
const FILTERS_OF_NAMES: [&str; 1] = ["name"];

impl Wanted {
    /// Reads the query for the names of a task. `style` is the format and escaping that the last scraper asked for;
    /// without one, names have underscores.
    ///
    /// # Errors
    /// When a parameter is unknown or cannot be read.
    pub fn read_names(
        config: &AgentConfig,
        raw: &str,
        style: Option<(Format, Escaping)>,
        listed: &TaskContainers,
    ) -> Result<Self, Error> {
        let filters = Filters::read(&Query::read(raw, &FILTERS_OF_NAMES)?)?;
        // Only messages can contain native histograms, so scrapers of an agent that counts them ask for messages.
        let expected = match config.aggregation.counting {
            Counting::Native => Format::Protobuf,
            _ => Format::OpenMetrics,
        };
        let (format, escaping) = style.unwrap_or((expected, Escaping::default()));
        Ok(Self::for_task(config, filters, (format, escaping), listed.task_id.clone()))
    }
}

/// Writes the names of a task's metrics.
///
/// # Errors
/// When they are no longer wanted.
pub fn write_names<S: Sink>(
    data: &Data,
    wanted: &Wanted,
    listed: &TaskContainers,
    now: Timestamp,
    writer: &mut S,
) -> Result<(), S::Stop> {
    let page = build_page(data, wanted, now, writer)?;
    writer.hold_bytes(page.held_bytes());
    let origins = listed.containers.iter().map(|info| &*info.origin);
    let labels = format_common_labels(origins, wanted.identity_level());
    let names = page.list_names(&labels).into_iter().map(name_document).collect();
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
    }
}
