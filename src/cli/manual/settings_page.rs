//! The page of the configuration file, from the table of settings.

use clap_mangen::roff::{Roff, bold, roman};

use super::ManualPage;
use super::sections::add_related_pages;
use crate::config::{PUBLISHER_SETTINGS, PublisherSetting, SETTINGS, Setting, SinkType};

const NAME: &str = "agent.toml";

const EXAMPLE: [&str; 12] = [
    "node = \"n7\"",
    "",
    "[windows]",
    "length = \"5s\"",
    "",
    "[limits]",
    "series = 2000",
    "",
    "[publish.mimir]",
    "type = \"remote_write\"",
    "url = \"https://mimir.example/api/v1/push\"",
    "token_file = \"/etc/tallyport/mimir.token\"",
];

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
    roff.control("SH", ["PUBLISHERS"]);
    roff.text([roman(
        "Each table [publish.NAME] is a publisher; NAME has 1 to 32 of the characters a-z, 0-9 and -. The variable for a key is \
         TALLYPORT_PUBLISH_NAME_KEY, with _ for -. Which settings a publisher has depends on its type.",
    )]);
    for setting in PUBLISHER_SETTINGS {
        add_publisher_setting(&mut roff, setting);
    }
    roff.control("SH", ["EXAMPLES"]);
    roff.control("nf", []);
    for line in EXAMPLE {
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

fn add_publisher_setting(roff: &mut Roff, setting: &PublisherSetting) {
    roff.control("TP", []);
    roff.text([bold(setting.key)]);
    roff.text([roman(setting.help.replace('`', ""))]);
    let default = match setting.default {
        "" => String::new(),
        default => format!(" Default: {default}."),
    };
    let types = match setting.types.len() == SinkType::ALL.len() {
        true => "every".to_owned(),
        false => setting.types.iter().map(|sink| sink.as_str()).collect::<Vec<_>>().join(", "),
    };
    roff.control("IP", []);
    roff.text([roman(format!(
        "Form: {}.{default} Type: {types}. Takes effect {}.",
        setting.kind.expected_form().replace('`', ""),
        setting.effect.effect_time()
    ))]);
}
