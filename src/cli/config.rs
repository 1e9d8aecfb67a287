//! `tallyport config`.

use std::collections::BTreeMap;

use serde::Serialize;

use super::agent::loader_from_sources;
use super::args::{ConfigArgs, OutputFormat, ReferenceArgs, ShowConfigArgs};
use super::failure::{Failure, code};
use super::output::Console;
use super::resolve::parse_response;
use super::table::{CellKind, Column, ColumnRank, TextTable};
use crate::app;
use crate::client::{Client, Target};
use crate::config::{self, SinkConfig};
use crate::stats;
use crate::wire::{SettingDocument, Word};

/// A setting of the running agent.
#[derive(Serialize)]
struct RunningSetting {
    #[serde(flatten)]
    running: SettingDocument,
    /// What an agent that is started here would have, if that is another value.
    #[serde(skip_serializing_if = "Option::is_none")]
    configured: Option<ConfiguredValue>,
}

#[derive(Serialize)]
struct ConfiguredValue {
    value: String,
    origin: String,
}

pub(super) fn check_config(args: &ConfigArgs, out: &mut Console) -> Result<(), Failure> {
    let loader = loader_from_sources(&args.sources)?;
    let (config, _) = loader.load_checked_config()?;
    app::check_entrance(&config.http).map_err(|error| Failure::new(code::ERROR, error.to_string()))?;
    for publisher in &config.publish.publishers {
        if let SinkConfig::File(sink) = &publisher.sink
            && let Some(directory) = sink.missing_directory()
        {
            out.write_stderr_line(format!(
                "tallyport: publish.{}.path: the directory {} does not exist on this machine",
                publisher.name,
                directory.display()
            ));
        }
    }
    let named = loader.file.map_or("the configuration".to_owned(), |file| file.display().to_string());
    for (name, nearest) in config::find_misspelt_variables(&config::ProcessEnvironment) {
        out.write_stderr_line(format!(
            "tallyport: {name} is set and names no setting; did you mean {nearest}?"
        ));
    }
    match args.output.selected_format() {
        OutputFormat::Table => {
            out.write_line(format!("{named} is sound"))?;
        }
        OutputFormat::Json | OutputFormat::Ndjson => out.write_json(&serde_json::json!({"sound": true}))?,
    }
    Ok(())
}

pub(super) async fn show_config(args: &ShowConfigArgs, out: &mut Console) -> Result<(), Failure> {
    let (resolved, layers) = loader_from_sources(&args.sources)?.load_config()?;
    let mut configured = app::setting_documents(&resolved, &layers);
    configured.retain(|setting| is_selected(&setting.key, &args.keys));
    if args.running {
        // The file names the socket of the agent that is started with it.
        let socket = args.admin.admin_socket.clone().unwrap_or(resolved.admin.socket);
        let response = Client::new(Target::Unix(socket)).get("/v1/config").await?;
        let mut running: Vec<SettingDocument> = parse_response(&response)?;
        running.retain(|setting| is_selected(&setting.key, &args.keys));
        let running = compare_settings(running, configured);
        ensure_found(&args.keys, &running.iter().map(|setting| &*setting.running.key))?;
        return Ok(print_running(&running, args.output.selected_format(), out)?);
    }
    ensure_found(&args.keys, &configured.iter().map(|setting| &*setting.key))?;
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&configured)?,
        OutputFormat::Ndjson => out.write_ndjson(&configured)?,
        OutputFormat::Table => {
            let mut table = TextTable::new(&COLUMNS);
            for SettingDocument { key, value, origin, .. } in configured {
                // A column without content is left out.
                table.add_row(&[key.into_owned(), value, origin, String::new()]);
            }
            table.print_to(out)?;
        }
    }
    Ok(())
}

/// Whether a setting is one of these or in one of these tables; without any, all are.
fn is_selected(key: &str, wanted: &[String]) -> bool {
    wanted.is_empty() || wanted.iter().any(|wanted| is_within(key, wanted))
}

