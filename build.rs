//! Records what the program is built from, for `tallyport version`.

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=TALLYPORT_COMMIT");
    let setting = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let profile = setting("PROFILE").unwrap_or_default();
    println!("cargo::rustc-env=TALLYPORT_PROFILE={profile}");
    println!("cargo::rustc-env=TALLYPORT_TARGET={}", setting("TARGET").unwrap_or_default());
    // A packager who builds from an archive gives the commit and its date.
    let given = setting("TALLYPORT_COMMIT");
    // Debug builds do not look, or the package would be compiled again after every commit.
    let commit = given.or_else(|| (profile == "release").then(find_commit).flatten());
    println!("cargo::rustc-env=TALLYPORT_BUILT_FROM={}", commit.unwrap_or_default());
}

/// The commit that is checked out, and its date. Nothing about the machine or the time of the build, so that the same commit
/// gives the same program.
fn find_commit() -> Option<String> {
    let root = env::var("CARGO_MANIFEST_DIR").ok()?;
    // A copy without a repository can be inside of another one.
    if !Path::new(&root).join(".git").exists() {
        return None;
    }
    let found = ask_git(&root, &["log", "-1", "--format=%H %cs"])?;
    // git itself would shorten it to a length that depends on what else is in the repository.
    let (commit, date) = found.split_once(' ')?;
    let commit = format!("{} {date}", commit.get(..12)?);
    for file in ["HEAD", "logs/HEAD"] {
        let file = ask_git(&root, &["rev-parse", "--path-format=absolute", "--git-path", file])?;
        if Path::new(&file).exists() {
            println!("cargo::rerun-if-changed={file}");
        }
    }
    Some(commit)
}

fn ask_git(root: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(root).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned()).filter(|text| !text.is_empty())
}
