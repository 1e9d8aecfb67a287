//! Manual pages, as the tools for them read them.

use std::process::Command;

use crate::agent::{BINARY, ran};
use crate::tools;

#[test]
fn groff_formats_every_manual_page_without_a_warning() {
    let Some(groff) = tools::formatter() else { return };
    let directory = tempfile::tempdir().unwrap();
    let written = ran(Command::new(BINARY).args(["man", "--dir"]).arg(directory.path()));
    assert_eq!(written.code, 0, "{}", written.err);
    let mut pages = 0;
    for section in ["man1", "man5", "man8"] {
        for page in std::fs::read_dir(directory.path().join(section)).unwrap() {
            let page = page.unwrap().path();
            let formatted = ran(Command::new(&groff).args(["-man", "-ww", "-Tutf8"]).arg(&page));
            assert_eq!((formatted.code, formatted.err.as_str()), (0, ""), "{}", page.display());
            pages += 1;
        }
    }
    assert!(pages > 25, "{pages}");
}
