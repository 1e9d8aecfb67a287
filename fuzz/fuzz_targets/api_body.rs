//! Input of the two HTTP listeners: a body, a query, the ids in a path, a pattern, a cursor, and a target of the
//! command line. Every input is parsed as each of these.

#![no_main]

use std::sync::{Arc, LazyLock};
use std::time::Instant;

use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use tallyport::aggregate::{Aggregator, GaugeSign, Window};
use tallyport::api::{ApiError, read_reservation};
use tallyport::client::Target;
use tallyport::containers::{Reservation, Ttl};
use tallyport::model::{ContainerId, Glob, Moment, TaskId, Timestamp};
use tallyport::query::{Filters, Query, Selection, Windows};
use tallyport::store::Cursor;
use tallyport_fuzz::{START, Trust, api_error};

fuzz_target!(|input: &[u8]| {
    match read_reservation(input) {
        Ok(reservation) => reserved(&reservation),
        Err(error) => api_error(&error),
    }
    let text = String::from_utf8_lossy(input);
    query(&text);
    ids(&text);
    match text.split_once('\n') {
        Some((pattern, text)) => glob(pattern, text),
        None => glob(&text, "testapp.response.latency"),
    }
    moments(&text);
    target(&text);
});

fn reserved(reservation: &Reservation) {
    container_id(&reservation.container_id);
    task_id(&reservation.effective_task_id());
    reservation.task_id.iter().for_each(task_id);
    assert!(reservation.opt_out_reason().is_none_or(|why| !why.is_empty()));
    for usual in [GaugeSign::Auto, GaugeSign::Delta, GaugeSign::Absolute] {
        let signs = reservation.gauge_sign_or(usual);
        assert!(reservation.gauge_sign.is_none_or(|said| said == signs));
    }
    if let Ttl::After(ttl) = reservation.ttl {
        // The table adds it to the current time.
        assert!(Instant::now().checked_add(ttl).is_some(), "{ttl:?}");
    }
}

/// An id must be usable as a file name.
fn container_id(id: &ContainerId) {
    let text = id.as_str();
    assert!(!text.is_empty() && text.len() <= 256, "{text:?}");
    assert!(!text.contains('/') && !text.contains('\0') && text != "." && text != "..", "{text:?}");
    assert!(!text.chars().any(char::is_control), "{text:?}");
    assert_eq!(ContainerId::new(text).as_ref(), Ok(id));
    task_id(&TaskId::from(id));
}

fn task_id(id: &TaskId) {
    let text = id.as_str();
    assert!(!text.is_empty() && text.len() <= 512 && !text.chars().any(char::is_control), "{text:?}");
    assert_eq!(TaskId::new(text).as_ref(), Ok(id));
}

/// The parts of a path, decoded as routes do it.
fn ids(text: &str) {
    for part in text.split('/') {
        let Ok(id) = percent_decode_str(part).decode_utf8() else { continue };
        match ContainerId::new(&id) {
            Ok(id) => container_id(&id),
            Err(error) => api_error(&ApiError::bad_id("container_id", error)),
        }
        match TaskId::new(&id) {
            Ok(id) => task_id(&id),
            Err(error) => api_error(&ApiError::bad_id("task_id", error)),
        }
        api_error(&ApiError::unknown_task(&id, vec![id.to_string()]));
        api_error(&ApiError::unknown_container(&id, Vec::new()));
        api_error(&ApiError::bad_body(&id));
        api_error(&ApiError::bad_configuration(&id));
    }
}

/// The parameters that routes support.
const KNOWN: [&[&str]; 4] = [
    &["window", "since", "merge", "hdr", "task", "container", "name", "tag", "label"],
    &["since", "format", "hdr", "task", "container", "name", "tag", "label"],
    &["task", "container", "label"],
    &[],
];

