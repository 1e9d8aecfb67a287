//! Files that a publisher names.

use std::path::Path;

use crate::files;

/// Checks that a file of secrets can be used: the agent can read it, others cannot, and it contains something.
///
/// # Errors
/// With what is wrong; the text is printed after the key and the value.
pub(super) fn check_secret(path: &Path) -> Result<(), String> {
    let file = files::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let metadata = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    if files::is_open_to_others(&metadata) {
        return Err("can be read by everybody on this machine; chmod o= it".to_owned());
    }
    if metadata.len() == 0 {
        return Err("is empty".to_owned());
    }
    Ok(())
}

/// Checks that a file can be read.
///
/// # Errors
/// With the reason; the text is printed after the key and the value.
pub(super) fn check_readable(path: &Path) -> Result<(), String> {
    files::open(path).map(drop).map_err(|error| format!("cannot be read: {error}"))
}
