//! The program that the kernel runs for every `connect` and every datagram that is sent to an address: it decides who
//! may send to which listener. This module only builds the program; [`super::bpf`] loads it.
//!
//! ```text
//! not UDP?                                            allow
//! is (address, port) in the map?                 no:  allow
//! does the entry mean this network namespace?    no:  allow
//! is the sender in the entry's control group?   yes:  allow      no: the sender gets EPERM
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::assembler::{Assembler, Helper, Instruction, Register, Width};

/// Bytes of a key: an IPv6 address, a port, padding.
pub(super) const KEY: usize = 20;
/// Bytes of a value: a control group's ID, its level, padding, a namespace's cookie.
pub(super) const VALUE: usize = 24;

/// The attach points (`enum bpf_attach_type`).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Point {
    /// `connect` to an IPv4 address.
    Connect4 = 10,
    /// `connect` to an IPv6 address, which may be IPv4-mapped.
    Connect6 = 11,
    /// A datagram sent to an IPv4 address, also from an IPv6 socket.
    Send4 = 14,
    /// A datagram sent to an IPv6 address.
    Send6 = 15,
}

impl Point {
    /// Every way to send.
    pub(super) const ALL: [Self; 4] = [Self::Connect4, Self::Connect6, Self::Send4, Self::Send6];

    const fn is_ipv6(self) -> bool {
        matches!(self, Self::Connect6 | Self::Send6)
    }

    /// The program's name, as `bpftool` shows it; at most 15 bytes.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Connect4 => "tp_connect4",
            Self::Connect6 => "tp_connect6",
            Self::Send4 => "tp_sendmsg4",
            Self::Send6 => "tp_sendmsg6",
        }
    }
}

// Offsets in `struct bpf_sock_addr`. Addresses and the port are in network byte order.
const USER_IP4: i16 = 4;
const USER_IP6: i16 = 8;
const USER_PORT: i16 = 24;
const PROTOCOL: i16 = 36;

/// The offset of the key on the stack, and of its parts in it.
const AT: i16 = -24;
const PORT: i16 = 16;
// Where things are in a value.
const GROUP: i16 = 0;
const LEVEL: i16 = 8;
const COOKIE: i16 = 16;

/// IPv4 addresses are looked up in IPv4-mapped form, so that one entry covers both families.
const MAPPED: u32 = 0xffff;

/// The key of an address.
pub(super) fn key(address: SocketAddr) -> [u8; KEY] {
    let ip = match address.ip() {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    };
    // The program reads the port's two bytes as a number and stores that as a word.
    let port = u32::from(address.port().to_be()).to_ne_bytes();
    let mut parts = ip.octets().into_iter().chain(port);
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// The wildcard addresses that a sender can use for "this machine". The kernel replaces them with a loopback address,
/// or with the address that the sender's socket is bound to, after it has run the program.
pub(super) fn wildcard_addresses(port: u16) -> [SocketAddr; 2] {
    [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].map(|ip| SocketAddr::new(ip, port))
}

/// The value that allows a control group and the groups below it, in one network namespace.
pub(super) fn value(group: u64, level: u32, cookie: u64) -> [u8; VALUE] {
    let (group, level) = (group.to_ne_bytes(), level.to_ne_bytes());
    let mut parts = group.into_iter().chain(level).chain([0; 4]).chain(cookie.to_ne_bytes());
    std::array::from_fn(|_| parts.next().unwrap_or(0))
}

/// The program for one point, with the map's descriptor in it.
pub(super) fn build_program(point: Point, map: i32) -> Option<Vec<Instruction>> {
    use Register::{R0, R1, R2, R6, R7, Stack};
    let mut code = Assembler::default();
    let allow = code.new_label();
    code.move_register(R6, R1);
    code.load_memory(Width::Word, R2, R6, PROTOCOL);
    code.jump_unless(R2, libc::IPPROTO_UDP, allow);
    if point.is_ipv6() {
        for part in [0, 4, 8, 12] {
            code.load_memory(Width::Word, R2, R6, USER_IP6 + part);
            code.store_register(Stack, AT + part, R2);
        }
    } else {
        code.store_constant(Stack, AT, 0);
        code.store_constant(Stack, AT + 4, 0);
        code.store_constant(Stack, AT + 8, MAPPED.to_be().cast_signed());
        code.load_memory(Width::Word, R2, R6, USER_IP4);
        code.store_register(Stack, AT + 12, R2);
    }
    code.load_memory(Width::Word, R2, R6, USER_PORT);
    code.store_register(Stack, AT + PORT, R2);
    code.load_map(R1, map);
    code.move_register(R2, Stack);
    code.add(R2, AT.into());
    code.call(Helper::MapLookup);
    code.jump_if(R0, 0, allow);
    code.move_register(R7, R0);
    code.move_register(R1, R6);
    code.call(Helper::NetnsCookie);
    code.load_memory(Width::Double, R2, R7, COOKIE);
    code.jump_unless_equal(R0, R2, allow);
    code.load_memory(Width::Word, R1, R7, LEVEL);
    code.call(Helper::CurrentAncestorCgroup);
    code.load_memory(Width::Double, R2, R7, GROUP);
    code.jump_if_equal(R0, R2, allow);
    code.move_constant(R0, 0);
    code.exit();
    code.bind_label(allow);
    code.move_constant(R0, 1);
    code.exit();
    code.into_program()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_one_key_however_it_is_written() {
        let key = |text: &str| key(text.parse().unwrap());
        assert_eq!(key("127.1.2.3:18125"), key("[::ffff:127.1.2.3]:18125"));
        assert_ne!(key("127.1.2.3:18125"), key("127.1.2.3:18126"));
        assert_ne!(key("127.1.2.3:18125"), key("[::1]:18125"));
        let [.., a, b, c, d, _, _, _, _] = key("127.1.2.3:18125");
        assert_eq!([a, b, c, d], [127, 1, 2, 3], "as on the wire");
    }

    #[test]
    fn a_value_has_its_parts_where_the_program_looks_for_them() {
        let value = value(0x0102_0304_0506_0708, 9, 10);
        let at = |from: i16| value[usize::try_from(from).unwrap()..].first_chunk().copied().unwrap();
        assert_eq!(u64::from_ne_bytes(at(GROUP)), 0x0102_0304_0506_0708);
        assert_eq!(u64::from_ne_bytes(at(COOKIE)), 10);
        let level = usize::try_from(LEVEL).unwrap();
        assert_eq!(value[level..level + 4], 9_u32.to_ne_bytes());
    }

    #[test]
    fn programs_are_short_and_the_same_but_for_the_address() {
        let lengths = Point::ALL.map(|point| build_program(point, 3).unwrap().len());
        assert_eq!(lengths, [29, 32, 29, 32]);
        assert!(Point::ALL.iter().all(|point| point.name().len() < 16));
    }
}
