//! Forms of settings: which values a setting can hold, how their text is read, and how times and sizes are written.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::url;
use crate::aggregate::{Bounds, MOST_BOUNDS};
use crate::identity::read_switch;

/// The form and range of a setting's value.
#[derive(Copy, Clone, Debug)]
pub enum SettingKind {
    /// Text without control characters, with a minimum and maximum length in bytes.
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
    /// `true` or `false`, or an equivalent word.
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
    /// A time as in [`Self::Time`], or nothing.
    OptionalTime(u64, u64),
    /// Permissions, in octal.
    Mode,
    /// A host name or an IP address.
    Host,
    /// The URL of a server that speaks HTTP, without secrets; or nothing.
    OptionalUrl,
    /// `env`, the URL of a proxy, or nothing.
    Proxy,
    /// The absolute path of a file that has to be there when the configuration is used, or nothing.
    InputFile,
    /// The same, for a file that users other than its owner and group must not be able to read.
    SecretFile,
}

/// One value.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    Text(String),
    Path(Option<PathBuf>),
    Ip(Option<IpAddr>),
    Address(SocketAddr),
    Switch(bool),
    /// One of the words in the row.
    Word(&'static str),
    Words(Vec<String>),
    Bounds(Bounds),
    /// A count, bytes or permissions.
    Number(u64),
    /// `None` if it is unlimited.
    Rate(Option<u64>),
    Time(Duration),
    OptionalTime(Option<Duration>),
}

/// Maximum number of entries in a list. Many lists contain patterns, each of which is matched against names from
/// outside.
const MOST_WORDS: usize = 256;
/// Maximum length of an entry in bytes, the same as for a filter in a query.
const LONGEST_WORD: usize = 1024;
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl SettingKind {
    /// A short description of valid values.
    #[must_use]
    pub fn expected_form(&self) -> String {
        match self {
            Self::Text(0, most) => format!("text of at most {most} bytes"),
            Self::Text(least, most) => format!("text of {least} to {most} bytes"),
            Self::LogFilter => format!("a level ({}) or target=level pairs", LEVELS.join(", ")),
            Self::Path | Self::OptionalPath | Self::InputFile | Self::SecretFile => {
                "an absolute path".to_owned()
            }
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
                format!("a size from {} to {}", size_text(*least), size_text(*most))
            }
            Self::Time(least, most) | Self::OptionalTime(least, most) => {
                format!("a time from {} to {}", time_text(*least), time_text(*most))
            }
            Self::Mode => "permissions in octal, such as \"0660\"".to_owned(),
            Self::Host => "a host name or an IP address".to_owned(),
            Self::OptionalUrl => "a URL that starts with http:// or https://".to_owned(),
            Self::Proxy => {
                "\"env\", the URL of a proxy such as http://proxy.example:3128, or nothing".to_owned()
            }
        }
    }

    /// Reads the text of a value.
    ///
    /// # Errors
    /// When the form is wrong or the value is out of range; the text is printed after the key and the value.
    pub(super) fn read(&self, text: &str) -> Result<Value, String> {
        let read = match *self {
            Self::Text(least, most) => {
                let fits = (least..=most).contains(&text.len()) && !text.chars().any(char::is_control);
                fits.then(|| Value::Text(text.to_owned()))
            }
            Self::LogFilter => log_filter(text).then(|| Value::Text(text.to_owned())),
            Self::OptionalPath | Self::InputFile | Self::SecretFile if text.is_empty() => {
                Some(Value::Path(None))
            }
            Self::Path | Self::OptionalPath | Self::InputFile | Self::SecretFile => Some(PathBuf::from(text))
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
            Self::Size(least, most) => number_in_range(Some(parse_size(text)?), least, most),
            Self::OptionalTime(..) if text.is_empty() => Some(Value::OptionalTime(None)),
            Self::OptionalTime(least, most) => {
                time_in_range(text, least, most)?.map(|time| Value::OptionalTime(Some(time)))
            }
            Self::Time(least, most) => time_in_range(text, least, most)?.map(Value::Time),
            Self::Mode => number_in_range(u64::from_str_radix(text, 8).ok(), 0, 0o777),
            Self::Host => url::is_host(text).then(|| Value::Text(text.to_owned())),
            Self::OptionalUrl if text.is_empty() => Some(Value::Text(String::new())),
            Self::OptionalUrl => Some(Value::Text(url::check_url(text).map(|()| text.to_owned())?)),
            Self::Proxy if matches!(text, "env" | "") => Some(Value::Text(text.to_owned())),
            Self::Proxy => Some(Value::Text(url::check_proxy(text).map(|()| text.to_owned())?)),
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

fn time_in_range(text: &str, least: u64, most: u64) -> Result<Option<Duration>, String> {
    let range = Duration::from_millis(least)..=Duration::from_millis(most);
    Ok(Some(parse_duration(text)?).filter(|time| range.contains(time)))
}

/// Rejects misspelled levels, which the library would treat as targets.
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

/// Parses a time with a unit: `500ms`, `10s`, `1h 30m`.
pub(super) fn parse_duration(text: &str) -> Result<Duration, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("needs a unit, such as {text}s"));
    }
    humantime::parse_duration(text)
        .map_err(|_| "is not a time; write it like 500ms, 10s or 1h 30m".to_owned())
}

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("B", 1),
];

/// Parses a size with a unit: `512B`, `256KiB`, `2GiB`.
pub(super) fn parse_size(text: &str) -> Result<u64, String> {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("needs a unit, such as {text}KiB"));
    }
    let read = UNITS.iter().find_map(|(unit, bytes)| {
        let number: u64 = text.strip_suffix(unit)?.trim_end().parse().ok()?;
        number.checked_mul(*bytes)
    });
    read.ok_or_else(|| "is not a size; write it like 512B, 256KiB or 2GiB".to_owned())
}

/// Formats a size in the largest unit that divides it.
pub(super) fn size_text(bytes: u64) -> String {
    let fitting = UNITS.iter().take(4).rev().find(|(_, unit)| bytes >= *unit && bytes.is_multiple_of(*unit));
    match fitting {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => format!("{bytes}B"),
    }
}

/// Formats a time.
pub(super) fn time_text(millis: u64) -> String {
    if millis == 0 {
        return "0s".to_owned();
    }
    humantime::format_duration(Duration::from_millis(millis)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_needs_a_unit() {
        assert_eq!(parse_duration("1h 30m"), Ok(Duration::from_mins(90)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("10"), Err("needs a unit, such as 10s".to_owned()));
        assert!(
            parse_duration("").is_err()
                && parse_duration("ten seconds").is_err()
                && parse_duration("-1s").is_err()
        );
    }

    #[test]
    fn a_size_needs_a_unit() {
        assert_eq!(parse_size("256KiB"), Ok(262_144));
        assert_eq!(parse_size("1 MB"), Ok(1_000_000));
        assert_eq!(parse_size("12B"), Ok(12));
        assert_eq!(parse_size("64"), Err("needs a unit, such as 64KiB".to_owned()));
        assert!(parse_size("").is_err() && parse_size("x").is_err() && parse_size("99999999999GiB").is_err());
    }

    #[test]
    fn what_is_written_reads_back() {
        for bytes in [1, 1024, 262_144, 3 << 30, 1000] {
            assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }
        for millis in [0, 100, 60_000, 5_400_000] {
            assert_eq!(parse_duration(&time_text(millis)), Ok(Duration::from_millis(millis)));
        }
    }
}
