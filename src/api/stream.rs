//! Answers that are made while they are sent.

use std::io::Write as _;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use futures_util::stream;

use super::Chunks;

/// Whether a client takes gzip: `gzip`, but not `gzip;q=0`.
pub(super) fn takes_gzip(accepted: Option<&str>) -> bool {
    accepted.is_some_and(|encodings| encodings.split(',').any(is_gzip))
}

fn is_gzip(encoding: &str) -> bool {
    let mut parts = encoding.split(';').map(str::trim);
    let named = parts.next().is_some_and(|name| name == "gzip" || name == "*");
    named && !parts.any(|part| part.replace(' ', "").trim_start_matches("q=").parse() == Ok(0.0))
}

/// A body of pieces that are asked for one at a time, so that it never lies whole in memory.
pub(super) fn streamed(
    mut next: impl FnMut() -> Option<Vec<u8>> + Send + Sync + 'static,
    gzip: bool,
) -> Chunks {
    let mut encoder = gzip.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
    let chunk = move || match (next(), &mut encoder) {
        (plain, None) => plain,
        (Some(plain), Some(open)) => {
            let _infallible = open.write_all(&plain);
            Some(std::mem::take(open.get_mut()))
        }
        (None, Some(open)) => {
            let _infallible = open.try_finish();
            let rest = std::mem::take(open.get_mut());
            encoder = None;
            Some(rest)
        }
    };
    let mut chunk = chunk;
    Box::pin(stream::iter(std::iter::from_fn(move || chunk().map(|bytes| Ok(Bytes::from(bytes))))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_taken_unless_it_is_refused() {
        for accepted in ["gzip", "deflate, gzip;q=0.5", "*", "GZIP, gzip"] {
            assert!(takes_gzip(Some(accepted)), "{accepted}");
        }
        for refused in ["", "br", "gzip;q=0", "gzip; q = 0.0", "gzipped"] {
            assert!(!takes_gzip(Some(refused)), "{refused}");
        }
        assert!(!takes_gzip(None));
    }
}
