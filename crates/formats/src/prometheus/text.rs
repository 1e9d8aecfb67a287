//! A page as text: OpenMetrics, or the classic format.

use std::fmt::Write as _;

use super::blocks::Block;
use super::identity::{escape, quoted};
use super::name::is_valid;
use super::shape::Declared;
use super::write::{PIECE, Reading};
use crate::exposition::{Format, number};

/// Text being written.
#[derive(Debug)]
pub(super) struct Text {
    format: Format,
    out: String,
    /// Whether the family at hand has a name that goes between quotes.
    quoted: bool,
}

impl Text {
    pub(super) fn new(format: Format) -> Self {
        Self { format, out: String::new(), quoted: false }
    }

    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn take(&mut self) -> Vec<u8> {
        std::mem::replace(&mut self.out, String::with_capacity(PIECE + PIECE / 4)).into_bytes()
    }

    pub(super) fn infos(&mut self, name: &str, help: &str, infos: &[String]) {
        let (family, declared) = match self.format {
            Format::OpenMetrics => (name.strip_suffix("_info").unwrap_or(name), "info"),
            _ => (name, "gauge"),
        };
        let _infallible = writeln!(self.out, "# HELP {family} {help}\n# TYPE {family} {declared}");
        for info in infos {
            let _infallible = writeln!(self.out, "{name}{{{info}}} 1");
        }
    }

    pub(super) fn head(&mut self, block: &Block) {
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
        self.comment("# HELP ", &block.name);
        escape(&mut self.out, &block.help, openmetrics);
        self.comment("\n# TYPE ", &block.name);
        self.out.push_str(declared);
        if openmetrics && !block.unit.is_empty() {
            self.comment("\n# UNIT ", &block.name);
            self.out.push_str(block.unit);
        }
        self.out.push('\n');
    }

    fn comment(&mut self, what: &str, name: &str) {
        self.out.push_str(what);
        if self.quoted {
            quoted(&mut self.out, name);
        } else {
            self.out.push_str(name);
        }
        self.out.push(' ');
    }

    /// A line: its name, the labels of its series, and what was read. A native histogram has none.
    pub(super) fn reading(&mut self, (name, suffix): (&str, &str), labels: &str, reading: &Reading<'_>) {
        let (more, value) = match reading {
            Reading::One(value) => (None, *value),
            Reading::Labelled { name, text, value, .. } => (Some((name, text)), *value),
            Reading::Native { .. } => return,
        };
        if self.quoted {
            self.out.push_str("{\"");
            escape(&mut self.out, name, true);
            self.out.extend([suffix, "\",", labels]);
        } else {
            self.out.extend([name, suffix, "{", labels]);
        }
        if let Some((name, text)) = more {
            let _infallible = write!(self.out, ",{name}=\"{text}\"");
        }
        let _infallible = writeln!(self.out, "}} {}", number(value));
    }

    /// The page is over.
    pub(super) fn end(&mut self) {
        if self.format == Format::OpenMetrics {
            self.out.push_str("# EOF\n");
        }
    }
}
