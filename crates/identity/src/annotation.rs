//! Annotations for tallyport: `tallyport.<what>`, and for one container of a pod `tallyport.<what>/container.<name>`.
//! Engines without annotations have labels of the same names.

/// The prefix of all annotations.
pub const PREFIX: &str = "tallyport.";
/// Whether a container gets a socket.
pub const ENABLED: &str = "tallyport.enabled";
/// The task of a container; of a pod another name for its task, inside its namespace.
pub const TASK_ID: &str = "tallyport.task-id";
/// How signed gauge values are interpreted.
pub const GAUGE_SIGN: &str = "tallyport.gauge-sign";
/// The unit in which timers are sent.
pub const TIMER_UNIT: &str = "tallyport.timer-unit";
/// Whether a container gets a Unix socket.
pub const UNIX_SOCKET: &str = "tallyport.unix-socket";

/// An annotation's value for a container of a pod: that of the container alone, otherwise that of the whole pod.
pub fn find<'a>(
    annotations: impl Fn(&str) -> Option<&'a str>,
    container: &str,
    key: &str,
) -> Option<&'a str> {
    annotations(&format!("{key}/container.{container}")).or_else(|| annotations(key)).map(str::trim)
}

const YES: [&str; 4] = ["true", "1", "yes", "on"];
const NO: [&str; 4] = ["false", "0", "no", "off"];

/// Reads a switch: `true`, `1`, `yes` and `on`, or `false`, `0`, `no` and `off`, in upper or lower case, with or
/// without surrounding spaces. `None` for anything else, for which the caller chooses the default.
#[must_use]
pub fn read_switch(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| text.trim().eq_ignore_ascii_case(word));
    if is(&YES) {
        return Some(true);
    }
    is(&NO).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_for_one_container_is_over_that_for_the_pod() {
        let annotations = |key: &str| match key {
            "tallyport.gauge-sign" => Some("delta"),
            "tallyport.gauge-sign/container.web" => Some(" absolute "),
            _ => None,
        };
        assert_eq!(find(annotations, "web", GAUGE_SIGN), Some("absolute"));
        assert_eq!(find(annotations, "sidecar", GAUGE_SIGN), Some("delta"));
        assert_eq!(find(annotations, "web", TASK_ID), None);
    }

    #[test]
    fn what_is_neither_yes_nor_no_is_nothing() {
        for (text, expected) in [
            ("true", Some(true)),
            ("Yes", Some(true)),
            (" ON ", Some(true)),
            ("1", Some(true)),
            ("OFF", Some(false)),
            ("no", Some(false)),
            ("False", Some(false)),
            ("0", Some(false)),
            ("perhaps", None),
            ("only", None),
            ("", None),
            ("10", None),
        ] {
            assert_eq!(read_switch(text), expected, "{text:?}");
        }
    }
}
