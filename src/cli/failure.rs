//! Why a command failed: the message, what to do next, and the exit code.

use std::process::ExitCode;

use super::output::Console;
use super::socket_access::{NoAccess, explain_access};
use crate::app::StartError;
use crate::client::{ClientError, Response, Target};
use crate::config::{ConfigError, ConfigErrors};
use crate::net::unix::PathError;
use crate::restart::ListenError;
use crate::wire::Refusal;

/// Why a command failed.
#[derive(Debug)]
pub(super) struct Failure {
    code: u8,
    message: String,
    hint: Option<String>,
    /// Whether the reader of our output has closed it, which is not a failure of the command.
    silent: bool,
    /// Whether the same command may succeed a little later.
    may_pass: bool,
    /// Where no agent answered: whether that was a socket.
    unreachable: Option<AgentAddress>,
}

/// What kind of address a command has looked for the agent at.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum AgentAddress {
    Url,
    Socket,
}

/// What to do where another agent runs.
const OTHER_AGENT: &str = "`tallyport agent --stop` ends it, `tallyport agent --take-over` goes on with all it has, and \
                           `tallyport reload` makes it read its configuration again; to run both, give this one its own \
                           --state-dir, --admin-socket and --http-listen";
const START_AGENT: &str = "start one with `tallyport agent`";

/// Exit codes, as the help lists them.
pub(super) mod code {
    pub(in super::super) const ERROR: u8 = 1;
    pub(in super::super) const USAGE: u8 = 2;
    pub(in super::super) const NO_TASK: u8 = 3;
    pub(in super::super) const NO_DATA: u8 = 4;
    pub(in super::super) const UNREACHABLE: u8 = 5;
    pub(in super::super) const AMBIGUOUS: u8 = 6;
}

impl Failure {
    pub(super) fn new(code: u8, message: impl Into<String>) -> Self {
        let may_pass = matches!(code, code::NO_TASK | code::NO_DATA);
        Self { code, message: message.into(), hint: None, silent: false, may_pass, unreachable: None }
    }

    /// The same failure, of something that is still starting.
    pub(super) fn that_may_pass(self) -> Self {
        Self { may_pass: true, ..self }
    }

    /// Whether the same command may succeed a little later: the agent, the task or its data is not there yet.
    pub(super) fn may_pass(&self) -> bool {
        self.may_pass
    }

    pub(super) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same failure with a hint that names those options for the agent's address that the command has.
    pub(super) fn for_command(mut self, command: &clap::Command) -> Self {
        let Some(address) = self.unreachable else { return self };
        let has = |option: &str| command.get_arguments().any(|it| it.get_long() == Some(option));
        let url = "its address with --url or TALLYPORT_URL";
        let socket = "its socket with --admin-socket or TALLYPORT_ADMIN_SOCKET";
        let given = match (address, has("url"), has("admin-socket")) {
            (AgentAddress::Url, true, _) | (AgentAddress::Socket, true, false) => url,
            (AgentAddress::Socket, _, true) | (AgentAddress::Url, false, true) => socket,
            (_, false, false) => return self,
        };
        self.hint = Some(format!("{START_AGENT}, or give {given}"));
        self
    }

    pub(super) fn with_code(self, code: u8) -> Self {
        Self { code, ..self }
    }

    /// Whether there is no such task.
    pub(super) fn is_unknown_task(&self) -> bool {
        self.code == code::NO_TASK
    }

    pub(super) fn usage_error(message: impl Into<String>) -> Self {
        Self::new(code::USAGE, message)
    }

    pub(super) fn system_error(error: &std::io::Error) -> Self {
        Self::new(code::ERROR, error.to_string())
    }

    /// A failure from an error response.
    pub(super) fn from_response(response: &Response) -> Self {
        match serde_json::from_slice::<Refusal>(&response.body) {
            Ok(refusal) => Self::new(code::ERROR, refusal.message),
            Err(_) => {
                let message =
                    format!("the answer was status {}, without an agent's message", response.status);
                Self::new(code::ERROR, message).with_hint(
                    "another program may listen at this address: `tallyport health` asks who it is",
                )
            }
        }
    }

    pub(super) fn malformed_response(error: &serde_json::Error) -> Self {
        Self::new(code::ERROR, format!("the agent's answer cannot be read: {error}"))
            .with_hint("compare `tallyport version` with the version in the agent's log line \"listening\"")
    }

    /// Prints the message and the hint; returns the exit code.
    pub(super) fn report(self, out: &mut Console) -> ExitCode {
        if !self.silent {
            out.write_stderr_lines(&format!("tallyport: {}", self.message));
            if let Some(hint) = self.hint {
                out.write_stderr_line(format!("  {hint}"));
            }
        }
        ExitCode::from(self.code)
    }
}

