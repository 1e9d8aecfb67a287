//! The guard of listeners on the host's network: the kernel rejects datagrams to a listener unless the sender is in the control
//! group of the listener's container.
//!
//! The kernel runs a program at the root of the cgroup v2 hierarchy for every `connect` and every datagram with an address, and a
//! map assigns addresses to control groups. Both end with this process, however it ends, so no rule stays behind that could block
//! a sender. `docs/adr/0021-kernel-guard.md` lists what the guard does not see. Without the feature `guard`, `guard/absent.rs`
//! takes the place of this file.

mod assembler;
mod bpf;
mod diag;
mod error;
mod program;

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;

pub use error::{GuardError, Unguarded};
use program::{KEY, Point, VALUE};

use super::cgroup::Hierarchy;
use super::sys;

/// Guards listeners for as long as it lives.
#[derive(Debug)]
pub struct Guard {
    hierarchy: Hierarchy,
    map: bpf::Map<KEY, VALUE>,
    /// The cookie of the listeners' network namespace.
    cookie: u64,
    /// The number of listeners on each port.
    ports: HashMap<u16, usize>,
    links: Vec<OwnedFd>,
}

/// Room for the ports on which wildcard addresses are refused, in addition to the listeners' entries; there are few.
const PORTS: usize = 1024;

impl Guard {
    /// Sets up the guard, with room for this many listeners.
    ///
    /// # Errors
    /// When the whole cgroup v2 hierarchy is not mounted, or the kernel or this process's privileges do not allow it.
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

    /// Restricts senders to a listener to its container: the control group of its process, and groups below.
    ///
    /// # Errors
    /// When the container cannot be distinguished from others, or the listener is not guardable ([`Unguarded`]).
    /// Nothing has changed then.
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

    /// The descriptors that keep the guard up: while any process has them open, the kernel rejects what it rejects now.
    ///
    /// # Errors
    /// When descriptors ran out.
    pub fn share_links(&self) -> io::Result<Vec<OwnedFd>> {
        self.links.iter().map(OwnedFd::try_clone).collect()
    }

    /// Removes the guard of a listener, if it has one.
    pub fn unprotect_listener(&mut self, listener: SocketAddr) {
        // There may be no entry: the map may have been full.
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

    /// A value that matches no process: the kernel numbers groups from one.
    fn deny_all_value(&self) -> [u8; VALUE] {
        program::value(0, 0, self.cookie)
    }
}

fn kernel_error(what: &'static str) -> impl FnOnce(io::Error) -> GuardError {
    move |source| GuardError::Kernel { what, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guard_without_privileges_names_what_it_needs() {
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
