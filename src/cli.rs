//! The command line: parses arguments and dispatches commands.
//!
//! Exit codes: 0 found, 1 error or a fault found, 2 usage, 3 no such task, 4 task known but no data yet, 5 agent unreachable,
//! 6 ambiguous.

mod agent;
mod args;
mod background;
mod cells;
mod completion;
mod config;
mod containers;
mod csv_text;
mod details;
mod doctor;
mod documents;
mod encoding;
mod events;
mod explain;
mod failure;
mod hdr_log;
#[cfg(feature = "install")]
mod hook;
mod lines;
mod listing;
mod live;
mod manual;
mod nearest;
mod output;
mod paragraphs;
#[cfg(feature = "top")]
mod plot;
mod probe;
mod publish;
mod records;
mod resolve;
mod resources;
mod run;
mod scale;
mod scrape_page;
mod screen;
mod setting_places;
#[cfg(test)]
mod snapshots;
mod socket_access;
mod summary;
mod table;
mod tasks;
mod text;
#[cfg(feature = "top")]
mod top;
mod units;
#[cfg(feature = "nri")]
mod untaint;
mod usage;
mod version;
mod wait;
mod watch;
mod wrap;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

pub use args::Cli;
use args::{Command, ConfigCommand, ContainersCommand, MetricsCommand, PublishCommand};
use failure::Failure;
use output::Console;

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    run_with(std::env::args_os())
}

/// Runs the program with these arguments.
#[must_use]
pub fn run_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if completion::answer_shell(&arguments) {
        return ExitCode::SUCCESS;
    }
    let mut output = Console::new();
    let cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => {
            if let Some(mistake) = usage::describe_mistake(&error, &arguments) {
                return mistake.report(&mut output);
            }
            // Help and version go to standard output and are not errors; clap tells them apart. A pipe that is closed is none.
            let _closed = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match dispatch_command(cli, &mut output) {
        Ok(code) => code,
        Err(failure) => failure.for_command(&usage::find_command(&arguments)).report(&mut output),
    }
}

fn dispatch_command(cli: Cli, out: &mut Console) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Agent(args) => return agent::run_agent(&args, out),
        Command::Keeper(args) => return agent::run_keeper(&args, out),
        Command::Run(args) => return run::run(&args, out),
        Command::Env(args) => return run::export_env(&args, out),
        #[cfg(feature = "nri")]
        Command::Untaint(args) => return untaint::untaint_node(&args),
        Command::ProbeSend => return probe::send_probe(out),
        Command::Parse(args) => return lines::parse_datagrams(&args, out),
        Command::Config { command: ConfigCommand::Check(args) } => config::check_config(&args, out)?,
        Command::Config { command: ConfigCommand::Reference(args) } => config::print_reference(&args, out)?,
        Command::Config { command: ConfigCommand::Example } => config::print_example(out)?,
        #[cfg(feature = "install")]
        Command::Hook { command } => hook::run_hook(&command, out)?,
        Command::Completions { shell } => completion::print_registration(shell, out)?,
        Command::Man(args) => manual::write_man_pages(&args, out)?,
        Command::Version(args) => version::print_version(&args, out)?,
        command => return dispatch_client_command(command, out),
    }
    Ok(ExitCode::SUCCESS)
}

/// The commands that query an agent.
fn dispatch_client_command(command: Command, out: &mut Console) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system_error(&error))?;
    runtime.block_on(async {
        match command {
            Command::Tasks(args) => tasks::list_tasks(&args, out).await?,
            #[cfg(feature = "top")]
            Command::Top(args) => top::run_top(&args, out).await?,
            Command::Containers { command } => match command {
                ContainersCommand::List(args) => containers::list_containers(&args, out).await?,
                ContainersCommand::Show(args) => containers::show_container(&args, out).await?,
                ContainersCommand::Release(args) => containers::release_container(&args, out).await?,
                ContainersCommand::Reconcile(args) => containers::reconcile_containers(&args, out).await?,
            },
            Command::Metrics { command } => match command {
                MetricsCommand::Details(args) => details::show_details(&args, out).await?,
                MetricsCommand::Summary(args) => summary::show_summary(&args, out).await?,
                MetricsCommand::Watch(args) => watch::watch_task(&args, out).await?,
                #[cfg(feature = "top")]
                MetricsCommand::Plot(args) => plot::plot_series(&args, out).await?,
            },
            Command::Publish { command } => match command {
                PublishCommand::List(args) => publish::list_publishers(&args, out).await?,
                PublishCommand::Show(args) => publish::show_publisher(&args, out).await?,
                PublishCommand::Check(args) => return publish::check_publisher(&args, out).await,
                PublishCommand::Dead(args) => publish::list_dead_letters(&args, out).await?,
                PublishCommand::Replay(args) => return publish::replay_publisher(&args, out).await,
                PublishCommand::Verify(args) => return publish::verify_publisher(&args, out).await,
            },
            Command::Explain(args) => return explain::explain_task(&args, out).await,
            Command::Tail(args) => lines::tail_lines(&args, out).await?,
            Command::Config { command: ConfigCommand::Show(args) } => config::show_config(&args, out).await?,
            Command::Reload(args) => agent::reload_config(&args, out).await?,
            Command::Health(args) => agent::check_health(&args, out).await?,
            Command::Doctor(args) => return doctor::run_doctor(&args, out).await,
            // The other commands ask no agent and were run before.
            _ => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}
