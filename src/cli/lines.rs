//! `tallyport tail` and `parse`: lines as a task sends them, and how datagrams are read.

use std::io::BufRead as _;
use std::num::NonZeroU64;
use std::process::ExitCode;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use super::args::{ParseArgs, StreamFormat, TailArgs};
use super::details::fetch_all_records;
use super::documents::describe_folded;
use super::encoding::{encode_query, encode_segment};
use super::failure::{Failure, code};
use super::nearest::list_nearest_names;
use super::output::Console;
use super::resolve::find_task;
use crate::client::{Client, Response};
use crate::model::Glob;
use crate::render::parsed::describe_datagram;
use crate::statsd::style;
use crate::wire::{TailedLine, Task};

pub(super) async fn tail_lines(args: &TailArgs, out: &mut Console) -> Result<(), Failure> {
    let client = args.admin.build_client();
    let found = find_task(&client, &args.pod, &args.task_id)
        .await
        .map_err(|failure| explain_number(failure, args))?;
    let task = &found.task;
    if task.finished {
        let message = format!("task {} has ended and sends no more lines", task.task_id);
        let hint = format!("`tallyport explain {}` shows how far its metrics got", task.task_id);
        return Err(Failure::new(code::NO_DATA, message).with_hint(hint));
    }
    let mut pairs: Vec<_> = args.name.iter().map(|name| ("name", name.as_str())).collect();
    pairs.extend(found.container.as_deref().map(|id| ("container", id)));
    pairs.extend(args.rejected.then_some(("outcome", "rejected")));
    pairs.extend(args.accepted.then_some(("outcome", "accepted")));
    let path = format!("/v1/tasks/{}/tail{}", encode_segment(&task.task_id), encode_query(pairs));
    let mut lines = client.stream_lines(&path).await?;
    if lines.status != 200 {
        return Err(Failure::from_response(&Response {
            status: lines.status,
            body: lines.read_remaining().await.into(),
        }));
    }
    if out.is_terminal() {
        let which = if args.rejected {
            "rejected lines"
        } else if args.accepted {
            "accepted lines"
        } else {
            "lines"
        };
        let of = args.name.as_ref().map_or_else(String::new, |name| format!(" named {name}"));
        out.write_stderr_line(format!("{which}{of} of {} as they arrive; Ctrl-C stops", task.task_id));
    }
    found.report_part(out);
    // Their lines are accepted and yet have no series, so a reader of these lines would look for them in vain.
    if let Some(folded) = describe_folded(task.totals.values.folded, out.choose_precision(false)) {
        out.write_stderr_line(format!("tallyport: {folded}"));
    }
    if let Some(name) = args.name.as_deref().filter(|_| !args.rejected) {
        report_unknown_name(&client, task, name, out).await;
    }
    let mut left = args.lines.map_or(u64::MAX, NonZeroU64::get);
    while left > 0 {
        let Some(text) = lines.next().await? else { return Ok(()) };
        left -= 1;
        if args.output.selected_format() != StreamFormat::Table {
            out.write_json_line(&text)?;
            continue;
        }
        let line: TailedLine =
            serde_json::from_str(&text).map_err(|error| Failure::malformed_response(&error))?;
        if line.lost > 0 {
            out.write_stderr_line(format!(
                "tallyport: {} lines were skipped because they arrived faster than they could be shown",
                line.lost
            ));
        }
        if args.raw {
            out.write_data(&format!("{}\n", line.line))?;
            continue;
        }
        let outcome = match &line.rejected {
            Some(code) => out.style_error(format!("rejected: {code}")),
            None => out.style_success("accepted"),
        };
        // Six digits, so that what follows begins in the same column.
        let at = out.style_dimmed(format!("{:.6}", line.at));
        out.write_line(at + "  " + line.container_id + "  " + outcome + "  " + line.line)?;
    }
    Ok(())
}

/// Reports a name that no series of the task has, so that a misspelt one is not waited for. Such a line can still come.
async fn report_unknown_name(client: &Client, task: &Task, name: &str, out: &mut Console) {
    let records = fetch_all_records(client, &task.task_id).await;
    let glob = Glob::new(name);
    if records.iter().any(|record| glob.is_match(&record.name)) {
        return;
    }
    let nearest = list_nearest_names(records.iter().map(|record| &*record.name), name);
    let nearest = match nearest.is_empty() {
        true => String::new(),
        false => format!("; nearest names: {}", nearest.join(", ")),
    };
    out.write_stderr_line(format!(
        "tallyport: waiting for lines named {name}, of which {} has no series yet{nearest}",
        task.task_id
    ));
}

/// Points at `--lines` if a namespace is a number. Such a namespace can exist, so it is looked for first.
fn explain_number(failure: Failure, args: &TailArgs) -> Failure {
    match args.pod.namespace.as_deref().and_then(|namespace| namespace.parse::<NonZeroU64>().ok()) {
        Some(lines) if failure.is_unknown_task() => failure.with_hint(format!(
            "-n is --namespace; `tallyport tail {} --lines {lines}` stops after {lines} lines",
            args.task_id
        )),
        _ => failure,
    }
}

/// Prints how each datagram is read. The exit code is that of an error if any line was rejected, so that a script need not read
/// the documents.
pub(super) fn parse_datagrams(args: &ParseArgs, out: &mut Console) -> Result<ExitCode, Failure> {
    let styles = style::read(args.tag_styles.split(',')).map_err(|wrong| {
        Failure::usage_error(format!("{wrong:?} is not a tag style; use influx, librato, signalfx or all"))
    })?;
    let mut any_rejected = false;
    let mut print = |text: &[u8]| -> Result<(), Failure> {
        let datagram = decode_datagram(text, args.base64)?;
        let parsed = describe_datagram(&datagram, styles);
        any_rejected |= parsed.has_rejected();
        Ok(out.write_ndjson([parsed])?)
    };
    for text in &args.datagrams {
        print(text.as_bytes())?;
    }
    if args.datagrams.is_empty() {
        for line in std::io::stdin().lock().split(b'\n') {
            print(&line?)?;
        }
    }
    Ok(if any_rejected { ExitCode::from(code::ERROR) } else { ExitCode::SUCCESS })
}

fn decode_datagram(text: &[u8], base64: bool) -> Result<Vec<u8>, Failure> {
    if !base64 {
        return Ok(text.to_vec());
    }
    let text = text.trim_ascii();
    BASE64_STANDARD.decode(text).map_err(|error| {
        Failure::new(code::ERROR, format!("{:?} is not base64: {error}", String::from_utf8_lossy(text)))
    })
}
