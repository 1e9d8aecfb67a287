//! The identities of counts, for each container and in total.

use std::sync::Arc;

use super::documents::counts_document;
use crate::aggregate::Accounting;
use crate::containers::ContainerInfo;
use crate::shard::StatsByContainer;
use crate::wire;

/// The counts of these containers. `total` is what is counted beside them.
#[must_use]
pub fn accounting_document(
    node: String,
    wanted: &[Arc<ContainerInfo>],
    stats_by_container: &StatsByContainer,
    mut total: Accounting,
) -> wire::AccountingDocument {
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
            counts: counts_document(&stats.accounting, stats.open_values),
        });
    }
    wire::AccountingDocument { node, containers, total: Some(counts_document(&total, open)) }
}
