//! A page as text: OpenMetrics, or the classic format.

use std::fmt::Write as _;

use super::blocks::Block;
use super::identity::escape;
use super::shape::Declared;
use super::write::{PIECE, Reading};
use crate::render::exposition::{Format, number};

/// Text being written.
#[derive(Debug)]
pub(super) struct Text {
    format: Format,
    out: String,
}

impl Text {
    pub(super) fn new(format: Format) -> Self {
        Self { format, out: String::new() }
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
        let _infallible = write!(self.out, "# HELP {} ", block.name);
        escape(&mut self.out, &block.help, openmetrics);
        let _infallible = writeln!(self.out, "\n# TYPE {} {declared}", block.name);
        if openmetrics && !block.unit.is_empty() {
            let _infallible = writeln!(self.out, "# UNIT {} {}", block.name, block.unit);
        }
    }

    /// A line: its name, the labels of its series, and what was read. A native histogram has none.
    pub(super) fn reading(&mut self, (name, suffix): (&str, &str), labels: &str, reading: &Reading<'_>) {
        let (more, value) = match reading {
            Reading::One(value) => (None, *value),
            Reading::Labelled { name, text, value, .. } => (Some((name, text)), *value),
            Reading::Native { .. } => return,
        };
        for part in [name, suffix, "{", labels] {
            self.out.push_str(part);
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
