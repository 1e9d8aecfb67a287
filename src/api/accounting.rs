//! `GET /v1/accounting`: the identities, per container and in total.

use super::error::ApiError;
use super::pages::{Asker, Deadline, Lane, Request, Work, Writer};
use super::{Answer, Reading};
use crate::aggregate::Accounting;
use crate::query::{self, Budget as _, Filters, Query, Sink as _};

/// `GET /v1/accounting`
pub(super) async fn accounting(reading: &Reading, asker: Asker, raw: &str) -> Result<Answer, ApiError> {
    let query = Query::read(raw, &["task", "container", "label"])?;
    let filters = Filters::read(&query)?;
    let lane = if filters.has_patterns() { Lane::Search } else { Lane::Short };
    let request = Request::new(asker, lane, "/v1/accounting", raw.to_owned());
    // Whoever filters wants the sum of what is shown; the node's whole includes what is forgotten.
    let everything = raw.is_empty();
    let of_node = reading.data.clone();
    let gather = move |work: Work| async move {
        let all = of_node.directory.all();
        let choose =
            move |deadline: &Deadline| Ok(deadline.choose(all, |info| filters.origin(&info.origin))?);
        let wanted = work.run(choose).await?;
        let stats_by_container = of_node.counts(&wanted).await?;
        let forgotten = if everything { of_node.directory.forgotten() } else { Accounting::default() };
        let node = of_node.config().node.clone();
        Ok(move |writer: &mut Writer| {
            writer.json(&query::accounting(node, &wanted, &stats_by_container, forgotten))
        })
    };
    reading.pages.answer(request, gather).await
}
