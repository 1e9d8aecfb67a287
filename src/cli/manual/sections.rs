//! What pages say of exit codes, files and other pages.

use clap::Command;
use clap_mangen::roff::{Inline, Roff, bold, roman};

pub(super) type PageEntry = (&'static str, &'static str);

const SUCCESS: PageEntry = ("0", "Success.");
const FAILED: PageEntry = ("1", "An error, which standard error describes.");
const USAGE: PageEntry = ("2", "The command line is wrong.");
const NO_TASK: PageEntry = ("3", "There is no such task or container.");
const NO_DATA: PageEntry = ("4", "The task is known and has no matching data.");
const UNREACHABLE: PageEntry = ("5", "The agent cannot be reached.");
const STREAM_ENDED: PageEntry =
    ("0", "The agent ended the stream: the task has finished, or the agent shuts down.");
const STREAM_BROKE: PageEntry =
    ("1", "The connection broke, so that something is missing, or another error.");
const AMBIGUOUS: PageEntry = ("6", "Several tasks or containers match the name.");

/// The exit codes of a command, by the name of its page.
pub(super) fn exit_codes(page: &str) -> &'static [PageEntry] {
    match page {
        "tallyport" => &[
            SUCCESS,
            ("1", "An error, which standard error describes, or a fault that the command looks for."),
            USAGE,
            NO_TASK,
            NO_DATA,
            UNREACHABLE,
            AMBIGUOUS,
        ],
        "tallyport-metrics-details" | "tallyport-metrics-summary" => {
            &[SUCCESS, FAILED, USAGE, NO_TASK, NO_DATA, UNREACHABLE, AMBIGUOUS]
        }
        "tallyport-metrics-plot" => &[
            SUCCESS,
            FAILED,
            USAGE,
            NO_TASK,
            NO_DATA,
            UNREACHABLE,
            ("6", "Several tasks, containers or series match."),
        ],
        "tallyport-explain" => &[
            ("0", "The metrics arrive."),
            FAILED,
            USAGE,
            NO_TASK,
            ("4", "The metrics do not arrive; the output says where they stop."),
            UNREACHABLE,
            AMBIGUOUS,
        ],
        "tallyport-metrics-watch" => &[STREAM_ENDED, STREAM_BROKE, USAGE, NO_TASK, UNREACHABLE, AMBIGUOUS],
        "tallyport-tail" => &[
            STREAM_ENDED,
            STREAM_BROKE,
            USAGE,
            NO_TASK,
            ("4", "The task has ended and sends no more lines."),
            UNREACHABLE,
            AMBIGUOUS,
        ],
        "tallyport-tasks" | "tallyport-containers-list" => {
            &[SUCCESS, FAILED, USAGE, ("3", "Nothing matches the filters."), UNREACHABLE, AMBIGUOUS]
        }
        "tallyport-top" | "tallyport-containers-show" | "tallyport-containers-release" => {
            &[SUCCESS, FAILED, USAGE, NO_TASK, UNREACHABLE, AMBIGUOUS]
        }
        "tallyport-run" => &[
            ("126, 127", "COMMAND could not be started, or not be found."),
            ("1, 2, 5", "With --fail-closed, COMMAND was not started because it would have no socket."),
            ("other", "The exit code of COMMAND, which takes the place of this program."),
        ],
        "tallyport-agent" => &[
            ("0", "It has shut down in order, or another process has taken over."),
            ("1", "It could not start, or what it had received could not all be stored in time."),
            USAGE,
            ("5", "With --stop: no agent runs."),
        ],
        "tallyport-config-show" => {
            &[SUCCESS, FAILED, USAGE, ("5", "With --running: the agent cannot be reached.")]
        }
        "tallyport-containers-reconcile"
        | "tallyport-containers"
        | "tallyport-metrics"
        | "tallyport-publish"
        | "tallyport-publish-list"
        | "tallyport-publish-dead"
        | "tallyport-env" => &[SUCCESS, FAILED, USAGE, UNREACHABLE],
        page => codes_of_checks(page).unwrap_or(&[SUCCESS, FAILED, USAGE]),
    }
}

