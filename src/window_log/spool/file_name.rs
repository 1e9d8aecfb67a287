//! Names of files that are kept for publishers. They say what is in the file, so that no start has to read it.

use crate::store::Cursor;

const SPOOL: &str = "spool-";
const SET_ASIDE: &str = "damaged-";
const SUFFIX: &str = ".log";

/// What the name of a spool file says.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(in crate::window_log) struct SpoolFileName {
    /// The number that it had in the log, with which its checksums are seeded.
    pub(in crate::window_log) number: u64,
    /// The birth of the last window in it.
    pub(in crate::window_log) last: Cursor,
}

impl SpoolFileName {
    pub(super) fn format_name(self) -> String {
        self.format_with(SPOOL)
    }

    /// The name for a damaged one that is of no use to publishers any more.
    pub(super) fn format_set_aside(self) -> String {
        self.format_with(SET_ASIDE)
    }

    fn format_with(self, prefix: &str) -> String {
        let Self { number, last } = self;
        format!("{prefix}{number:010}-{last}{SUFFIX}")
    }

    fn parse_name(name: &str) -> Option<Self> {
        let (number, last) = name.strip_prefix(SPOOL)?.strip_suffix(SUFFIX)?.split_once('-')?;
        Some(Self { number: number.parse().ok()?, last: last.parse().ok()? })
    }
}

/// The spool files among these names, oldest first.
pub(in crate::window_log) fn list_spool_files(names: &[String]) -> Vec<SpoolFileName> {
    let mut found: Vec<_> = names.iter().filter_map(|name| SpoolFileName::parse_name(name)).collect();
    found.sort_unstable();
    found
}

/// The damaged files among these names.
pub(super) fn list_set_aside(names: &[String]) -> Vec<String> {
    let is_one = |name: &&String| name.starts_with(SET_ASIDE) && name.ends_with(SUFFIX);
    names.iter().filter(is_one).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_is_in_the_file_and_other_names_are_left_out() {
        let file = SpoolFileName { number: 7, last: Cursor { epoch: 1_767_225_600, seq: u64::MAX } };
        assert_eq!(file.format_name(), "spool-0000000007-1767225600-18446744073709551615.log");
        let others = [
            "spool-0000000007.log",
            "spool-x-1-2.log",
            "spool-1-1-x.log",
            "windows-0000000001.log",
            "spool-1-1-2",
        ];
        let later = SpoolFileName { number: 10, last: Cursor { epoch: 1, seq: 2 } };
        let names = [later.format_name(), file.format_name(), file.format_set_aside()];
        let names: Vec<_> = names.into_iter().chain(others.map(str::to_owned)).collect();
        assert_eq!(list_spool_files(&names), [file, later]);
        assert_eq!(list_set_aside(&names), [file.format_set_aside()]);
    }
}
