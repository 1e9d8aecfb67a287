//! What a pod says about its containers.

use super::messages::{NriContainer, PodSandbox};
use crate::identity::annotation;

/// What is said for a container: of it alone, or of its whole pod.
pub(super) fn find_annotation<'p>(
    pod: &'p PodSandbox,
    container: &NriContainer,
    key: &str,
) -> Option<&'p str> {
    annotation::find(|key| pod.annotations.get(key).map(String::as_str), &container.name, key)
}
