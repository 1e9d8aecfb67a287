//! Errors of installations and removals.

use std::io;
use std::path::PathBuf;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The request is invalid.
    #[error("{0}")]
    Request(String),
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file could not be written, and is unchanged.
    #[error("cannot write {}, which is left as it is: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be edited safely.
    #[error("cannot make sense of {}, which is left as it is: {why}", path.display())]
    Garbled {
        /// The file.
        path: PathBuf,
        why: String,
    },
    /// Another runtime has this name already.
    #[error(
        "{} has a runtime {name:?} already, which starts {found:?}; choose another name with --runtime-name",
        path.display()
    )]
    Taken {
        /// The file.
        path: PathBuf,
        name: String,
        /// The program it starts.
        found: String,
    },
    /// A program that containers need is missing or does not work.
    #[error("{}: {why}", path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The engine rejects the new file.
    #[error("{program} refuses what {} would become, so it is left as it is: {said}", path.display())]
    Checker {
        /// The program that rejects it.
        program: &'static str,
        /// The file.
        path: PathBuf,
        /// Its message.
        said: String,
    },
    /// The file was changed since it was read.
    #[error("{} has changed since it was read and is left as it is; try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}