fn query(raw: &str) {
    // A path's query starts at the first question mark.
    let raw = raw.split_once('?').map_or(raw, |(_, query)| query);
    for known in KNOWN {
        let query = match Query::read(raw, known) {
            Ok(query) => query,
            Err(error) => {
                api_error(&error.into());
                continue;
            }
        };
        for key in known {
            assert_eq!(query.last_value(key), query.all_values(key).last());
        }
        if let Err(error) = query.parse_switch("merge") {
            api_error(&error.into());
        }
        match query.parse_value::<Cursor>("since") {
            Ok(cursor) => cursor.iter().for_each(round_trip),
            Err(error) => api_error(&error.into()),
        }
        match Selection::read(&query, Timestamp::from_secs(START)) {
            Ok(selection) => {
                assert!(selection.since.is_none() || selection.windows != Windows::Newest);
                filtered(
                    &selection.filters,
                    query.all_values("name").chain(query.all_values("tag")).next().is_none(),
                );
            }
            Err(error) => api_error(&error.into()),
        }
    }
}

/// A few records to filter.
static WINDOW: LazyLock<Window> = LazyLock::new(|| {
    let now = Moment { wall: Timestamp::from_secs(START), mono: std::time::Duration::ZERO };
    let mut aggregator = Aggregator::new(Arc::default(), GaugeSign::Delta, now.wall);
    aggregator.ingest_datagram(
        b"a:1|c\na.b:1|g|#zone:a,zone:b,live\nc:2|ms|#route:/pay\n_sc|d|0|#,:x",
        now,
        None,
    );
    let window = aggregator.peek_open_window(now.wall);
    tallyport_fuzz::window(&window, true, Trust::Sampled);
    window
});

fn filtered(filters: &Filters, all: bool) {
    let _wanted = filters.matches_origin(&tallyport_fuzz::origin());
    let wanted = WINDOW.records().filter(|record| filters.matches_record(record)).count();
    assert!(!all || wanted == WINDOW.len(), "without a filter everything is wanted");
    let _named = filters.names_containers();
}

/// Compares the matching of a pattern with a simple reference implementation.
fn glob(pattern: &str, text: &str) {
    let fits = Glob::new(pattern).is_match(text);
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    if pattern.len() * text.len() > 1 << 16 {
        return;
    }
    // fit[t]: whether the pattern so far fits the first t characters.
    let mut fit = vec![false; text.len() + 1];
    fit[0] = true;
    for c in pattern {
        if c == '*' {
            (1..fit.len()).for_each(|t| fit[t] |= fit[t - 1]);
        } else {
            (1..fit.len()).rev().for_each(|t| fit[t] = fit[t - 1] && (c == '?' || c == text[t - 1]));
            fit[0] = false;
        }
    }
    assert_eq!(fits, fit[text.len()]);
}

fn moments(text: &str) {
    if let Ok(cursor) = text.parse::<Cursor>() {
        round_trip(&cursor);
    }
    if let Ok(moment) = text.parse::<Timestamp>() {
        assert!(Timestamp::MIN <= moment && moment <= Timestamp::MAX);
        assert_eq!(moment.to_string().parse::<Timestamp>().ok(), Some(moment));
    }
}

fn round_trip(cursor: &Cursor) {
    assert_eq!(cursor.to_string().parse::<Cursor>().as_ref(), Ok(cursor));
}

fn target(text: &str) {
    match text.parse::<Target>() {
        Ok(target @ (Target::Http(_) | Target::Https(_))) => {
            let shown = target.to_string();
            let authority = shown.split_once("://").map(|(_, authority)| authority.to_owned());
            assert!(authority.is_some_and(|it| !it.is_empty() && !it.contains('/')), "{shown:?}");
            assert_eq!(shown.parse(), Ok(target));
        }
        Ok(Target::Unix(path)) => {
            let again = format!("unix:{}", path.display());
            assert!(again.parse::<Target>().is_ok());
        }
        Err(why) => assert!(!why.is_empty()),
    }
}
