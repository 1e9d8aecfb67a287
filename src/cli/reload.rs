//! `tallyport reload`.

use serde_json::Value;

use super::args::{OutputFormat, ReloadArgs};
use super::failure::Failure;
use super::output::Console;
use super::resolve::parse_response;
use crate::wire::ReloadedDocument;

pub(super) async fn reload_config(args: &ReloadArgs, out: &mut Console) -> Result<(), Failure> {
    let path = if args.force { "/v1/config/reload?force=true" } else { "/v1/config/reload" };
    let response = args.admin.build_client().send_request("POST", path, Vec::new()).await?;
    match args.output.selected_format() {
        OutputFormat::Json => out.write_json(&parse_response::<Value>(&response)?)?,
        OutputFormat::Ndjson => out.write_ndjson([parse_response::<Value>(&response)?])?,
        OutputFormat::Prom | OutputFormat::Hdr => {
            return Err(Failure::usage_error("a reload is not a metric; use table, json or ndjson"));
        }
        OutputFormat::Table => {
            let needs_restart = parse_response::<ReloadedDocument>(&response)?.needs_restart;
            out.write_line("the configuration was read again and is in force")?;
            if !needs_restart.is_empty() {
                let settings = needs_restart.join(", ");
                out.write_line(format!(
                    "these settings have changed and take effect at a restart: {settings}"
                ))?;
            }
        }
    }
    Ok(())
}
