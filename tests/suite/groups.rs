//! Control groups (version 2) for tests, and processes in them that send.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::namespaces::Process;
use crate::tools;

/// How a datagram is sent. The kernel calls the guard at a different hook for each.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Way {
    /// To a connected peer.
    Connect,
    /// With an address for each datagram.
    Send,
    /// Like the first, with an IPv6 socket.
    Connect6,
    /// Like the second, with an IPv6 socket.
    Send6,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Connect, Self::Send, Self::Connect6, Self::Send6];
}

/// Sends a number of datagrams, and exits with the errno of the first error.
const SENDER: &str = "use Socket qw(:DEFAULT :addrinfo inet_pton pack_sockaddr_in6 AF_INET6);
    my ($way, $host, $port, $times, $line) = @ARGV;
    my $six = $way =~ /6$/;
    my $ip = inet_pton($six ? AF_INET6 : AF_INET, $six && $host !~ /:/ ? \"::ffff:$host\" : $host) or die $host;
    my $to = $six ? pack_sockaddr_in6($port, $ip) : pack_sockaddr_in($port, $ip);
    socket(my $s, $six ? AF_INET6 : AF_INET, SOCK_DGRAM, 17) or die $!;
    if ($way =~ /Connect/) { connect($s, $to) or exit $!+0 }
    for (1..$times) { defined($way =~ /Connect/ ? send($s, $line, 0) : send($s, $line, 0, $to)) or exit $!+0 }";

/// The command line of the sender.
pub(crate) fn sender(way: Way, to: SocketAddr, times: u32, line: &str) -> Vec<String> {
    let (way, host, port) = (format!("{way:?}"), to.ip().to_string(), to.port().to_string());
    ["perl", "-e", SENDER, &way, &host, &port, &times.to_string(), line].map(str::to_owned).to_vec()
}

/// Sends once, and returns the errno.
pub(crate) fn send_from(group: Option<&Group>, way: Way, to: SocketAddr, line: &str) -> i32 {
    let words = sender(way, to, 1, line);
    let mut command = match group {
        Some(group) => group.command(&words),
        None => {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]);
            command
        }
    };
    let ran = command.stdin(Stdio::null()).output().unwrap();
    ran.status.code().unwrap()
}

/// A control group that is removed when this is dropped.
pub(crate) struct Group(PathBuf);

impl Group {
    /// A group at the top of the hierarchy, which must exist.
    pub(crate) fn new() -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let name = format!("tp-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        Self::at(tools::cgroups().expect("who asks has asked whether there are any").join(name))
    }

    /// One below this one.
    pub(crate) fn child(&self) -> Self {
        Self::at(self.0.join("child"))
    }

    fn at(path: PathBuf) -> Self {
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// A command whose process is in the group from the start.
    pub(crate) fn command(&self, words: &[String]) -> Command {
        in_group(&self.0, words)
    }

    pub(crate) fn path(&self) -> &std::path::Path {
        &self.0
    }

    /// A process in the group that does nothing.
    pub(crate) fn process(&self) -> Process {
        let process = idle_in(&self.0);
        let path = format!("/{}", self.0.file_name().unwrap().to_str().unwrap());
        let groups = format!("/proc/{}/cgroup", process.pid());
        while !std::fs::read_to_string(&groups).unwrap().contains(&path) {
            std::thread::yield_now();
        }
        process
    }
}

/// A process that is in no group of its own.
pub(crate) fn process_in_the_root() -> Process {
    let process = idle_in(&tools::cgroups().unwrap());
    let groups = format!("/proc/{}/cgroup", process.pid());
    while !std::fs::read_to_string(&groups).unwrap().lines().any(|line| line == "0::/") {
        std::thread::yield_now();
    }
    process
}

fn idle_in(group: &std::path::Path) -> Process {
    Process::start(&mut in_group(group, &["sleep".to_owned(), "600".to_owned()]))
}

fn in_group(group: &std::path::Path, words: &[String]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(group).args(words);
    command
}

impl Drop for Group {
    fn drop(&mut self) {
        // Its processes have been signalled and take a moment to end.
        for _ in 0..200 {
            if std::fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        eprintln!("{} is left", self.0.display());
    }
}
