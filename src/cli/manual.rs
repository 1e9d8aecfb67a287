//! Completions, manual pages and the version, from the same definitions as the commands.

use clap::CommandFactory as _;

use super::args::{Cli, Format, ManArgs, VersionArgs};
use super::failure::Failure;
use super::output::Output;

pub(super) fn completions(shell: clap_complete::Shell, out: &mut Output) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tallyport", &mut script);
    out.page(&script)?;
    Ok(())
}

pub(super) fn man(args: &ManArgs, out: &mut Output) -> Result<(), Failure> {
    match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(Cli::command(), dir)?;
            let pages = std::fs::read_dir(dir)?.count();
            out.line(format!("{pages} pages are in {}", dir.display()))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            out.page(&page)?;
        }
    }
    Ok(())
}

pub(super) fn version(args: &VersionArgs, out: &mut Output) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match args.output.format() {
        Format::Table | Format::Prom => out.line(format!("tallyport {version}"))?,
        Format::Json | Format::Ndjson => out.json(&serde_json::json!({"version": version}))?,
    }
    Ok(())
}
