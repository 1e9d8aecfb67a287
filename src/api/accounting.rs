//! `GET /v1/accounting`: the identities, per container and in total.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Serialize;

use super::documents::CountsDocument;
use super::error::ApiError;
use super::pages::{Asker, BuildLane, Deadline, PageRequest, PageWork, PageWriter};
use super::query::{Filters, Query};
use super::{Api, ApiResponse};
use crate::aggregate::Accounting;
use crate::containers::{ContainerInfo, LifecycleState};
use crate::model::Allocation;
use crate::shard::ContainerStats;

#[derive(Serialize)]
struct AccountingDocument {
    node: String,
    containers: Vec<ContainerCounts>,
    total: CountsDocument,
}

#[derive(Serialize)]
struct ContainerCounts {
    container_id: String,
    generation: u32,
    task_id: String,
    state: LifecycleState,
    #[serde(flatten)]
    counts: CountsDocument,
}

/// `GET /v1/accounting`
pub(super) async fn get_accounting(api: &Api, asker: Asker, raw: &str) -> Result<ApiResponse, ApiError> {
    let query = Query::read(raw, &["task", "container", "label"])?;
    let filters = Filters::read(&query)?;
    let lane = if filters.has_patterns() { BuildLane::Search } else { BuildLane::Short };
    let request = PageRequest::new(asker, lane, "/v1/accounting", raw.to_owned());
    // Whoever filters wants the sum of what is shown; the node's whole includes what is forgotten.
    let everything = raw.is_empty();
    let of_node = api.clone();
    let gather = move |work: PageWork| async move {
        let all = of_node.containers.directory().all_containers();
        let choose = move |deadline: &Deadline| {
            deadline.choose_items(all, |info| filters.matches_origin(&info.origin))
        };
        let wanted = work.run(choose).await?;
        let stats_by_container = of_node.collect_container_stats(&wanted).await?;
        let forgotten = if everything {
            of_node.containers.directory().forgotten_accounting()
        } else {
            Accounting::default()
        };
        let node = of_node.current_config().node.clone();
        Ok(move |writer: &mut PageWriter| {
            writer.write_json(&AccountingDocument::new(node, &wanted, &stats_by_container, forgotten))
        })
    };
    api.pages.answer_request(request, gather).await
}

impl AccountingDocument {
    /// `total` is what is counted beside those containers.
    fn new(
        node: String,
        wanted: &[Arc<ContainerInfo>],
        stats_by_container: &HashMap<Allocation, Arc<ContainerStats>>,
        mut total: Accounting,
    ) -> Self {
        let mut open = 0;
        let mut containers = Vec::with_capacity(wanted.len());
        for info in wanted {
            let Some(stats) = stats_by_container.get(&info.allocation) else { continue };
            total.merge(&stats.accounting);
            open += stats.open_values;
            containers.push(ContainerCounts {
                container_id: info.origin.container_id.to_string(),
                generation: info.origin.generation.0,
                task_id: info.origin.task_id.to_string(),
                state: info.state,
                counts: CountsDocument::new(&stats.accounting, stats.open_values),
            });
        }
        Self { node, containers, total: CountsDocument::new(&total, open) }
    }
}