/// The exit codes of a command that looks for a fault: 1 says that it has found one.
fn codes_of_checks(page: &str) -> Option<&'static [PageEntry]> {
    Some(match page {
        "tallyport-doctor" => &[
            ("0", "No check has failed; there can be warnings."),
            ("1", "A check has failed, or another error."),
            USAGE,
            UNREACHABLE,
        ],
        "tallyport-health" => &[
            ("0", "The expected agent answers."),
            ("1", "Another agent answers, or another error."),
            USAGE,
            UNREACHABLE,
        ],
        "tallyport-parse" => {
            &[("0", "Every line is accepted."), ("1", "A line is rejected, or another error."), USAGE]
        }
        "tallyport-config-check" => &[
            ("0", "The configuration has no mistake."),
            ("1", "The configuration has a mistake, or another error."),
            USAGE,
        ],
        "tallyport-reload" => &[
            ("0", "The configuration was read and is in force."),
            ("1", "The configuration has a mistake and was refused, or another error."),
            USAGE,
            UNREACHABLE,
        ],
        "tallyport-publish-show" => {
            &[SUCCESS, ("1", "There is no such publisher, or another error."), USAGE, UNREACHABLE]
        }
        "tallyport-publish-check" => &[
            ("0", "The destination accepts."),
            ("1", "The destination does not accept, or another error."),
            USAGE,
            UNREACHABLE,
        ],
        "tallyport-publish-replay" => &[
            ("0", "Everything that was sent again was accepted."),
            ("1", "A record was not accepted, or another error."),
            USAGE,
            UNREACHABLE,
        ],
        "tallyport-publish-verify" => &[
            ("0", "Everything that was compared is the same."),
            ("1", "Something differs, nothing could be compared, or another error."),
            USAGE,
            UNREACHABLE,
        ],
        _ => return None,
    })
}

/// The files that a command uses.
pub(super) fn files_of(page: &str, command: &Command) -> Vec<PageEntry> {
    let takes = |argument: &str| command.get_arguments().any(|known| known.get_id() == argument);
    let mut files = Vec::new();
    if takes("config") {
        files.push(("/etc/tallyport/agent.toml", "The configuration, if --config names no other file."));
    }
    if takes("admin_socket") || page == "tallyport-agent" {
        files.push(("/run/tallyport/admin.sock", "The default admin socket of an agent that runs as root."));
        files.push((
            "$XDG_RUNTIME_DIR/tallyport/admin.sock",
            "The default admin socket of an agent that runs as another user.",
        ));
    }
    if matches!(page, "tallyport-agent" | "tallyport-keeper") {
        files.push(("/run/tallyport/state", "The default state directory of an agent that runs as root."));
    }
    if page.starts_with("tallyport-hook") {
        files.push(("/etc/tallyport/oci.toml", "The settings of the wrapper, tallyport-oci(8)."));
    }
    files
}

/// The pages that a reader of a command's page may want next.
pub(super) fn related_pages(page: &str, command: &Command) -> Vec<String> {
    let mut pages: Vec<String> = Vec::new();
    if let Some((above, _)) = page.rsplit_once('-') {
        pages.push(format!("{above}(1)"));
    }
    let inner = command.get_subcommands().filter(|inner| !inner.is_hide_set());
    pages.extend(
        inner.map(|inner| format!("{}(1)", inner.get_display_name().unwrap_or_else(|| inner.get_name()))),
    );
    let others: &[&str] = match page {
        "tallyport" => &["tallyport-oci(8)", "agent.toml(5)"],
        "tallyport-agent" | "tallyport-config" | "tallyport-reload" => {
            &["tallyport-keeper(1)", "tallyport-doctor(1)", "agent.toml(5)"]
        }
        "tallyport-keeper" => &["tallyport-agent(1)", "agent.toml(5)"],
        "tallyport-run" | "tallyport-env" => {
            &["tallyport-tasks(1)", "tallyport-explain(1)", "tallyport-oci(8)"]
        }
        "tallyport-explain" => &["tallyport-tail(1)", "tallyport-parse(1)", "tallyport-metrics-details(1)"],
        "tallyport-tail" => &["tallyport-explain(1)", "tallyport-parse(1)"],
        "tallyport-doctor" => &["tallyport-explain(1)", "tallyport-containers(1)", "agent.toml(5)"],
        page if page.starts_with("tallyport-hook") => &["tallyport-doctor(1)", "tallyport-oci(8)"],
        page if page.starts_with("tallyport-config-") => &["agent.toml(5)"],
        page if page.starts_with("tallyport-metrics-") => &["tallyport-explain(1)"],
        _ => &[],
    };
    pages.extend(others.iter().map(|page| (*page).to_owned()));
    let mut seen = std::collections::BTreeSet::new();
    pages.retain(|page| seen.insert(page.clone()));
    pages
}

/// Adds the section with references to pages.
pub(super) fn add_related_pages(roff: &mut Roff, pages: &[String]) {
    roff.control("SH", ["SEE ALSO"]);
    let mut line: Vec<Inline> = Vec::new();
    for (index, page) in pages.iter().enumerate() {
        let (name, section) = page.split_once('(').unwrap_or((page, ""));
        line.push(bold(name));
        let comma = if index + 1 < pages.len() { ", " } else { "" };
        line.push(roman(format!("({section}{comma}")));
    }
    roff.text(line);
}
