//! What doctor says of the guard, which keeps other processes from the sockets of containers on the host's network.

use super::containers::full_name;
use super::finding::{Finding, FindingStatus};
use crate::config::{Effect, Setting};
use crate::model::setting_name::setting_name;
use crate::wire::{ContainerDocument, NodeDocument};

const GUARD: Effect = Setting::effect_of("listeners.guard");
const CHECK: &str = "guard";

/// Checks whether other processes can send metrics in the name of containers on the host's network. One finding for the
/// node and all its containers, so that it is never said to work and to be missing.
pub(super) fn check_guard(node: &NodeDocument, containers: &[ContainerDocument]) -> Finding {
    let all = "every process of the host's network can send to containers there";
    match (&*node.guard, &node.guard_missing) {
        ("on", _) => check_unguarded(containers),
        ("off", _) => Finding::new(CHECK, FindingStatus::Ok, format!("off (listeners.guard); {all}")),
        (_, why) => {
            let why = why.as_deref().unwrap_or("the agent does not say why");
            Finding::new(CHECK, FindingStatus::Warning, format!("{all}: {why}"))
                .with_advice(format!(
                    "containers with a network of their own need none; if this is intended, set \"off\" for {} and {}",
                    setting_name!("listeners.guard"),
                    GUARD.remedy_text()
                ))
        }
    }
}

fn check_unguarded(containers: &[ContainerDocument]) -> Finding {
    let unguarded = containers.iter().filter_map(|container| {
        let why = container.origin_guard_missing.as_ref()?;
        Some(format!("{}: {why}", full_name(container)))
    });
    let unguarded: Vec<String> = unguarded.collect();
    let warning = |found: String| Finding::new(CHECK, FindingStatus::Warning, found);
    match unguarded.as_slice() {
        [] => Finding::new(
            CHECK,
            FindingStatus::Ok,
            "the kernel keeps others from containers on the host's network",
        ),
        [only] => warning(format!("on, but others on the host's network can send to {only}")),
        several => {
            let n = several.len();
            warning(format!("on, but others on the host's network can send to {n} containers"))
                .with_examples(unguarded)
        }
    }
}
