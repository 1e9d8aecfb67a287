//! The documents of the agent's HTTP API. The handlers write the same types that the commands, the load generator and the OCI
//! wrapper read, so a key is spelled in one place. `proto/openapi.json` describes the same documents for other programs.
//!
//! - The order of the fields is the order of the keys in the JSON text.
//! - A reader ignores keys that it does not know. A field with `#[serde(default)]` may be absent, because an agent of an earlier
//!   version does not send it or no reader needs it.
//! - The wrapper starts for every container and depends on this crate, so its dependencies stay small: no type of the core or
//!   of the agent. Where the agent holds a more precise type than its JSON text, the field is a [`Word`], text, or a type
//!   parameter.

mod container;
mod counts;
mod maintenance;
mod node;
mod publisher;
mod record;
mod reservation;
mod task;
pub mod v0;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use container::{ClientDocument, ContainerDocument, MountDocument, ReservedDocument, UnixSocketDocument};
pub use counts::{
    AccountingDocument, Counted, CountsDocument, DatagramsDocument, LinesDocument, ValuesDocument,
};
pub use maintenance::{
    Attachment, AttachmentAnswer, ReconciledDocument, ReloadedDocument, SettingDocument, TailedLine,
};
pub use node::{
    DegradedDocument, FailingDocument, HealthDocument, MarkedNameDocument, NodeDocument, PagesDocument,
    PluginDocument, ReadyDocument, StateDamageDocument, TargetDocument, TargetLabels, TotalsEvicted,
    WindowLogDocument,
};
pub use publisher::{
    DeadLetterDocument, DeadRequestDocument, PublishedDifferenceDocument, PublishedRecordsDocument,
    PublisherCheckDocument, PublisherDocument, PublisherVerifyDocument, ReplayedDocument,
};
pub use record::{RecordDocument, RecordOrigin, TaskMetrics, WindowEvent};
pub use reservation::{
    Attach, DcosContainer, DcosReservation, Network, OptionsDocument, ReservationDocument, TtlDocument,
};
pub use task::{
    CheckDocument, Checks, EventDocument, Events, ExposedNameDocument, FinishedDocument, Gap,
    RejectedLineDocument, Task, TaskChanges, TaskNames, TaskRow, TaskShort, WideTagDocument,
};

/// One of a fixed list of words, such as a state or a reason. The agent sends constants. A reader keeps the text, because an
/// agent of a later version can send words that it does not know.
pub type Word = Cow<'static, str>;

/// Counts by reason or code. Reasons that have not occurred are absent.
pub type TallyMap = BTreeMap<Word, u64>;

/// Labels of a container or task.
pub type LabelMap = BTreeMap<String, String>;

/// The body of every answer that is an error: why a request was refused.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Refusal {
    /// A constant for programs, such as `unknown_task`.
    #[serde(default)]
    pub code: Word,
    /// The reason and, where there is one, a remedy.
    pub message: String,
    /// Ids similar to an unknown one, the most similar first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub nearest: Vec<String>,
    /// The oldest cursor that can be followed, where the requested one has expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::{from_str, to_string};

    use super::*;

    #[test]
    fn a_reservation_is_read_as_it_was_written_and_leaves_out_what_it_does_not_set() {
        let bare: ReservationDocument<'_> = ReservationDocument::new("c1");
        assert_eq!(to_string(&bare).unwrap(), r#"{"container_id":"c1"}"#);
        let full: ReservationDocument<'_> = ReservationDocument {
            task_id: Some("web.1".into()),
            network: Some(Network::Netns { path: std::path::Path::new("/n").into() }),
            pid: Some(7),
            ttl: TtlDocument::Never,
            options: Some(OptionsDocument { gauge_sign: Some("delta".into()), ..OptionsDocument::default() }),
            ..ReservationDocument::new("c1")
        };
        let text = r#"{"container_id":"c1","task_id":"web.1","network":{"mode":"netns","path":"/n"},"pid":7,"ttl":null,"options":{"gauge_sign":"delta"}}"#;
        assert_eq!(to_string(&full).unwrap(), text);
        let read: ReservationDocument<'_> = from_str(text).unwrap();
        assert_eq!(to_string(&read).unwrap(), text);
    }

    #[test]
    fn a_ttl_is_seconds_text_null_or_absent() {
        let ttl = |text: &str| from_str::<ReservationDocument<'_>>(text).unwrap().ttl;
        assert_eq!(ttl(r#"{"container_id":"c"}"#), TtlDocument::Default);
        assert_eq!(ttl(r#"{"container_id":"c","ttl":null}"#), TtlDocument::Never);
        assert_eq!(ttl(r#"{"container_id":"c","ttl":2.5}"#), TtlDocument::Seconds(2.5));
        assert_eq!(ttl(r#"{"container_id":"c","ttl":"5m"}"#), TtlDocument::Text("5m".to_owned()));
    }

    #[test]
    fn the_wrapper_needs_no_more_of_an_answer_than_its_variables() {
        let reserved: ReservedDocument = from_str(r#"{"env":{"STATSD_UDP_HOST":"127.0.0.2"}}"#).unwrap();
        assert_eq!(reserved.statsd_address(), "-");
        assert!(from_str::<ReservedDocument>("{}").is_err());
    }

    #[test]
    fn a_container_without_keys_of_later_versions_is_read() {
        let text = r#"{"container_id":"c1","task_id":"t","generation":1,"statsd_host":"::1","statsd_port":18125,
        "state":"thawing","attached":true,"env":{},"warnings":[]}"#;
        let container: ContainerDocument = from_str(text).unwrap();
        assert_eq!(container.reserved.state, "thawing", "a state of a later version is kept as it is");
        assert_eq!(container.reserved.statsd_address(), "[::1]:18125");
        assert_eq!((container.client, container.received), (None, 0));
    }

    #[test]
    fn a_container_is_read_as_it_was_written() {
        let text = concat!(
            r#"{"container_id":"c1","task_id":"t","generation":1,"statsd_host":null,"statsd_port":null,"state":"lost","#,
            r#""attached":false,"env":{},"reason":"r","warnings":[],"labels":{"a":"b"},"last_datagram":null,"received":1,"#,
            r#""kernel_drops":2,"dropped":3,"folded":8,"rejected":4,"series":5,"memory":6,"origin_guard":"none","#,
            r#""origin_guard_missing":null,"gauge_sign":"auto","timer_unit":"ms","client":{"dogstatsd":false,"#,
            r#""gauge_changes":0,"timers_look_like_seconds":false,"decremented":[]},"receive_buffer":7,"#,
            r#""reserved_at":"2026-01-01T00:00:00Z","image":"i","adopted":true}"#
        );
        assert_eq!(to_string(&from_str::<ContainerDocument>(text).unwrap()).unwrap(), text);
    }

    #[test]
    fn a_refusal_has_a_code_a_message_and_only_the_rest_that_helps() {
        let refusal = Refusal { code: "busy".into(), message: "later".to_owned(), ..Refusal::default() };
        assert_eq!(to_string(&refusal).unwrap(), r#"{"code":"busy","message":"later"}"#);
        assert_eq!(from_str::<Refusal>(r#"{"message":"m"}"#).unwrap().message, "m");
    }
}
