//! `tallyport keeper`.

use std::process::ExitCode;

use super::agent::loader_from_sources;
use super::args::KeeperArgs;
use super::failure::Failure;
use super::output::Console;
use crate::restart;
use crate::telemetry;

pub(super) fn run_keeper(args: &KeeperArgs, _out: &mut Console) -> Result<ExitCode, Failure> {
    let mut loader = loader_from_sources(&args.sources)?;
    if let Some(state_dir) = &args.state_dir {
        loader.flags.push(("state_dir".to_owned(), state_dir.clone(), "--state-dir".to_owned()));
    }
    let (config, _) = loader.load_config()?;
    let _log = telemetry::start(&config.log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system_error(&error))?;
    runtime.block_on(restart::run_keeper(config.state_dir, args.hold))?;
    Ok(ExitCode::SUCCESS)
}
