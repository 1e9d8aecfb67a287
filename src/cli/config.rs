//! `tallyport config`.

use serde::Serialize;

use super::agent::sources;
use super::args::{ConfigArgs, Format, ReferenceArgs};
use super::failure::{Failure, code};
use super::output::Output;
use super::table::{Align, Table};
use crate::app;
use crate::config::{self, Effect};
use crate::stats;

/// What holds for one setting.
#[derive(Serialize)]
struct Holds<'a> {
    key: &'static str,
    value: &'a str,
    origin: String,
    reload: bool,
    takes_effect: &'static str,
}

pub(super) fn check(args: &ConfigArgs, out: &mut Output) -> Result<(), Failure> {
    let loader = sources(&args.sources)?;
    let (config, _) = loader.load()?;
    app::check_entrance(&config.http).map_err(|error| Failure::new(code::ERROR, error.to_string()))?;
    let named = loader.file.map_or("the configuration".to_owned(), |file| file.display().to_string());
    match args.output.format() {
        Format::Table | Format::Prom => out.line(format!("{named} is sound"))?,
        Format::Json | Format::Ndjson => out.json(&serde_json::json!({"sound": true}))?,
    }
    Ok(())
}

pub(super) fn show(args: &ConfigArgs, out: &mut Output) -> Result<(), Failure> {
    let (resolved, layers) = sources(&args.sources)?.load()?;
    let state_dir = resolved.state_dir.display().to_string();
    let holds: Vec<Holds<'_>> = layers
        .iter()
        .map(|(setting, written)| Holds {
            key: setting.key,
            value: if setting.key == "state_dir" { &state_dir } else { &written.text },
            origin: written.origin.to_string(),
            reload: setting.effect != Effect::Restart,
            takes_effect: setting.effect.when(),
        })
        .collect();
    match args.output.format() {
        Format::Json => out.json(&holds)?,
        Format::Ndjson => out.ndjson(&holds)?,
        Format::Table | Format::Prom => {
            let mut table =
                Table::new(&[("KEY", Align::Left), ("VALUE", Align::Left), ("FROM", Align::Left)]);
            for held in &holds {
                table.row(&[held.key.to_owned(), held.value.to_owned(), held.origin.clone()]);
            }
            table.print(out)?;
        }
    }
    Ok(())
}

pub(super) fn reference(args: &ReferenceArgs, out: &mut Output) -> Result<(), Failure> {
    let page = if args.metrics { stats::reference() } else { config::reference() };
    out.page(page.as_bytes())?;
    Ok(())
}

pub(super) fn example(out: &mut Output) -> Result<(), Failure> {
    out.page(config::example().as_bytes())?;
    Ok(())
}
