//! Variables that say an address in two parts.

/// Each a host and a port.
const PAIRS: [(&str, &str); 2] = [("STATSD_HOST", "STATSD_PORT"), ("DD_AGENT_HOST", "DD_DOGSTATSD_PORT")];

/// The other variable of a pair of host and port. Where the application has set one of them, ours must not stand beside it:
/// together they would name an address at which nothing listens.
#[must_use]
pub fn other_of_pair(name: &str) -> Option<&'static str> {
    PAIRS.into_iter().find_map(|(host, port)| match name {
        name if name == host => Some(port),
        name if name == port => Some(host),
        _ => None,
    })
}
