//! `tallyport agent --background` and `--stop`: an agent that outlives the terminal.
//!
//! The command starts itself again with `--announce`, with the log file as its standard error and a pipe as its standard output.
//! That process is the agent: once it serves, it leaves the terminal's session and writes its URL to the pipe. If it ends before
//! that, the pipe is closed without a URL.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitCode, ExitStatus, Stdio};

use super::args::DEFAULT_URL;
use super::failure::{Failure, code};
use super::output::Console;
use super::resolve::default_socket;
use crate::config::AgentConfig;
use crate::net::unix::open_log_file;
use crate::restart::{self, ListenError};

/// The flag of the command, and the one that the agent gets in its place.
const BACKGROUND: &str = "--background";
const ANNOUNCE: &str = "--announce";
/// The log file in the state directory.
const LOG: &str = "agent.log";
/// Size in bytes from which a start begins a new log. One older log is kept, so both take about twice as much as long as each run
/// writes less.
const LARGEST_LOG: u64 = 16 << 20;
/// The start of the lines in which a command reports its failure.
const FAILED: &str = "tallyport: ";
/// Lines of the log that are shown for an agent that ended without such a line.
const SHOWN: usize = 10;

/// Starts an agent, and returns once it serves.
pub(super) fn start_agent(config: &AgentConfig, out: &mut Console) -> Result<ExitCode, Failure> {
    let system_error = |error: io::Error| Failure::system_error(&error);
    let path = config.state_dir.join(LOG);
    let mut log = open_log_file(&path, LARGEST_LOG).map_err(ListenError::from)?;
    let begin = log.metadata().map_err(system_error)?.len();
    let mut child = Command::new(std::env::current_exe().map_err(system_error)?)
        .args(agent_arguments(std::env::args_os().skip(1)))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log.try_clone().map_err(system_error)?)
        .spawn()
        .map_err(system_error)?;
    let mut url = String::new();
    if let Some(pipe) = child.stdout.take() {
        BufReader::new(pipe).read_line(&mut url).map_err(system_error)?;
    }
    if let Some(url) = url.strip_suffix('\n') {
        out.write_line(format!("agent ready: pid {}, {url}, log {}", child.id(), path.display()))?;
        let variables = list_variables(url, &config.admin.socket, &default_socket());
        if !variables.is_empty() {
            out.write_stderr_line(format!("for other commands: export {}", variables.join(" ")));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let status = child.wait().map_err(system_error)?;
    let written = read_from(&mut log, begin).map_err(system_error)?;
    Err(start_failure(status, &written, &path))
}

/// The variables without which other commands would look for the agent at its default addresses.
fn list_variables(url: &str, socket: &Path, default_socket: &Path) -> Vec<String> {
    let url = (url != DEFAULT_URL).then(|| format!("TALLYPORT_URL={}", quote_word(url)));
    let socket = (socket != default_socket)
        .then(|| format!("TALLYPORT_ADMIN_SOCKET={}", quote_word(&socket.display().to_string())));
    url.into_iter().chain(socket).collect()
}

/// A word for a shell, quoted where it must be.
fn quote_word(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_@%+=:,./-[]".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "'\\''")) }
}

/// The arguments of the agent: those of this command, but for the flag.
fn agent_arguments(arguments: impl Iterator<Item = OsString>) -> impl Iterator<Item = OsString> {
    arguments.map(|argument| if argument == OsStr::new(BACKGROUND) { ANNOUNCE.into() } else { argument })
}

fn read_from(log: &mut File, begin: u64) -> io::Result<String> {
    log.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    log.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The failure of an agent that ended before it served: its own report, or the end of its log.
fn start_failure(status: ExitStatus, log: &str, path: &Path) -> Failure {
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|code| *code != 0);
    let lines: Vec<&str> = log.lines().collect();
    let report = lines.iter().rposition(|line| line.starts_with(FAILED));
    let shown =
        lines.get(report.unwrap_or(lines.len().saturating_sub(SHOWN))..).unwrap_or_default().join("\n");
    let message = match (report, status.signal()) {
        (Some(_), _) => shown.strip_prefix(FAILED).unwrap_or(&shown).to_owned(),
        (None, Some(signal)) => {
            format!("the agent was ended by signal {signal} before it was ready\n{shown}")
        }
        (None, None) => format!("the agent ended before it was ready\n{shown}"),
    };
    Failure::new(code.unwrap_or(code::ERROR), message.trim_end())
        .with_hint(format!("its log is {}", path.display()))
}

/// Leaves the terminal's session, and tells the process that started this one where the agent serves. Before that, Ctrl-C ends
/// both processes.
pub(super) fn announce_agent(url: &str) {
    if let Err(error) = nix::unistd::setsid() {
        tracing::debug!(%error, "cannot leave the session of the terminal");
    }
    let told = writeln!(io::stdout(), "{url}").and_then(|()| {
        let null = File::options().write(true).open("/dev/null")?;
        Ok(nix::unistd::dup2_stdout(null)?)
    });
    if let Err(error) = told {
        tracing::warn!(%error, "the command that started this agent has ended; the agent continues");
    }
}

/// Makes the agent that runs with this configuration end as TERM does, and waits until it has.
pub(super) fn stop_agent(config: &AgentConfig, out: &mut Console) -> Result<ExitCode, Failure> {
    let directory = config.state_dir.display();
    let failed = |error| {
        Failure::new(
            code::ERROR,
            format!("cannot stop the agent with the state directory {directory}: {error}"),
        )
    };
    match restart::stop_running_agent(&config.state_dir).map_err(failed)? {
        Some(pid) => out.write_line(format!("agent stopped: pid {pid}"))?,
        None => {
            let message = format!("no agent runs with the state directory {directory}");
            return Err(Failure::new(code::UNREACHABLE, message).with_hint(
                "give --stop the --config, --state-dir or --admin-socket that the agent was started with",
            ));
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reported(status: i32, log: &str) -> String {
        let failure = start_failure(ExitStatus::from_raw(status), log, Path::new("/s/agent.log"));
        format!("{failure:?}")
    }

    #[test]
    fn the_agents_own_report_is_shown_with_its_code() {
        let log = "2026 INFO starting\ntallyport: /s belongs to another agent, pid 7\n  stop it\n";
        let shown = reported(2 << 8, log);
        assert!(
            shown.contains("code: 2") && shown.contains("\"/s belongs to another agent, pid 7\\n  stop it\""),
            "{shown}"
        );
    }

    #[test]
    fn an_agent_that_was_killed_is_shown_with_the_end_of_its_log() {
        let log = (0..30).map(|n| format!("line {n}")).collect::<Vec<_>>().join("\n");
        let shown = reported(9, &log);
        assert!(shown.contains("code: 1") && shown.contains("ended by signal 9"), "{shown}");
        assert!(
            shown.contains("line 29") && shown.contains("line 20") && !shown.contains("line 19"),
            "{shown}"
        );
    }

    #[test]
    fn other_commands_need_no_variables_for_an_agent_at_its_default_addresses() {
        let variables =
            |url: &str, socket: &str| list_variables(url, Path::new(socket), Path::new("/run/a.sock"));
        assert!(variables("http://127.0.0.1:9725", "/run/a.sock").is_empty());
        assert_eq!(
            variables("https://127.0.0.1:9725", "/run/a.sock"),
            ["TALLYPORT_URL=https://127.0.0.1:9725"]
        );
        assert_eq!(
            variables("http://[::1]:9726", "/tmp/it's mine/a.sock"),
            ["TALLYPORT_URL=http://[::1]:9726", "TALLYPORT_ADMIN_SOCKET='/tmp/it'\\''s mine/a.sock'"]
        );
    }

    #[test]
    fn the_agent_gets_every_argument_but_the_flag() {
        let given = ["agent", "--background", "--set", "a=b"].map(OsString::from);
        let passed: Vec<_> = agent_arguments(given.into_iter()).collect();
        assert_eq!(passed, ["agent", "--announce", "--set", "a=b"]);
    }
}
