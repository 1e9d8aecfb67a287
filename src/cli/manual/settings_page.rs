//! The page of the configuration file, from the table of settings.

use clap_mangen::roff::{Roff, bold, roman};

use super::ManualPage;
use super::sections::add_related_pages;
use crate::config::{SETTINGS, Setting};

const NAME: &str = "agent.toml";

pub(super) fn render_page() -> std::io::Result<ManualPage> {
    let mut roff = Roff::new();
    let source = format!("tallyport {}", env!("CARGO_PKG_VERSION"));
    roff.control("TH", [NAME, "5", "", source.as_str(), "tallyport"]);
    roff.control("SH", ["NAME"]);
    roff.text([roman("agent.toml - the configuration of the tallyport agent")]);
    roff.control("SH", ["SYNOPSIS"]);
    roff.text([bold("/etc/tallyport/agent.toml")]);
    roff.control("SH", ["DESCRIPTION"]);
    roff.text([roman(
        "Settings come from this file in TOML, from variables and from flags, in increasing precedence. A setting with a dot in its \
         name is a key in a table: windows.length is the key length in the table [windows]. Every setting is optional.",
    )]);
    roff.control("PP", []);
    roff.text([roman(
        "tallyport config check reports every mistake, and tallyport config show prints the effective values and their sources. A \
         running agent reads the file again on SIGHUP and on tallyport reload; a file with mistakes changes nothing.",
    )]);
    roff.control("SH", ["SETTINGS"]);
    for setting in SETTINGS {
        add_setting(&mut roff, setting);
    }
    roff.control("SH", ["EXAMPLES"]);
    roff.control("nf", []);
    for line in ["node = \"n7\"", "", "[windows]", "length = \"5s\"", "", "[limits]", "series = 2000"] {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
    roff.control("SH", ["FILES"]);
    roff.control("TP", []);
    roff.text([bold("/etc/tallyport/agent.toml")]);
    roff.text([roman("The file that is read if neither --config nor TALLYPORT_CONFIG names another.")]);
    let related = ["tallyport-agent(1)", "tallyport-config(1)", "tallyport-reload(1)", "tallyport-oci(8)"];
    add_related_pages(&mut roff, &related.map(str::to_owned));
    let mut text = Vec::new();
    roff.to_writer(&mut text)?;
    Ok(ManualPage { name: NAME.to_owned(), section: "5", text })
}

fn add_setting(roff: &mut Roff, setting: &Setting) {
    roff.control("TP", []);
    roff.text([bold(setting.key)]);
    // The reference page marks code with backticks.
    roff.text([roman(setting.help.replace('`', ""))]);
    // Without a fixed default, the help text describes it.
    let default = match setting.default {
        "" => String::new(),
        default => format!(" Default: {default}."),
    };
    roff.control("IP", []);
    roff.text([roman(format!(
        "Form: {}.{default} Variable: {}. Takes effect {}.",
        setting.kind.expected_form().replace('`', ""),
        setting.variable_name(),
        setting.effect.effect_time()
    ))]);
}
