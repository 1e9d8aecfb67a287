//! Compares structs of messages with the `.proto` file that describes them.

use std::collections::BTreeMap;

/// Fields by message and number: label, kind, name, and the message that it is of.
type Fields = BTreeMap<(String, u32), [String; 4]>;

/// Asserts that the structs in files of this crate are the messages of a description: no more, no less, no other.
pub(in crate::publish) fn assert_described(proto: &str, sources: &[&str]) {
    let described = parse_description(proto);
    let written: Fields = sources.iter().flat_map(|source| parse_structs(source)).collect();
    assert!(described.len() > 10);
    assert_eq!(written, described);
}

fn parse_description(proto: &str) -> Fields {
    let mut fields = Fields::new();
    let mut message = String::new();
    for line in proto.lines() {
        let words: Vec<_> = line.split("//").next().unwrap().split_whitespace().collect();
        match words.as_slice() {
            ["message", name, "{"] => message = (*name).to_owned(),
            [label @ ("optional" | "repeated"), of, name, "=", number] => {
                fields.extend([described_field(&message, label, of, name, number)]);
            }
            [of, name, "=", number] if *of != "syntax" => {
                fields.extend([described_field(&message, "", of, name, number)]);
            }
            _ => {}
        }
    }
    fields
}

fn described_field(
    message: &str,
    label: &str,
    of: &str,
    name: &str,
    number: &str,
) -> ((String, u32), [String; 4]) {
    let number = number.trim_end_matches(';').parse().unwrap();
    let is_message = of.starts_with(char::is_uppercase);
    let (kind, of) = if is_message { ("message", of) } else { (of, "") };
    ((message.to_owned(), number), [label, kind, name, of].map(str::to_owned))
}

fn parse_structs(source: &str) -> Fields {
    let mut fields = Fields::new();
    let (mut message, mut attribute) = (String::new(), None);
    for line in source.lines().map(str::trim) {
        if let Some((_, name)) = line.strip_suffix(" {").and_then(|line| line.split_once("struct ")) {
            name.clone_into(&mut message);
        } else if let Some(inner) = line.strip_prefix("#[prost(") {
            attribute = Some(inner.trim_end_matches(")]").to_owned());
        } else if let Some(attribute) = attribute.take() {
            let (name, of) = line.trim_end_matches(',').rsplit_once(": ").unwrap();
            let name = name.rsplit(' ').next().unwrap().trim_start_matches("r#");
            let mut parts: Vec<&str> = attribute.split(", ").collect();
            let number = parts.pop().unwrap().trim_start_matches("tag = \"").trim_end_matches('"');
            let (kind, label) = (parts[0], parts.get(1).copied().unwrap_or_default());
            let of =
                if kind == "message" { of.trim_end_matches('>').rsplit('<').next().unwrap() } else { "" };
            let key = (message.clone(), number.parse().unwrap());
            fields.insert(key, [label, kind, name, of].map(str::to_owned));
        }
    }
    fields
}

#[test]
fn a_field_of_another_number_or_type_is_found() {
    let proto = "message A {\n  optional B b = 2; // two\n  string c = 3;\n}";
    let source = |kind, number| {
        format!(
            "struct A {{\n#[prost(message, optional, tag = \"2\")]\npub b: Option<B>,\n\
             #[prost({kind}, tag = \"{number}\")]\nc: String,\n}}"
        )
    };
    assert_eq!(parse_structs(&source("string", 3)), parse_description(proto));
    assert_ne!(parse_structs(&source("string", 4)), parse_description(proto));
    assert_ne!(parse_structs(&source("bytes", 3)), parse_description(proto));
}