#[cfg(test)]
impl Failure {
    /// The message and the hint, on a line each.
    pub(super) fn to_text(&self) -> String {
        self.hint.iter().fold(self.message.clone(), |text, hint| format!("{text}\n{hint}"))
    }
}

/// The message alone, for commands that show it and go on.
impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        // `tallyport tasks | head` is not an error.
        let silent = error.kind() == std::io::ErrorKind::BrokenPipe;
        Self { silent, code: if silent { 0 } else { code::ERROR }, ..Self::system_error(&error) }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        if let Some(NoAccess { message, remedy }) = explain_access(&error) {
            return Self::new(code::UNREACHABLE, message).with_hint(remedy);
        }
        match &error {
            ClientError::Unreachable { target, source } => {
                let failure = Self::new(code::UNREACHABLE, error.to_string());
                if source.kind() == std::io::ErrorKind::InvalidData {
                    return failure.with_hint(
                        "set --ca to the certificates to trust; for an agent without TLS, use http://",
                    );
                }
                let address = match target {
                    Target::Unix(_) => AgentAddress::Socket,
                    _ => AgentAddress::Url,
                };
                let failure = Self { unreachable: Some(address), ..failure.with_hint(START_AGENT) };
                match source.kind() {
                    // The agent has not created its socket, or does not listen yet.
                    std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => {
                        failure.that_may_pass()
                    }
                    _ => failure,
                }
            }
            ClientError::Garbled { .. } | ClientError::Closed { .. } => {
                Self::new(code::ERROR, error.to_string())
            }
            ClientError::Broken { .. } => Self::new(code::ERROR, error.to_string())
                .with_hint("anything sent after that is not shown; run the command again to continue"),
            ClientError::Authorities { .. } => Self::usage_error(error.to_string()),
        }
    }
}

impl From<ConfigErrors> for Failure {
    fn from(errors: ConfigErrors) -> Self {
        let n = errors.0.len();
        let mistakes = if n == 1 { "a mistake".to_owned() } else { format!("{n} mistakes") };
        let hint = match errors.0.iter().all(ConfigError::is_unreadable_file) {
            true => "`tallyport config example` prints a file to start with",
            false => "`tallyport config reference` lists the valid values of each setting",
        };
        Self::new(code::ERROR, format!("the configuration has {mistakes}:\n{errors}")).with_hint(hint)
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        let failure = Self::new(code::ERROR, error.to_string());
        match error {
            ListenError::Path(PathError::InUse { .. }) => failure.with_hint(OTHER_AGENT),
            _ => failure,
        }
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Listen(error) => error.into(),
            error => Self::new(code::ERROR, error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::args::Cli;

    /// The hint of a command whose agent does not answer at this address.
    fn hint(words: &[&str], target: Target) -> String {
        let mut command = Cli::command();
        command.build();
        let command = words.iter().fold(&command, |command, word| command.find_subcommand(word).unwrap());
        let source = std::io::ErrorKind::NotFound.into();
        let failure = Failure::from(ClientError::Unreachable { target, source });
        failure.for_command(command).hint.unwrap()
    }

    #[test]
    fn a_remedy_names_only_options_that_the_command_has() {
        let (url, socket) =
            (|| "http://127.0.0.1:9".parse::<Target>().unwrap(), || Target::Unix("/no/such/socket".into()));
        let for_url = "start one with `tallyport agent`, or give its address with --url or TALLYPORT_URL";
        let for_socket = "start one with `tallyport agent`, or give its socket with --admin-socket or TALLYPORT_ADMIN_SOCKET";
        for (words, target, expected) in [
            (&["tasks"][..], url(), for_url),
            (&["tasks"], socket(), for_url),
            (&["run"], socket(), for_socket),
            (&["containers", "list"], socket(), for_socket),
            (&["doctor"], url(), for_url),
            (&["doctor"], socket(), for_socket),
            (&["parse"], url(), "start one with `tallyport agent`"),
        ] {
            assert_eq!(hint(words, target), expected, "{words:?}");
        }
    }

    #[test]
    fn a_directory_of_another_agent_has_a_remedy() {
        let path = "/s".into();
        let failure = Failure::from(ListenError::Path(PathError::InUse { path, holder: Some(7) }));
        assert_eq!(failure.to_text(), format!("/s belongs to another agent, pid 7\n{OTHER_AGENT}"));
    }

    #[test]
    fn a_file_that_cannot_be_read_has_no_advice_about_values() {
        let mut layers = crate::config::Layers::with_defaults(&crate::config::ProcessEnvironment);
        let hint = |errors| Failure::from(ConfigErrors(errors)).hint.unwrap();
        let unreadable = layers.add_file(std::path::Path::new("/no/such/file.toml"));
        assert_eq!(hint(unreadable), "`tallyport config example` prints a file to start with");
        let mistaken = layers.add_toml("limits.sries = 1", "a.toml");
        assert_eq!(hint(mistaken), "`tallyport config reference` lists the valid values of each setting");
    }
}
