//! Completion in shells: the registration that `tallyport completions` prints, and the candidates that a shell then asks
//! this program for.

mod candidates;
mod shells;
mod typed;

use std::ffi::OsString;

use clap::CommandFactory as _;
use clap_complete::env::{CompleteEnv, Elvish, EnvCompleter, Fish, Powershell};
use clap_complete::{ArgValueCompleter, Shell};

use super::args::Cli;
use super::failure::Failure;
use super::output::Console;
use shells::{Bash, Zsh};

/// Names the shell that asks for candidates.
const VARIABLE: &str = "_TALLYPORT_COMPLETE";
/// The program that shells complete, and that they ask.
const PROGRAM: &str = "tallyport";

const SHELLS: [&dyn EnvCompleter; 5] = [&Bash, &Elvish, &Fish, &Powershell, &Zsh];

/// Prints what a shell evaluates to complete this program.
pub(super) fn print_registration(shell: Shell, out: &mut Console) -> Result<(), Failure> {
    let name = shell.to_string();
    let mut script = Vec::new();
    if let Some(shell) = SHELLS.into_iter().find(|known| known.is(&name)) {
        shell.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    }
    out.write_page(&script)?;
    Ok(())
}

/// Answers a shell that asks for candidates. Returns whether one did. Errors are not shown: they would appear in the line
/// that is being typed.
pub(super) fn answer_shell(arguments: &[OsString]) -> bool {
    if std::env::var_os(VARIABLE).is_none_or(|shell| shell.is_empty()) {
        return false;
    }
    let directory = std::env::current_dir().ok();
    let environment = CompleteEnv::with_factory(Cli::command).var(VARIABLE).bin(PROGRAM).completer(PROGRAM);
    let answered = environment
        .shells(clap_complete::env::Shells(&SHELLS))
        .try_complete(arguments.iter().cloned(), directory.as_deref());
    answered.unwrap_or(true)
}

/// Completes the name of a task.
pub(super) fn task_names() -> ArgValueCompleter {
    ArgValueCompleter::new(candidates::complete_task)
}

/// Completes the id of a container.
pub(super) fn container_ids() -> ArgValueCompleter {
    ArgValueCompleter::new(candidates::complete_container)
}

/// Completes the name of a container in a pod.
pub(super) fn pod_containers() -> ArgValueCompleter {
    ArgValueCompleter::new(candidates::complete_pod_container)
}

/// Completes the name of a metric of the task in the line.
pub(super) fn metric_names() -> ArgValueCompleter {
    ArgValueCompleter::new(candidates::complete_metric)
}

/// Completes the key of a setting.
pub(super) fn setting_keys() -> ArgValueCompleter {
    ArgValueCompleter::new(candidates::complete_setting)
}

/// Completes the key in `KEY=VALUE`.
pub(super) fn assigned_settings() -> ArgValueCompleter {
    ArgValueCompleter::new(candidates::complete_assignment)
}

/// Completes a tag of the series of the task in the line.
pub(super) fn series_tags() -> ArgValueCompleter {
    ArgValueCompleter::new(candidates::complete_tag)
}

/// Completes the name of a publisher.
pub(super) fn publisher_names() -> ArgValueCompleter {
    ArgValueCompleter::new(candidates::complete_publisher)
}
