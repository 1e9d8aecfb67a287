//! Why listeners, or one of them, cannot be guarded.

use std::io;

use crate::cgroup::{GroupError, HierarchyError};

/// Why listeners cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The feature `guard` of this crate is off.
    #[error("this program was built without the guard (cargo feature guard)")]
    NotBuiltIn,
    /// There is no hierarchy of control groups to identify containers by.
    #[error(transparent)]
    Hierarchy(#[from] HierarchyError),
    /// A kernel operation failed.
    #[error("cannot {what}: {source}{}", error_hint(source))]
    Kernel {
        /// What.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel rejects a program.
    #[error("the kernel refuses the program {name}: {source}{}{log}", if log.is_empty() { error_hint(source) } else { ": " })]
    Program {
        /// The program.
        name: &'static str,
        /// The error of the system call.
        source: io::Error,
        /// The verifier's log.
        log: String,
    },
}

/// Why one listener cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub enum Unguarded {
    /// It can be reached from other machines and namespaces, whose datagrams bypass the guard.
    #[error("its address is not a loopback address")]
    Reachable,
    /// Its container cannot be distinguished from others.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The map is full, or the kernel rejects the entry.
    #[error("the kernel rejects the map entry: {0}")]
    Entry(io::Error),
    /// The connected sockets cannot be listed.
    #[error("the kernel cannot list the sockets connected to its address: {0}")]
    Senders(io::Error),
    /// Other processes may be able to send already: the kernel does not run the program for connected sockets again.
    #[error("{sockets} sockets of others were connected to its address before it was guarded")]
    Connected {
        /// How many.
        sockets: usize,
    },
}

/// The cause of common errors.
fn error_hint(source: &io::Error) -> &'static str {
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => {
            "; the agent needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, for that"
        }
        Some(libc::EINVAL | libc::ENOSYS | libc::ENOPROTOOPT) => {
            "; it takes Linux 5.14 with CONFIG_CGROUP_BPF"
        }
        _ => "",
    }
}
