//! A JSON object in which a few values can be replaced while all others keep their text: numbers of any size, unknown
//! fields, and their order.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

/// An object whose values have not been parsed.
#[derive(Debug, Default)]
pub struct Object<'a>(Vec<(String, ValueText<'a>)>);

#[derive(Debug)]
enum ValueText<'a> {
    Old(&'a RawValue),
    New(String),
}

impl<'a> Object<'a> {
    /// Reads an object.
    ///
    /// # Errors
    /// If the text is not JSON, or not an object.
    pub fn read(text: &'a str) -> serde_json::Result<Self> {
        serde_json::from_str(text)
    }

    /// The text of a value; none where there is none, or it is `null`. Where a key comes twice, the last one counts,
    /// as it does to the next reader of the object.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let (_, text) = self.0.iter().rfind(|(name, _)| name == key)?;
        Some(text.as_str()).filter(|text| *text != "null")
    }

    /// Every key with the text of its value, as they stand.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, text)| (key.as_str(), text.as_str()))
    }

    /// Reads a value; the default where there is none.
    pub(super) fn value<'b, T: Deserialize<'b> + Default>(&'b self, key: &str) -> serde_json::Result<T> {
        self.get(key).map_or_else(|| Ok(T::default()), serde_json::from_str)
    }

    /// The object that is the value of a key; empty if there is none.
    pub(super) fn nested_object(&self, key: &str) -> serde_json::Result<Object<'_>> {
        self.get(key).map_or_else(|| Ok(Object::default()), Object::read)
    }

    /// Replaces a value in place, or adds it.
    pub(super) fn set_value(&mut self, key: &str, text: String) {
        match self.0.iter_mut().rfind(|(name, _)| name == key) {
            Some((_, old)) => *old = ValueText::New(text),
            None => self.0.push((key.to_owned(), ValueText::New(text))),
        }
    }

    /// The object as a text.
    pub(super) fn to_text(&self) -> String {
        let mut text = String::from("{");
        for (index, (key, value)) in self.0.iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            text.push_str(&to_json(key));
            text.push(':');
            text.push_str(value.as_str());
        }
        text.push('}');
        text
    }
}

impl ValueText<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Old(raw) => raw.get(),
            Self::New(text) => text,
        }
    }
}

/// A value as JSON.
///
/// # Panics
/// If JSON cannot express the type. All values written here are strings, and lists and structures of strings and numbers.
#[must_use]
#[expect(
    clippy::expect_used,
    reason = "an empty text in its place would make the bundle's configuration unreadable"
)]
pub fn to_json(value: &(impl Serialize + ?Sized)) -> String {
    serde_json::to_string(value).expect("a type that JSON can express")
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;
        impl<'de> Visitor<'de> for Read {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
                    entries.push((key, ValueText::Old(value)));
                }
                Ok(Object(entries))
            }
        }
        deserializer.deserialize_map(Read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_touched_keeps_its_text_and_its_place() {
        let text =
            r#"{"z": 123456789012345678901234567890.50, "a":{"b" : [1, 2.0e5]},"\u0061b":null,"tail":-0.0}"#;
        let mut object = Object::read(text).unwrap();
        object.set_value("ab", "[]".to_owned());
        object.set_value("new", to_json("\"x\u{7f}"));
        let expected = "{\"z\":123456789012345678901234567890.50,\"a\":{\"b\" : [1, 2.0e5]},\"ab\":[],\"tail\":-0.0,\"new\":\"\\\"x\u{7f}\"}";
        assert_eq!(object.to_text(), expected);
    }

    #[test]
    fn null_and_nothing_are_the_same_and_the_last_of_two_counts() {
        let object = Object::read(r#"{"a":null,"b":1,"b":2}"#).unwrap();
        assert_eq!((object.get("a"), object.get("c"), object.get("b")), (None, None, Some("2")));
        assert_eq!(object.nested_object("a").unwrap().to_text(), "{}");
        assert_eq!(object.value::<Vec<String>>("c").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["", "[]", "{", "{\"a\":}", "null", "{\"a\":1} x", "{\"a\":1"] {
            assert!(Object::read(text).is_err(), "{text}");
        }
    }
}
