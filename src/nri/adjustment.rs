//! What the plugin changes about a container that is about to be created.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::messages::{Adjustment, Container, KeyValue, PodSandbox};
use crate::containers::environment;

/// Annotation that says which address the container was given, so that an agent that starts again can open it again.
/// Containers' annotations come from the runtime and its plugins; unlike a variable, who writes a pod cannot set it.
const ADDRESS: &str = "tallyport.address";

/// The two variables are one pair and always written; an alias is never written over what the application set.
pub(super) fn adjustment(container: &Container, address: SocketAddr, presets: &[String]) -> Adjustment {
    let is_set = |name: &str| names(container).any(|set| set == name);
    let mut env = Vec::new();
    for (name, value) in environment(address, presets) {
        let set = is_set(&name);
        match name.as_str() {
            "STATSD_UDP_HOST" | "STATSD_UDP_PORT" if set => {
                // Where it was an earlier plugin that set it, only who takes it back first may set it again.
                env.push(KeyValue { key: format!("-{name}"), value: String::new() });
            }
            "STATSD_UDP_HOST" | "STATSD_UDP_PORT" => {}
            _ if set => continue,
            _ => {}
        }
        env.push(KeyValue { key: name, value });
    }
    let annotations = HashMap::from([(ADDRESS.to_owned(), address.to_string())]);
    Adjustment { annotations, env }
}

/// The address that a container was told.
pub(super) fn told(container: &Container) -> Option<SocketAddr> {
    let address: SocketAddr = container.annotations.get(ADDRESS)?.parse().ok()?;
    address.ip().is_loopback().then_some(address)
}

/// The address that a container was given by an earlier life of the agent. A runtime can be set to hand a pod's own
/// annotations on to its containers, so one that the pod has, too, is not believed.
pub(super) fn given(pod: &PodSandbox, container: &Container) -> Option<SocketAddr> {
    told(container).filter(|_| !pod.annotations.contains_key(ADDRESS))
}

fn names(container: &Container) -> impl Iterator<Item = &str> {
    container.env.iter().filter_map(|variable| variable.split_once('=').map(|(name, _)| name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(env: &[&str]) -> Container {
        Container { env: env.iter().map(|text| (*text).to_owned()).collect(), ..Container::default() }
    }

    fn adjusted(env: &[&str], presets: &[&str]) -> Vec<String> {
        let presets: Vec<String> = presets.iter().map(|preset| (*preset).to_owned()).collect();
        let adjustment = adjustment(&container(env), "127.1.2.3:18125".parse().unwrap(), &presets);
        adjustment.env.iter().map(|variable| format!("{}={}", variable.key, variable.value)).collect()
    }

    #[test]
    fn the_pair_is_always_written_and_taken_back_from_whoever_set_it() {
        assert_eq!(adjusted(&["PATH=/bin"], &[]), ["STATSD_UDP_HOST=127.1.2.3", "STATSD_UDP_PORT=18125"]);
        assert_eq!(
            adjusted(&["STATSD_UDP_PORT=9"], &[]),
            ["STATSD_UDP_HOST=127.1.2.3", "-STATSD_UDP_PORT=", "STATSD_UDP_PORT=18125"]
        );
    }

    #[test]
    fn an_alias_is_never_written_over_what_the_application_set() {
        assert_eq!(
            adjusted(&["STATSD_HOST=mine"], &["statsd"]),
            ["STATSD_PORT=18125", "STATSD_UDP_HOST=127.1.2.3", "STATSD_UDP_PORT=18125"]
        );
    }

    #[test]
    fn the_address_is_read_back_from_the_annotation_and_from_nowhere_else() {
        let adjustment = adjustment(&container(&[]), "127.1.2.3:18125".parse().unwrap(), &[]);
        let mut pod = PodSandbox::default();
        let mut started = container(&["STATSD_UDP_HOST=127.9.9.9", "STATSD_UDP_PORT=18125"]);
        assert_eq!(given(&pod, &started), None, "who writes a pod can set variables");
        started.annotations = adjustment.annotations;
        assert_eq!(given(&pod, &started), Some("127.1.2.3:18125".parse().unwrap()));
        for wrong in ["10.0.0.1:18125", "127.0.0.1", ""] {
            started.annotations.insert(ADDRESS.to_owned(), wrong.to_owned());
            assert_eq!(given(&pod, &started), None, "{wrong:?}");
        }
        started.annotations.insert(ADDRESS.to_owned(), "127.9.9.9:18125".to_owned());
        assert!(given(&pod, &started).is_some());
        pod.annotations.insert(ADDRESS.to_owned(), "127.9.9.9:18125".to_owned());
        assert_eq!(given(&pod, &started), None, "the pod's author wrote it");
    }
}
