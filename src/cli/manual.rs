//! Completions, manual pages and the version, from the same definitions as the commands.

use clap::CommandFactory as _;

use super::args::{Cli, ManArgs, OutputFormat, VersionArgs};
use super::failure::Failure;
use super::output::Console;

pub(super) fn print_completions(shell: clap_complete::Shell, out: &mut Console) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tallyport", &mut script);
    out.write_page(&script)?;
    Ok(())
}

pub(super) fn write_man_pages(args: &ManArgs, out: &mut Console) -> Result<(), Failure> {
    match &args.dir {
        Some(dir) => {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(Cli::command(), dir)?;
            let pages = std::fs::read_dir(dir)?.count();
            out.write_line(format!("{pages} pages are in {}", dir.display()))?;
        }
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page)?;
            out.write_page(&page)?;
        }
    }
    Ok(())
}

pub(super) fn print_version(args: &VersionArgs, out: &mut Console) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    match args.output.selected_format() {
        OutputFormat::Table | OutputFormat::Prom | OutputFormat::Hdr => {
            out.write_line(format!("tallyport {version}"))?;
        }
        OutputFormat::Json | OutputFormat::Ndjson => {
            out.write_json(&serde_json::json!({"version": version}))?;
        }
    }
    Ok(())
}
