//! `/run` and `/var/run`: one directory on nearly every node, under two names.
//!
//! A container runtime names what it makes by either, and an image without a base system has only one of them: an agent
//! in a container then finds nothing at a path that is right on the node.

use std::io;
use std::path::{Path, PathBuf};

/// The two names.
const NAMES: [&str; 2] = ["/run", "/var/run"];

/// The same path below the other name; nothing for paths that are below neither.
#[must_use]
pub fn other_name(path: &Path) -> Option<PathBuf> {
    let [run, var_run] = NAMES.map(Path::new);
    let below = |from: &Path, to: &Path| path.strip_prefix(from).ok().map(|rest| to.join(rest));
    below(var_run, run).or_else(|| below(run, var_run))
}

/// Opens what is at a path, or else what is at the other name of it.
///
/// # Errors
/// Those of the path as it was given, since that is the one that its reader knows.
pub fn open_by_either_name<T>(path: &Path, open: impl Fn(&Path) -> io::Result<T>) -> io::Result<T> {
    let refused = match open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => error,
        opened => return opened,
    };
    other_name(path).and_then(|other| open(&other).ok()).ok_or(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_the_other() {
        let other = |path: &str| other_name(Path::new(path));
        assert_eq!(other("/var/run/netns/cni-1"), Some("/run/netns/cni-1".into()));
        assert_eq!(other("/run/nri/nri.sock"), Some("/var/run/nri/nri.sock".into()));
        for without in ["/var/running/x", "/runtime", "/proc/1/ns/net", "run/netns/x", ""] {
            assert_eq!(other(without), None, "{without:?}");
        }
    }

    #[test]
    fn the_other_name_is_tried_only_where_the_first_has_nothing() {
        let found = |there: &str, path: &str| {
            let open = |tried: &Path| match tried == Path::new(there) {
                true => Ok(tried.to_owned()),
                false => Err(io::ErrorKind::NotFound.into()),
            };
            open_by_either_name(Path::new(path), open).map_err(|error| error.kind())
        };
        assert_eq!(found("/run/netns/a", "/var/run/netns/a"), Ok("/run/netns/a".into()));
        assert_eq!(found("/var/run/netns/a", "/run/netns/a"), Ok("/var/run/netns/a".into()));
        assert_eq!(found("/run/netns/a", "/run/netns/a"), Ok("/run/netns/a".into()));
        assert_eq!(found("/run/netns/a", "/run/netns/b"), Err(io::ErrorKind::NotFound));
        let refused = open_by_either_name::<()>(Path::new("/run/a"), |path| {
            assert_eq!(path, Path::new("/run/a"), "a refusal is an answer");
            Err(io::ErrorKind::PermissionDenied.into())
        });
        assert_eq!(refused.unwrap_err().kind(), io::ErrorKind::PermissionDenied);
    }
}
