//! Lists the UDP sockets that are connected to an address, and their control groups, through `sock_diag(7)`.

use std::io::{self, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};

/// `NETLINK_SOCK_DIAG` of `linux/netlink.h`.
const SOCK_DIAG: i32 = 4;
/// `SOCK_DIAG_BY_FAMILY` of `linux/sock_diag.h`.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// A bit for `TCP_ESTABLISHED`, which is what a connected UDP socket counts as.
const CONNECTED: u32 = 1 << 1;
/// `INET_DIAG_CGROUP_ID` of `linux/inet_diag.h`. Linux 5.8.
const CGROUP_ID: u16 = 21;

/// Bytes of `struct nlmsghdr`, of `struct inet_diag_msg`, and where the other end's port and address are in that.
const HEADER: usize = 16;
const MESSAGE: usize = 72;
const PORT: usize = 6;
const ADDRESS: usize = 24;

/// The control groups that made the sockets of this network namespace which are connected to an address. A kernel that
/// does not say which gets zero, which is the id of no group.
///
/// # Errors
/// When the kernel cannot be asked.
pub(super) fn connected_to(address: SocketAddr) -> io::Result<Vec<u64>> {
    let socket = Socket::new(Domain::from(libc::AF_NETLINK), Type::DGRAM, Some(Protocol::from(SOCK_DIAG)))?;
    let (mut found, mut answer) = (Vec::new(), vec![0; 64 << 10]);
    for family in [libc::AF_INET, libc::AF_INET6] {
        socket.send(&build_dump_request(u8::try_from(family).unwrap_or_default(), address.port()))?;
        loop {
            let length = (&socket).read(&mut answer)?;
            if read(answer.get(..length).unwrap_or_default(), address, &mut found)? {
                break;
            }
        }
    }
    Ok(found)
}

/// A request for all connected UDP sockets of a family with this remote port.
fn build_dump_request(family: u8, port: u16) -> Vec<u8> {
    let mut request = Vec::with_capacity(HEADER + 56);
    request.extend(72_u32.to_ne_bytes());
    request.extend(BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]);
    let udp = u8::try_from(libc::IPPROTO_UDP).unwrap_or_default();
    request.extend([family, udp, 0, 0]);
    request.extend(CONNECTED.to_ne_bytes());
    // Of the socket's own end, then of the other; addresses are for us to compare.
    request.extend([0, 0]);
    request.extend(port.to_be_bytes());
    request.extend([0; 32 + 12]);
    request
}

/// Reads one part of a reply. Returns whether it was the last.
fn read(mut answer: &[u8], address: SocketAddr, found: &mut Vec<u64>) -> io::Result<bool> {
    let cut = || io::Error::new(io::ErrorKind::InvalidData, "the kernel's answer breaks off");
    while !answer.is_empty() {
        let length = read_u32(answer, 0).and_then(|length| usize::try_from(length).ok()).ok_or_else(cut)?;
        let kind = read_u16(answer, 4).ok_or_else(cut)?;
        let message = answer.get(HEADER..length).ok_or_else(cut)?;
        match kind {
            DONE => return Ok(true),
            ERROR => {
                let code = read_u32(message, 0).ok_or_else(cut)?.cast_signed();
                return Err(io::Error::from_raw_os_error(code.wrapping_neg()));
            }
            BY_FAMILY if other_end(message).ok_or_else(cut)? == address => {
                found.push(read_cgroup_id(message));
            }
            _ => {}
        }
        answer = answer.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

/// The remote address of a socket. An IPv6 socket may be connected to an IPv4-mapped address.
fn other_end(message: &[u8]) -> Option<SocketAddr> {
    let port = u16::from_be_bytes(*message.get(PORT..)?.first_chunk()?);
    let ip: IpAddr = match i32::from(*message.first()?) {
        libc::AF_INET => Ipv4Addr::from(*message.get(ADDRESS..)?.first_chunk::<4>()?).into(),
        _ => Ipv6Addr::from(*message.get(ADDRESS..)?.first_chunk::<16>()?).to_canonical(),
    };
    Some(SocketAddr::new(ip, port))
}

/// The control group that a message's attributes name.
fn read_cgroup_id(message: &[u8]) -> u64 {
    let mut rest = message.get(MESSAGE..).unwrap_or_default();
    while let Some((length, kind)) = read_u16(rest, 0).map(usize::from).zip(read_u16(rest, 2)) {
        if kind == CGROUP_ID {
            return rest.get(4..).and_then(|id| id.first_chunk()).map_or(0, |id| u64::from_ne_bytes(*id));
        }
        // An attribute is at least as long as its header; a shorter length would loop for ever.
        rest = rest.get(length.max(4).next_multiple_of(4)..).unwrap_or_default();
    }
    0
}

fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn sockets_that_are_connected_are_found_whatever_their_family() {
        let receiver = UdpSocket::bind("127.77.1.1:0").unwrap();
        let address = receiver.local_addr().unwrap();
        let elsewhere = UdpSocket::bind("127.0.0.1:0").unwrap();
        elsewhere.connect(("127.77.1.2", address.port())).unwrap();
        assert!(connected_to(address).unwrap().is_empty(), "a listener is no sender");
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(address).unwrap();
        let group = connected_to(address).unwrap();
        assert!(matches!(group[..], [group] if group > 0), "{group:?}");
        let twin = UdpSocket::bind("[::]:0").unwrap();
        twin.connect(("::ffff:127.77.1.1", address.port())).unwrap();
        assert_eq!(connected_to(address).unwrap(), [group[0], group[0]]);
        drop((sender, twin));
        assert!(connected_to(address).unwrap().is_empty());
    }

    #[test]
    fn what_breaks_off_is_an_error_and_never_read_for_ever() {
        let address = "127.1.2.3:5".parse().unwrap();
        let message = |kind: u16, body: &[u8]| {
            let mut message = u32::try_from(HEADER + body.len()).unwrap().to_ne_bytes().to_vec();
            message.extend(kind.to_ne_bytes());
            message.extend([0; 10]);
            message.extend(body);
            message
        };
        let mut found = Vec::new();
        assert!(read(&message(DONE, &[0; 4]), address, &mut found).unwrap());
        let denied = read(&message(ERROR, &(-libc::EPERM).to_ne_bytes()), address, &mut found).unwrap_err();
        assert_eq!(denied.kind(), io::ErrorKind::PermissionDenied);
        let mut one = vec![0; MESSAGE];
        one[0] = u8::try_from(libc::AF_INET).unwrap();
        one[PORT + 1] = 5;
        one[ADDRESS..ADDRESS + 4].copy_from_slice(&[127, 1, 2, 3]);
        // An attribute without a length, and another that is cut.
        one.extend([0, 0, 7, 0, 12, 0, 21]);
        assert!(!read(&message(BY_FAMILY, &one), address, &mut found).unwrap());
        assert_eq!(found, [0], "no group's ID");
        let whole = message(BY_FAMILY, &one);
        for length in 1..whole.len() {
            assert!(read(&whole[..length], address, &mut found).is_err(), "{length}");
        }
        assert!(read(&message(BY_FAMILY, &one[..40]), address, &mut found).is_ok_and(|done| !done));
    }
}
