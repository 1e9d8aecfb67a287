//! `tallyport-oci hook create-runtime|poststop|pod`: what the runtime calls when a container is created and when it has ended.
//!
//! `hook pod PORT` opens a socket at the address that every container of a pod was given beforehand. containerd's
//! `base_runtime_spec` is the same for all containers, and so is the address in it. A pod's network has that address once,
//! so the socket belongs to the pod: its first container has it opened, and it stays open as long as the process that holds
//! the network.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::num::NonZeroU16;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use serde::Deserialize;
use tallyport_linux::process;
use tallyport_wire::{self as wire, OptionsDocument, ReservationDocument};

use super::agent::{self, Agent, Trusted};
use super::bundle::{Bundle, BundleNetwork};
use super::config::{InjectMode, Select, WrapperConfig};
use super::document::to_json;
use super::errors::{Error, Reporter};
use super::identity::Facts;
use super::{descriptors, file, inject};

/// Longest accepted state, in bytes; it contains the container's annotations.
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
    /// The user that the agent runs as, if not root.
    agent_user: String,
    log: Option<PathBuf>,
}

/// What the runtime writes to a hook's standard input, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct HookState {
    pid: i32,
}

/// Runs a hook. Fails only if the container must not start without its socket; a `poststop` hook never fails, since
/// that would keep other hooks from running.
pub(super) fn main(arguments: &[OsString], started: Instant) -> ExitCode {
    let word = |at: usize| arguments.get(at).and_then(|word| word.to_str());
    if word(0) == Some("pod") {
        return run_pod_hook(word(1).and_then(|port| port.parse().ok()), started);
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

/// The runtime's input is malformed.
pub(super) fn garbled_input_error(error: impl std::fmt::Display) -> Error {
    Error::Garbled { path: "standard input".into(), why: error.to_string() }
}

fn read(arguments: &[OsString]) -> Option<Arguments> {
    let mut words = arguments.iter().map(|word| word.to_str());
    let stage = words.next()??.to_owned();
    let (mut container, mut socket, mut log) = (None, None, None);
    let mut agent_user = agent::AGENT_USER.to_owned();
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
            // Only read by the wrapper, when it edits the bundle again.
            "--aliases" | "--mount" => drop(words.next()??),
            _ => return None,
        }
    }
    let known = ["create-runtime", "poststop"].contains(&stage.as_str());
    let (container, socket) = (container?, socket?);
    known.then_some(Arguments { stage, container, socket, budget, fail_closed, descriptors, agent_user, log })
}

/// Says which process the container is. It lives while its runtime waits for this hook, so its number means it, and its
/// start time distinguishes it from a later process with that number.
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

/// Tells the agent that the container has ended. The agent may have noticed already.
fn release_container(agent: &Agent, container: &str) -> Result<(), Error> {
    let answer = agent.send_request(
        "DELETE",
        &format!("/v1/containers/{}", agent::encode_path_segment(container)),
        "",
    )?;
    if matches!(answer.status, 202 | 404) { Ok(()) } else { Err(answer.refusal_error()) }
}

/// What the runtime writes to a hook's standard input, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodHookState {
    id: String,
    pid: i32,
    bundle: PathBuf,
    annotations: BTreeMap<String, String>,
}

/// Runs the hook. Fails only if the container must not start without its socket.
pub(super) fn run_pod_hook(port: Option<u16>, started: Instant) -> ExitCode {
    // First and always to its end: crun dies of what it cannot write here.
    let mut state = Vec::new();
    let heard = io::stdin().lock().take(LONGEST).read_to_end(&mut state);
    let report = Reporter::with_log(None);
    let Some(port) = port.filter(|port| *port > 0) else {
        return report_failure(&report, "usage: tallyport-oci hook pod PORT", true);
    };
    let config = super::load_config(&report);
    if config.mode == InjectMode::PassThrough {
        return ExitCode::SUCCESS;
    }
    match heard.map_err(garbled_input_error).and_then(|_| open_pod_socket(&config, port, &state, started)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_failure(&report, &format!("the pod has no socket: {error}"), config.fail_closed),
    }
}

