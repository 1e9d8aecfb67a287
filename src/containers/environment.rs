//! The variables that a container is given.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

/// `STATSD_UDP_HOST` and `STATSD_UDP_PORT`, and the aliases of the presets.
///
/// `DD_AGENT_HOST` is in no preset but its own: tracers read it, too, and would look for an agent there. Clients that know
/// no `DD_DOGSTATSD_URL` send to port 8125 of it unless `DD_DOGSTATSD_PORT` says another.
#[must_use]
pub fn udp_environment(address: SocketAddr, presets: &[String]) -> BTreeMap<String, String> {
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let in_url = match address.ip() {
        IpAddr::V4(_) => host.clone(),
        IpAddr::V6(_) => format!("[{host}]"),
    };
    let mut variables = vec![("STATSD_UDP_HOST", host.clone()), ("STATSD_UDP_PORT", port.clone())];
    for preset in presets {
        match preset.as_str() {
            "statsd" => variables.extend([("STATSD_HOST", host.clone()), ("STATSD_PORT", port.clone())]),
            "datadog" => variables.push(("DD_DOGSTATSD_URL", format!("udp://{in_url}:{port}"))),
            "DD_AGENT_HOST" => {
                variables.extend([("DD_AGENT_HOST", host.clone()), ("DD_DOGSTATSD_PORT", port.clone())]);
            }
            _ => {}
        }
    }
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// The variables of a container into which its Unix socket is mounted, at this path; they go before those of its address.
#[must_use]
pub fn unix_environment(path: &Path, presets: &[String]) -> BTreeMap<String, String> {
    let datadog = presets.iter().any(|preset| preset == "datadog");
    let url = datadog.then(|| ("DD_DOGSTATSD_URL".to_owned(), format!("unix://{}", path.display())));
    url.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(presets: &[&str], address: &str) -> Vec<String> {
        let presets: Vec<_> = presets.iter().map(|preset| (*preset).to_owned()).collect();
        udp_environment(address.parse().unwrap(), &presets)
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect()
    }

    #[test]
    fn the_two_variables_are_always_there() {
        assert_eq!(names(&[], "127.1.2.3:18125"), ["STATSD_UDP_HOST=127.1.2.3", "STATSD_UDP_PORT=18125"]);
    }

    #[test]
    fn a_unix_socket_is_named_by_the_preset_of_those_who_can_use_it() {
        let named = |presets: &[&str]| {
            let presets: Vec<_> = presets.iter().map(|preset| (*preset).to_owned()).collect();
            unix_environment(Path::new("/var/run/datadog/dsd.socket"), &presets)
        };
        let url = ("DD_DOGSTATSD_URL".to_owned(), "unix:///var/run/datadog/dsd.socket".to_owned());
        assert_eq!(named(&["statsd", "datadog"]).into_iter().collect::<Vec<_>>(), [url]);
        assert!(named(&["statsd"]).is_empty());
    }

    #[test]
    fn presets_add_aliases() {
        let all = names(&["statsd", "datadog", "DD_AGENT_HOST"], "127.1.2.3:18125");
        assert_eq!(
            all,
            [
                "DD_AGENT_HOST=127.1.2.3",
                "DD_DOGSTATSD_PORT=18125",
                "DD_DOGSTATSD_URL=udp://127.1.2.3:18125",
                "STATSD_HOST=127.1.2.3",
                "STATSD_PORT=18125",
                "STATSD_UDP_HOST=127.1.2.3",
                "STATSD_UDP_PORT=18125"
            ]
        );
        assert!(
            names(&["datadog"], "[::1]:18126").contains(&"DD_DOGSTATSD_URL=udp://[::1]:18126".to_owned())
        );
    }
}
