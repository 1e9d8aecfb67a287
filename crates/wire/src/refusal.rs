//! The body of every answer that is an error.

use serde::{Deserialize, Serialize};

use super::Word;

/// Why a request was refused.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Refusal {
    /// A constant for programs, such as `unknown_task`.
    #[serde(default)]
    pub code: Word,
    /// The reason and, where there is one, a remedy.
    pub message: String,
    /// Ids similar to an unknown one, the most similar first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<String>,
    /// The oldest cursor that can be followed, where the requested one has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
}
