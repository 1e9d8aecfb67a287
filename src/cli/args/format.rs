//! The formats of the output.

use clap::builder::EnumValueParser;
use clap::{Args, ValueEnum};

use crate::cli::listing::ArgumentChoice;

/// The format of the output: `F` has those that the command can print.
#[derive(Debug, Args)]
pub(in crate::cli) struct OutputArgs<F: OutputChoice = OutputFormat> {
    /// Output format
    #[arg(short, long, value_name = "FORMAT", default_value = "table", value_parser = EnumValueParser::<F>::new())]
    pub(in crate::cli) output: F,
    #[arg(long, conflicts_with = "output", help = F::JSON_HELP)]
    pub(in crate::cli) json: bool,
}

/// The formats of a command.
pub(in crate::cli) trait OutputChoice: ArgumentChoice {
    /// The format that `--json` selects.
    const JSON: Self;
    /// The help of `--json`.
    const JSON_HELP: &str = "Print JSON, as -o json does";
}

/// The formats of commands that print one document.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum OutputFormat {
    /// For people
    Table,
    /// Indented JSON
    Json,
    /// One JSON document per line
    Ndjson,
}

impl OutputChoice for OutputFormat {
    const JSON: Self = Self::Json;
}

/// The formats of streams, which have no end that an indented document could wait for.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum StreamFormat {
    /// For people
    Table,
    /// One JSON document per line
    #[value(alias = "json")]
    Ndjson,
}

impl OutputChoice for StreamFormat {
    const JSON: Self = Self::Ndjson;
    const JSON_HELP: &str = "Print JSON, as -o ndjson does";
}

/// The formats of lists.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum ListFormat {
    /// For people
    Table,
    /// Indented JSON
    Json,
    /// One JSON document per line
    Ndjson,
    /// RFC 4180, with headings and exact values
    Csv,
}

impl OutputChoice for ListFormat {
    const JSON: Self = Self::Json;
}

/// The formats of records.
#[derive(Copy, Clone, PartialEq, Eq, Debug, ValueEnum)]
pub(in crate::cli) enum DetailsFormat {
    /// For people
    Table,
    /// Indented JSON
    Json,
    /// One JSON document per line
    Ndjson,
    /// RFC 4180, with headings and exact values
    Csv,
    /// Prometheus text
    Prom,
    /// HdrHistogram log of timers, histograms and distributions
    Hdr,
}

impl OutputChoice for DetailsFormat {
    const JSON: Self = Self::Json;
}

impl<F: OutputChoice> OutputArgs<F> {
    pub(in crate::cli) fn selected_format(&self) -> F {
        if self.json { F::JSON } else { self.output }
    }
}

/// Whether tables are for reading or for other programs.
#[derive(Debug, Args)]
pub(in crate::cli) struct RawArgs {
    /// Print every digit and whole container ids, as in a pipe
    #[arg(long)]
    pub(in crate::cli) raw: bool,
}
