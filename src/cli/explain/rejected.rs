//! The lines of a task that were rejected last.

use crate::cli::units::format_elapsed;
use crate::model::Glob;
use crate::net::clock;
use crate::statsd::Rejected;
use crate::wire::{RejectedLineDocument, Task};

/// How many are shown.
const SHOWN: usize = 3;

pub(super) fn suggest_fix(code: &str) -> Option<String> {
    let advice = Rejected::ALL.iter().find(|known| known.as_str() == code)?.suggested_fix();
    Some(format!("{code}: {advice}"))
}

/// The lines that were rejected last, of this name if there is one, each with how often it is among them. The newest come first.
pub(super) fn find_recently_rejected<'t>(
    task: &'t Task,
    name: Option<&str>,
) -> Vec<(&'t RejectedLineDocument, usize)> {
    let glob = name.map(Glob::new);
    let is_of_name = |line: &RejectedLineDocument| {
        let given = line.line.as_deref().unwrap_or_default().split([':', '|']).next().unwrap_or_default();
        glob.as_ref().is_none_or(|glob| glob.is_match(given))
    };
    let mut found: Vec<(&RejectedLineDocument, usize)> = Vec::new();
    for line in task.recent_rejected.iter().rev().filter(|line| is_of_name(line)) {
        match found.iter_mut().find(|(known, _)| (&known.code, &known.line) == (&line.code, &line.line)) {
            Some((_, times)) => *times += 1,
            None => found.push((line, 1)),
        }
    }
    found.truncate(SHOWN);
    found
}

/// `None` for a line whose text only the admin socket shows.
pub(super) fn format_rejected(line: &RejectedLineDocument, times: usize) -> Option<String> {
    let ago = format_elapsed(clock::wall_time(), line.at);
    let times = if times > 1 { format!(" ({times} times)") } else { String::new() };
    Some(format!("{ago} ago, {}: {:?}{times}", line.code, line.line.as_ref()?))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::snapshots::sample_task;

    fn task_with(lines: &[(&str, Option<&str>)]) -> Task {
        let mut task = sample_task("web.1", "listening", 8);
        task.recent_rejected = lines
            .iter()
            .map(|(code, line)| {
                let document =
                    json!({"at": "2026-01-01T00:00:00Z", "code": code, "advice": "", "line": line});
                serde_json::from_value(document).unwrap()
            })
            .collect();
        task
    }

    #[test]
    fn lines_of_other_names_are_left_out_and_equal_ones_are_counted() {
        let task = task_with(&[
            ("invalid_value", Some("checkout.failed:oops|c")),
            ("missing_type", Some("cart:1")),
            ("invalid_value", Some("checkout.failed:oops|c")),
            ("invalid_value", Some("checkout.failed:no|c")),
            ("invalid_value", None),
        ]);
        let found = |name| {
            let found = find_recently_rejected(&task, name);
            found.iter().map(|(line, times)| (line.line.clone(), *times)).collect::<Vec<_>>()
        };
        let failed =
            [(Some("checkout.failed:no|c".to_owned()), 1), (Some("checkout.failed:oops|c".to_owned()), 2)];
        assert_eq!(found(Some("checkout.failed")), failed);
        assert_eq!(found(Some("checkout.*")), failed);
        assert_eq!(found(Some("checkout")), []);
        assert_eq!(found(None).len(), SHOWN);
        let (line, times) = find_recently_rejected(&task, Some("checkout.failed"))[1];
        assert!(
            format_rejected(line, times)
                .unwrap()
                .ends_with("invalid_value: \"checkout.failed:oops|c\" (2 times)")
        );
    }
}
