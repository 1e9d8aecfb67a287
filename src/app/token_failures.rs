//! Counts requests without a valid token, and logs them at most once a minute.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::api::ApiError;
use crate::net::http::Peer;
use crate::stats::{Stats, TokenFailure};

/// Shortest time between two log lines, so that a client that guesses tokens cannot fill the disk.
const QUIET: Duration = Duration::from_mins(1);

/// Refused requests since the last log line.
#[derive(Debug, Default)]
pub(super) struct TokenFailures(Mutex<PendingFailures>);

#[derive(Debug, Default)]
struct PendingFailures {
    logged: Option<Instant>,
    missing: u64,
    unknown: u64,
}

impl TokenFailures {
    /// Counts a refused request if its token was the reason.
    pub(super) fn count_refusal(&self, error: &ApiError, peer: Option<Peer>, stats: &Stats) {
        let failure = match error.code {
            "no_token" => TokenFailure::Missing,
            "unknown_token" => TokenFailure::Unknown,
            _ => return,
        };
        stats.count_token_failure(failure);
        let Some((missing, unknown)) = self.count_failure(failure, Instant::now()) else { return };
        let last = peer.map(|peer| peer.to_string());
        tracing::warn!(
            unknown,
            missing,
            last,
            "refused requests without a valid token; configure scrapers with a token from http.tokens"
        );
    }

    /// Counts a failure; the numbers of missing and unknown tokens since the last log line, where the next one is due.
    fn count_failure(&self, failure: TokenFailure, now: Instant) -> Option<(u64, u64)> {
        let mut pending = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match failure {
            TokenFailure::Missing => pending.missing += 1,
            TokenFailure::Unknown => pending.unknown += 1,
        }
        if pending.logged.is_some_and(|logged| now.saturating_duration_since(logged) < QUIET) {
            return None;
        }
        let (missing, unknown) = (pending.missing, pending.unknown);
        *pending = PendingFailures { logged: Some(now), ..PendingFailures::default() };
        Some((missing, unknown))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_has_one_line_a_minute_with_all_that_were_refused_since() {
        let (failures, start) = (TokenFailures::default(), Instant::now());
        assert_eq!(failures.count_failure(TokenFailure::Unknown, start), Some((0, 1)));
        for n in 1..60 {
            let failure = if n < 20 { TokenFailure::Missing } else { TokenFailure::Unknown };
            assert_eq!(failures.count_failure(failure, start + Duration::from_secs(n)), None);
        }
        let later = start + QUIET;
        assert_eq!(failures.count_failure(TokenFailure::Missing, later), Some((20, 40)));
        assert_eq!(failures.count_failure(TokenFailure::Missing, later), None);
    }
}
