//! Why listeners, or one of them, cannot be guarded.

use std::io;

use crate::cgroup::{GroupError, HierarchyError};

/// Why listeners cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    /// The feature `guard` of this crate is off.
    #[error("this program was built without the guard (cargo feature guard)")]
    NotBuiltIn,
    /// There are no control groups to tell containers by.
    #[error(transparent)]
    Hierarchy(#[from] HierarchyError),
    /// The kernel does not do something.
    #[error("cannot {what}: {source}{}", error_hint(source))]
    Kernel {
        /// What.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The kernel does not take the program.
    #[error("the kernel refuses the program {name}: {source}{}{log}", if log.is_empty() { error_hint(source) } else { ": " })]
    Program {
        /// The program.
        name: &'static str,
        /// What the system call answered.
        source: io::Error,
        /// What the verifier says.
        log: String,
    },
}

/// Why one listener cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub enum Unguarded {
    /// It can be reached from other machines and namespaces, of which this kernel's guard is not asked.
    #[error("its address is not a loopback address")]
    Reachable,
    /// Its container cannot be told from others.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// There is no room, or the kernel says no.
    #[error("the kernel takes no entry: {0}")]
    Entry(io::Error),
    /// The connected sockets cannot be listed.
    #[error("the kernel does not tell who is connected to its address: {0}")]
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
