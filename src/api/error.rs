//! Why a request was not answered: a status, a code for programs and a sentence for people.

use std::time::Duration;

use crate::containers::{AttachError, HandleError, ProcessError, ReserveError};
use crate::model::IdError;
use crate::query;
use crate::shard::ShardGone;
use crate::store::Expired;
use crate::wire::Refusal;

/// Why a request was not answered.
#[derive(Clone, PartialEq, Debug)]
pub struct ApiError {
    /// The HTTP status.
    pub status: u16,
    /// For programs; stable.
    pub code: &'static str,
    /// For people; includes the remedy where there is one.
    pub message: String,
    /// Similar names, nearest first.
    pub nearest: Vec<String>,
    /// The oldest cursor that can still be followed.
    pub oldest: Option<String>,
}

impl ApiError {
    fn new(status: u16, code: &'static str, message: String) -> Self {
        Self { status, code, message, nearest: Vec::new(), oldest: None }
    }

    /// A query parameter with an invalid value.
    #[must_use]
    pub fn bad_parameter(key: &str, value: &str, why: &str) -> Self {
        Self::new(400, "bad_parameter", format!("{key} = {value:?} {why}"))
    }

    /// A body that cannot be read.
    #[must_use]
    pub fn bad_body(why: &str) -> Self {
        Self::new(400, "bad_body", format!("the body cannot be read: {why}"))
    }

    /// Descriptors of the wrong kind or number.
    #[must_use]
    pub fn bad_descriptors(error: &HandleError) -> Self {
        Self::new(400, "bad_descriptors", error.to_string())
    }

    /// A body that is too long.
    #[must_use]
    pub fn body_too_long(most: usize) -> Self {
        Self::new(413, "body_too_long", format!("the body is longer than {most} bytes"))
    }

    /// An id that no container or task can have.
    #[must_use]
    pub fn bad_id(what: &str, error: IdError) -> Self {
        Self::new(400, "bad_id", format!("{what} {error}"))
    }

    /// A task that is not on this node.
    #[must_use]
    pub fn unknown_task(id: &str, nearest: Vec<String>) -> Self {
        let hint = match nearest.first() {
            Some(first) => format!("; did you mean {first:?}?"),
            None => String::new(),
        };
        Self {
            nearest,
            ..Self::new(404, "unknown_task", format!("there is no task {id:?} on this node{hint}"))
        }
    }

    /// A publisher that is not configured.
    #[must_use]
    pub fn unknown_publisher(name: &str) -> Self {
        Self::new(
            404,
            "unknown_publisher",
            format!("there is no publisher {name:?}; see `tallyport publish list`"),
        )
    }

    /// Dead letters that cannot be read.
    #[must_use]
    pub fn unreadable_letters(name: &str, error: &std::io::Error) -> Self {
        Self::new(500, "unreadable", format!("the dead letters of {name:?} cannot be read: {error}"))
    }

    /// A container that is not on this node.
    #[must_use]
    pub fn unknown_container(id: &str, nearest: Vec<String>) -> Self {
        Self {
            nearest,
            ..Self::new(404, "unknown_container", format!("there is no container {id:?} on this node"))
        }
    }

    /// A route that does not exist.
    #[must_use]
    pub fn unknown_route() -> Self {
        Self::new(404, "unknown_route", "there is no such route; /v1/openapi.json lists them all".to_owned())
    }

    /// A route that exists, for other methods.
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self::new(405, "method_not_allowed", "this route does not take this method".to_owned())
    }

    /// A request for another host.
    #[must_use]
    pub fn misdirected_request(host: &str) -> Self {
        Self::new(
            421,
            "misdirected",
            format!(
                "this agent does not answer to {host:?}; http.hosts names what else it is called than localhost"
            ),
        )
    }

    /// A request without a token.
    #[must_use]
    pub fn no_token() -> Self {
        Self::new(
            401,
            "no_token",
            "this agent wants a token: send \"Authorization: Bearer TOKEN\"; commands take it from --token-file or \
             TALLYPORT_TOKEN"
                .to_owned(),
        )
    }

    /// A request with an unknown token.
    #[must_use]
    pub fn unknown_token() -> Self {
        Self::new(401, "unknown_token", "this token is not one of those that this agent takes".to_owned())
    }

    /// A body that did not come in time.
    #[must_use]
    pub fn slow_body(within: Duration) -> Self {
        let seconds = within.as_secs();
        Self::new(408, "slow_body", format!("the body did not arrive within {seconds} s; send it at once"))
    }

    /// A request whose answer did not begin in time.
    #[must_use]
    pub fn deadline_exceeded(within: Duration) -> Self {
        let seconds = within.as_secs();
        Self::new(
            503,
            "deadline",
            format!(
                "the answer did not begin within {seconds} s; ask again in a few seconds, and run `tallyport doctor` if it happens again"
            ),
        )
    }

    /// A configuration that was refused.
    #[must_use]
    pub fn bad_configuration(why: &str) -> Self {
        Self::new(
            400,
            "bad_configuration",
            format!("the configuration is refused, the old one stays:\n{why}"),
        )
    }

    /// A request that got no builder in time.
    #[must_use]
    pub fn too_many_requests() -> Self {
        Self::new(
            429,
            "busy",
            "too many answers are being built; ask again in a few seconds, less often, or for fewer series"
                .to_owned(),
        )
    }

    /// An answer that took too long.
    #[must_use]
    pub fn unfinished_response() -> Self {
        Self::new(
            503,
            "unfinished",
            "the answer was not finished in time; ask for fewer series, fewer windows, or with fewer patterns".to_owned(),
        )
    }

    /// The agent is ending.
    #[must_use]
    pub fn shutting_down() -> Self {
        Self::new(503, "ending", "the agent is shutting down".to_owned())
    }
}

