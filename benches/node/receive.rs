//! Two receivers that discard everything: the baselines for the agent.
//!
//! *naive* is the usual loop: wait, receive until the socket is empty, wait. *coalescing* lets datagrams accumulate for
//! a millisecond and receives several with one system call. Neither looks at the data.

use std::io::{BufRead as _, Write as _};
use std::net::UdpSocket;
use std::os::fd::AsRawFd as _;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, MultiHeaders, recv, recvmmsg};
use tallyport::net::{listener, sys};

/// The same size as the agent requests.
const BUFFER: usize = 256 << 10;
const BATCH: usize = 64;
static RECEIVED: AtomicU64 = AtomicU64::new(0);
static ENDING: AtomicBool = AtomicBool::new(false);

/// Opens sockets, prints their addresses, receives until the first line on standard input, and prints the number of
/// datagrams received and dropped by the kernel.
pub(crate) fn main(kind: &str, sockets: usize) {
    let sockets: Vec<UdpSocket> =
        (0..sockets).map(|_| listener::open("127.0.0.1:0".parse().unwrap(), BUFFER).unwrap()).collect();
    let addresses: Vec<String> = sockets.iter().map(|s| s.local_addr().unwrap().to_string()).collect();
    println!("{}", addresses.join(" "));
    std::io::stdout().flush().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| match kind {
            "naive" => naive(&sockets),
            _ => coalescing(&sockets),
        });
        std::io::stdin().lock().read_line(&mut String::new()).unwrap();
        ENDING.store(true, Ordering::Relaxed);
    });
    // Counts datagrams that arrived while the loop ended.
    for socket in &sockets {
        while recv(socket.as_raw_fd(), &mut [0; 64], MsgFlags::MSG_DONTWAIT).is_ok() {
            RECEIVED.fetch_add(1, Ordering::Relaxed);
        }
    }
    let dropped: u64 = sockets.iter().map(|socket| u64::from(sys::kernel_drops(socket).unwrap())).sum();
    println!("{} {dropped}", RECEIVED.load(Ordering::Relaxed));
}

fn watched(sockets: &[UdpSocket]) -> Epoll {
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).unwrap();
    for (index, socket) in sockets.iter().enumerate() {
        epoll.add(socket, EpollEvent::new(EpollFlags::EPOLLIN, index as u64)).unwrap();
    }
    epoll
}

fn place(event: &EpollEvent) -> usize {
    usize::try_from(event.data()).unwrap()
}

fn naive(sockets: &[UdpSocket]) {
    let epoll = watched(sockets);
    let mut events = [EpollEvent::empty(); 1024];
    let mut buffer = vec![0; 1 << 16];
    while !ENDING.load(Ordering::Relaxed) {
        let ready = epoll.wait(&mut events, EpollTimeout::from(100_u16)).unwrap();
        for event in &events[..ready] {
            let socket = &sockets[place(event)];
            while recv(socket.as_raw_fd(), &mut buffer, MsgFlags::MSG_DONTWAIT).is_ok() {
                RECEIVED.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn coalescing(sockets: &[UdpSocket]) {
    let epoll = watched(sockets);
    let mut events = [EpollEvent::empty(); 1024];
    let mut buffers = vec![vec![0_u8; 1 << 16]; BATCH];
    let mut headers = MultiHeaders::<()>::preallocate(BATCH, None);
    while !ENDING.load(Ordering::Relaxed) {
        if epoll.wait(&mut events, EpollTimeout::from(100_u16)).unwrap() == 0 {
            continue;
        }
        std::thread::sleep(Duration::from_millis(1));
        let ready = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap();
        for event in &events[..ready] {
            let socket = &sockets[place(event)];
            loop {
                let mut slices: Vec<_> =
                    buffers.iter_mut().map(|buffer| [std::io::IoSliceMut::new(buffer)]).collect();
                let flags = MsgFlags::MSG_DONTWAIT;
                let came = recvmmsg(socket.as_raw_fd(), &mut headers, slices.iter_mut(), flags, None)
                    .map_or(0, Iterator::count);
                RECEIVED.fetch_add(came as u64, Ordering::Relaxed);
                if came < BATCH {
                    break;
                }
            }
        }
    }
}
