//! `GET /`: the page for people. One document with its style and its script inside, so that a node without a way out
//! shows it, and no other server can change what it runs.
//!
//! `page/` has it in three files, which are put together at compile time. The policy that goes with it names the hashes
//! of the style and the script: a browser runs these and nothing else, and lets them make no HTML out of text.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::LazyLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::ApiResponse;
use super::metrics::takes_gzip;
use crate::aggregate::{Dropped, KERNEL_DROPS_FIX};
use crate::statsd::Rejected;

const HTML: &str = "text/html; charset=utf-8";
const DOCUMENT: &str = include_str!("page/index.html");
const STYLE: &str = include_str!("page/style.css");
/// In this order: requests, formatting, plots and lists; what the views share; the views; the page that uses them.
const SCRIPT: &str = concat!(
    "\"use strict\";\n",
    include_str!("page/source.js"),
    include_str!("page/format.js"),
    include_str!("page/address.js"),
    include_str!("page/plot.js"),
    include_str!("page/chart.js"),
    include_str!("page/list.js"),
    include_str!("page/series.js"),
    include_str!("page/problems.js"),
    include_str!("page/exports.js"),
    include_str!("page/compare.js"),
    include_str!("page/resources.js"),
    include_str!("page/cards.js"),
    include_str!("page/publishers.js"),
    include_str!("page/promql.js"),
    include_str!("page/inspector.js"),
    include_str!("page/tasks.js"),
    include_str!("page/task.js"),
    include_str!("page/task_windows.js"),
    include_str!("page/series_list.js"),
    include_str!("page/page.js"),
);

struct WebPage {
    plain: Bytes,
    packed: Bytes,
    policy: String,
    tag: String,
}

#[expect(clippy::expect_used, reason = "an empty page would look like one that the browser blocks")]
static PAGE: LazyLock<WebPage> = LazyLock::new(|| {
    let plain = DOCUMENT
        .replacen("@style@", STYLE, 1)
        .replacen("@advice@", &Advice::render_json(), 1)
        .replacen("@script@", SCRIPT, 1);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let packed = encoder.write_all(plain.as_bytes()).and_then(|()| encoder.finish());
    WebPage {
        policy: content_security_policy(),
        tag: format!("\"{}\"", hash(&plain)),
        packed: packed.expect("memory takes everything").into(),
        plain: plain.into(),
    }
});

/// The suggested fix for every kind of loss, with the same wording as in the rest of the program.
#[derive(Serialize)]
struct Advice {
    dropped: BTreeMap<&'static str, &'static str>,
    rejected: BTreeMap<&'static str, &'static str>,
    /// For datagrams that the kernel dropped.
    kernel: &'static str,
}

impl Advice {
    fn render_json() -> String {
        let advice = Self {
            dropped: Dropped::ALL.iter().map(|reason| (reason.as_str(), reason.suggested_fix())).collect(),
            rejected: Rejected::ALL.iter().map(|code| (code.as_str(), code.suggested_fix())).collect(),
            kernel: KERNEL_DROPS_FIX,
        };
        // It is embedded in a `script` element, which its text must not close.
        String::from_utf8_lossy(&crate::query::to_json(&advice)).replace('<', "\\u003c")
    }
}

fn hash(text: &str) -> String {
    STANDARD.encode(Sha256::digest(text))
}

fn content_security_policy() -> String {
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
         trusted-types 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
}

/// `GET /`
pub(super) fn get_page(encoding: Option<&str>, known: Option<&str>) -> ApiResponse {
    let page = &*PAGE;
    let is_known = known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == page.tag));
    let gzip = takes_gzip(encoding);
    let answer = match (is_known, gzip) {
        (true, _) => ApiResponse::without_body(304),
        (false, true) => ApiResponse::with_body(200, HTML, page.packed.clone())
            .with_header("content-encoding", "gzip".to_owned()),
        (false, false) => ApiResponse::with_body(200, HTML, page.plain.clone()),
    };
    let headers = [
        ("content-security-policy", page.policy.as_str()),
        ("etag", &page.tag),
        // Browsers revalidate it each time, and seldom have to load it again.
        ("cache-control", "no-cache"),
        ("vary", "accept-encoding"),
        ("x-content-type-options", "nosniff"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
    ];
    headers.into_iter().fold(answer, |answer, (name, value)| answer.with_header(name, value.to_owned()))
}
