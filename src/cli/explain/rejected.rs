//! The lines of a task that were rejected last.

use crate::cli::units::format_elapsed;
use crate::model::Glob;
use crate::net::clock;
use crate::statsd::{Rejected, has_written_name};
use crate::wire::{RejectedLineDocument, Task};

/// How many are shown, if there are no more codes.
const SHOWN: usize = 3;

pub(super) fn suggest_fix(code: &str) -> Option<String> {
    let advice = Rejected::ALL.iter().find(|known| known.as_str() == code)?.suggested_fix();
    Some(format!("{code}: {advice}"))
}

/// The lines that were rejected last, of this name if there is one, each with how often it is among them. The newest come
/// first, but one of each code before several of one.
pub(in crate::cli) fn find_recently_rejected<'t>(
    task: &'t Task,
    name: Option<&str>,
) -> Vec<(&'t RejectedLineDocument, usize)> {
    let glob = name.map(Glob::new);
    let is_of_name = |line: &RejectedLineDocument| {
        let text = line.line.as_deref().unwrap_or_default();
        glob.as_ref().is_none_or(|glob| has_written_name(text.as_bytes(), |name| glob.is_match(name)))
    };
    let mut found: Vec<(&RejectedLineDocument, usize)> = Vec::new();
    for line in task.recent_rejected.iter().rev().filter(|line| is_of_name(line)) {
        match found.iter_mut().find(|(known, _)| (&known.code, &known.line) == (&line.code, &line.line)) {
            Some((_, times)) => *times += 1,
            None => found.push((line, 1)),
        }
    }
    let mut codes: Vec<&str> = Vec::new();
    let (mut first_of_code, more): (Vec<_>, Vec<_>) = found.into_iter().partition(|(line, _)| {
        let is_first = !codes.contains(&&*line.code);
        codes.extend(is_first.then_some(&*line.code));
        is_first
    });
    let room = SHOWN.saturating_sub(first_of_code.len());
    first_of_code.extend(more.into_iter().take(room));
    first_of_code
}

/// `None` for a line whose text only the admin socket shows.
pub(super) fn format_rejected(line: &RejectedLineDocument, times: usize) -> Option<String> {
    let ago = format_elapsed(clock::wall_time(), line.at);
    let times = if times > 1 { format!(" ({times} times)") } else { String::new() };
    // Not as a literal: in it, the backslash of a byte that is no text would be doubled.
    Some(format!("{ago} ago, {}: \"{}\"{times}", line.code, line.line.as_ref()?))
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
        assert_eq!(
            found(None),
            [(None, 1), (Some("cart:1".to_owned()), 1), (Some("checkout.failed:no|c".to_owned()), 1),]
        );
        let (line, times) = find_recently_rejected(&task, Some("checkout.failed"))[1];
        assert!(
            format_rejected(line, times)
                .unwrap()
                .ends_with("invalid_value: \"checkout.failed:oops|c\" (2 times)")
        );
    }

    #[test]
    fn a_line_of_every_code_is_shown_before_a_second_one_of_the_same() {
        let mut lines = vec![
            ("missing_value", Some("cart.size=3|g")),
            ("unknown_type", Some("a:1|q")),
            ("empty_name", Some(":1|c")),
            ("missing_type", Some("a:1")),
        ];
        lines.extend([("invalid_value", Some("a:x|c")), ("invalid_value", Some(r"a:\xff|c"))]);
        let task = task_with(&lines);
        let codes: Vec<_> =
            find_recently_rejected(&task, None).iter().map(|(line, _)| line.code.to_string()).collect();
        assert_eq!(codes, ["invalid_value", "missing_type", "empty_name", "unknown_type", "missing_value"]);
        let (line, times) = find_recently_rejected(&task, None)[0];
        assert!(format_rejected(line, times).unwrap().ends_with(r#"invalid_value: "a:\xff|c""#));
    }

    #[test]
    fn a_line_without_a_colon_is_found_by_the_name_that_was_meant() {
        let task = task_with(&[("missing_value", Some("cart.size=3|g"))]);
        for name in ["cart.size", "cart*", "*size"] {
            assert_eq!(find_recently_rejected(&task, Some(name)).len(), 1, "{name}");
        }
        assert!(find_recently_rejected(&task, Some("cart")).is_empty());
    }
}