fn is_within(key: &str, wanted: &str) -> bool {
    key.strip_prefix(wanted.trim_end_matches('.'))
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// Fails if a key selects nothing.
fn ensure_found<'k>(
    wanted: &[String],
    found: &(impl Iterator<Item = &'k str> + Clone),
) -> Result<(), Failure> {
    let Some(missing) = wanted.iter().find(|wanted| !found.clone().any(|key| is_within(key, wanted))) else {
        return Ok(());
    };
    let failure = Failure::usage_error(format!("{missing} is not a setting"));
    Err(match config::Setting::nearest_key(missing) {
        Some(nearest) => failure.with_hint(format!("did you mean {nearest}?")),
        None => failure.with_hint("`tallyport config show` lists all settings"),
    })
}

const COLUMNS: [Column; 4] = [
    Column::new("KEY", CellKind::Name),
    Column::new("VALUE", CellKind::Text),
    Column::new("FROM", CellKind::Text).with_rank(ColumnRank::Source),
    // What `--running` is for.
    Column::new("CONFIGURED HERE", CellKind::Text),
];

/// The settings of the agent, each with the value that is configured here if it is another, and those of publishers that it does
/// not have. A setting that only an agent of another version has is no difference.
fn compare_settings(running: Vec<SettingDocument>, configured: Vec<SettingDocument>) -> Vec<RunningSetting> {
    let mut configured: BTreeMap<Word, SettingDocument> =
        configured.into_iter().map(|setting| (setting.key.clone(), setting)).collect();
    let compare = |running: SettingDocument| {
        let here = configured.remove(&running.key).filter(|here| here.value != running.value);
        let configured = here.map(|SettingDocument { value, origin, .. }| ConfiguredValue { value, origin });
        RunningSetting { running, configured }
    };
    let mut all: Vec<RunningSetting> = running.into_iter().map(compare).collect();
    configured.retain(|key, _| key.starts_with("publish.") && key.matches('.').count() == 2);
    all.extend(configured.into_values().map(|setting| {
        let running = SettingDocument { value: String::new(), origin: "none".to_owned(), ..setting.clone() };
        let SettingDocument { value, origin, .. } = setting;
        RunningSetting { running, configured: Some(ConfiguredValue { value, origin }) }
    }));
    all
}

fn print_running(
    settings: &[RunningSetting],
    format: OutputFormat,
    out: &mut Console,
) -> std::io::Result<()> {
    match format {
        OutputFormat::Json => return out.write_json(&settings),
        OutputFormat::Ndjson => return out.write_ndjson(settings),
        OutputFormat::Table => {}
    }
    let mut table = TextTable::new(&COLUMNS);
    for RunningSetting { running, configured } in settings {
        let here = configured.as_ref().map(|here| format!("{} ({})", or_none(&here.value), here.origin));
        table.add_row(&[
            running.key.to_string(),
            running.value.clone(),
            running.origin.clone(),
            here.unwrap_or_default(),
        ]);
    }
    table.print_to(out)?;
    let different: Vec<&RunningSetting> =
        settings.iter().filter(|setting| setting.configured.is_some()).collect();
    let reloadable = different.iter().filter(|setting| setting.running.reload).count();
    out.write_stderr_line(match (different.len(), reloadable) {
        (0, _) => "an agent that is started here would have the same settings".to_owned(),
        (all, 0) => format!("{} configured otherwise here, for after a restart", count_settings(all)),
        (all, some) => format!(
            "{} configured otherwise here; of these, a reload applies {some} if the agent reads the same file and variables",
            count_settings(all)
        ),
    });
    Ok(())
}

fn count_settings(count: usize) -> String {
    if count == 1 { "1 setting is".to_owned() } else { format!("{count} settings are") }
}

fn or_none(value: &str) -> &str {
    if value.is_empty() { "none" } else { value }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn setting(key: &'static str, value: &str, reload: bool) -> SettingDocument {
        SettingDocument {
            key: key.into(),
            value: value.to_owned(),
            origin: "default".to_owned(),
            reload,
            takes_effect: "at reload".into(),
        }
    }

    #[test]
    fn keys_select_settings_and_tables_and_a_mistyped_one_is_an_error() {
        let selected = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|key| (*key).to_owned()).collect();
            ["limits.series", "limits.series_x", "node"].map(|key| is_selected(key, &wanted))
        };
        assert_eq!(selected(&[]), [true, true, true]);
        assert_eq!(selected(&["limits.series"]), [true, false, false]);
        assert_eq!(selected(&["limits", "node"]), [true, true, true]);
        assert_eq!(selected(&["limit"]), [false, false, false]);
        let failure = |key: &str| ensure_found(&[key.to_owned()], &["limits.series"].into_iter());
        assert!(failure("limits").is_ok());
        let refused = failure("limits.sries").unwrap_err();
        assert_eq!(refused.to_text(), "limits.sries is not a setting\ndid you mean limits.series?");
    }

    #[test]
    fn settings_that_are_configured_otherwise_are_shown_beside_those_of_the_agent() {
        let running = vec![
            setting("limits.series", "2000", true),
            setting("windows.length", "10s", false),
            setting("of.a.later.version", "1", true),
        ];
        let configured = vec![setting("windows.length", "10s", false), setting("limits.series", "", true)];
        let (mut out, written) = Console::with_capture(None);
        let compared = compare_settings(running, configured);
        print_running(&compared, OutputFormat::Table, &mut out).unwrap();
        assert_eq!(
            written.take_text(),
            "KEY                 VALUE  FROM     CONFIGURED HERE\n\
             limits.series       2000   default  none (default)\n\
             windows.length      10s    default\n\
             of.a.later.version  1      default\n"
        );
        let json = serde_json::to_value(&compared).unwrap();
        assert_eq!(json[0]["configured"], serde_json::json!({"value": "", "origin": "default"}));
        assert_eq!((json[0]["key"].as_str(), json[1].get("configured")), (Some("limits.series"), None));
    }
}
