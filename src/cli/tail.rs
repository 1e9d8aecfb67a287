//! `tallyport tail`: lines as a task sends them.

use super::args::{Format, TailArgs};
use super::failure::Failure;
use super::output::Output;
use super::resolve::{segment, task};
use crate::client::Response;
use crate::wire::TailedLine;

pub(super) async fn tail(args: &TailArgs, out: &mut Output) -> Result<(), Failure> {
    let client = args.admin.client();
    let task = task(&client, &args.pod, &args.task_id).await?;
    let mut lines = client.lines(&format!("/v1/tasks/{}/tail", segment(&task.task_id))).await?;
    if lines.status != 200 {
        return Err(Failure::answered(&Response { status: lines.status, body: lines.rest().await.into() }));
    }
    if out.is_terminal() {
        out.complain(format!("lines of {} as they come; Ctrl-C ends this", task.task_id));
    }
    let mut left = args.lines.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(text) = lines.next().await? else { return Ok(()) };
        left -= 1;
        if args.output.format() != Format::Table {
            out.json_line(&text)?;
            continue;
        }
        let line: TailedLine = serde_json::from_str(&text).map_err(|error| Failure::garbled(&error))?;
        if line.lost > 0 {
            out.complain(format!("tallyport: {} lines came faster than they could be shown", line.lost));
        }
        if args.raw {
            out.data(&format!("{}\n", line.line))?;
            continue;
        }
        let outcome = match &line.rejected {
            Some(code) => out.bad(format!("rejected: {code}")),
            None => out.good("accepted"),
        };
        let at = out.faint(line.at.to_string());
        out.line(at + "  " + line.container_id + "  " + outcome + "  " + line.line)?;
    }
    Ok(())
}
