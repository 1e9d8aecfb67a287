//! `tallyport env`: a socket for what a launcher of another kind starts, and its variables as a file.

use std::borrow::Cow;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::ExitCode;

use super::args::EnvArgs;
use super::failure::Failure;
use super::output::Console;
use super::run::{parse_labels, request_reservation, socket_variables};
use crate::wire::{Network, ReservationDocument, ReservedDocument, TtlDocument};

pub(super) fn export_env(args: &EnvArgs, out: &mut Console) -> Result<ExitCode, Failure> {
    let lines = match reserve_socket(args) {
        Ok(Some(container)) => render_env_file(&container, out),
        // It was opted out.
        Ok(None) => String::new(),
        Err(failure) if args.fail_closed => return Err(failure),
        Err(failure) => {
            let _its_code = failure.report(out);
            out.write_stderr_line("tallyport: there is no socket; metrics will not be counted (use --fail-closed to make this an error)");
            // An address of an earlier life must not stay: it may be another's by now.
            String::new()
        }
    };
    match &args.env_file {
        Some(path) => write(path, &lines)
            .map_err(|error| Failure::new(1, format!("cannot write {}: {error}", path.display())))?,
        None => out.write_data(&lines).map_err(|error| Failure::system_error(&error))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn reserve_socket(args: &EnvArgs) -> Result<Option<ReservedDocument>, Failure> {
    let reservation = ReservationDocument {
        task_id: Some(args.task_id.as_ref().unwrap_or(&args.container).into()),
        labels: Some(Cow::Owned(parse_labels(&args.labels)?)),
        network: Some(Network::Host),
        pid: args.pid,
        // Nobody names a process later, so it lasts until it is released, or its process ends.
        ttl: TtlDocument::Never,
        ..ReservationDocument::new(&args.container)
    };
    request_reservation(&args.admin, &reservation)
}

fn render_env_file(container: &ReservedDocument, out: &mut Console) -> String {
    for warning in &container.warnings {
        out.write_stderr_line(format!("tallyport: {warning}"));
    }
    // A line break in a value would set another variable.
    let variables = socket_variables(container, out).into_iter();
    variables.flat_map(|(name, value)| [name, "=", value, "\n"]).collect()
}

/// Readers see the old file or the new one.
fn write(path: &Path, text: &str) -> std::io::Result<()> {
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        std::fs::create_dir_all(directory)?;
    }
    let beside = path.with_added_extension(format!("{}.new", std::process::id()));
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(&beside)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| std::fs::rename(&beside, path));
    if written.is_err() {
        let _either_way = std::fs::remove_file(&beside);
    }
    written
}
