//! Completions, manual pages and the version, generated from the definitions of the commands.

use clap::CommandFactory as _;
use serde::Serialize;

use super::args::{Cli, ManArgs, OutputFormat, VERSION, VersionArgs};
use super::failure::Failure;
use super::output::Console;
use crate::products::Product;

#[derive(Serialize)]
struct VersionDocument {
    version: &'static str,
    /// The features of missing products.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    without: Vec<&'static str>,
}

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
            out.write_line(format!("wrote {pages} pages to {}", dir.display()))?;
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
    match args.output.selected_format() {
        OutputFormat::Table => {
            out.write_line(format!("tallyport {}", *VERSION))?;
        }
        OutputFormat::Json | OutputFormat::Ndjson => {
            let without = Product::list_missing().map(Product::feature_name).collect();
            out.write_json(&VersionDocument { version: env!("CARGO_PKG_VERSION"), without })?;
        }
    }
    Ok(())
}
