//! `tallyport tail`: lines as a task sends them.

use super::args::{OutputFormat, TailArgs};
use super::failure::Failure;
use super::output::Console;
use super::resolve::{encode_segment, find_task};
use crate::client::Response;
use crate::wire::TailedLine;

pub(super) async fn tail_lines(args: &TailArgs, out: &mut Console) -> Result<(), Failure> {
    let client = args.admin.build_client();
    let task = find_task(&client, &args.pod, &args.task_id).await?;
    let mut lines = client.stream_lines(&format!("/v1/tasks/{}/tail", encode_segment(&task.task_id))).await?;
    if lines.status != 200 {
        return Err(Failure::from_response(&Response {
            status: lines.status,
            body: lines.read_remaining().await.into(),
        }));
    }
    if out.is_terminal() {
        out.write_stderr_line(format!("lines of {} as they come; Ctrl-C ends this", task.task_id));
    }
    let mut left = args.lines.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(text) = lines.next().await? else { return Ok(()) };
        left -= 1;
        if args.output.selected_format() != OutputFormat::Table {
            out.write_json_line(&text)?;
            continue;
        }
        let line: TailedLine =
            serde_json::from_str(&text).map_err(|error| Failure::malformed_response(&error))?;
        if line.lost > 0 {
            out.write_stderr_line(format!(
                "tallyport: {} lines came faster than they could be shown",
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
        let at = out.style_dimmed(line.at.to_string());
        out.write_line(at + "  " + line.container_id + "  " + outcome + "  " + line.line)?;
    }
    Ok(())
}
