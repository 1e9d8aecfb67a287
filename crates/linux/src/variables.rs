//! The environment variables that containers get, and the pairs of them that hold a host and a port.

/// Every variable that an agent may set.
const ALL: [&str; 7] = [
    "STATSD_UDP_HOST",
    "STATSD_UDP_PORT",
    "STATSD_HOST",
    "STATSD_PORT",
    "DD_AGENT_HOST",
    "DD_DOGSTATSD_PORT",
    "DD_DOGSTATSD_URL",
];
/// Longest value: more than any URL of a Unix socket.
const LONGEST: usize = 1024;

/// Checks a variable of the answer to a reserve call. Otherwise a process that poses as the agent could have every container load
/// a library (`LD_PRELOAD`), or set more variables by a line break in a value.
///
/// # Errors
/// With the reason, when the variable does not name a socket, or its value is too long or has control characters.
pub fn check_variable(name: &str, value: &str) -> Result<(), String> {
    if !ALL.contains(&name) {
        return Err(format!("the variable {name:?} does not name a socket"));
    }
    if value.len() > LONGEST || value.chars().any(char::is_control) {
        return Err(format!("the value of {name} has control characters or more than {LONGEST} bytes"));
    }
    Ok(())
}

const PAIRS: [(&str, &str); 2] = [("STATSD_HOST", "STATSD_PORT"), ("DD_AGENT_HOST", "DD_DOGSTATSD_PORT")];

/// The other variable of a pair of host and port. Where the application has set one of them, the other is not set: together they
/// would name an address at which nothing listens.
#[must_use]
pub fn other_of_pair(name: &str) -> Option<&'static str> {
    PAIRS.into_iter().find_map(|(host, port)| match name {
        name if name == host => Some(port),
        name if name == port => Some(host),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_that_name_a_socket_are_taken() {
        for (name, value) in
            [("STATSD_UDP_HOST", "127.0.0.1"), ("DD_DOGSTATSD_URL", "unix:///run/a b/é.sock")]
        {
            assert_eq!(check_variable(name, value), Ok(()));
        }
        for name in ["LD_PRELOAD", "PATH", "", "STATSD_UDP_HOST=x\nLD_PRELOAD", "statsd_host"] {
            assert!(check_variable(name, "x").is_err(), "{name}");
        }
        for value in ["a\nLD_PRELOAD=/x", "a\0b", "\u{1b}[2J", &"x".repeat(LONGEST + 1)] {
            assert!(check_variable("STATSD_HOST", value).is_err(), "{value:?}");
        }
    }
}
