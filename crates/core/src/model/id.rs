//! The origin of samples: container, generation, task, labels.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The container's labels, from the runtime or the launcher.
pub type Labels = BTreeMap<String, String>;

/// Longest container id, in bytes. Runtimes use 64; Mesos nests a few of those.
pub const MAX_CONTAINER_ID: usize = 256;
/// Longest task id, in bytes.
pub const MAX_TASK_ID: usize = 512;

/// Why an ID was rejected.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IdError {
    /// The ID is empty.
    #[error("is empty")]
    Empty,
    /// Longer than [`MAX_CONTAINER_ID`] or [`MAX_TASK_ID`].
    #[error("is {length} bytes long, at most {most} are allowed")]
    TooLong {
        /// Bytes given.
        length: usize,
        /// Bytes allowed.
        most: usize,
    },
    /// A container ID is used in file names; `/`, `.` or `..` would lead out of the directory.
    #[error("would lead out of a directory")]
    Climbs,
    /// Control characters end up in logs and terminals.
    #[error("has a control character")]
    Control,
}

fn validate_id(id: &str, most: usize) -> Result<(), IdError> {
    if id.is_empty() {
        return Err(IdError::Empty);
    }
    if id.len() > most {
        return Err(IdError::TooLong { length: id.len(), most });
    }
    if id.chars().any(char::is_control) {
        return Err(IdError::Control);
    }
    Ok(())
}

/// A container's id as its runtime knows it (OCI). Not empty, at most 256 bytes, safe as a file name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(Arc<str>);

/// The unit that users query: one or more containers. Any characters except control characters, at most 512 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TaskId(Arc<str>);

impl ContainerId {
    /// Checks and takes an id.
    ///
    /// # Errors
    /// When it is empty, too long, has control characters, or could lead out of a directory.
    pub fn new(id: &str) -> Result<Self, IdError> {
        validate_id(id, MAX_CONTAINER_ID)?;
        if id.contains('/') || id == "." || id == ".." {
            return Err(IdError::Climbs);
        }
        Ok(Self(id.into()))
    }
}

impl TaskId {
    /// Checks and takes an id.
    ///
    /// # Errors
    /// When it is empty, too long or has control characters.
    pub fn new(id: &str) -> Result<Self, IdError> {
        validate_id(id, MAX_TASK_ID)?;
        Ok(Self(id.into()))
    }
}

/// A container without a task ID is its own task. This cannot fail, because the limits of task IDs are wider.
impl From<&ContainerId> for TaskId {
    fn from(id: &ContainerId) -> Self {
        Self(Arc::clone(&id.0))
    }
}

macro_rules! text_id {
    ($name:ident) => {
        impl $name {
            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(id: String) -> Result<Self, IdError> {
                Self::new(&id)
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}
text_id!(ContainerId);
text_id!(TaskId);

/// Counts the containers that have used an ID, from 1: the same ID may be reused for another container.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Generation(pub u32);

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One reservation: a container in one generation. Not reused while the agent runs.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Allocation(pub u64);

impl fmt::Display for Allocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The origin of samples, determined by the socket on which they arrive.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Origin {
    /// The container.
    pub container_id: ContainerId,
    /// Its generation.
    pub generation: Generation,
    /// The task it belongs to.
    pub task_id: TaskId,
    /// The labels from its runtime or launcher.
    pub labels: Labels,
}

/// Keys that identify the origin of a sample. A client's tag with such a key could forge it, so it is renamed to
/// `client_<key>` and counted.
pub const ORIGIN_KEYS: [&str; 4] = ["container_id", "generation", "node", "task_id"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_id_that_would_climb_is_refused() {
        for id in ["../../../etc/shadow", "/etc/shadow", "a/b", ".", ".."] {
            assert_eq!(ContainerId::new(id), Err(IdError::Climbs), "{id}");
        }
        assert!(ContainerId::new("c-42.abc:def").is_ok());
    }

    #[test]
    fn an_empty_an_endless_and_a_control_character_id_are_refused() {
        assert_eq!(ContainerId::new(""), Err(IdError::Empty));
        assert_eq!(ContainerId::new(&"x".repeat(257)), Err(IdError::TooLong { length: 257, most: 256 }));
        assert!(ContainerId::new(&"x".repeat(256)).is_ok());
        assert_eq!(TaskId::new(&"x".repeat(513)), Err(IdError::TooLong { length: 513, most: 512 }));
        assert_eq!(ContainerId::new("a\u{7}b"), Err(IdError::Control));
        assert_eq!(ContainerId::new("a\0b"), Err(IdError::Control));
    }

    #[test]
    fn a_task_id_may_have_odd_characters() {
        for id in ["/prod/web", "web 1", "täsk#%?&", "..", "日本"] {
            assert_eq!(TaskId::new(id).unwrap().as_str(), id);
        }
    }
}
