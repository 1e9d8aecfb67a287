//! Why nothing was changed.

use std::io;
use std::path::PathBuf;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was asked for makes no sense.
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
    /// A file could not be written; it is as it was.
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
    /// The runtime's name is somebody else's.
    #[error(
        "{} has a runtime {name:?} already, which starts {found:?}; choose another name with --runtime-name",
        path.display()
    )]
    Taken {
        /// The file.
        path: PathBuf,
        name: String,
        /// What it starts.
        found: String,
    },
    /// A program that containers would need is not there.
    #[error("{}: {why}", path.display())]
    Program {
        /// The program.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Whoever reads the file does not want it.
    #[error("{program} refuses what {} would become, so it is left as it is: {said}", path.display())]
    Checker {
        /// Who refuses it.
        program: &'static str,
        /// The file.
        path: PathBuf,
        /// What it says.
        said: String,
    },
    /// Somebody else wrote the file in between.
    #[error("{} was changed by somebody else in this moment and is left as it is; try again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
}
