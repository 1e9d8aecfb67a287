//! Why a query has no answer.

use crate::shard::ShardGone;
use crate::store::Expired;

/// Why a query has no answer.
#[derive(Clone, PartialEq, Debug, thiserror::Error)]
pub enum Error {
    /// A key that the query does not have.
    #[error("there is no parameter {key:?}{hint}")]
    UnknownParameter {
        /// The key.
        key: String,
        /// The nearest key that it has, and all of them.
        hint: String,
    },
    /// A value that cannot be read.
    #[error("{key} = {value:?} {why}")]
    BadParameter {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is wrong with it.
        why: String,
    },
    /// More filters than a query may have.
    #[error("a query may have {most} filters; use fewer, or a pattern for several")]
    TooManyFilters {
        /// The limit.
        most: usize,
    },
    /// The records after a cursor are gone.
    #[error("records after this cursor are gone; the oldest that can be followed is {}", .0.oldest)]
    Expired(Expired),
    /// A shard that has to be asked has ended.
    #[error(transparent)]
    Shard(#[from] ShardGone),
    /// Its budget was used up.
    #[error("the answer was not finished in time")]
    Unfinished,
}

impl Error {
    /// A key that the query does not have.
    #[must_use]
    pub fn unknown_parameter(key: &str, known: &[&str]) -> Self {
        let likeness =
            |a: &&&str, b: &&&str| strsim::jaro_winkler(a, key).total_cmp(&strsim::jaro_winkler(b, key));
        let nearest = known.iter().max_by(likeness);
        let hint = nearest.map_or_else(
            || "; this route takes none".to_owned(),
            |nearest| format!("; did you mean {nearest:?}? It takes {}", known.join(", ")),
        );
        Self::UnknownParameter { key: key.to_owned(), hint }
    }

    /// A value that cannot be read.
    #[must_use]
    pub fn bad_parameter(key: &str, value: &str, why: &str) -> Self {
        Self::BadParameter { key: key.to_owned(), value: value.to_owned(), why: why.to_owned() }
    }
}

impl From<Expired> for Error {
    fn from(expired: Expired) -> Self {
        Self::Expired(expired)
    }
}
