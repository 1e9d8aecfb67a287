//! `--wait`: repeats a query until the agent answers, the task exists and its data has arrived.

use std::time::Duration;

use clap::Args;
use tokio::time::{Instant, sleep};

use super::args::NamespaceArgs;
use super::args::times::parse_duration;
use super::failure::Failure;
use super::resolve::{FoundTask, find_task};
use crate::client::Client;

/// The pauses between two queries: short for a program that has just been started, then twice as long each time.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How long `--wait` waits if no time is given.
const USUAL_PATIENCE: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(in crate::cli) struct WaitArgs {
    /// Wait for the agent, the task and its first data, at most this long [default with --wait: 30s]
    #[arg(
        long,
        value_name = "DUR",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "",
        value_parser = parse_patience
    )]
    wait: Option<Patience>,
}

/// The time of `--wait`.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Patience {
    Usual,
    AtMost(Duration),
}

fn parse_patience(text: &str) -> Result<Patience, String> {
    if text.is_empty() { Ok(Patience::Usual) } else { parse_duration(text).map(Patience::AtMost) }
}

impl WaitArgs {
    /// How long to wait; `None` without `--wait`. `words` are the command's other arguments without an option: a time among
    /// them was meant for `--wait`, which takes one only after `=` because it can stand before the task.
    pub(super) fn find_patience(&self, words: &[Option<&str>]) -> Result<Option<Duration>, Failure> {
        match self.wait {
            None => Ok(None),
            Some(Patience::AtMost(length)) => Ok(Some(length)),
            Some(Patience::Usual) => match words.iter().flatten().find(|word| is_meant_as_time(word)) {
                None => Ok(Some(USUAL_PATIENCE)),
                Some(time) => {
                    let unit = if time.ends_with(|last: char| last.is_ascii_digit()) { "s" } else { "" };
                    Err(Failure::usage_error("--wait takes its time after =")
                        .with_hint(format!("write --wait={time}{unit}")))
                }
            },
        }
    }
}

fn is_meant_as_time(word: &str) -> bool {
    word.bytes().all(|byte| byte.is_ascii_digit()) || parse_duration(word).is_ok()
}

/// Repeats `query` until its answer is complete, it fails for a reason that waiting does not change, or `patience` has passed. The
/// last answer or failure is returned. Without `patience` there is one query.
pub(super) async fn repeat_until_complete<T>(
    patience: Option<Duration>,
    mut query: impl AsyncFnMut() -> Result<T, Failure>,
    is_complete: impl Fn(&T) -> bool,
) -> Result<T, Failure> {
    let deadline = Instant::now() + patience.unwrap_or_default();
    let mut pause = FIRST_PAUSE;
    loop {
        let answer = query().await;
        let is_final = match &answer {
            Ok(answer) => is_complete(answer),
            Err(failure) => !failure.may_pass(),
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if is_final || left.is_zero() {
            return answer;
        }
        sleep(pause.min(left)).await;
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

/// Finds a task as [`find_task`] does. With `--wait`, waits until it has sent a datagram, even one that is rejected.
pub(super) async fn find_sending_task(
    client: &Client,
    of: &NamespaceArgs,
    name: &str,
    patience: Option<Duration>,
) -> Result<FoundTask, Failure> {
    let has_sent = |found: &FoundTask| found.task.totals.datagrams.received > 0;
    repeat_until_complete(patience, async || find_task(client, of, name).await, has_sent).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failure::code;

    const PATIENCE: Option<Duration> = Some(Duration::from_secs(30));

    #[test]
    fn a_time_that_does_not_follow_an_equals_sign_is_pointed_at() {
        let patience = |wait, words: &[Option<&str>]| WaitArgs { wait }.find_patience(words);
        let usual = Some(Patience::Usual);
        assert_eq!(patience(None, &[Some("5s")]).unwrap(), None);
        assert_eq!(patience(usual, &[Some("web.1"), None]).unwrap(), Some(USUAL_PATIENCE));
        let given = Some(Patience::AtMost(Duration::from_secs(5)));
        assert_eq!(patience(given, &[Some("1h")]).unwrap(), Some(Duration::from_secs(5)), "a task named 1h");
        for (word, written) in [("5s", "--wait=5s"), ("5", "--wait=5s"), ("2m", "--wait=2m")] {
            for words in [[Some(word), Some("web.1")], [Some("web.1"), Some(word)]] {
                let refused = format!("{:?}", patience(usual, &words).unwrap_err());
                assert!(refused.contains(written) && refused.contains("after ="), "{refused}");
            }
        }
    }

    /// Queries until a number of queries have failed with this code. Returns the outcome and the number of queries.
    async fn query_after(failures: u32, code: u8, patience: Option<Duration>) -> (Result<u32, Failure>, u32) {
        let mut queries = 0;
        let query = async || {
            queries += 1;
            if queries > failures { Ok(queries) } else { Err(Failure::new(code, "not yet")) }
        };
        let answer = repeat_until_complete(patience, query, |answer| *answer > failures + 1).await;
        (answer, queries)
    }

    #[tokio::test(start_paused = true)]
    async fn a_query_is_repeated_until_its_answer_is_complete() {
        let (answer, queries) = query_after(3, code::NO_TASK, PATIENCE).await;
        assert_eq!((answer.unwrap(), queries), (5, 5));
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_failure_is_returned_once_the_patience_has_passed() {
        let start = Instant::now();
        let (answer, queries) = query_after(u32::MAX - 1, code::NO_DATA, PATIENCE).await;
        assert!(answer.is_err());
        assert_eq!(start.elapsed(), Duration::from_secs(30));
        assert!((60..70).contains(&queries), "{queries} queries in 30 seconds");
    }

    #[tokio::test(start_paused = true)]
    async fn without_patience_and_for_a_failure_that_does_not_pass_there_is_one_query() {
        for (code, patience) in [(code::NO_TASK, None), (code::AMBIGUOUS, PATIENCE), (code::USAGE, PATIENCE)]
        {
            let (answer, queries) = query_after(3, code, patience).await;
            assert!(answer.is_err() && queries == 1, "{code}: {queries} queries");
        }
    }
}
