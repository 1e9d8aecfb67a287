//! `tallyport run` reserves a socket and becomes the command; `tallyport env` reserves one for a process that another launcher
//! starts, and writes its variables to a file.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use super::args::{AdminArgs, EnvArgs, RunArgs};
use super::failure::{Failure, code};
use super::output::Console;
use super::resolve::parse_response;
use super::usage::find_command;
use crate::model::{Labels, TaskId};
use crate::net::variables::{check_variable, other_of_pair};
use crate::wire::{Network, ReservationDocument, ReservedDocument, TtlDocument};

/// Exit code of shells for a command that does not exist.
const NOT_FOUND: u8 = 127;
/// Exit code of shells for a command that cannot be started.
const NOT_STARTED: u8 = 126;

pub(super) fn run(args: &RunArgs, out: &mut Console) -> Result<ExitCode, Failure> {
    let Some((program, rest)) = args.command.split_first() else {
        return Err(Failure::usage_error("there is no command to run"));
    };
    let mut command = Command::new(program);
    command.args(rest);
    // A mistake in the arguments is an error even without --fail-closed: it would be one at every start.
    let labels = collect_labels(&args.labels);
    match reserve_socket(args, labels, program) {
        Ok(Some(container)) => inject_variables(&mut command, &container, out),
        // Its labels opt it out.
        Ok(None) => {}
        Err(failure) if args.fail_closed => return Err(failure),
        Err(failure) => {
            let _its_code = report_failure(failure, "run", out);
            out.write_stderr_line("tallyport: starting without a socket; metrics will not be counted (use --fail-closed to make this an error)");
        }
    }
    // Returns only if the command did not start.
    let error = command.exec();
    let code = if error.kind() == std::io::ErrorKind::NotFound { NOT_FOUND } else { NOT_STARTED };
    Err(Failure::new(code, format!("cannot start {}: {error}", program.display())))
}

fn reserve_socket(
    args: &RunArgs,
    labels: Labels,
    program: &OsStr,
) -> Result<Option<ReservedDocument>, Failure> {
    let pid = std::process::id();
    let task_id = match &args.task_id {
        Some(id) => id.as_str().to_owned(),
        None => {
            let name = Path::new(program).file_name().unwrap_or(program).to_string_lossy().into_owned();
            format!("{name}.{pid}")
        }
    };
    let reservation = ReservationDocument {
        task_id: Some((&*task_id).into()),
        labels: Some(Cow::Owned(labels)),
        network: Some(Network::Host),
        pid: pid.try_into().ok(),
        // `exec` keeps the process id.
        ..ReservationDocument::new(format!("run-{pid}"))
    };
    let Some(container) = request_reservation(&args.admin, &reservation)? else { return Ok(None) };
    if container.task_id != task_id {
        return Err(Failure::new(
            code::ERROR,
            format!("the agent has this process under another task, {}", container.task_id),
        ));
    }
    Ok(Some(container))
}

/// The variables of a response that describe a socket. Others are ignored with a message: they may come from a process
/// that poses as the agent.
pub(super) fn socket_variables<'c>(
    container: &'c ReservedDocument,
    out: &mut Console,
) -> Vec<(&'c str, &'c str)> {
    let all = container.env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let is_taken = |(name, value): &(&str, &str)| match check_variable(name, value) {
        Ok(()) => true,
        Err(why) => {
            out.write_stderr_line(format!("tallyport: ignored a variable from the agent: {why}"));
            false
        }
    };
    all.filter(is_taken).collect()
}

/// Makes a reserve call. `None` if the container is opted out.
pub(super) fn request_reservation(
    admin: &AdminArgs,
    reservation: &ReservationDocument<'_>,
) -> Result<Option<ReservedDocument>, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system_error(&error))?;
    let request = serde_json::to_vec(reservation).map_err(|error| Failure::system_error(&error.into()))?;
    let response = runtime.block_on(admin.build_client().send_request("POST", "/v1/containers", request))?;
    if response.status == 204 { Ok(None) } else { parse_response(&response).map(Some) }
}

/// Reports a failure after which the command goes on.
fn report_failure(failure: Failure, name: &str, out: &mut Console) -> ExitCode {
    let words = ["tallyport", name].map(OsString::from);
    failure.for_command(&find_command(&words)).report(out)
}

fn collect_labels(flags: &[(String, String)]) -> Labels {
    flags.iter().cloned().collect()
}

/// Sets the container's variables for the command: always the two of its address; an alias only where neither it nor the other
/// variable of its pair is set already.
fn inject_variables(command: &mut Command, container: &ReservedDocument, out: &mut Console) {
    for warning in &container.warnings {
        out.write_stderr_line(format!("tallyport: {warning}"));
    }
    let is_set = |name: &str| std::env::var_os(name).is_some();
    for (name, value) in socket_variables(container, out) {
        let ours = matches!(name, "STATSD_UDP_HOST" | "STATSD_UDP_PORT");
        if ours || !(is_set(name) || other_of_pair(name).is_some_and(is_set)) {
            command.env(name, value);
        }
    }
}

pub(super) fn export_env(args: &EnvArgs, out: &mut Console) -> Result<ExitCode, Failure> {
    let lines = match reserve_env_socket(args) {
        Ok(Some(container)) => render_env_file(&container, out),
        // The container is opted out.
        Ok(None) => String::new(),
        Err(failure) if args.fail_closed => return Err(failure),
        Err(failure) => {
            let _its_code = report_failure(failure, "env", out);
            out.write_stderr_line("tallyport: there is no socket; metrics will not be counted (use --fail-closed to make this an error)");
            // Do not leave an old address in the file: another container may have it by now.
            String::new()
        }
    };
    match &args.env_file {
        Some(path) => write_env_file(path, &lines)
            .map_err(|error| Failure::new(1, format!("cannot write {}: {error}", path.display())))?,
        None => out.write_data(&lines).map_err(|error| Failure::system_error(&error))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn reserve_env_socket(args: &EnvArgs) -> Result<Option<ReservedDocument>, Failure> {
    let reservation = ReservationDocument {
        task_id: Some(args.task_id.as_ref().map_or(args.container.as_str(), TaskId::as_str).into()),
        labels: Some(Cow::Owned(collect_labels(&args.labels))),
        network: Some(Network::Host),
        pid: args.pid,
        // No process is named later, so it lasts until it is released, or its process ends.
        ttl: TtlDocument::Never,
        ..ReservationDocument::new(args.container.as_str())
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

/// Replaces a file atomically: readers see the old one or the new one.
fn write_env_file(path: &Path, text: &str) -> std::io::Result<()> {
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
