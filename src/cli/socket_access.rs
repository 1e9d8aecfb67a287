//! What a user can do who cannot use the admin socket: usually the agent runs as another user.

use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::unistd::{Gid, Group};

use crate::client::{ClientError, Target};

/// The socket of an agent that root or a service manager started.
const OF_THE_NODE: &str = "/run/tallyport/admin.sock";

/// Why a user cannot use the admin socket although an agent runs, and what to do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct NoAccess {
    pub(super) message: String,
    pub(super) remedy: String,
}

/// Explains a failed connection to the admin socket: it is there and this user cannot use it, or the user's own default is
/// not there and the socket of the node's agent is. `None` if there is no agent at all.
pub(super) fn explain_access(error: &ClientError) -> Option<NoAccess> {
    explain_beside(error, Path::new(OF_THE_NODE))
}

fn explain_beside(error: &ClientError, of_the_node: &Path) -> Option<NoAccess> {
    let ClientError::Unreachable { target: Target::Unix(path), source } = error else { return None };
    let denied = |message: String, path: &Path| NoAccess { message, remedy: access_advice(path) };
    if source.kind() == ErrorKind::PermissionDenied {
        return Some(denied(
            format!("your user has no access to the agent's socket {}", path.display()),
            path,
        ));
    }
    if path == of_the_node {
        return None;
    }
    let node = of_the_node.display();
    match UnixStream::connect(of_the_node) {
        Ok(_) => Some(NoAccess {
            message: format!(
                "no agent of your user answers at {}; that of the node has its socket at {node}",
                path.display()
            ),
            remedy: format!("use --admin-socket {node}, or set TALLYPORT_ADMIN_SOCKET={node}"),
        }),
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Some(denied(
            format!(
                "no agent of your user answers at {}, and it has no access to that of the node, {node}",
                path.display()
            ),
            of_the_node,
        )),
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
            "use sudo, or join its group with `sudo usermod -aG {} \"$USER\"` and log in again",
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
        assert_eq!(explain_beside(&missing, &node), None, "there is no agent at all");
        let listener = UnixListener::bind(&node).unwrap();
        let found = explain_beside(&missing, &node).unwrap();
        assert!(found.remedy.contains(&format!("--admin-socket {}", node.display())), "{found:?}");
        drop(listener);
        assert_eq!(explain_beside(&missing, &node), None, "its agent has ended");
    }

    #[test]
    fn a_user_without_access_is_told_how_to_get_it() {
        let path = Path::new("/nowhere/admin.sock");
        let found = explain_beside(&unreachable(path, ErrorKind::PermissionDenied), path).unwrap();
        assert!(found.message.contains("no access") && !found.message.contains("no agent"), "{found:?}");
        assert!(found.remedy.contains("sudo") && found.remedy.contains("admin.mode"), "{found:?}");
    }
}
