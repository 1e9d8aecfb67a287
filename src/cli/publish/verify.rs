//! `tallyport publish verify`: whether a destination holds what was sent.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::process::ExitCode;

use super::call;
use crate::cli::args::{OutputFormat, PublishVerifyArgs};
use crate::cli::encoding::encode_query;
use crate::cli::failure::{Failure, code};
use crate::cli::output::Console;
use crate::cli::resolve::parse_response;
use crate::client::Client;
use crate::wire::{PublishedDifferenceDocument, PublisherVerifyDocument};

/// The most differences that are kept of all parts.
const MOST_LISTED: usize = 1000;

pub(in crate::cli) async fn verify_publisher(
    args: &PublishVerifyArgs,
    out: &mut Console,
) -> Result<ExitCode, Failure> {
    let client = args.call.admin.build_client();
    let verified = verify_all_parts(&client, &args.call.name, &args.since).await?;
    match args.call.output.selected_format() {
        OutputFormat::Json => out.write_json(&verified)?,
        OutputFormat::Ndjson => out.write_ndjson([&verified])?,
        OutputFormat::Table => {
            for difference in &verified.differences {
                out.write_line(describe_difference(difference))?;
            }
            for line in describe_result(&verified) {
                out.write_line(line)?;
            }
        }
    }
    Ok(if verified.outcome == "ok" { ExitCode::SUCCESS } else { ExitCode::from(code::ERROR) })
}

/// Has all series compared, one part after the other, over the rounds of the first part.
async fn verify_all_parts(
    client: &Client,
    name: &str,
    since: &str,
) -> Result<PublisherVerifyDocument, Failure> {
    let mut all = verify_part(client, name, &[("since", since)]).await?;
    let (Some(from), Some(to)) = (all.from, all.to) else { return Ok(all) };
    let (from, to, parts) = (from.to_string(), to.to_string(), all.parts.to_string());
    for part in 1..all.parts {
        if !matches!(&*all.outcome, "ok" | "differs") {
            break;
        }
        let part = part.to_string();
        let query = [
            ("since", from.as_str()),
            ("until", to.as_str()),
            ("part", part.as_str()),
            ("parts", parts.as_str()),
        ];
        add_part(&mut all, verify_part(client, name, &query).await?);
    }
    Ok(all)
}

/// Has the first part of the series compared.
pub(in crate::cli) async fn verify_sample(
    client: &Client,
    name: &str,
    since: &str,
) -> Result<PublisherVerifyDocument, Failure> {
    verify_part(client, name, &[("since", since)]).await
}

async fn verify_part(
    client: &Client,
    name: &str,
    query: &[(&str, &str)],
) -> Result<PublisherVerifyDocument, Failure> {
    let query = encode_query(query.iter().copied());
    parse_response(&call(client, "POST", name, &format!("verify{query}")).await?)
}

fn add_part(all: &mut PublisherVerifyDocument, part: PublisherVerifyDocument) {
    // What was found in other parts holds, but a part that could not be compared leaves the result open.
    if part.outcome != "ok" && (part.outcome != "differs" || all.outcome == "ok") {
        all.outcome = Cow::Owned(part.outcome.into_owned());
    }
    all.answer = part.answer.or_else(|| all.answer.take());
    // The oldest rounds may have been given up meanwhile.
    all.from = all.from.max(part.from);
    all.rounds = all.rounds.min(part.rounds.max(1));
    all.series += part.series;
    all.late += part.late;
    all.differing += part.differing;
    all.differences.extend(part.differences);
    all.differences.truncate(MOST_LISTED);
}

/// A difference on one line, such as `hits{task="web.1"} points: 30 expected, 29 found`.
pub(in crate::cli) fn describe_difference(difference: &PublishedDifferenceDocument) -> String {
    let PublishedDifferenceDocument { name, labels, what, expected, found } = difference;
    let mut text = name.clone();
    for (index, (key, value)) in labels.iter().enumerate() {
        let before = if index == 0 { "{" } else { "," };
        // Writing to memory does not fail.
        let _infallible = write!(text, "{before}{key}={value:?}");
    }
    if !labels.is_empty() {
        text.push('}');
    }
    let found = found.map_or("none".to_owned(), |found| found.to_string());
    format!("{text} {what}: {expected} expected, {found} found")
}

/// What was compared, and with which result.
pub(in crate::cli) fn describe_result(verified: &PublisherVerifyDocument) -> Vec<String> {
    let PublisherVerifyDocument { series, rounds, differing, late, .. } = verified;
    let mut lines = Vec::new();
    let over = match (verified.from, verified.to) {
        (Some(from), Some(to)) => format!("over {rounds} rounds, from {from} to {to}"),
        _ => String::new(),
    };
    match &*verified.outcome {
        "ok" => lines.push(format!("{series} series are the same {over}")),
        "differs" => lines.push(format!("{differing} of {series} series differ {over}")),
        "failed" if *series > 0 => {
            lines.push(format!("not all series were compared, {differing} of {series} differ"));
        }
        "failed" | "unsupported" => lines.push("nothing was compared".to_owned()),
        _ => {}
    }
    if *late > 0 {
        lines.push(format!("{late} series were not compared, because late samples changed them"));
    }
    lines.extend(verified.not_compared.iter().chain(&verified.answer).cloned());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(outcome: &'static str, series: u64, differing: u64) -> PublisherVerifyDocument {
        let difference = PublishedDifferenceDocument {
            name: "hits".to_owned(),
            labels: [("route".to_owned(), "/\"pay".to_owned()), ("task".to_owned(), "web".to_owned())].into(),
            what: "points".into(),
            expected: 30.0,
            found: Some(29.5),
        };
        PublisherVerifyDocument {
            outcome: outcome.into(),
            answer: (outcome == "failed").then(|| "no answer".to_owned()),
            from: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            to: Some("2026-01-01T00:05:00Z".parse().unwrap()),
            not_compared: None,
            rounds: 30,
            part: 0,
            parts: 3,
            series,
            late: 0,
            differing,
            differences: vec![difference; usize::try_from(differing).unwrap()],
        }
    }

    #[test]
    fn parts_are_added_up_and_the_worst_one_decides() {
        let mut all = part("ok", 100, 0);
        add_part(&mut all, part("differs", 50, 2));
        add_part(&mut all, part("ok", 7, 0));
        assert_eq!((&*all.outcome, all.series, all.differing, all.differences.len()), ("differs", 157, 2, 2));
        assert_eq!(
            describe_result(&all),
            ["2 of 157 series differ over 30 rounds, from 2026-01-01T00:00:00Z to 2026-01-01T00:05:00Z"]
        );
        all.not_compared = Some("nothing before".to_owned());
        assert_eq!(describe_result(&all)[1..], ["nothing before"]);
        all.not_compared = None;
        add_part(&mut all, part("failed", 0, 0));
        assert_eq!(describe_result(&all), ["not all series were compared, 2 of 157 differ", "no answer"]);
        add_part(&mut all, part("ok", 1, 0));
        assert_eq!(all.outcome, "failed");
    }

    #[test]
    fn a_difference_is_one_line() {
        let [difference] = &part("differs", 1, 1).differences[..] else { unreachable!() };
        assert_eq!(
            describe_difference(difference),
            "hits{route=\"/\\\"pay\",task=\"web\"} points: 30 expected, 29.5 found"
        );
        let none = PublishedDifferenceDocument { labels: [].into(), found: None, ..difference.clone() };
        assert_eq!(describe_difference(&none), "hits points: 30 expected, none found");
    }
}
