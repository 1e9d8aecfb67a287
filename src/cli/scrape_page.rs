//! `tallyport metrics details -o prom`: what Prometheus scrapes of a task.

use super::args::DetailsArgs;
use super::encoding::encode_query;
use super::failure::{Failure, code};
use super::output::Console;
use super::resolve::FoundTask;
use crate::client::Client;

/// The metric that describes a task, which is no metric of its application.
const TASK_INFO: &str = "tallyport_task_info";

/// Prints the part of `/metrics/tasks` that is about this task.
pub(super) async fn print_scrape_page(
    client: &Client,
    args: &DetailsArgs,
    found: &FoundTask,
    out: &mut Console,
) -> Result<(), Failure> {
    if args.window.is_some() || args.since.is_some() || args.merge {
        return Err(Failure::usage_error(
            "-o prom prints what Prometheus scrapes, which has no windows; leave out --window, --since and --merge",
        ));
    }
    if args.metric_type.is_some() || !args.list.is_default() {
        return Err(Failure::usage_error(
            "-o prom prints what Prometheus scrapes, in its order; leave out --type, --sort and --limit",
        ));
    }
    let response = client.get(&format!("/metrics/tasks{}", page_query(args, found)?)).await?;
    if response.status != 200 {
        return Err(Failure::from_response(&response));
    }
    let page = String::from_utf8_lossy(&response.body);
    out.write_data(&page)?;
    let task = &found.task;
    if page.lines().all(|line| line.starts_with('#') || line.starts_with(TASK_INFO)) {
        let why =
            if task.finished { "any more: it is finished" } else { "yet: none of its windows is closed" };
        let message = format!("task {} has no matching series on /metrics/tasks {why}", task.task_id);
        return Err(Failure::new(code::NO_DATA, message)
            .with_hint("`tallyport metrics details` without -o prom shows every record that is kept"));
    }
    Ok(())
}

fn page_query(args: &DetailsArgs, found: &FoundTask) -> Result<String, Failure> {
    // Filters have no way to write a star, but `?` is any single character and so also a star.
    let task_id = found.task.task_id.replace('*', "?");
    let containers = found.container_filters(&args.pod, &args.filters.container)?;
    let mut pairs = vec![("task", task_id.as_str())];
    pairs.extend(args.filters.series_pairs());
    pairs.extend(containers.iter().map(|(key, value)| (*key, value.as_str())));
    Ok(encode_query(pairs))
}
