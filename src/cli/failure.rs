//! Why a command failed: the message, what to do next, and the exit code.

use std::process::ExitCode;

use super::output::Console;
use super::socket_access::{NoAccess, explain_access};
use crate::app::StartError;
use crate::client::{ClientError, Response};
use crate::config::ConfigErrors;
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
}

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
        Self { code, message: message.into(), hint: None, silent: false, may_pass }
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
            Err(_) => Self::new(code::ERROR, format!("the agent answered {}", response.status)),
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
            ClientError::Unreachable { source, .. } => {
                let hint = match source.kind() {
                    std::io::ErrorKind::InvalidData => {
                        "set --ca to the certificates to trust; for an agent without TLS, use http://"
                    }
                    _ => "start one with `tallyport agent`, or give its address with --url or --admin-socket",
                };
                let failure = Self::new(code::UNREACHABLE, error.to_string()).with_hint(hint);
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
        Self::new(code::ERROR, format!("the configuration has {mistakes}:\n{errors}"))
            .with_hint("`tallyport config reference` lists the valid values of each setting")
    }
}

impl From<ListenError> for Failure {
    fn from(error: ListenError) -> Self {
        Self::new(code::ERROR, error.to_string())
    }
}

impl From<StartError> for Failure {
    fn from(error: StartError) -> Self {
        Self::new(code::ERROR, error.to_string())
    }
}
