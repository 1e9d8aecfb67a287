//! What a pod says about its containers: `tallyport.<what>`, and for one container `tallyport.<what>/container.<name>`.

use super::messages::{Container, PodSandbox};

pub(super) use crate::wire::annotation::{ENABLED, GAUGE_SIGN, TASK_ID, TIMER_UNIT, UNIX_SOCKET};

/// What is said for a container: of it alone, or of its whole pod.
pub(super) fn of<'p>(pod: &'p PodSandbox, container: &Container, key: &str) -> Option<&'p str> {
    let own = pod.annotations.get(&format!("{key}/container.{}", container.name));
    own.or_else(|| pod.annotations.get(key)).map(|value| value.trim())
}

/// Yes or no; nothing where it is neither, so that a slip of the pen leaves what is usual.
pub(super) fn switch(text: &str) -> Option<bool> {
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
        let named = |name: &str| Container { name: name.to_owned(), ..Container::default() };
        assert_eq!(of(&pod, &named("web"), GAUGE_SIGN), Some("absolute"));
        assert_eq!(of(&pod, &named("sidecar"), GAUGE_SIGN), Some("delta"));
        assert_eq!(of(&pod, &named("web"), TASK_ID), None);
    }

    #[test]
    fn what_is_neither_yes_nor_no_says_nothing() {
        assert_eq!(
            [switch("Yes"), switch("OFF"), switch("perhaps"), switch("")],
            [Some(true), Some(false), None, None]
        );
    }
}
