//! What a pod says about its containers: `tallyport.<what>`, and for one container `tallyport.<what>/container.<name>`.

use super::messages::{NriContainer, PodSandbox};

/// Whether its containers get sockets.
pub(super) const ENABLED: &str = "tallyport.enabled";
/// Whether they get a Unix socket.
pub(super) const UNIX_SOCKET: &str = "tallyport.unix-socket";
/// Another name for the pod's task, inside its namespace.
pub(super) const TASK_ID: &str = "tallyport.task-id";
/// What a signed gauge value means.
pub(super) const GAUGE_SIGN: &str = "tallyport.gauge-sign";
/// The unit in which timers are sent.
pub(super) const TIMER_UNIT: &str = "tallyport.timer-unit";

/// What is said for a container: of it alone, or of its whole pod.
pub(super) fn find_annotation<'p>(
    pod: &'p PodSandbox,
    container: &NriContainer,
    key: &str,
) -> Option<&'p str> {
    let own = pod.annotations.get(&format!("{key}/container.{}", container.name));
    own.or_else(|| pod.annotations.get(key)).map(|value| value.trim())
}

/// Yes or no; nothing where it is neither, so that a slip of the pen leaves what is usual.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    let is = |words: &[&str]| words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if is(&["true", "1", "yes", "on"]) {
        return Some(true);
    }
    is(&["false", "0", "no", "off"]).then_some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_one_container_is_over_what_is_said_of_all() {
        let mut pod = PodSandbox::default();
        pod.annotations.insert(GAUGE_SIGN.to_owned(), "delta".to_owned());
        pod.annotations.insert(format!("{GAUGE_SIGN}/container.web"), " absolute ".to_owned());
        let named = |name: &str| NriContainer { name: name.to_owned(), ..NriContainer::default() };
        assert_eq!(find_annotation(&pod, &named("web"), GAUGE_SIGN), Some("absolute"));
        assert_eq!(find_annotation(&pod, &named("sidecar"), GAUGE_SIGN), Some("delta"));
        assert_eq!(find_annotation(&pod, &named("web"), TASK_ID), None);
    }

    #[test]
    fn what_is_neither_yes_nor_no_says_nothing() {
        assert_eq!(
            [parse_bool("Yes"), parse_bool("OFF"), parse_bool("perhaps"), parse_bool("")],
            [Some(true), Some(false), None, None]
        );
    }
}
