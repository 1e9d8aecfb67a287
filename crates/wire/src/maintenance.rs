//! What only the admin socket and the descriptor socket answer.

use std::borrow::Cow;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tallyport_time::Timestamp;

use super::Word;

/// The answer of `POST /v1/config/reload`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReloadedDocument {
    /// Always true: a configuration that is refused is answered with an error.
    #[serde(default)]
    pub applied: bool,
    /// Settings that have changed and take effect at a restart.
    pub needs_restart: Vec<Word>,
}

/// A setting, in the answer of `GET /v1/config`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct SettingDocument {
    /// Its key in the configuration file.
    pub key: Word,
    /// Its value as written. Secrets are in files, of which this is the path.
    pub value: String,
    /// Where it was set: `default`, a file and a line, a variable, or a flag.
    pub origin: String,
    /// Whether a reload applies a changed value.
    pub reload: bool,
    /// When a changed value takes effect.
    pub takes_effect: Word,
}

/// The answer of `POST /v1/reconcile`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct ReconciledDocument {
    /// Containers whose processes were looked for.
    pub checked: usize,
    /// Containers whose processes had ended unnoticed.
    pub ended: Vec<String>,
    /// Lost containers that have their address again.
    pub back: Vec<String>,
    /// Containers that are still lost.
    pub lost: Vec<String>,
    /// Containers found running without an address.
    pub mute: Vec<String>,
    /// Whether the notes of the OCI wrapper could be read.
    pub notes_read: bool,
}

/// One line of `GET /v1/tasks/{task_id}/tail`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct TailedLine {
    /// When it arrived.
    pub at: Timestamp,
    /// The container that sent it.
    pub container_id: String,
    /// Its text; bytes that are not UTF-8 as `\xff`.
    pub line: String,
    /// The code of its rejection.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rejected: Option<Word>,
    /// Lines before it that the reader was too slow for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
const fn is_zero(n: &u64) -> bool {
    *n == 0
}

/// The request on the descriptor socket; the descriptors accompany it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Attachment<'a> {
    /// The container whose process they are of.
    pub attach: Cow<'a, str>,
}

/// The answer on the descriptor socket.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AttachmentAnswer {
    /// The status that the admin socket would answer.
    pub status: u16,
    /// A constant for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<Word>,
    /// Why it was refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The address of the container's socket, for a launcher that can open it where the agent cannot.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
}
