//! `tallyport reload`.

use serde_json::Value;

use super::args::{Format, ReloadArgs};
use super::failure::Failure;
use super::output::Output;
use super::resolve::read;
use crate::wire::Reloaded;

pub(super) async fn reload(args: &ReloadArgs, out: &mut Output) -> Result<(), Failure> {
    let path = if args.force { "/v1/config/reload?force=true" } else { "/v1/config/reload" };
    let response = args.admin.client().request("POST", path, Vec::new()).await?;
    match args.output.format() {
        Format::Json => out.json(&read::<Value>(&response)?)?,
        Format::Ndjson => out.ndjson([read::<Value>(&response)?])?,
        Format::Prom => return Err(Failure::usage("a reload is not a metric; use table, json or ndjson")),
        Format::Table => {
            let needs_restart = read::<Reloaded>(&response)?.needs_restart;
            out.line("the configuration was read again and is in force")?;
            if !needs_restart.is_empty() {
                let settings = needs_restart.join(", ");
                out.line(format!("these settings have changed and take effect at a restart: {settings}"))?;
            }
        }
    }
    Ok(())
}
