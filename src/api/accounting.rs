//! `GET /v1/accounting`: the identities, per container and in total.

use super::error::ApiError;
use super::pages::{Asker, BuildLane, Deadline, PageRequest, PageWork, PageWriter};
use super::{ApiResponse, ReaderContext};
use crate::aggregate::Accounting;
use crate::query::{self, Budget as _, Filters, Query, Sink as _};

/// `GET /v1/accounting`
pub(super) async fn get_accounting(
    reading: &ReaderContext,
    asker: Asker,
    raw: &str,
) -> Result<ApiResponse, ApiError> {
    let query = Query::read(raw, &["task", "container", "label"])?;
    let filters = Filters::read(&query)?;
    let lane = if filters.has_patterns() { BuildLane::Search } else { BuildLane::Short };
    let request = PageRequest::new(asker, lane, "/v1/accounting", raw.to_owned());
    // Whoever filters wants the sum of what is shown; the node's whole includes what is forgotten.
    let everything = raw.is_empty();
    let of_node = reading.data.clone();
    let gather = move |work: PageWork| async move {
        let all = of_node.directory.all_containers();
        let choose = move |deadline: &Deadline| {
            Ok(deadline.choose_items(all, |info| filters.matches_origin(&info.origin))?)
        };
        let wanted = work.run(choose).await?;
        let stats_by_container = of_node.collect_container_stats(&wanted).await?;
        let forgotten =
            if everything { of_node.directory.forgotten_accounting() } else { Accounting::default() };
        let node = of_node.current_config().node.clone();
        Ok(move |writer: &mut PageWriter| {
            writer.write_json(&query::accounting_document(node, &wanted, &stats_by_container, forgotten))
        })
    };
    reading.pages.answer_request(request, gather).await
}
