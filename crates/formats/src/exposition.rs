//! OpenMetrics 1.0 and Prometheus' classic formats, text and protobuf: the same families in three encodings.

use std::fmt::Write as _;

/// The exposition format.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Format {
    /// `application/openmetrics-text`: counters without `_total` in their family name, and an end mark.
    OpenMetrics,
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/vnd.google.protobuf`: messages, the only format with native histograms.
    Protobuf,
}

/// Which characters names and labels may contain.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub enum Escaping {
    /// Letters, digits and underscores, which every reader accepts.
    #[default]
    Underscores,
    /// Any, in quotes, as Prometheus 3 requests with `escaping=allow-utf-8`.
    Utf8,
}

impl Escaping {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Underscores, Self::Utf8];
}

/// The types of families.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum FamilyKind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Quantiles, sum and count.
    Summary,
    /// Always 1; the information is in its labels.
    Info,
}

impl Format {
    /// Those that are text.
    pub const TEXTS: [Self; 2] = [Self::OpenMetrics, Self::Prometheus];
    /// All of them.
    pub const ALL: [Self; 3] = [Self::OpenMetrics, Self::Prometheus, Self::Protobuf];

    /// The offered format that an `Accept` header prefers by q-value (RFC 9110, 12.5.1); the first of several with the
    /// same value, and the classic text if it accepts none of them. Also returns the characters that the reader accepts
    /// in names; Prometheus' other escaping schemes are not offered.
    #[must_use]
    pub fn from_accept_header(accept: Option<&str>, offered: &[Self]) -> (Self, Escaping) {
        let mut chosen = (Self::Prometheus, Escaping::Underscores, 0.0);
        for range in accept.unwrap_or_default().split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default();
            let parameters: Vec<_> = parts.filter_map(|part| part.split_once('=')).collect();
            let of = |name: &str| {
                let found = parameters.iter().find(|(known, _)| known.trim().eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.trim().trim_matches('"'))
            };
            let wanted = of("q").map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let format = offered.iter().find(|format| format.is_meant(media, of));
            let escaping = match of("escaping") {
                Some("allow-utf-8") => Escaping::Utf8,
                _ => Escaping::Underscores,
            };
            if let Some(format) = format.filter(|_| wanted > chosen.2) {
                chosen = (*format, escaping, wanted);
            }
        }
        (chosen.0, chosen.1)
    }

    /// Whether a media type with these parameters is this format, in a supported version.
    fn is_meant<'a>(self, media: &str, of: impl Fn(&str) -> Option<&'a str>) -> bool {
        let version = |known: &[&str]| of("version").is_none_or(|version| known.contains(&version));
        match self {
            Self::OpenMetrics => {
                media.eq_ignore_ascii_case("application/openmetrics-text") && version(&["1.0.0", "0.0.1"])
            }
            // Version 1.0.0 is the same text except for quoted names.
            Self::Prometheus => media.eq_ignore_ascii_case("text/plain") && version(&["0.0.4", "1.0.0"]),
            Self::Protobuf => {
                media.eq_ignore_ascii_case("application/vnd.google.protobuf")
                    && of("proto") == Some("io.prometheus.client.MetricFamily")
                    && of("encoding") == Some("delimited")
            }
        }
    }

    /// Its media type.
    #[must_use]
    pub const fn content_type(self, escaping: Escaping) -> &'static str {
        match (self, escaping) {
            (Self::OpenMetrics, Escaping::Underscores) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            }
            (Self::OpenMetrics, Escaping::Utf8) => {
                "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
            }
            (Self::Prometheus, Escaping::Underscores) => "text/plain; version=0.0.4; charset=utf-8",
            (Self::Prometheus, Escaping::Utf8) => {
                "text/plain; version=1.0.0; charset=utf-8; escaping=allow-utf-8"
            }
            (Self::Protobuf, Escaping::Underscores) => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            (Self::Protobuf, Escaping::Utf8) => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited; \
                 escaping=allow-utf-8"
            }
        }
    }
}

/// Families being written, as text.
#[derive(Debug)]
pub struct Exposition {
    format: Format,
    text: String,
    family: String,
    kind: FamilyKind,
}

impl Exposition {
    /// Nothing yet.
    #[must_use]
    pub fn new(format: Format) -> Self {
        Self { format, text: String::new(), family: String::new(), kind: FamilyKind::Gauge }
    }

    /// Starts a family. The names of counters and infos are passed without their suffix.
    pub fn begin_family(&mut self, name: &str, kind: FamilyKind, help: &str) {
        self.kind = kind;
        name.clone_into(&mut self.family);
        let suffix = match (self.format, kind) {
            (Format::Prometheus, FamilyKind::Counter) => "_total",
            (Format::Prometheus, FamilyKind::Info) => "_info",
            _ => "",
        };
        let word = match (self.format, kind) {
            (_, FamilyKind::Counter) => "counter",
            (_, FamilyKind::Summary) => "summary",
            (Format::OpenMetrics, FamilyKind::Info) => "info",
            (_, FamilyKind::Gauge | FamilyKind::Info) => "gauge",
        };
        let _infallible = writeln!(self.text, "# HELP {name}{suffix} {}", escape_text(help, false));
        let _infallible = writeln!(self.text, "# TYPE {name}{suffix} {word}");
    }

    /// Writes one sample of the family that was started last.
    pub fn write_sample(&mut self, labels: &[(&str, &str)], value: f64) {
        let suffix = match self.kind {
            FamilyKind::Counter => "_total",
            FamilyKind::Info => "_info",
            FamilyKind::Gauge | FamilyKind::Summary => "",
        };
        self.write_line(suffix, labels, value);
    }

    /// Writes one part of a summary: `_sum` or `_count`.
    pub fn write_summary_part(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        self.write_line(suffix, labels, value);
    }

    fn write_line(&mut self, suffix: &str, labels: &[(&str, &str)], value: f64) {
        let _infallible = write!(self.text, "{}{suffix}", self.family);
        for (index, (name, value)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _infallible = write!(self.text, "{open}{name}=\"{}\"", escape_text(value, true));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _infallible = writeln!(self.text, " {}", format_number(value));
    }

    /// The whole text.
    #[must_use]
    pub fn into_text(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }
}

fn escape_text(text: &str, quoted: bool) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    if quoted { text.replace('"', "\\\"") } else { text }
}

/// A number, with an exponent if it would be long otherwise.
pub(super) fn format_number(value: f64) -> String {
    let size = value.abs();
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else if size != 0.0 && !(1e-5..1e17).contains(&size) {
        format!("{value:e}")
    } else {
        value.to_string()
    }
}

/// A bound as OpenMetrics wants labels of one to be: always with a point or an exponent, the latter from a million on and
/// below a ten-thousandth, so that all writers agree.
pub(super) fn format_bound(bound: f64) -> String {
    let size = bound.abs();
    if size == 0.0 {
        return "0.0".to_owned();
    }
    if !bound.is_finite() || (1e-4..1e6).contains(&size) {
        let text = format_number(bound);
        let whole = bound.is_finite() && !text.contains('.');
        return if whole { text + ".0" } else { text };
    }
    let text = format!("{bound:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |exponent| ('-', exponent));
    format!("{digits}e{sign}{exponent:0>2}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(format: Format) -> String {
        let mut exposition = Exposition::new(format);
        exposition.begin_family("lines_rejected", FamilyKind::Counter, "Lines\nrejected.");
        exposition.write_sample(&[("code", "a\"b\\c\nd")], 3.0);
        exposition.begin_family("close_seconds", FamilyKind::Summary, "Time.");
        exposition.write_sample(&[("quantile", "0.5")], 0.25);
        exposition.write_summary_part("_count", &[], 7.0);
        exposition.begin_family("build", FamilyKind::Info, "Version.");
        exposition.write_sample(&[("version", "1")], 1.0);
        exposition.into_text()
    }

    #[test]
    fn openmetrics_names_families_without_suffixes_and_ends() {
        assert_eq!(
            text(Format::OpenMetrics),
            "# HELP lines_rejected Lines\\nrejected.\n# TYPE lines_rejected counter\n\
             lines_rejected_total{code=\"a\\\"b\\\\c\\nd\"} 3\n# HELP close_seconds Time.\n# TYPE close_seconds summary\n\
             close_seconds{quantile=\"0.5\"} 0.25\nclose_seconds_count 7\n# HELP build Version.\n# TYPE build info\n\
             build_info{version=\"1\"} 1\n# EOF\n"
        );
    }

    #[test]
    fn the_classic_format_names_families_as_their_samples() {
        let text = text(Format::Prometheus);
        assert!(text.contains("# TYPE lines_rejected_total counter\n"));
        assert!(text.contains("# TYPE build_info gauge\n"));
        assert!(!text.contains("EOF"));
    }

    #[test]
    fn numbers_are_short_and_exact() {
        let numbers = [0.0, -0.5, 1e16, 123_456_789.25, f64::MAX, 5e-324, f64::NEG_INFINITY];
        let texts =
            ["0", "-0.5", "10000000000000000", "123456789.25", "1.7976931348623157e308", "5e-324", "-Inf"];
        assert_eq!(numbers.map(format_number), texts);
    }

    #[test]
    fn bounds_are_written_in_the_one_way_that_openmetrics_has() {
        let bounds = [0.0, 1.0, -2.5, 0.005, 0.0001, 1e-5, 123_456.0, 1e6, 1_234_567.0, 1e21, 2.5e-10, 1e300];
        let texts = [
            "0.0",
            "1.0",
            "-2.5",
            "0.005",
            "0.0001",
            "1e-05",
            "123456.0",
            "1e+06",
            "1.234567e+06",
            "1e+21",
            "2.5e-10",
            "1e+300",
        ];
        assert_eq!(bounds.map(format_bound), texts);
        assert_eq!(format_bound(f64::INFINITY), "+Inf");
    }

    #[test]
    fn a_reader_gets_the_format_it_asks_for() {
        const PROTOBUF: &str =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let of = |accept: &str| Format::from_accept_header(Some(accept), &Format::ALL).0;
        for (accept, wanted) in [
            ("application/openmetrics-text;version=1.0.0,text/plain;q=0.5", Format::OpenMetrics),
            ("text/plain", Format::Prometheus),
            ("*/*", Format::Prometheus),
            ("", Format::Prometheus),
            ("text/plain, application/openmetrics-text;q=0.9", Format::Prometheus),
            (
                "text/plain;version=2.0.0;escaping=allow-utf-8, application/openmetrics-text;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/openmetrics-text;version=2.0.0, text/plain;version=0.0.4;q=0.3",
                Format::Prometheus,
            ),
            ("APPLICATION/OpenMetrics-Text; Version=\"1.0.0\"", Format::OpenMetrics),
            ("application/openmetrics-text;q=0, text/plain;q=0", Format::Prometheus),
            ("application/openmetrics-text;q=much", Format::Prometheus),
        ] {
            assert_eq!(of(accept), wanted, "{accept}");
        }
        // The `Accept` headers of Prometheus 2.42 and 3, with and without native histograms.
        let first = format!(
            "{PROTOBUF},application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
        );
        let last = format!(
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,{PROTOBUF};q=0.5,text/plain;version=0.0.4;q=0.3"
        );
        assert_eq!((of(&first), of(&last)), (Format::Protobuf, Format::OpenMetrics));
        assert_eq!(Format::from_accept_header(Some(&first), &Format::TEXTS).0, Format::OpenMetrics);
        for other in ["text", "compact-text"].map(|encoding| PROTOBUF.replace("delimited", encoding)) {
            assert_eq!(of(&other), Format::Prometheus, "{other}");
        }
        assert_eq!(of("application/vnd.google.protobuf"), Format::Prometheus);
        assert_eq!(
            Format::from_accept_header(None, &Format::ALL),
            (Format::Prometheus, Escaping::Underscores)
        );
    }

    #[test]
    fn a_reader_gets_names_in_utf_8_only_where_it_asks_for_them() {
        for (accept, wanted) in [
            (
                "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=1.0.0;q=0.5",
                (Format::OpenMetrics, Escaping::Utf8),
            ),
            (
                "text/plain;version=1.0.0;escaping=allow-utf-8, application/openmetrics-text;q=0.1",
                (Format::Prometheus, Escaping::Utf8),
            ),
            (
                "application/openmetrics-text;version=1.0.0;escaping=underscores",
                (Format::OpenMetrics, Escaping::Underscores),
            ),
            ("application/openmetrics-text;escaping=dots", (Format::OpenMetrics, Escaping::Underscores)),
            (
                "text/plain;escaping=allow-utf-8;q=0.1, application/openmetrics-text",
                (Format::OpenMetrics, Escaping::Underscores),
            ),
        ] {
            assert_eq!(Format::from_accept_header(Some(accept), &Format::ALL), wanted, "{accept}");
        }
        for format in Format::ALL {
            let [underscores, utf8] = Escaping::ALL.map(|escaping| format.content_type(escaping));
            let said = Format::from_accept_header(Some(utf8), &Format::ALL);
            assert_eq!(said, (format, Escaping::Utf8), "what is answered is what could be asked for");
            assert!(!underscores.contains("escaping"));
        }
    }
}
