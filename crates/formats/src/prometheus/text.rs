//! Writes a page as text: OpenMetrics, or the classic format.

use std::fmt::Write as _;

use super::family::Block;
use super::identity::{push_escaped, push_quoted};
use super::name::is_valid;
use super::shape::Declared;
use super::stat::Reading;
use crate::exposition::{Format, format_number};

/// The approximate size of a piece, in bytes.
pub(super) const PIECE: usize = 64 << 10;

/// Text being written.
#[derive(Debug)]
pub(super) struct TextWriter {
    format: Format,
    out: String,
    /// Whether the current family's name must be quoted.
    quoted: bool,
}

impl TextWriter {
    pub(super) fn new(format: Format) -> Self {
        Self { format, out: String::new(), quoted: false }
    }

    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn take_output(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.out, String::with_capacity(PIECE + PIECE / 4)).into_bytes()
    }

    pub(super) fn write_infos(&mut self, name: &str, help: &str, infos: &[String]) {
        let (family, declared) = match self.format {
            Format::OpenMetrics => (name.strip_suffix("_info").unwrap_or(name), "info"),
            _ => (name, "gauge"),
        };
        let _infallible = writeln!(self.out, "# HELP {family} {help}\n# TYPE {family} {declared}");
        for info in infos {
            let _infallible = writeln!(self.out, "{name}{{{info}}} 1");
        }
    }

    pub(super) fn begin_block(&mut self, block: &Block) {
        let openmetrics = self.format == Format::OpenMetrics;
        let declared = match block.declared {
            Declared::Counter => "counter",
            Declared::Gauge => "gauge",
            Declared::Summary => "summary",
            Declared::Histogram | Declared::Native => "histogram",
            Declared::Unknown if openmetrics => "unknown",
            Declared::Unknown => "untyped",
        };
        self.quoted = !is_valid(&block.name);
        self.write_comment("# HELP ", &block.name);
        push_escaped(&mut self.out, &block.help, openmetrics);
        self.write_comment("\n# TYPE ", &block.name);
        self.out.push_str(declared);
        if openmetrics && !block.unit.is_empty() {
            self.write_comment("\n# UNIT ", &block.name);
            self.out.push_str(block.unit);
        }
        self.out.push('\n');
    }

    fn write_comment(&mut self, what: &str, name: &str) {
        self.out.push_str(what);
        if self.quoted {
            push_quoted(&mut self.out, name);
        } else {
            self.out.push_str(name);
        }
        self.out.push(' ');
    }

    /// Writes a line: name, labels and value. Native histograms have no text form.
    pub(super) fn write_reading(
        &mut self,
        (name, suffix): (&str, &str),
        labels: &str,
        reading: &Reading<'_>,
    ) {
        let (more, value) = match reading {
            Reading::One(value) => (None, *value),
            Reading::Labelled { name, text, value, .. } => (Some((name, text)), *value),
            Reading::Native { .. } => return,
        };
        if self.quoted {
            self.out.push_str("{\"");
            push_escaped(&mut self.out, name, true);
            self.out.extend([suffix, "\",", labels]);
        } else {
            self.out.extend([name, suffix, "{", labels]);
        }
        if let Some((name, text)) = more {
            let _infallible = write!(self.out, ",{name}=\"{text}\"");
        }
        let _infallible = writeln!(self.out, "}} {}", format_number(value));
    }

    /// Ends the page.
    pub(super) fn end_page(&mut self) {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
    }
}