fn open_pod_socket(config: &WrapperConfig, port: u16, state: &[u8], started: Instant) -> Result<(), Error> {
    config.ensure_usable()?;
    let state: PodHookState = serde_json::from_slice(state).map_err(garbled_input_error)?;
    let path = state.bundle.join("config.json");
    let bundle = Bundle::read(&file::read(&path)?)
        .map_err(|error| Error::Garbled { path: path.clone(), why: error.to_string() })?;
    let identities = config.identity_rules();
    let holder = if identities.is_sandbox(&bundle, &state.annotations) {
        state.pid
    } else {
        holder_pid(&bundle.requested_network()).ok_or_else(|| Error::Garbled {
            path,
            why: "it does not say which process holds the pod's network".to_owned(),
        })?
    };
    let network = PathBuf::from(format!("/proc/{holder}/ns/net"));
    if is_own(&network)? {
        // All processes of the node share its network, so what is sent to this address there has no known sender.
        return Ok(());
    }
    let hostname = bundle.hostname.unwrap_or_default();
    let facts = Facts { id: &state.id, hostname: &hostname, annotations: state.annotations };
    let mut identity = identities.identify_container(&facts).unwrap_or_default();
    if config.select == Select::OptIn && !inject::has_opted_in(&identity) {
        return Ok(());
    }
    // All containers of the pod share the socket.
    identity.labels.remove("container");
    let Some(sandbox) = identity.sandbox_id else {
        return Err(garbled_input_error("the container is not one of a pod's"));
    };
    let request: ReservationDocument<'_> = ReservationDocument {
        task_id: identity.task_id.map(Cow::Owned),
        labels: Some(Cow::Owned(identity.labels)),
        network: Some(wire::Network::Netns { path: network.into() }),
        pid: Some(holder),
        sandbox_id: Some((&*sandbox).into()),
        pod_uid: identity.pod_uid.map(Cow::Owned),
        options: Some(OptionsDocument { port: NonZeroU16::new(port), ..OptionsDocument::default() }),
        ..ReservationDocument::new(&sandbox)
    };
    let agent = Agent::new(config.admin_socket(), config.trusted_users(), started + config.time_budget());
    let answer = agent.send_request("POST", "/v1/containers", &to_json(&request))?;
    // 204: the pod has opted out.
    if matches!(answer.status, 200 | 201 | 204) { Ok(()) } else { Err(answer.refusal_error()) }
}

/// The process in the path of a pod's network namespace: containerd writes `/proc/PID/ns/net`.
fn holder_pid(network: &BundleNetwork) -> Option<i32> {
    let BundleNetwork::Path(path) = network else { return None };
    path.to_str()?.strip_prefix("/proc/")?.strip_suffix("/ns/net")?.parse().ok()
}

/// Whether a network is the one of the runtime that calls this hook.
fn is_own(network: &Path) -> Result<bool, Error> {
    let identity = |path: &Path| {
        let found = std::fs::metadata(path);
        found
            .map(|found| (found.dev(), found.ino()))
            .map_err(|source| Error::Read { path: path.to_owned(), source })
    };
    Ok(identity(network)? == identity(Path::new("/proc/self/ns/net"))?)
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

    #[test]
    fn a_pods_network_is_named_by_the_process_that_holds_it() {
        let of = |path: &str| holder_pid(&BundleNetwork::Path(path.into()));
        assert_eq!(of("/proc/4711/ns/net"), Some(4711));
        for path in ["/run/netns/cni-1", "/proc/self/ns/net", "/proc/4711/ns/pid", "/proc/4711/ns/net/.."] {
            assert_eq!(of(path), None, "{path}");
        }
        assert_eq!(holder_pid(&BundleNetwork::New), None);
    }

    #[test]
    fn the_runtimes_own_network_is_known() {
        assert!(is_own(Path::new("/proc/self/ns/net")).unwrap());
        assert!(!is_own(Path::new("/proc/self/ns/pid")).unwrap());
        assert!(is_own(Path::new("/proc/0/ns/net")).is_err());
    }
}
