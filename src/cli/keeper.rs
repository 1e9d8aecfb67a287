//! `tallyport keeper`.

use std::process::ExitCode;

use super::agent::sources;
use super::args::KeeperArgs;
use super::failure::Failure;
use super::output::Output;
use crate::app;
use crate::telemetry;

pub(super) fn keeper(args: &KeeperArgs, _out: &mut Output) -> Result<ExitCode, Failure> {
    let mut loader = sources(&args.sources)?;
    if let Some(state_dir) = &args.state_dir {
        loader.flags.push(("state_dir".to_owned(), state_dir.clone(), "--state-dir".to_owned()));
    }
    let (config, _) = loader.load()?;
    let _log = telemetry::start(&config.log);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::system(&error))?;
    runtime.block_on(app::keep(config.state_dir, args.hold))?;
    Ok(ExitCode::SUCCESS)
}
