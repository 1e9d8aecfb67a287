//! The system calls that no safe wrapper offers. With `guard/bpf.rs` the only file that may say `unsafe`.

#![allow(unsafe_code, reason = "each call below says why it is sound")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Number of fields of `SO_MEMINFO`, and the place of the drop count among them (`linux/sock_diag.h`).
const MEMINFO_FIELDS: usize = 9;
const MEMINFO_DROPS: usize = 8;

/// How many datagrams the kernel has dropped at this socket since it was opened, because its buffer was full. Wraps
/// at 2^32.
///
/// # Errors
/// When the descriptor is not a socket, or the kernel is older than 4.12.
pub fn kernel_drops(socket: impl AsFd) -> io::Result<u32> {
    let mut fields = [0_u32; MEMINFO_FIELDS];
    let mut length = libc::socklen_t::try_from(size_of_val(&fields)).unwrap_or_default();
    // SAFETY: the kernel writes at most `length` bytes, which is the size of `fields`, and any bytes are u32.
    let answer = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            fields.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if answer != 0 {
        return Err(io::Error::last_os_error());
    }
    let [.., drops] = fields;
    debug_assert_eq!(MEMINFO_DROPS, MEMINFO_FIELDS - 1);
    Ok(drops)
}

/// Takes one datagram that is already there. Answers its length, also where that is more than the buffer and it was cut.
///
/// The C library's `recv` is a point at which a thread can be cancelled, which a program with several threads pays for
/// with each datagram (`docs/adr/0009-gathering.md`); nobody here cancels threads.
///
/// # Errors
/// `EAGAIN` where there is none; others when the socket is broken.
#[inline]
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> nix::Result<usize> {
    let (fd, at, length) = (socket.as_fd().as_raw_fd(), buffer.as_mut_ptr(), buffer.len());
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: the kernel writes at most `length` bytes at `at`, which is the buffer, and no address where there is
    // no room for one.
    let answer = unsafe { libc::syscall(libc::SYS_recvfrom, fd, at, length, flags, none, none) };
    usize::try_from(answer).map_err(|_| nix::errno::Errno::last())
}

/// A descriptor that becomes readable when the process ends, and never means another process that later gets the
/// same number.
///
/// # Errors
/// `NotFound` where there is no such process; others when the kernel is older than 5.3 or descriptors ran out.
pub fn pidfd_open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    if fd < 0 {
        let error = io::Error::last_os_error();
        let gone = error.raw_os_error() == Some(libc::ESRCH);
        return Err(if gone { io::ErrorKind::NotFound.into() } else { error });
    }
    let fd = i32::try_from(fd).map_err(|_| io::Error::other("the kernel answered no descriptor"))?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What kind of namespace an open descriptor is: `CLONE_NEWNET` and so on.
///
/// # Errors
/// When it is not a namespace, or was opened with `O_PATH`.
pub fn namespace_kind(namespace: impl AsFd) -> io::Result<i32> {
    /// `NS_GET_NSTYPE` of `linux/nsfs.h`.
    const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
    // SAFETY: the call takes no argument and touches no memory of ours.
    let kind = unsafe { libc::ioctl(namespace.as_fd().as_raw_fd(), NS_GET_NSTYPE) };
    if kind < 0 { Err(io::Error::last_os_error()) } else { Ok(kind) }
}

/// Brings the interface `lo` up in the network namespace of this socket, which need not be the thread's. Answers
/// whether it was down.
///
/// # Errors
/// When there is no such interface, or this process may not administer the namespace.
pub fn raise_loopback(socket: impl AsFd) -> io::Result<bool> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: zeros are a valid `ifreq`: an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = libc::c_char::from_ne_bytes([*from]);
    }
    // SAFETY: the kernel reads the name, which ends with a zero, and writes flags into the request, which is ours.
    if unsafe { libc::ioctl(fd, libc::SIOCGIFFLAGS, &raw mut request) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just written this field of the union.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    // The flag is the lowest bit, so it fits whatever the type.
    let up = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
    if flags & up != 0 {
        return Ok(false);
    }
    request.ifr_ifru.ifru_flags = flags | up;
    // SAFETY: the kernel reads the name and the flags, both of which are set.
    match unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS, &raw const request) } {
        0 => Ok(true),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A number for the network namespace of a socket that no other namespace has had since boot.
///
/// # Errors
/// When the descriptor is not a socket, or the kernel is older than 5.14.
pub fn netns_cookie(socket: impl AsFd) -> io::Result<u64> {
    /// Of `asm-generic/socket.h`.
    const SO_NETNS_COOKIE: libc::c_int = 71;
    let mut cookie = 0_u64;
    let mut length = libc::socklen_t::try_from(size_of_val(&cookie)).unwrap_or_default();
    let (fd, at) = (socket.as_fd().as_raw_fd(), (&raw mut cookie).cast());
    // SAFETY: the kernel writes at most `length` bytes, which is the size of the cookie, and any bytes are a u64.
    match unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, SO_NETNS_COOKIE, at, &raw mut length) } {
        0 => Ok(cookie),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Waits for a descriptor to become readable through the async runtime.
///
/// # Errors
/// When the runtime's poller cannot take it.
pub fn readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd answers the same descriptor for as long as it lives, and keeps it open until it is dropped;
    // the registration owns it and goes first.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_full_buffer_is_counted_to_the_datagram() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        nix::sys::socket::setsockopt(&receiver, nix::sys::socket::sockopt::RcvBuf, &4096).unwrap();
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        sender.connect(receiver.local_addr().unwrap()).unwrap();
        for _ in 0..1000 {
            sender.send(b"a:1|c").unwrap();
        }
        receiver.set_nonblocking(true).unwrap();
        let received = std::iter::from_fn(|| receiver.recv(&mut [0; 64]).ok()).count();
        let dropped = kernel_drops(&receiver).unwrap();
        assert!(received > 0 && dropped > 0);
        assert_eq!(received + dropped as usize, 1000);
    }

    #[test]
    fn a_pidfd_is_readable_once_the_process_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let fd = pidfd_open(child.id().try_into().unwrap()).unwrap();
        let ended = |millis| {
            let mut polled = [nix::poll::PollFd::new(fd.as_fd(), nix::poll::PollFlags::POLLIN)];
            nix::poll::poll(&mut polled, nix::poll::PollTimeout::from(millis)).unwrap() > 0
        };
        assert!(!ended(10_u16));
        child.kill().unwrap();
        assert!(ended(5_000_u16));
        child.wait().unwrap();
    }

    #[test]
    fn a_process_that_is_not_there_is_not_found() {
        let pid = {
            let mut child = std::process::Command::new("true").spawn().unwrap();
            let pid = child.id();
            child.wait().unwrap();
            pid
        };
        assert_eq!(pidfd_open(pid.try_into().unwrap()).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
