//! What settings hold: the form and range of a value, and how its text is read.

use std::path::PathBuf;
use std::time::Duration;

use super::value;
use super::values::Value;
use crate::aggregate::{Bounds, MOST_BOUNDS};
use crate::identity::read_switch;

/// What a setting holds.
#[derive(Copy, Clone, Debug)]
pub enum SettingKind {
    /// Text without control characters, from the first number of bytes to the second.
    Text(usize, usize),
    /// A log level, or `target=level` pairs.
    LogFilter,
    /// An absolute path.
    Path,
    /// An absolute path, or nothing.
    OptionalPath,
    /// An IP address, or nothing.
    Ip,
    /// An IP address and a port.
    Address,
    /// `true` or `false`, or another word for it.
    Switch,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Some of these words; if the list is empty, any words.
    Words(&'static [&'static str]),
    /// Upper bounds of buckets, each larger than the one before.
    Bounds {
        /// The decimal places by which the unit of samples is smaller than that of the bounds.
        places: i8,
    },
    /// A whole number from the first to the second.
    Count(u64, u64),
    /// A whole number of at least one, or `unlimited`.
    Rate,
    /// Bytes, with a unit, from the first to the second.
    Size(u64, u64),
    /// A time, with a unit, from the first to the second, in milliseconds.
    Time(u64, u64),
    /// Permissions, in octal.
    Mode,
}

/// Entries that a list may have. Many lists are of patterns, each of which is compared with names that others choose.
const MOST_WORDS: usize = 256;
/// Bytes that an entry may have: as many as a filter of a query.
const LONGEST_WORD: usize = 1024;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl SettingKind {
    /// What may be written, in a few words.
    #[must_use]
    pub fn expected_form(&self) -> String {
        match self {
            Self::Text(0, most) => format!("text of at most {most} bytes"),
            Self::Text(least, most) => format!("text of {least} to {most} bytes"),
            Self::LogFilter => format!("a level ({}) or target=level pairs", LEVELS.join(", ")),
            Self::Path | Self::OptionalPath => "an absolute path".to_owned(),
            Self::Ip => "an IP address".to_owned(),
            Self::Address => "an address and port, such as 127.0.0.1:9725".to_owned(),
            Self::Switch => "true or false".to_owned(),
            Self::OneOf(words) => words.join(" or "),
            Self::Words([]) => "a list of words".to_owned(),
            Self::Words(words) => format!("a list of {}", words.join(", ")),
            Self::Bounds { .. } => {
                format!("a list of 1 to {MOST_BOUNDS} numbers, each larger than the one before")
            }
            Self::Count(least, most) => format!("a whole number from {least} to {most}"),
            Self::Rate => "a whole number of at least 1, or \"unlimited\"".to_owned(),
            Self::Size(least, most) => {
                format!("a size from {} to {}", value::size_text(*least), value::size_text(*most))
            }
            Self::Time(least, most) => {
                format!("a time from {} to {}", value::time_text(*least), value::time_text(*most))
            }
            Self::Mode => "permissions in octal, such as \"0660\"".to_owned(),
        }
    }

    /// Reads the text of a value.
    ///
    /// # Errors
    /// When it has another form or is out of range; the text follows the key and the value.
    pub(super) fn read(&self, text: &str) -> Result<Value, String> {
        let read = match *self {
            Self::Text(least, most) => {
                let fits = (least..=most).contains(&text.len()) && !text.chars().any(char::is_control);
                fits.then(|| Value::Text(text.to_owned()))
            }
            Self::LogFilter => log_filter(text).then(|| Value::Text(text.to_owned())),
            Self::OptionalPath if text.is_empty() => Some(Value::Path(None)),
            Self::Path | Self::OptionalPath => Some(PathBuf::from(text))
                .filter(|path| path.is_absolute())
                .map(|path| Value::Path(Some(path))),
            Self::Ip if text.is_empty() => Some(Value::Ip(None)),
            Self::Ip => text.parse().ok().map(|ip| Value::Ip(Some(ip))),
            Self::Address => text.parse().ok().map(Value::Address),
            Self::Switch => read_switch(text).map(Value::Switch),
            Self::OneOf(words) => words.iter().find(|word| **word == text).map(|word| Value::Word(word)),
            Self::Words(known) => Some(Value::Words(self.read_words(text, known)?)),
            Self::Bounds { places } => Some(Value::Bounds(read_bounds(text, places)?)),
            Self::Count(least, most) => number_in_range(text.parse().ok(), least, most),
            Self::Rate if text == "unlimited" => Some(Value::Rate(None)),
            Self::Rate => text.parse().ok().filter(|rate| *rate > 0).map(|rate| Value::Rate(Some(rate))),
            Self::Size(least, most) => number_in_range(Some(value::parse_size(text)?), least, most),
            Self::Time(least, most) => {
                let time = value::parse_duration(text)?;
                let range = Duration::from_millis(least)..=Duration::from_millis(most);
                range.contains(&time).then_some(Value::Time(time))
            }
            Self::Mode => number_in_range(u64::from_str_radix(text, 8).ok(), 0, 0o777),
        };
        read.ok_or_else(|| format!("is not {}", self.expected_form()))
    }

    fn read_words(&self, text: &str, known: &[&str]) -> Result<Vec<String>, String> {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        let words: Vec<String> = words.map(str::to_owned).collect();
        if words.len() > MOST_WORDS {
            return Err(format!("has {} entries and may have {MOST_WORDS}", words.len()));
        }
        if let Some(word) = words.iter().find(|word| word.len() > LONGEST_WORD) {
            let start: String = word.chars().take(32).chain(['…']).collect();
            return Err(format!("has {start:?} of {} bytes; an entry may have {LONGEST_WORD}", word.len()));
        }
        let odd = |word: &&String| match known {
            [] => word.chars().any(char::is_control),
            known => !known.contains(&word.as_str()),
        };
        match words.iter().find(odd) {
            Some(word) => Err(format!("has {word:?}, which is not in {}", self.expected_form())),
            None => Ok(words),
        }
    }
}

fn number_in_range(read: Option<u64>, least: u64, most: u64) -> Option<Value> {
    read.filter(|number| (least..=most).contains(number)).map(Value::Number)
}

/// The library takes a misspelled level for a target, and then logs everything of that target.
fn log_filter(text: &str) -> bool {
    let pairs = text.split(',').all(|part| part.contains('=') || LEVELS.contains(&part.trim()));
    pairs && text.parse::<tracing_subscriber::filter::Targets>().is_ok()
}

fn read_bounds(text: &str, places: i8) -> Result<Bounds, String> {
    let number =
        |word: &str| word.trim().parse::<f64>().map_err(|_| format!("has {word:?}, which is not a number"));
    let numbers = text.split(',').map(number).collect::<Result<Vec<_>, _>>()?;
    Bounds::new(&numbers, places).map_err(|error| error.to_string())
}
