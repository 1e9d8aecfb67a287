//! `tallyport-oci hook pod PORT`: a socket at the address that every container of a pod was given beforehand.
//!
//! containerd's `base_runtime_spec` is one for all containers, and so is the address in it. A pod's network has that
//! address once. So it belongs to the pod: whichever container starts first has it opened, for as long as the process
//! lives that holds the network.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, Read as _};
use std::num::NonZeroU16;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use serde::Deserialize;
use tallyport_wire::{self as wire, OptionsDocument, ReservationDocument};

use super::agent::Agent;
use super::bundle::{Bundle, BundleNetwork};
use super::config::{InjectMode, Select, WrapperConfig};
use super::document::to_json;
use super::errors::Error;
use super::hook::{LONGEST, garbled_input_error, report_failure};
use super::identity::Facts;
use super::report::Reporter;
use super::{file, inject};

/// What the runtime writes to a hook's standard input, as far as it matters here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PodHookState {
    id: String,
    pid: i32,
    bundle: PathBuf,
    annotations: BTreeMap<String, String>,
}

/// Runs the hook. Fails only where the container may not start without its socket.
pub(super) fn main(port: Option<u16>, started: Instant) -> ExitCode {
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
    match heard.map_err(garbled_input_error).and_then(|_| open(&config, port, &state, started)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report_failure(&report, &format!("the pod has no socket: {error}"), config.fail_closed),
    }
}

fn open(config: &WrapperConfig, port: u16, state: &[u8], started: Instant) -> Result<(), Error> {
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
        // The node's network is everybody's: what is sent to this address there comes from nobody in particular.
        return Ok(());
    }
    let hostname = bundle.hostname.unwrap_or_default();
    let facts = Facts { id: &state.id, hostname: &hostname, annotations: state.annotations };
    let mut identity = identities.identify_container(&facts).unwrap_or_default();
    if config.select == Select::OptIn && !inject::has_opted_in(&identity) {
        return Ok(());
    }
    // It is everybody's in the pod.
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
    // 204: the pod says that it wants none.
    if matches!(answer.status, 200 | 201 | 204) { Ok(()) } else { Err(answer.refusal_error()) }
}

/// The process that a pod's network is named by: containerd writes `/proc/PID/ns/net`.
fn holder_pid(network: &BundleNetwork) -> Option<i32> {
    let BundleNetwork::Path(path) = network else { return None };
    path.to_str()?.strip_prefix("/proc/")?.strip_suffix("/ns/net")?.parse().ok()
}

/// Whether a network is that of the runtime which calls this hook.
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
