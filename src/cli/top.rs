//! `tallyport top`: the tasks of the node and their series, live.
//!
//! `app` is the state and what keys do to it, `view` draws it, `feed` brings what the agent sends, and `terminal` connects the
//! three. Only `terminal` touches the terminal, so everything else is tested without one.

mod app;
mod feed;
mod listing;
mod series;
mod tasks;
mod terminal;
mod updates;
mod view;

use app::App;

use super::args::TopArgs;
use super::encoding::encode_query;
use super::events::EventStream;
use super::failure::Failure;
use super::output::Console;
use super::resolve::find_task;

pub(super) async fn run_top(args: &TopArgs, out: &Console) -> Result<(), Failure> {
    if args.json || args.output.is_some() || !out.is_terminal() {
        let why = if out.is_terminal() { "does not print documents" } else { "needs a terminal" };
        return Err(Failure::usage_error(format!("tallyport top {why}")).with_hint(
            "`tallyport tasks -o ndjson` lists the tasks, and `tallyport metrics watch TASK -o ndjson` prints windows as they close",
        ));
    }
    let client = args.client.build_client()?;
    let opened = match &args.task_id {
        Some(name) => Some(find_task(&client, &args.pod, name).await?),
        None => None,
    };
    let namespace = args.pod.namespace.as_ref().map(|namespace| format!("namespace={namespace}"));
    let labels = args.label.iter().chain(&namespace).map(|label| ("label", label.as_str()));
    // Opened before the screen changes, so that an agent that does not answer is reported as by any other command.
    let stream = EventStream::open(client.clone(), format!("/v1/watch{}", encode_query(labels))).await?;
    let app = App::new(client.target().to_string(), args.sort);
    terminal::run_screen(app, client, stream, opened).await
}
