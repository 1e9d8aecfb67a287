//! `GET /v1/accounting`: the identities, per container and in total.

use std::collections::HashMap;
use std::sync::Arc;

use super::documents::counts;
use super::error::ApiError;
use super::pages::{Asker, Deadline, Lane, Request, Work, Writer};
use super::query::{Filters, Query};
use super::{Answer, Api};
use crate::aggregate::Accounting;
use crate::containers::ContainerInfo;
use crate::model::Allocation;
use crate::shard::ContainerStats;
use crate::wire;

/// `GET /v1/accounting`
pub(super) async fn accounting(api: &Api, asker: Asker, raw: &str) -> Result<Answer, ApiError> {
    let query = Query::read(raw, &["task", "container", "label"])?;
    let filters = Filters::read(&query)?;
    let lane = if filters.has_patterns() { Lane::Search } else { Lane::Short };
    let request = Request::new(asker, lane, "/v1/accounting", raw.to_owned());
    // Whoever filters wants the sum of what is shown; the node's whole includes what is forgotten.
    let everything = raw.is_empty();
    let of_node = api.clone();
    let gather = move |work: Work| async move {
        let all = of_node.containers.directory().all();
        let choose = move |deadline: &Deadline| deadline.choose(all, |info| filters.origin(&info.origin));
        let wanted = work.run(choose).await?;
        let stats_by_container = of_node.counts(&wanted).await?;
        let forgotten =
            if everything { of_node.containers.directory().forgotten() } else { Accounting::default() };
        let node = of_node.config().node.clone();
        Ok(move |writer: &mut Writer| writer.json(&document(node, &wanted, &stats_by_container, forgotten)))
    };
    api.pages.answer(request, gather).await
}

/// The document of these containers. `total` is what is counted beside them.
fn document(
    node: String,
    wanted: &[Arc<ContainerInfo>],
    stats_by_container: &HashMap<Allocation, Arc<ContainerStats>>,
    mut total: Accounting,
) -> wire::Accounting {
    let mut open = 0;
    let mut containers = Vec::with_capacity(wanted.len());
    for info in wanted {
        let Some(stats) = stats_by_container.get(&info.allocation) else { continue };
        total.merge(&stats.accounting);
        open += stats.open_values;
        containers.push(wire::Counted {
            container_id: info.origin.container_id.to_string(),
            generation: info.origin.generation.0,
            task_id: info.origin.task_id.to_string(),
            state: info.state.as_str().into(),
            counts: counts(&stats.accounting, stats.open_values),
        });
    }
    wire::Accounting { node, containers, total: Some(counts(&total, open)) }
}
