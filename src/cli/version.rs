//! `tallyport version`: the version, and what the program was built from.

use serde::Serialize;

use super::args::{OutputFormat, VERSION, VersionArgs};
use super::failure::Failure;
use super::output::Console;
use crate::products::Product;

/// The commit and its date, as the build script found them; empty if it did not.
const BUILT_FROM: &str = env!("TALLYPORT_BUILT_FROM");
const PROFILE: &str = env!("TALLYPORT_PROFILE");
const TARGET: &str = env!("TALLYPORT_TARGET");

#[derive(Serialize)]
struct VersionDocument {
    version: &'static str,
    /// `null` if it is unknown.
    commit: Option<&'static str>,
    /// The date of the commit.
    commit_date: Option<&'static str>,
    profile: &'static str,
    target: &'static str,
    features: Vec<&'static str>,
    /// The features of missing products.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    without: Vec<&'static str>,
}

pub(super) fn print_version(args: &VersionArgs, out: &mut Console) -> Result<(), Failure> {
    let document = describe_build();
    match args.output.selected_format() {
        OutputFormat::Json | OutputFormat::Ndjson => out.write_json(&document)?,
        OutputFormat::Table => {
            out.write_line(format!("tallyport {}", *VERSION))?;
            out.write_line(format!("commit    {}", describe_commit(&document)))?;
            let features = match document.features.is_empty() {
                true => "none".to_owned(),
                false => document.features.join(" "),
            };
            out.write_line(format!("build     {PROFILE}, for {TARGET}"))?;
            out.write_line(format!("features  {features}"))?;
        }
    }
    Ok(())
}

fn describe_build() -> VersionDocument {
    let (commit, date) = match BUILT_FROM.split_once(' ') {
        Some((commit, date)) => (Some(commit), Some(date)),
        None => (Some(BUILT_FROM).filter(|commit| !commit.is_empty()), None),
    };
    let built_in = Product::ALL.into_iter().filter(|product| product.is_built_in());
    VersionDocument {
        version: env!("CARGO_PKG_VERSION"),
        commit,
        commit_date: date,
        profile: PROFILE,
        target: TARGET,
        features: built_in.map(Product::feature_name).collect(),
        without: Product::list_missing().map(Product::feature_name).collect(),
    }
}

fn describe_commit(document: &VersionDocument) -> String {
    match (document.commit, document.commit_date) {
        (Some(commit), Some(date)) => format!("{commit} of {date}"),
        (Some(commit), None) => commit.to_owned(),
        (None, _) if PROFILE == "release" => "unknown: built outside of a git repository".to_owned(),
        (None, _) => "unknown: debug builds do not record it".to_owned(),
    }
}
