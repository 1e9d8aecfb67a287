//! `tallyport-oci hook create-runtime|poststop|pod`: what the runtime calls at the turns of a container's life.

use std::ffi::OsString;
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tallyport_linux::process;

use super::agent::{self, Agent};
use super::descriptors;
use super::errors::Error;
use super::pod;
use super::report::Reporter;
use super::trust::{self, Trusted};

/// Longest state that is read; a container's annotations are part of it.
pub(super) const LONGEST: u64 = 16 << 20;

/// The arguments that the wrapper wrote into the hook.
#[derive(PartialEq, Eq, Debug)]
struct Arguments {
    stage: String,
    container: String,
    socket: PathBuf,
    budget: Duration,
    fail_closed: bool,
    descriptors: bool,
    /// The user that the agent runs as, where it is not root.
    agent_user: String,
    log: Option<PathBuf>,
}

/// What the runtime writes to a hook's standard input, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HookState {
    pid: i32,
}

/// Runs a hook. Fails only where the container may not start without its socket; a hook for its end never fails, since
/// that would keep other hooks from running.
pub(super) fn main(arguments: &[OsString], started: Instant) -> ExitCode {
    let word = |at: usize| arguments.get(at).and_then(|word| word.to_str());
    if word(0) == Some("pod") {
        return pod::main(word(1).and_then(|port| port.parse().ok()), started);
    }
    // First and always to its end: crun dies of what it cannot write here.
    let mut state = Vec::new();
    let heard = io::stdin().lock().take(LONGEST).read_to_end(&mut state);
    let Some(arguments) = read(arguments) else {
        return report_failure(
            &Reporter::with_log(None),
            "usage: tallyport-oci hook create-runtime|poststop --container ID --admin-socket PATH",
            true,
        );
    };
    let trusted = Trusted::with_agent(&arguments.agent_user);
    let agent = Agent::new(arguments.socket.clone(), trusted, started + arguments.budget);
    let (report, container) = (Reporter::with_log(arguments.log.clone()), &arguments.container);
    match arguments.stage.as_str() {
        "create-runtime" => match heard
            .map_err(garbled_input_error)
            .and_then(|_| attach_container(&agent, &arguments, &state))
        {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                let message = format!("container {container:?} has no socket: {error}");
                report_failure(&report, &message, arguments.fail_closed)
            }
        },
        _ => match release_container(&agent, container) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                report_failure(&report, &format!("container {container:?} is not released: {error}"), false)
            }
        },
    }
}

pub(super) fn report_failure(report: &Reporter, message: &str, fail: bool) -> ExitCode {
    if fail {
        report.log_error(message);
        return ExitCode::FAILURE;
    }
    report.log_warning(message);
    ExitCode::SUCCESS
}

/// What the runtime says makes no sense.
pub(super) fn garbled_input_error(error: impl std::fmt::Display) -> Error {
    Error::Garbled { path: "standard input".into(), why: error.to_string() }
}

fn read(arguments: &[OsString]) -> Option<Arguments> {
    let mut words = arguments.iter().map(|word| word.to_str());
    let stage = words.next()??.to_owned();
    let (mut container, mut socket, mut log) = (None, None, None);
    let mut agent_user = trust::AGENT.to_owned();
    let (mut budget, mut fail_closed, mut descriptors) = (Duration::from_secs(1), false, false);
    while let Some(word) = words.next() {
        match word? {
            "--container" => container = Some(words.next()??.to_owned()),
            "--admin-socket" => socket = Some(words.next()??.into()),
            "--budget-ms" => budget = Duration::from_millis(words.next()??.parse().ok()?),
            "--fail-closed" => fail_closed = true,
            "--descriptors" => descriptors = true,
            "--agent-user" => words.next()??.clone_into(&mut agent_user),
            "--log" => log = Some(words.next()??.into()),
            // For the wrapper's next life.
            "--aliases" | "--mount" => drop(words.next()??),
            _ => return None,
        }
    }
    let known = ["create-runtime", "poststop"].contains(&stage.as_str());
    let (container, socket) = (container?, socket?);
    known.then_some(Arguments { stage, container, socket, budget, fail_closed, descriptors, agent_user, log })
}

/// Says which process the container is. It lives while its runtime waits for this hook, so its number means it, and its
/// start tells it from whoever may have the number later.
fn attach_container(agent: &Agent, arguments: &Arguments, state: &[u8]) -> Result<(), Error> {
    let HookState { pid } = serde_json::from_slice(state).map_err(garbled_input_error)?;
    let container = &arguments.container;
    if arguments.descriptors {
        return descriptors::attach_by_descriptor(
            (agent.socket_path(), agent.trusted_users()),
            container,
            pid,
            agent.deadline(),
        );
    }
    let stat = || PathBuf::from(format!("/proc/{pid}/stat"));
    let start_ticks = process::start_ticks(pid).map_err(|source| Error::Read { path: stat(), source })?;
    let body = format!(r#"{{"pid":{pid},"start_ticks":{start_ticks}}}"#);
    let answer = agent.send_request(
        "POST",
        &format!("/v1/containers/{}/attach", agent::encode_path_segment(container)),
        &body,
    )?;
    if answer.status == 200 { Ok(()) } else { Err(answer.refusal_error()) }
}

/// Says that the container has ended. The agent may know better, and sooner.
fn release_container(agent: &Agent, container: &str) -> Result<(), Error> {
    let answer = agent.send_request(
        "DELETE",
        &format!("/v1/containers/{}", agent::encode_path_segment(container)),
        "",
    )?;
    if matches!(answer.status, 202 | 404) { Ok(()) } else { Err(answer.refusal_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Option<Arguments> {
        read(&line.split(' ').map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_hook_is_told_everything_by_its_arguments() {
        let arguments = parsed(
            "create-runtime --container c1 --admin-socket /a.sock --budget-ms 250 --fail-closed --descriptors --agent-user 7 --log /l --aliases A,B --mount /m",
        );
        let expected = Arguments {
            stage: "create-runtime".to_owned(),
            container: "c1".to_owned(),
            socket: "/a.sock".into(),
            budget: Duration::from_millis(250),
            fail_closed: true,
            descriptors: true,
            agent_user: "7".to_owned(),
            log: Some("/l".into()),
        };
        assert_eq!(arguments, Some(expected));
    }

    #[test]
    fn arguments_that_make_no_sense_are_refused() {
        for line in
            ["", "poststop", "start --container c --admin-socket /a", "poststop --container", "poststop --x"]
        {
            assert_eq!(parsed(line), None, "{line}");
        }
    }
}
