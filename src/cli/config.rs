//! `tallyport config`.

use std::borrow::Cow;

use serde::Serialize;

use super::agent::loader_from_sources;
use super::args::{ConfigArgs, OutputFormat, ReferenceArgs};
use super::failure::{Failure, code};
use super::output::Console;
use super::table::{CellKind, Column, TextTable};
use crate::app;
use crate::config::{self, Effect};
use crate::stats;

/// The effective value of one setting.
#[derive(Serialize)]
struct Holds<'a> {
    key: Cow<'static, str>,
    value: Cow<'a, str>,
    origin: String,
    reload: bool,
    takes_effect: &'static str,
}

pub(super) fn check_config(args: &ConfigArgs, out: &mut Console) -> Result<(), Failure> {
    let loader = loader_from_sources(&args.sources)?;
    let (config, _) = loader.load_checked_config()?;
    app::check_entrance(&config.http).map_err(|error| Failure::new(code::ERROR, error.to_string()))?;
    let named = loader.file.map_or("the configuration".to_owned(), |file| file.display().to_string());
    match args.output.selected_format() {
        OutputFormat::Table => {
            out.write_line(format!("{named} is sound"))?;
        }
        OutputFormat::Json | OutputFormat::Ndjson => out.write_json(&serde_json::json!({"sound": true}))?,
    }
    Ok(())
}

pub(super) fn show_config(args: &ConfigArgs, out: &mut Console) -> Result<(), Failure> {
    let (resolved, layers) = loader_from_sources(&args.sources)?.load_config()?;
    let state_dir = resolved.state_dir.display().to_string();
    let settings = layers.iter().map(|(setting, written)| Holds {
        key: Cow::from(setting.key),
        value: Cow::from(if setting.key == "state_dir" { &state_dir } else { &written.text }),
        origin: written.origin.to_string(),
        reload: setting.effect != Effect::Restart,
        takes_effect: setting.effect.effect_time(),
    });
    let window = layers.get("windows.length").map_or("", |written| written.text.as_str());
    let publishers = layers.publisher_entries().map(|entry| Holds {
        key: Cow::from(entry.key()),
        value: Cow::from(match (entry.setting.key, entry.raw_text()) {
            ("interval", "") => window,
            (_, text) => text,
        }),
        origin: entry.origin().to_string(),
        reload: true,
        takes_effect: entry.setting.effect.effect_time(),
    });
    let holds: Vec<Holds<'_>> = settings.chain(publishers).collect();
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&holds)?,
        OutputFormat::Ndjson => out.write_ndjson(&holds)?,
        OutputFormat::Table => {
            let mut table = TextTable::new(&[
                Column::new("KEY", CellKind::Name),
                Column::new("VALUE", CellKind::Text),
                Column::new("FROM", CellKind::Text).with_drop_order(0),
            ]);
            for held in &holds {
                table.add_row(&[held.key.to_string(), held.value.to_string(), held.origin.clone()]);
            }
            table.print_to(out)?;
        }
    }
    Ok(())
}

pub(super) fn print_reference(args: &ReferenceArgs, out: &mut Console) -> Result<(), Failure> {
    let page = if args.metrics { stats::render_reference() } else { config::render_reference() };
    out.write_page(page.as_bytes())?;
    Ok(())
}

pub(super) fn print_example(out: &mut Console) -> Result<(), Failure> {
    out.write_page(config::render_example().as_bytes())?;
    Ok(())
}
