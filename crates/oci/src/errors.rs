//! Why a container gets no socket, and reporting it where people look: on stderr, which podman shows, and in the runtime's
//! log, of which containerd and docker show the last error.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use tallyport_linux::clock;

use super::command_line::Call;
use super::document::to_json;

/// Why a container gets no socket, or a command no runtime.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The runtime's own command line lacks something.
    #[error("the command line names no {0}")]
    CommandLine(&'static str),
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file could not be replaced; it is as it was.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// A file has unexpected contents; it is left unchanged.
    #[error("cannot parse {}, which is left as it is: {why}", path.display())]
    Garbled { path: PathBuf, why: String },
    /// The agent did not answer.
    #[error("no agent answers at {}: {source}", socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    /// The response is not one of an agent.
    #[error("{} does not respond like an agent: {why}", socket.display())]
    Answer { socket: PathBuf, why: String },
    /// A user who is not trusted listens at the agent's socket.
    #[error(
        "user {user} listens at {}; only root, the user of this process and agent_user are trusted. If that is the agent, set \
         agent_user in /etc/tallyport/oci.toml to its user",
        socket.display()
    )]
    Stranger { socket: PathBuf, user: u32 },
    /// The response contains something that an agent never sends.
    #[error("refused the whole answer from {}: {what}", socket.display())]
    Offer { socket: PathBuf, what: String },
    /// The settings cannot be used.
    #[error("{why}")]
    Settings { why: String },
    /// The agent refused the request.
    #[error("the agent refuses ({status} {code}): {message}")]
    Refused { status: u16, code: String, message: String },
    /// No runtime of this name.
    #[error(
        "there is no runtime {name:?}; name one in /etc/tallyport/oci.toml (runtime = \"/usr/bin/runc\") or in \
         TALLYPORT_OCI_RUNTIME"
    )]
    NoRuntime { name: String },
    /// The runtime is this program.
    #[error(
        "{} is tallyport-oci itself; name the real runtime in /etc/tallyport/oci.toml or in TALLYPORT_OCI_RUNTIME",
        path.display()
    )]
    Myself { path: PathBuf },
    /// The runtime called this program again.
    #[error("{} leads back to tallyport-oci; name the real runtime in /etc/tallyport/oci.toml", path.display())]
    Loop { path: PathBuf },
    /// The runtime did not start.
    #[error("cannot start {}: {source}", path.display())]
    Start { path: PathBuf, source: io::Error },
    /// The container has only a Unix socket, which cannot be mounted.
    #[error("its Unix socket cannot be mounted, and it has no other socket: {why}")]
    Mount { why: String },
    /// A container must not start without a socket.
    #[error("container {id:?} does not start without a socket (fail_closed): {source}")]
    Closed { id: String, source: Box<Error> },
}

/// Where a call's messages go.
#[derive(Debug)]
pub(super) struct Reporter {
    log: Option<PathBuf>,
    json: bool,
}

impl Reporter {
    pub(super) fn new(call: &Call) -> Self {
        Self { log: call.log.clone(), json: call.json_log }
    }

    /// For a hook, which has no command line of the runtime's.
    pub(super) fn with_log(log: Option<PathBuf>) -> Self {
        Self { log, json: true }
    }

    /// The log that hooks should write to as well.
    pub(super) fn for_hooks(&self) -> Option<&Path> {
        self.log.as_deref().filter(|_| self.json)
    }

    /// Logs a problem that does not keep the container from starting.
    pub(super) fn log_warning(&self, message: &str) {
        self.write_message("warning", message);
    }

    /// Logs an error that keeps the container from starting.
    pub(super) fn log_error(&self, message: &str) {
        self.write_message("error", message);
    }

    // If neither can be written, there is no other place for the message.
    fn write_message(&self, level: &str, message: &str) {
        let message = format!("tallyport-oci: {message}");
        let _either_way = writeln!(io::stderr(), "{}", escape_message(&message));
        let Some(log) = &self.log else { return };
        let time = clock::wall_time();
        let line = match self.json {
            true => format!(r#"{{"level":"{level}","msg":{},"time":"{time}"}}"#, to_json(&message)),
            false => format!("time=\"{time}\" level={level} msg={}", to_json(&message)),
        };
        let file = OpenOptions::new().append(true).create(true).open(log);
        let _either_way = file.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
    }
}

/// Escapes control characters and characters that change how a terminal displays a line: messages contain names and
/// responses from other programs.
fn escape_message(message: &str) -> String {
    let mut escaped = String::with_capacity(message.len());
    for c in message.chars() {
        match c {
            c if c.is_control() => escaped.extend(c.escape_default()),
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {
                escaped.extend(c.escape_unicode());
            }
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        let shown = escape_message("é \u{1b}]52;c;x\u{7}\n\u{9b}2J\u{202e}");
        assert_eq!(shown, "é \\u{1b}]52;c;x\\u{7}\\n\\u{9b}2J\\u{202e}");
    }

    #[test]
    fn a_line_of_the_log_is_one_document_whatever_the_message_holds() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log.json");
        let report = Reporter { log: Some(log.clone()), json: true };
        report.log_warning("first");
        report.log_error("a \"quoted\"\nsecond line\u{1b}[31m");
        let text = std::fs::read_to_string(&log).unwrap();
        let lines: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((lines.len(), &lines[1]["level"]), (2, &serde_json::json!("error")));
        assert_eq!(lines[1]["msg"], "tallyport-oci: a \"quoted\"\nsecond line\u{1b}[31m");
        assert!(lines[0]["time"].as_str().unwrap().ends_with('Z'));
    }
}
