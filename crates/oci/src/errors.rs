//! Why a container gets no socket.

use std::io;
use std::path::PathBuf;

/// Why a container gets no socket, or a command no runtime.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// The runtime's own command line lacks something.
    #[error("the command line names no {0}")]
    CommandLine(&'static str),
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    /// A file could not be replaced; it is as it was.
    #[error("cannot write {}: {source}", path.display())]
    Write { path: PathBuf, source: io::Error },
    /// A file is not what it should be; it is left as it is.
    #[error("cannot make sense of {}, which is left as it is: {why}", path.display())]
    Garbled { path: PathBuf, why: String },
    /// The agent did not answer.
    #[error("no agent answers at {}: {source}", socket.display())]
    Unreachable { socket: PathBuf, source: io::Error },
    /// What came back is no answer of an agent's.
    #[error("{} does not answer as an agent does: {why}", socket.display())]
    Answer { socket: PathBuf, why: String },
    /// A user who is not trusted listens at the agent's socket.
    #[error(
        "user {user} listens at {}; only root, the user of this process and agent_user are trusted. If that is the agent, set \
         agent_user in /etc/tallyport/oci.toml to its user",
        socket.display()
    )]
    Stranger { socket: PathBuf, user: u32 },
    /// The answer contains something that an agent never sends.
    #[error("refused the whole answer from {}: {what}", socket.display())]
    Offer { socket: PathBuf, what: String },
    /// The settings cannot be used.
    #[error("{why}")]
    Settings { why: String },
    /// The agent said no.
    #[error("the agent refuses ({status} {code}): {message}")]
    Refused { status: u16, code: String, message: String },
    /// No runtime of this name.
    #[error(
        "there is no runtime {name:?}; name one in /etc/tallyport/oci.toml (runtime = \"/usr/bin/runc\") or in \
         TALLYPORT_OCI_RUNTIME"
    )]
    NoRuntime { name: String },
    /// The runtime is this program.
    #[error(
        "{} is tallyport-oci itself; name the real runtime in /etc/tallyport/oci.toml or in TALLYPORT_OCI_RUNTIME",
        path.display()
    )]
    Myself { path: PathBuf },
    /// The runtime called this program again.
    #[error("{} leads back to tallyport-oci; name the real runtime in /etc/tallyport/oci.toml", path.display())]
    Loop { path: PathBuf },
    /// The runtime did not start.
    #[error("cannot start {}: {source}", path.display())]
    Start { path: PathBuf, source: io::Error },
    /// The container has only a Unix socket, which cannot be mounted.
    #[error("its Unix socket cannot be mounted, and it has no other socket: {why}")]
    Mount { why: String },
    /// A container that may not start without a socket.
    #[error("container {id:?} does not start without a socket (fail_closed): {source}")]
    Closed { id: String, source: Box<Error> },
}
