//! Reads a TOML table entry by entry, so that every mistake is reported with its line. The code that serde derives for
//! this was a tenth of the size of this program, which starts with every container.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A table from which known entries are taken, until only unknown ones are left.
#[derive(Debug)]
pub(super) struct TomlTable<'a> {
    text: &'a str,
    left: Vec<(&'a str, &'a Spanned<DeValue<'a>>)>,
    mistakes: Vec<String>,
}

/// Reads a text. The error lists all mistakes with their lines.
pub(super) fn read<T>(text: &str, read: impl FnOnce(&mut TomlTable<'_>) -> T) -> Result<T, String> {
    let parsed = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        format!("line {}: {}", line_number(text, at), error.message())
    })?;
    let mut table = TomlTable::new(text, parsed.get_ref());
    let value = read(&mut table);
    let mistakes = table.into_mistakes();
    if mistakes.is_empty() { Ok(value) } else { Err(mistakes.join("; ")) }
}

impl<'a> TomlTable<'a> {
    fn new(text: &'a str, table: &'a DeTable<'a>) -> Self {
        let left = table.iter().map(|(key, value)| (key.get_ref().as_ref(), value)).collect();
        Self { text, left, mistakes: Vec::new() }
    }

    /// What is wrong, including the entries that were not taken.
    fn into_mistakes(mut self) -> Vec<String> {
        for (key, value) in std::mem::take(&mut self.left) {
            self.add_mistake(value, &format!("{key} is not a setting"));
        }
        self.mistakes
    }

    fn entry(&mut self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        let at = self.left.iter().position(|(name, _)| *name == key)?;
        Some(self.left.remove(at).1)
    }

    fn add_mistake(&mut self, value: &Spanned<DeValue<'_>>, what: &str) {
        self.mistakes.push(format!("line {}: {what}", line_number(self.text, value.span().start)));
    }

    /// Takes and converts a value; `None` if it is missing or cannot be converted.
    fn take_value<T>(
        &mut self,
        key: &str,
        wanted: &str,
        make: impl FnOnce(&DeValue<'_>) -> Option<T>,
    ) -> Option<T> {
        let value = self.entry(key)?;
        let made = make(value.get_ref());
        if made.is_none() {
            self.add_mistake(value, &format!("{key} is not {wanted}"));
        }
        made
    }

    pub(super) fn take_text(&mut self, key: &str) -> Option<String> {
        self.take_value(key, "a text", value_as_text)
    }

    pub(super) fn take_bool(&mut self, key: &str) -> Option<bool> {
        self.take_value(key, "true or false", |value| match value {
            DeValue::Boolean(on) => Some(*on),
            _ => None,
        })
    }

    pub(super) fn take_number(&mut self, key: &str) -> Option<u64> {
        self.take_value(key, "a number, 0 or more", |value| {
            let number = value.as_integer()?;
            u64::from_str_radix(number.as_str(), number.radix()).ok()
        })
    }

    /// One of several words.
    pub(super) fn take_keyword<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let all: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        self.take_value(key, &all.join(" or "), |value| {
            let said = value.as_str()?;
            words.iter().find(|(word, _)| *word == said).map(|(_, meaning)| *meaning)
        })
    }

    pub(super) fn take_texts(&mut self, key: &str) -> Vec<String> {
        self.take_value(key, "a list of texts", |value| {
            value.as_array()?.iter().map(|one| value_as_text(one.get_ref())).collect()
        })
        .unwrap_or_default()
    }

    /// Names, each with a text.
    pub(super) fn take_named_texts(&mut self, key: &str) -> BTreeMap<String, String> {
        self.take_value(key, "a table of texts", |value| {
            let named = value.as_table()?.iter();
            named.map(|(key, one)| Some((key.get_ref().to_string(), value_as_text(one.get_ref())?))).collect()
        })
        .unwrap_or_default()
    }

    /// Tables of one name, `[[key]]`.
    pub(super) fn take_tables<T>(&mut self, key: &str, read: impl Fn(&mut TomlTable<'_>) -> T) -> Vec<T> {
        let Some(value) = self.entry(key) else { return Vec::new() };
        let tables = value.get_ref().as_array().map(|all| all.iter().map(|one| one.get_ref().as_table()));
        let tables: Option<Vec<&DeTable<'_>>> = tables.and_then(Iterator::collect);
        let Some(tables) = tables else {
            self.add_mistake(value, &format!("{key} is not a list of tables"));
            return Vec::new();
        };
        let mut all = Vec::new();
        for table in tables {
            let mut table = TomlTable::new(self.text, table);
            all.push(read(&mut table));
            self.mistakes.extend(table.into_mistakes());
        }
        all
    }
}

fn value_as_text(value: &DeValue<'_>) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn line_number(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_told_at_once_with_its_line() {
        let text = "a = 1\nb = \"x\"\nc = [\"x\", 2]\nd = { e = 3 }\nf = -1\ng = \"maybe\"\n[[h]]\ni = true\n[[h]]\nj = \"k\"\n";
        let mistakes = read(text, |table| {
            table.take_text("a");
            table.take_bool("b");
            table.take_texts("c");
            table.take_named_texts("d");
            table.take_number("f");
            table.take_keyword("g", &[("yes", true), ("no", false)]);
            table.take_tables("h", |table| table.take_text("j"));
        });
        let expected = [
            "line 1: a is not a text",
            "line 2: b is not true or false",
            "line 3: c is not a list of texts",
            "line 4: d is not a table of texts",
            "line 5: f is not a number, 0 or more",
            "line 6: g is not \"yes\" or \"no\"",
            "line 8: i is not a setting",
        ];
        assert_eq!(mistakes, Err(expected.join("; ")));
    }

    #[test]
    fn what_is_there_is_read_and_what_is_not_is_nothing() {
        let text = "a = 'x'\nb = true\nc = ['x', 'y']\nd.e.f = 'z'\nd = 0x1F\n";
        assert!(read(text, |_| ()).is_err_and(|why| why.starts_with("line 5: ")), "a key that comes twice");
        let text =
            "a = 'x'\nb = true\nc = ['x', 'y']\nd = 0x1F\n\"e.f\" = { \"g.h\" = 'z' }\n[[i]]\nj = 'k'\n";
        let read = read(text, |table| {
            assert_eq!((table.take_text("a"), table.take_bool("b")), (Some("x".to_owned()), Some(true)));
            assert_eq!(
                (table.take_texts("c"), table.take_number("d")),
                (vec!["x".to_owned(), "y".to_owned()], Some(31))
            );
            assert_eq!(table.take_named_texts("e.f")["g.h"], "z");
            assert_eq!(table.take_tables("i", |table| table.take_text("j")), [Some("k".to_owned())]);
            (table.take_text("x"), table.take_texts("y").len(), table.take_tables("z", |_| ()).len())
        });
        assert_eq!(read, Ok((None, 0, 0)));
    }
}
