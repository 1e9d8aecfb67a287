//! The command line: what it takes, and which function does it.
//!
//! Exit codes: 0 found, 1 error, 2 usage, 3 no such task, 4 task known but no data yet, 5 agent unreachable,
//! 6 ambiguous.

mod agent;
mod args;
mod config;
mod containers;
mod details;
mod doctor;
mod documents;
mod env;
mod explain;
mod failure;
mod health;
mod hook;
mod keeper;
mod manual;
mod names;
mod output;
mod parse;
mod probe;
mod reload;
mod resolve;
mod resources;
mod run;
mod sparkline;
mod summary;
mod table;
mod tail;
mod tasks;
mod text;
mod untaint;
mod watch;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser as _;

pub use args::Cli;
use args::{Command, ConfigCommand, ContainersCommand, HookCommand, MetricsCommand};
use failure::Failure;
use output::Output;

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    run_with(std::env::args_os())
}

/// Runs the program with these arguments.
#[must_use]
pub fn run_with(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version go to standard output and are no error; clap knows which is which.
            let _nobody_reads = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let mut output = Output::new();
    match execute(cli, &mut output) {
        Ok(code) => code,
        Err(failure) => failure.report(&mut output),
    }
}

fn execute(cli: Cli, out: &mut Output) -> Result<ExitCode, Failure> {
    match cli.command {
        Command::Agent(args) => return agent::agent(&args, out),
        Command::Keeper(args) => return keeper::keeper(&args, out),
        Command::Run(args) => return run::run(&args, out),
        Command::Env(args) => return env::env(&args, out),
        Command::Untaint(args) => return untaint::untaint(args),
        Command::ProbeSend => return probe::send(out),
        Command::Parse(args) => parse::parse(&args, out)?,
        Command::Config { command } => match command {
            ConfigCommand::Check(args) => config::check(&args, out)?,
            ConfigCommand::Show(args) => config::show(&args, out)?,
            ConfigCommand::Reference(args) => config::reference(&args, out)?,
            ConfigCommand::Example => config::example(out)?,
        },
        Command::Hook { command } => match command {
            HookCommand::Install(args) => hook::install(&args, out)?,
            HookCommand::Remove(args) => hook::remove(&args, out)?,
        },
        Command::Completions { shell } => manual::completions(shell, out)?,
        Command::Man(args) => manual::man(&args, out)?,
        Command::Version(args) => manual::version(&args, out)?,
        command => return client(command, out),
    }
    Ok(ExitCode::SUCCESS)
}

/// The commands that ask an agent.
fn client(command: Command, out: &mut Output) -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system(&error))?;
    runtime.block_on(async {
        match command {
            Command::Tasks(args) => tasks::tasks(&args, out).await?,
            Command::Containers { command } => match command {
                ContainersCommand::List(args) => containers::list(&args, out).await?,
                ContainersCommand::Show(args) => containers::show(&args, out).await?,
                ContainersCommand::Release(args) => containers::release(&args, out).await?,
                ContainersCommand::Reconcile(args) => containers::reconcile(&args, out).await?,
            },
            Command::Metrics { command } => match command {
                MetricsCommand::Details(args) => details::details(&args, out).await?,
                MetricsCommand::Summary(args) => summary::summary(&args, out).await?,
                MetricsCommand::Watch(args) => watch::watch(&args, out).await?,
            },
            Command::Explain(args) => return explain::explain(&args, out).await,
            Command::Tail(args) => tail::tail(&args, out).await?,
            Command::Reload(args) => reload::reload(&args, out).await?,
            Command::Health(args) => health::health(&args, out).await?,
            Command::Doctor(args) => return doctor::doctor(&args, out).await,
            // The rest asks nobody and was done before.
            _ => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}
