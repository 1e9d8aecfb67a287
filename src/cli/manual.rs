//! Manual pages: of every command, of the wrapper and of the configuration file.

mod command_page;
mod sections;
mod settings_page;
mod wrapper_page;

use std::path::Path;

use clap::CommandFactory as _;

use super::args::{Cli, ManArgs};
use super::failure::Failure;
use super::output::Console;

/// A page: its name, its section and its text in roff.
struct ManualPage {
    name: String,
    section: &'static str,
    text: Vec<u8>,
}

pub(super) fn write_man_pages(args: &ManArgs, out: &mut Console) -> Result<(), Failure> {
    let Some(directory) = &args.dir else {
        let page = command_page::render_page(&build_command())?;
        out.write_page(&page.text)?;
        return Ok(());
    };
    let pages = render_pages()?;
    for page in &pages {
        write_page(page, directory)?;
    }
    out.write_line(format!("wrote {} pages below {}", pages.len(), directory.display()))?;
    Ok(())
}

fn build_command() -> clap::Command {
    let mut command = Cli::command().disable_help_subcommand(true);
    command.build();
    command
}

/// Every page.
fn render_pages() -> std::io::Result<Vec<ManualPage>> {
    let mut pages = Vec::new();
    add_command_pages(&build_command(), &mut pages)?;
    pages.push(settings_page::render_page()?);
    pages.push(wrapper_page::render_page()?);
    Ok(pages)
}

fn add_command_pages(command: &clap::Command, pages: &mut Vec<ManualPage>) -> std::io::Result<()> {
    pages.push(command_page::render_page(command)?);
    for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
        add_command_pages(inner, pages)?;
    }
    Ok(())
}

/// Writes a page where `man` looks for it below a directory.
fn write_page(page: &ManualPage, directory: &Path) -> std::io::Result<()> {
    let directory = directory.join(format!("man{}", page.section));
    std::fs::create_dir_all(&directory)?;
    std::fs::write(directory.join(format!("{}.{}", page.name, page.section)), &page.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text_of(page: &ManualPage) -> String {
        String::from_utf8(page.text.clone()).unwrap()
    }

    #[test]
    fn every_page_says_how_a_command_ends_and_what_else_there_is() {
        let pages = render_pages().unwrap();
        assert!(pages.len() > 25, "{}", pages.len());
        for page in &pages {
            let text = text_of(page);
            let needed: &[&str] = match page.section {
                "5" => &[".SH NAME", ".SH SETTINGS", ".SH \"SEE ALSO\""],
                _ => &[".SH NAME", ".SH SYNOPSIS", ".SH \"EXIT STATUS\"", ".SH \"SEE ALSO\""],
            };
            for section in needed {
                assert!(text.contains(section), "{}({}) has no {section}\n{text}", page.name, page.section);
            }
        }
    }

    #[test]
    fn every_page_has_the_exit_codes_that_the_arguments_make_possible() {
        // One waits for its agent for ever, and the others take a name that does not exist yet.
        let (patient, naming) = ("tallyport-untaint", ["tallyport-run", "tallyport-env"]);
        let mut unchecked = vec![build_command()];
        while let Some(command) = unchecked.pop() {
            unchecked.extend(command.get_subcommands().filter(|inner| !inner.is_hide_set()).cloned());
            let page = command.get_display_name().unwrap_or_else(|| command.get_name()).to_owned();
            let takes = |name: &str| command.get_arguments().any(|known| known.get_id() == name);
            let codes = sections::exit_codes(&page);
            let has = |code: &str| codes.iter().any(|(codes, _)| codes.contains(code));
            if (takes("url") || takes("admin_socket")) && page != patient {
                assert!(has("5"), "{page} has no code for an agent that cannot be reached");
            }
            let names = ["task_id", "container_id", "container"].into_iter().any(takes);
            assert!(naming.contains(&&*page) || !names || has("3") && has("6"), "{page}: {codes:?}");
        }
    }

    #[test]
    fn every_page_that_another_refers_to_exists() {
        let pages = render_pages().unwrap();
        let names: Vec<String> =
            pages.iter().map(|page| format!("{}({})", page.name, page.section)).collect();
        for page in &pages {
            let text = text_of(page).replace("\\-", "-").replace("\\fR", "").replace("\\fB", "");
            let related = text.rsplit(".SH \"SEE ALSO\"").next().unwrap();
            for reference in related.split([',', '\n', ' ']).filter(|word| word.ends_with(')')) {
                let known = names.iter().any(|name| name == reference) || reference.starts_with("systemd");
                assert!(known, "{} refers to {reference}", page.name);
            }
        }
    }
}
