//! Which process has a UDP port on every address, so that no other can have it on any.

use std::fmt;
use std::path::Path;

/// How often the table is read: where sockets close meanwhile, one reading may skip some.
const READINGS: usize = 4;

/// A socket that has a port on every address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Holder {
    /// The user that opened it.
    pub user: u32,
    /// Number and name of a process that has it, where this process may look.
    pub process: Option<(i32, String)>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, name)) => write!(f, "process {pid} ({name}) of user {}", self.user),
            None => write!(f, "a process of user {} that cannot be seen from here", self.user),
        }
    }
}

/// Who has this port on every address of this network.
#[must_use]
pub fn holder_of(port: u16) -> Option<Holder> {
    let read = |table: &str| std::fs::read_to_string(format!("/proc/net/{table}")).unwrap_or_default();
    let find = || ["udp", "udp6"].iter().find_map(|table| find_wildcard_socket(&read(table), port));
    let (user, inode) = (0..READINGS).find_map(|_| find())?;
    Some(Holder { user, process: process_with(&format!("socket:[{inode}]")) })
}

/// User and inode of the socket at a port on every address.
fn find_wildcard_socket(table: &str, port: u16) -> Option<(u32, u64)> {
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (address, number) = fields.get(1)?.split_once(':')?;
        let is_it = address.bytes().all(|digit| digit == b'0') && u16::from_str_radix(number, 16) == Ok(port);
        if is_it { Some((fields.get(7)?.parse().ok()?, fields.get(9)?.parse().ok()?)) } else { None }
    })
}

/// A process that has a descriptor of this name.
fn process_with(descriptor: &str) -> Option<(i32, String)> {
    let processes = std::fs::read_dir("/proc").ok()?.filter_map(Result::ok);
    processes.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).find_map(
        |(pid, path): (i32, _)| {
            let mut descriptors = std::fs::read_dir(path.join("fd")).ok()?.filter_map(Result::ok);
            let has = descriptors.any(|one| {
                std::fs::read_link(one.path()).is_ok_and(|target| target == Path::new(descriptor))
            });
            let name = || std::fs::read_to_string(path.join("comm")).unwrap_or_default();
            has.then(|| (pid, name().trim_end().to_owned()))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
        1: 0100007F:46CD 00000000:0000 07 00000000:00000000 00:00000000 00000000  7 0 11 2 0 0\n\
        2: 00000000:46CE 00000000:0000 07 00000000:00000000 00:00000000 00000000  1000 0 12 2 0 0\n";

    #[test]
    fn only_a_socket_on_every_address_holds_a_port() {
        assert_eq!(find_wildcard_socket(TABLE, 0x46CE), Some((1000, 12)));
        assert_eq!(
            [
                find_wildcard_socket(TABLE, 0x46CD),
                find_wildcard_socket(TABLE, 1),
                find_wildcard_socket("", 1)
            ],
            [None; 3]
        );
    }

    #[test]
    fn the_process_that_holds_a_port_is_named() {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let holder = holder_of(socket.local_addr().unwrap().port()).unwrap();
        let (pid, name) = holder.process.clone().unwrap();
        assert_eq!(pid, i32::try_from(std::process::id()).unwrap());
        assert!(
            !name.is_empty() && holder.to_string().starts_with(&format!("process {pid} ({name}) of user "))
        );
    }
}
