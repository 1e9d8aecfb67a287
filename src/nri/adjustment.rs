//! What the plugin changes about a container that is about to be created.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::messages::{Adjustment, KeyValue, NriContainer, NriMount, PodSandbox};
use crate::containers::{
    ContainerInfo, ContainerUnixSocket, other_of_pair, udp_environment, unix_environment, would_hide,
};

/// Annotation with the address of the container, so that a restarted agent can open it again. Containers' annotations
/// come from the runtime and its plugins; unlike a variable, the author of a pod cannot set it.
const ADDRESS: &str = "tallyport.address";

/// Annotation with the path of the container's Unix socket, for the same reason.
const SOCKET: &str = "tallyport.socket";

/// The sockets that a container was given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Given {
    pub(super) address: Option<SocketAddr>,
    /// The path of its Unix socket in the container.
    pub(super) socket: Option<PathBuf>,
}

/// The adjustment for a container with these sockets.
///
/// # Errors
/// With the reason, when it has no socket, or its only socket cannot be mounted.
pub(super) fn build_adjustment(
    container: &NriContainer,
    info: &ContainerInfo,
    presets: &[String],
) -> Result<Adjustment, String> {
    let mut adjustment = Adjustment::default();
    let mut variables = BTreeMap::new();
    if let Some(address) = info.address {
        variables.extend(udp_environment(address, presets));
        adjustment.annotations.insert(ADDRESS.to_owned(), address.to_string());
    }
    if let Some(unix) = &info.unix {
        match build_mount(container, unix) {
            Ok(mount) => {
                variables.extend(unix_environment(&unix.path, presets));
                adjustment.annotations.insert(SOCKET.to_owned(), unix.path.display().to_string());
                adjustment.mounts.push(mount);
            }
            Err(why) if unix.only => return Err(why),
            Err(why) => tracing::warn!(container = ?container.id, %why, "a Unix socket is not mounted"),
        }
    }
    if adjustment.annotations.is_empty() {
        return Err("it has no address".to_owned());
    }
    adjustment.env = variables_of(container, variables);
    Ok(adjustment)
}

/// The two variables are one pair and always written; an alias is never written over what the application set, nor beside
/// the other variable of its pair.
fn variables_of(container: &NriContainer, variables: BTreeMap<String, String>) -> Vec<KeyValue> {
    let is_set = |name: &str| variable_names(container).any(|set| set == name);
    let mut env = Vec::new();
    for (name, value) in variables {
        let set = is_set(&name);
        match name.as_str() {
            "STATSD_UDP_HOST" | "STATSD_UDP_PORT" if set => {
                // If an earlier plugin set the variable, setting it again is a conflict unless it is removed first.
                env.push(KeyValue { key: format!("-{name}"), value: String::new() });
            }
            "STATSD_UDP_HOST" | "STATSD_UDP_PORT" => {}
            _ if set || other_of_pair(&name).is_some_and(is_set) => continue,
            _ => {}
        }
        env.push(KeyValue { key: name, value });
    }
    env
}

/// The mount of a Unix socket's directory. It never hides a mount of the application or an earlier plugin, which the
/// runtime would treat as a conflict and not start the container.
fn build_mount(container: &NriContainer, unix: &ContainerUnixSocket) -> Result<NriMount, String> {
    let text = |path: &Path| path.to_str().map(str::to_owned).ok_or("its path is no text");
    let (destination, source) = (text(unix.mount_destination())?, text(&unix.source)?);
    match container.mounts.iter().find(|theirs| would_hide(&theirs.destination, &destination)) {
        Some(theirs) => Err(format!("{:?} is a mount of its own", theirs.destination)),
        None => {
            let options = ["bind", "ro", "nosuid", "nodev", "noexec"].map(str::to_owned).into();
            Ok(NriMount { destination, kind: "bind".to_owned(), source, options })
        }
    }
}

/// The sockets in the annotations of a container; `None` without any.
pub(super) fn annotated_sockets(container: &NriContainer) -> Option<Given> {
    let address = container.annotations.get(ADDRESS).and_then(|address| address.parse().ok());
    let address = address.filter(|address: &SocketAddr| address.ip().is_loopback());
    let socket = container.annotations.get(SOCKET).map(PathBuf::from).filter(|path| path.is_absolute());
    (address.is_some() || socket.is_some()).then_some(Given { address, socket })
}

/// The sockets that a previous run gave to a container. Runtimes can be configured to pass a pod's annotations on to
/// its containers, so an annotation that the pod also has is not trusted.
pub(super) fn verified_sockets(pod: &PodSandbox, container: &NriContainer) -> Option<Given> {
    let forged = [ADDRESS, SOCKET].iter().any(|key| pod.annotations.contains_key(*key));
    annotated_sockets(container).filter(|_| !forged)
}