impl From<ApiError> for Refusal {
    fn from(ApiError { code, message, nearest, oldest, .. }: ApiError) -> Self {
        Self { code: code.into(), message, nearest, oldest }
    }
}

impl From<query::Error> for ApiError {
    fn from(error: query::Error) -> Self {
        let (status, code) = match error {
            query::Error::UnknownParameter { .. } => (400, "unknown_parameter"),
            query::Error::BadParameter { .. } | query::Error::TooManyFilters { .. } => (400, "bad_parameter"),
            query::Error::TooManyRecords { .. } => (400, "too_many_records"),
            query::Error::ArchiveOff { .. } => (400, "archive_off"),
            query::Error::Archive(_) => (503, "archive"),
            query::Error::Expired(expired) => return expired.into(),
            query::Error::Shard(gone) => return gone.into(),
            query::Error::Unfinished => return Self::unfinished_response(),
        };
        Self::new(status, code, error.to_string())
    }
}

impl From<ShardGone> for ApiError {
    fn from(gone: ShardGone) -> Self {
        Self::new(503, "shard_gone", format!("{gone}; the agent is ending or has failed"))
    }
}

impl From<Expired> for ApiError {
    fn from(expired: Expired) -> Self {
        let message =
            "records after this cursor are gone; what lies between is lost to you, go on from the oldest";
        Self {
            oldest: Some(expired.oldest.to_string()),
            ..Self::new(410, "expired_cursor", message.to_owned())
        }
    }
}

impl From<&ReserveError> for ApiError {
    fn from(error: &ReserveError) -> Self {
        let (status, code) = match error {
            // Routes answer "no content"; this is for other callers.
            ReserveError::OptedOut { .. } => (409, "opted_out"),
            ReserveError::Conflict { .. } => (409, "conflict"),
            ReserveError::AddressTaken { .. } => (409, "address_taken"),
            ReserveError::NotANamespace(_) => (400, "not_a_namespace"),
            ReserveError::Enter { .. } => (503, "cannot_enter"),
            ReserveError::Process(error) => code_of(error),
            ReserveError::Full { .. } => (503, "too_many_containers"),
            ReserveError::NoAddress => (503, "no_address"),
            ReserveError::Socket { .. } | ReserveError::Unix { .. } | ReserveError::NoDescriptors { .. } => {
                (503, "no_socket")
            }
            ReserveError::Shard(_) => (503, "shard_gone"),
            ReserveError::Ending => (503, "ending"),
        };
        Self::new(status, code, error.to_string())
    }
}

fn code_of(error: &ProcessError) -> (u16, &'static str) {
    match error {
        ProcessError::NoProcess { .. } => (400, "no_such_process"),
        ProcessError::Recycled { .. } | ProcessError::Older { .. } => (409, "another_process"),
        ProcessError::AnotherNamespace { .. }
        | ProcessError::SharedNamespace { .. }
        | ProcessError::Occupied { .. } => (409, "another_namespace"),
        ProcessError::Watch { .. } => (503, "cannot_watch"),
        ProcessError::Hidden { .. } => (503, "cannot_enter"),
    }
}

impl From<&AttachError> for ApiError {
    fn from(error: &AttachError) -> Self {
        let (status, code) = match error {
            AttachError::Unknown { .. } => (404, "unknown_container"),
            AttachError::Ended { .. } => (409, "ended"),
            AttachError::Another { .. } => (409, "conflict"),
            AttachError::Process(error) => code_of(error),
            AttachError::Enter { .. } => (503, "cannot_enter"),
            AttachError::Astray { .. } => (400, "bad_descriptors"),
            AttachError::Shard(_) => (503, "shard_gone"),
            AttachError::Ending => (503, "ending"),
        };
        Self::new(status, code, error.to_string())
    }
}
