//! Which containers of a task lose data.

use crate::cli::documents::name;
use crate::wire::{ContainerDocument, Task};

/// The counts of the containers, the highest first. `None` for a task with one container, whose count is the task's.
pub(super) fn count_by_container(
    task: &Task,
    what: &str,
    count: impl Fn(&ContainerDocument) -> u64,
) -> Option<String> {
    let mut counts: Vec<(u64, &str)> =
        task.containers.iter().map(|container| (count(container), name(container))).collect();
    counts.retain(|(count, _)| *count > 0);
    counts.sort_by(|(a, first), (b, second)| b.cmp(a).then(first.cmp(second)));
    let listed: Vec<String> = counts.iter().map(|(count, name)| format!("{name} {count}")).collect();
    (task.containers.len() > 1 && !listed.is_empty())
        .then(|| format!("{what} by container: {}", listed.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::snapshots::sample_task;

    #[test]
    fn the_containers_that_lose_data_are_named_the_worst_first() {
        let mut task = sample_task("loader", "listening", 8);
        let dropped = |task: &Task| count_by_container(task, "dropped", |container| container.dropped);
        assert_eq!(dropped(&task), None, "the only one");
        for (id, count) in [("run-1", 0), ("run-2", 4072)] {
            let mut other = task.containers[0].clone();
            (other.reserved.container_id, other.dropped) = (id.to_owned(), count);
            task.containers.push(other);
        }
        assert_eq!(dropped(&task).unwrap(), "dropped by container: run-2 4072, a0123456789a 345");
    }
}
