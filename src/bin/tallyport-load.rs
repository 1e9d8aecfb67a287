//! The `tallyport-load` program: traffic with known totals, and whether it arrived.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    tallyport_load::main(&tallyport_load::LoadOptions::parse())
}
