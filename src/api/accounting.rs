//! `GET /v1/accounting`: the identities, per container and in total.

use serde::Serialize;

use super::documents::Counts;
use super::error::ApiError;
use super::query::{Filters, Query};
use super::{Answer, Api};
use crate::aggregate::Accounting;
use crate::containers::State;

#[derive(Serialize)]
struct Document {
    node: String,
    containers: Vec<Container>,
    total: Counts,
}

#[derive(Serialize)]
struct Container {
    container_id: String,
    generation: u32,
    task_id: String,
    state: State,
    #[serde(flatten)]
    counts: Counts,
}

/// `GET /v1/accounting`
pub(super) async fn accounting(api: &Api, raw: &str) -> Result<Answer, ApiError> {
    let query = Query::read(raw, &["task", "container", "label"])?;
    let filters = Filters::read(&query)?;
    let wanted: Vec<_> =
        api.containers.directory().all().into_iter().filter(|info| filters.origin(&info.origin)).collect();
    let glimpses = api.counts(&wanted).await?;
    // Whoever filters wants the sum of what is shown; the node's whole includes what is forgotten.
    let everything = raw.is_empty();
    let mut total = if everything { api.containers.directory().forgotten() } else { Accounting::default() };
    let mut open = 0;
    let mut containers = Vec::with_capacity(wanted.len());
    for info in &wanted {
        let Some(glimpse) = glimpses.get(&info.allocation) else { continue };
        total.merge(&glimpse.accounting);
        open += glimpse.open_values;
        containers.push(Container {
            container_id: info.origin.container_id.to_string(),
            generation: info.origin.generation.0,
            task_id: info.origin.task_id.to_string(),
            state: info.state,
            counts: Counts::new(&glimpse.accounting, glimpse.open_values),
        });
    }
    let node = api.config().node.clone();
    Ok(Answer::json(200, &Document { node, containers, total: Counts::new(&total, open) }))
}
