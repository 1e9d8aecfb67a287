//! The guard of listeners on the host's network: the kernel refuses datagrams to them from everybody but their own
//! container, told by its control group.
//!
//! A program at the root of the cgroup v2 hierarchy is asked for every `connect` and every datagram with an address on
//! it; a map says which address belongs to whom. Both go with this process, however it ends, so nothing stays behind
//! that could keep anybody from sending. `docs/adr/0021-kernel-guard.md` says what it does not see.

mod assembler;
mod bpf;
mod diag;
mod program;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

use program::{KEY, Point, VALUE};

use super::cgroup::{GroupError, Hierarchy, HierarchyError};
use super::sys;

/// Guards listeners for as long as it lives.
#[derive(Debug)]
pub struct Guard {
    hierarchy: Hierarchy,
    map: bpf::Map<KEY, VALUE>,
    /// The number of the network namespace that listeners are in.
    cookie: u64,
    /// How many listeners each port has.
    ports: HashMap<u16, usize>,
    links: Vec<OwnedFd>,
}

/// Why listeners cannot be guarded.
#[derive(Debug, thiserror::Error)]
pub enum GuardError {
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
    /// Who is connected cannot be found out.
    #[error("the kernel does not tell who is connected to its address: {0}")]
    Senders(io::Error),
    /// Somebody may be able to send already: what is connected is not asked about again.
    #[error("{sockets} sockets of others were connected to its address before it was guarded")]
    Connected {
        /// How many.
        sockets: usize,
    },
}

/// Ports that wildcard addresses are refused for, beside the listeners' own entries; there are few.
const PORTS: usize = 1024;

impl Guard {
    /// Sets the guard up, with room for so many listeners.
    ///
    /// # Errors
    /// Where there is no whole cgroup v2 hierarchy, or the kernel or this process's privileges do not allow it.
    pub fn new(listeners: usize) -> Result<Self, GuardError> {
        let hierarchy = Hierarchy::find()?;
        let here = UdpSocket::bind("127.0.0.1:0").or_else(|_| UdpSocket::bind("[::1]:0"));
        let cookie = here.and_then(sys::netns_cookie);
        let cookie = cookie.map_err(kernel_error("number the network namespace"))?;
        let room = u32::try_from(listeners.saturating_add(PORTS)).unwrap_or(u32::MAX);
        let map = bpf::Map::new(room).map_err(kernel_error("make a map of addresses"))?;
        let links = Point::ALL.map(|point| {
            let program = program::build_program(point, map.raw_descriptor()).unwrap_or_default();
            let program =
                bpf::load_program(point, &program).map_err(|bpf::BpfLoadError { source, log }| {
                    GuardError::Program { name: point.name(), source, log }
                })?;
            bpf::attach_program(program, &hierarchy, point)
                .map_err(kernel_error("attach a program to the cgroup hierarchy"))
        });
        let links = links.into_iter().collect::<Result<_, _>>()?;
        Ok(Self { hierarchy, map, cookie, ports: HashMap::new(), links })
    }

    /// Lets only a container send to its listener: the control group of its process, and what is below it.
    ///
    /// # Errors
    /// When it cannot be told from others, or the listener is where others come from elsewhere; then nothing has changed.
    pub fn protect_listener(
        &mut self,
        listener: SocketAddr,
        pid: i32,
        container: &str,
    ) -> Result<(), Unguarded> {
        if !listener.ip().is_loopback() {
            return Err(Unguarded::Reachable);
        }
        let group = self.hierarchy.group_of(pid, container)?;
        if !self.ports.contains_key(&listener.port()) {
            for wildcard in program::wildcard_addresses(listener.port()) {
                self.map.insert(&program::key(wildcard), &self.deny_all_value()).map_err(Unguarded::Entry)?;
            }
        }
        let entry =
            self.map.insert(&program::key(listener), &program::value(group.id, group.level, self.cookie));
        *self.ports.entry(listener.port()).or_default() += 1;
        let alone = entry.map_err(Unguarded::Entry).and_then(|()| {
            let senders = diag::connected_to(listener).map_err(Unguarded::Senders)?;
            match senders.into_iter().filter(|sender| !group.contains_id(*sender)).count() {
                0 => Ok(()),
                sockets => Err(Unguarded::Connected { sockets }),
            }
        });
        alone.inspect_err(|_| self.unprotect_listener(listener))
    }

    /// What keeps it up: for as long as anybody has these open, the kernel refuses what it refuses now.
    ///
    /// # Errors
    /// When descriptors ran out.
    pub fn share_links(&self) -> io::Result<Vec<OwnedFd>> {
        self.links.iter().map(OwnedFd::try_clone).collect()
    }

    /// Takes the guard of a listener away; one that has none stays as it is.
    pub fn unprotect_listener(&mut self, listener: SocketAddr) {
        // There may be none: a full map has not taken it.
        let _either_way = self.map.remove(&program::key(listener));
        let Some(listeners) = self.ports.get_mut(&listener.port()) else { return };
        *listeners -= 1;
        if *listeners == 0 {
            self.ports.remove(&listener.port());
            for wildcard in program::wildcard_addresses(listener.port()) {
                let _either_way = self.map.remove(&program::key(wildcard));
            }
        }
    }

    /// What no process is in: the kernel numbers groups from one.
    fn deny_all_value(&self) -> [u8; VALUE] {
        program::value(0, 0, self.cookie)
    }
}

fn kernel_error(what: &'static str) -> impl FnOnce(io::Error) -> GuardError {
    move |source| GuardError::Kernel { what, source }
}

/// What the errors mean that people meet.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_may_not_is_told_what_it_takes() {
        let error =
            |code| kernel_error("make a map of addresses")(io::Error::from_raw_os_error(code)).to_string();
        assert!(error(libc::EPERM).contains("CAP_BPF"));
        assert!(error(libc::EINVAL).contains("Linux 5.14"));
        assert!(!error(libc::ENOMEM).contains("CAP_BPF"));
        let source = io::Error::from_raw_os_error(libc::EACCES);
        let refused = GuardError::Program { name: "tp_connect4", source, log: "R0 !read_ok".to_owned() };
        assert!(refused.to_string().ends_with("denied (os error 13): R0 !read_ok"), "{refused}");
    }
}
