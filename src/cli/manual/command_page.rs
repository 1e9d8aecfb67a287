//! The page of a command.

use clap::Command;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

use super::ManualPage;
use super::sections::{add_related_pages, exit_codes, files_of, related_pages};

/// Renders the page of a command that has been built.
pub(super) fn render_page(command: &Command) -> std::io::Result<ManualPage> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
    let source = format!("tallyport {}", env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.clone()).source(source).manual("tallyport");
    let mut text = Vec::new();
    man.render_title(&mut text)?;
    man.render_name_section(&mut text)?;
    man.render_synopsis_section(&mut text)?;
    man.render_description_section(&mut text)?;
    if command.get_arguments().any(|argument| !argument.is_hide_set()) {
        man.render_options_section(&mut text)?;
    }
    if command.has_subcommands() {
        man.render_subcommands_section(&mut text)?;
    }
    let mut roff = Roff::new();
    add_examples(&mut roff, command);
    add_exit_status(&mut roff, &name);
    add_environment(&mut roff, command);
    add_files(&mut roff, &name, command);
    add_related_pages(&mut roff, &related_pages(&name, command));
    text.extend_from_slice(roff.to_roff().as_bytes());
    Ok(ManualPage { name, section: "1", text })
}

/// The examples of the help text, line by line, and what follows them as notes.
fn add_examples(roff: &mut Roff, command: &Command) {
    let Some(help) = command.get_after_help().map(ToString::to_string) else { return };
    let Some(examples) = help.strip_prefix("Examples:\n") else {
        roff.control("SH", ["NOTES"]);
        roff.text([roman(help)]);
        return;
    };
    let (examples, notes) = examples.split_once("\n\n").unwrap_or((examples, ""));
    roff.control("SH", ["EXAMPLES"]);
    add_literal(roff, examples);
    // The exit codes have a section of their own.
    let notes = notes.split("\n\n").filter(|note| !note.is_empty() && !note.starts_with("Exit codes:"));
    for (index, note) in notes.enumerate() {
        roff.control(if index == 0 { "SH" } else { "PP" }, if index == 0 { vec!["NOTES"] } else { vec![] });
        if note.contains("\n  ") {
            add_literal(roff, note);
        } else {
            roff.text([roman(note)]);
        }
    }
}

/// Text whose lines are kept as they are.
fn add_literal(roff: &mut Roff, text: &str) {
    roff.control("nf", []);
    for line in text.lines() {
        roff.text([roman(line)]);
    }
    roff.control("fi", []);
}

fn add_exit_status(roff: &mut Roff, name: &str) {
    roff.control("SH", ["EXIT STATUS"]);
    for (code, meaning) in exit_codes(name) {
        roff.control("TP", []);
        roff.text([bold(*code)]);
        roff.text([roman(*meaning)]);
    }
}

/// The variables that stand for options, and those that are only variables.
fn add_environment(roff: &mut Roff, command: &Command) {
    let mut variables: Vec<(String, String)> = Vec::new();
    for argument in command.get_arguments() {
        if let (Some(variable), Some(long)) = (argument.get_env(), argument.get_long()) {
            let meaning = format!("The value of --{long}, if that is not given.");
            variables.push((variable.to_string_lossy().into_owned(), meaning));
        }
    }
    if command.get_arguments().any(|argument| argument.get_id() == "token_file") {
        let meaning = "The token itself, if there is no file with one.".to_owned();
        variables.push(("TALLYPORT_TOKEN".to_owned(), meaning));
    }
    if command.get_arguments().any(|argument| argument.get_id() == "set") {
        let meaning = "Every setting has a variable; agent.toml(5) lists them.".to_owned();
        variables.push(("TALLYPORT_...".to_owned(), meaning));
    }
    if command.get_arguments().any(|argument| argument.get_id() == "output") {
        variables.push(("NO_COLOR".to_owned(), "Turns colours off, if it is not empty.".to_owned()));
    }
    if variables.is_empty() {
        return;
    }
    roff.control("SH", ["ENVIRONMENT"]);
    for (variable, meaning) in variables {
        roff.control("TP", []);
        roff.text([bold(variable)]);
        roff.text([roman(meaning)]);
    }
}

fn add_files(roff: &mut Roff, name: &str, command: &Command) {
    let files = files_of(name, command);
    if files.is_empty() {
        return;
    }
    roff.control("SH", ["FILES"]);
    for (file, meaning) in files {
        roff.control("TP", []);
        roff.text([bold(file)]);
        roff.text([roman(meaning)]);
    }
}