fn variable_names(container: &NriContainer) -> impl Iterator<Item = &str> {
    container.env.iter().filter_map(|variable| variable.split_once('=').map(|(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(env: &[&str]) -> NriContainer {
        NriContainer { env: env.iter().map(|text| (*text).to_owned()).collect(), ..NriContainer::default() }
    }

    fn variables(env: &[&str], presets: &[&str]) -> Vec<KeyValue> {
        let presets: Vec<String> = presets.iter().map(|preset| (*preset).to_owned()).collect();
        variables_of(&container(env), udp_environment("127.1.2.3:18125".parse().unwrap(), &presets))
    }

    fn adjusted(env: &[&str], presets: &[&str]) -> Vec<String> {
        let variables = variables(env, presets);
        variables.iter().map(|variable| format!("{}={}", variable.key, variable.value)).collect()
    }

    #[test]
    fn a_mount_is_never_put_over_another() {
        let unix = ContainerUnixSocket {
            source: "/run/tallyport/state/sockets/0a".into(),
            path: "/var/run/datadog/dsd.socket".into(),
            only: false,
            checked: false,
        };
        let with = |destination: &str| NriContainer {
            mounts: vec![NriMount { destination: destination.to_owned(), ..NriMount::default() }],
            ..NriContainer::default()
        };
        let ours = build_mount(&with("/var/run"), &unix).unwrap();
        assert_eq!((ours.destination.as_str(), ours.kind.as_str()), ("/var/run/datadog", "bind"));
        assert_eq!(ours.source, "/run/tallyport/state/sockets/0a");
        assert_eq!(
            build_mount(&with("/run/datadog"), &unix).unwrap_err(),
            "\"/run/datadog\" is a mount of its own"
        );
    }

    #[test]
    fn the_pair_is_always_written_and_taken_back_from_other_plugins() {
        assert_eq!(adjusted(&["PATH=/bin"], &[]), ["STATSD_UDP_HOST=127.1.2.3", "STATSD_UDP_PORT=18125"]);
        assert_eq!(
            adjusted(&["STATSD_UDP_PORT=9"], &[]),
            ["STATSD_UDP_HOST=127.1.2.3", "-STATSD_UDP_PORT=", "STATSD_UDP_PORT=18125"]
        );
    }

    #[test]
    fn an_alias_is_never_written_over_what_the_application_set() {
        assert_eq!(
            adjusted(&["DD_DOGSTATSD_URL=udp://mine:8125"], &["datadog"]),
            ["STATSD_UDP_HOST=127.1.2.3", "STATSD_UDP_PORT=18125"]
        );
    }

    #[test]
    fn one_variable_of_a_pair_is_never_written_beside_the_other_that_the_application_set() {
        for set in
            ["STATSD_HOST=mine", "STATSD_PORT=8125", "DD_AGENT_HOST=10.0.0.1", "DD_DOGSTATSD_PORT=8125"]
        {
            let preset = if set.starts_with("DD_") { "DD_AGENT_HOST" } else { "statsd" };
            assert_eq!(
                adjusted(&[set], &[preset]),
                ["STATSD_UDP_HOST=127.1.2.3", "STATSD_UDP_PORT=18125"],
                "{set}"
            );
        }
    }

    #[test]
    fn what_was_given_is_read_back_from_annotations_and_from_nowhere_else() {
        let mut pod = PodSandbox::default();
        let mut started = container(&["STATSD_UDP_HOST=127.9.9.9", "STATSD_UDP_PORT=18125"]);
        assert_eq!(verified_sockets(&pod, &started), None, "who writes a pod can set variables");
        let mut annotate = |key: &str, value: &str| {
            started.annotations.insert(key.to_owned(), value.to_owned());
            verified_sockets(&pod, &started)
        };
        for wrong in ["10.0.0.1:18125", "127.0.0.1", ""] {
            assert_eq!(annotate(ADDRESS, wrong), None, "{wrong:?}");
        }
        let address = Some("127.1.2.3:18125".parse().unwrap());
        assert_eq!(annotate(ADDRESS, "127.1.2.3:18125"), Some(Given { address, socket: None }));
        assert_eq!(annotate(SOCKET, "no/path"), Some(Given { address, socket: None }));
        let socket = Some("/var/run/datadog/dsd.socket".into());
        assert_eq!(annotate(SOCKET, "/var/run/datadog/dsd.socket"), Some(Given { address, socket }));
        pod.annotations.insert(SOCKET.to_owned(), "/x".to_owned());
        assert_eq!(verified_sockets(&pod, &started), None, "the pod's author wrote it");
    }
}
