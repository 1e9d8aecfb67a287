//! What a user can do who cannot use the admin socket: usually the agent runs as another user.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::{Gid, Group};

use crate::client::{ClientError, Target};

/// The socket of an agent that root or a service manager started.
const OF_THE_NODE: &str = "/run/tallyport/admin.sock";

/// How to reach the admin socket, if it is there and this user cannot use it, or looked for another.
pub(super) fn socket_hint(error: &ClientError) -> Option<String> {
    hint_beside(error, Path::new(OF_THE_NODE))
}

fn hint_beside(error: &ClientError, of_the_node: &Path) -> Option<String> {
    let ClientError::Unreachable { target: Target::Unix(path), source } = error else { return None };
    if source.kind() == ErrorKind::PermissionDenied {
        return Some(access_advice(path));
    }
    if path == of_the_node {
        return None;
    }
    let found = format!("the agent of this node has its socket at {}", of_the_node.display());
    match UnixStream::connect(of_the_node) {
        Ok(_) => Some(format!(
            "{found}: use --admin-socket {0} or TALLYPORT_ADMIN_SOCKET={0}",
            of_the_node.display()
        )),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => {
            Some(format!("{found}, which your user may not use: {}", access_advice(of_the_node)))
        }
        Err(_) => None,
    }
}

/// How this user gets access to a socket.
fn access_advice(path: &Path) -> String {
    let group = std::fs::metadata(path).ok().filter(|metadata| {
        metadata.file_type().is_socket() && metadata.gid() != 0 && metadata.mode() & 0o020 != 0
    });
    let group = group.and_then(|metadata| Group::from_gid(Gid::from_raw(metadata.gid())).ok().flatten());
    match group {
        Some(group) => format!(
            "use sudo, or become a member of its group with `sudo usermod -aG {} \"$USER\"` and log in again",
            group.name
        ),
        None => {
            "use sudo; admin.mode and the group that the agent runs as decide which other users may use it"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn unreachable(path: &Path, kind: ErrorKind) -> ClientError {
        ClientError::Unreachable { target: Target::Unix(path.to_owned()), source: kind.into() }
    }

    #[test]
    fn a_user_who_looked_for_an_own_agent_is_sent_to_that_of_the_node() {
        let directory = tempfile::tempdir().unwrap();
        let (own, node) = (directory.path().join("own.sock"), directory.path().join("node.sock"));
        let missing = unreachable(&own, ErrorKind::NotFound);
        assert_eq!(hint_beside(&missing, &node), None, "there is no agent at all");
        let listener = UnixListener::bind(&node).unwrap();
        let hint = hint_beside(&missing, &node).unwrap();
        assert!(hint.contains(&format!("--admin-socket {}", node.display())), "{hint}");
        drop(listener);
        assert_eq!(hint_beside(&missing, &node), None, "its agent has ended");
    }

    #[test]
    fn a_user_without_access_is_told_how_to_get_it() {
        let path = Path::new("/nowhere/admin.sock");
        let hint = hint_beside(&unreachable(path, ErrorKind::PermissionDenied), path).unwrap();
        assert!(hint.contains("sudo") && hint.contains("admin.mode"), "{hint}");
    }
}
