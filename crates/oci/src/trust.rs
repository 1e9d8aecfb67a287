//! Whose answers are believed: those of root, of this user, and of the user that the agent is said to run as.
//!
//! The path of the admin socket proves nothing. Where an agent has gone and others can write to the directory, any process can
//! listen there, and what it answers goes into the configuration of containers.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use tallyport_linux::files;

/// The user of the packaged agent.
pub(super) const AGENT: &str = "tallyport";
/// What the kernel calls a user that has no number in a user namespace, unless it is told otherwise.
const OVERFLOW: u32 = 65_534;

/// Users whose answers are believed.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) struct Trusted {
    own: u32,
    agent: Option<u32>,
    /// In a user namespace, such as that of a rootless podman, all users outside of it have this number, root too.
    outside: Option<u32>,
}

impl Trusted {
    /// Root, this user, and the one of this name or number.
    pub(super) fn with_agent(agent: &str) -> Self {
        let users = || files::read_to_string(Path::new("/etc/passwd")).unwrap_or_default();
        let agent = agent.parse().ok().or_else(|| find_user_id(&users(), agent));
        Self { own: nix::unistd::geteuid().as_raw(), agent, outside: overflow_user_id() }
    }

    /// Whether a user is one of them.
    pub(super) fn contains_user(self, user: u32) -> bool {
        user == 0 || user == self.own || Some(user) == self.agent || Some(user) == self.outside
    }

    /// Whether what is there belongs to one of them.
    pub(super) fn owns_file(self, found: &Metadata) -> bool {
        self.contains_user(found.uid())
    }
}

/// The number of a user.
fn find_user_id(users: &str, name: &str) -> Option<u32> {
    let mut lines = users.lines().map(|line| line.split(':'));
    lines.find_map(|mut fields| if fields.next() == Some(name) { fields.nth(1)?.parse().ok() } else { None })
}

/// The number of users outside of this user namespace, where it is not the first one.
fn overflow_user_id() -> Option<u32> {
    let map = std::fs::read_to_string("/proc/self/uid_map").ok()?;
    let whole = map.split_whitespace().eq(["0", "0", "4294967295"]);
    let overflow = || std::fs::read_to_string("/proc/sys/kernel/overflowuid").ok()?.trim().parse().ok();
    (!whole).then(|| overflow().unwrap_or(OVERFLOW))
}

#[cfg(test)]
mod tests {
    use super::*;

    const USERS: &str =
        "root:x:0:0::/root:/bin/sh\ntallyport2:x:7:7::/:/x\ntallyport:x:987:987::/:/x\nbroken:x\n";

    #[test]
    fn a_user_is_known_by_name_or_number() {
        assert_eq!(
            [find_user_id(USERS, "tallyport"), find_user_id(USERS, "broken"), find_user_id(USERS, "x")],
            [Some(987), None, None]
        );
        assert_eq!(Trusted::with_agent("1234").agent, Some(1234));
    }

    #[test]
    fn root_this_user_and_the_agents_are_believed_and_nobody_else() {
        let trusted = Trusted { own: 1000, agent: Some(987), outside: None };
        assert_eq!(
            [0, 1000, 987, 1001, 65_534].map(|user| trusted.contains_user(user)),
            [true, true, true, false, false]
        );
        let inside = Trusted { outside: Some(65_534), ..trusted };
        assert!(inside.contains_user(65_534), "root has no number of its own there");
    }
}
