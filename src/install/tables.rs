//! Edits TOML without changing comments, order and spaces; used for containerd, podman and CRI-O.

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use super::Garbled;

/// Parses a file. A file that cannot be written back unchanged is refused.
pub(super) fn read(text: &str) -> Result<DocumentMut, Garbled> {
    let document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| Garbled(error.to_string().trim().to_owned()))?;
    if document.to_string() == text {
        Ok(document)
    } else {
        Err(Garbled("its line ends or spaces could not be kept; give it the usual line ends".to_owned()))
    }
}

/// Edits a file. The comments of a file without values, or `header` for an empty one, stay at the top.
pub(super) fn edit_document(
    text: &str,
    header: &str,
    change: impl FnOnce(&mut DocumentMut) -> Result<(), Garbled>,
) -> Result<String, Garbled> {
    let text = if text.trim().is_empty() { header } else { text };
    let document = read(text)?;
    let (before, mut document) =
        if document.is_empty() { (text, DocumentMut::new()) } else { ("", document) };
    change(&mut document)?;
    Ok(format!("{before}{document}"))
}

/// A table inside another; created if it is missing.
pub(super) fn ensure_table<'a>(
    table: &'a mut dyn TableLike,
    keys: &[&str],
) -> Result<&'a mut dyn TableLike, Garbled> {
    let Some((key, rest)) = keys.split_first() else { return Ok(table) };
    let item = table.entry(key).or_insert_with(|| {
        let mut made = Table::new();
        // Omit its header as long as it contains only tables.
        made.set_implicit(true);
        Item::Table(made)
    });
    match item.as_table_like_mut() {
        Some(table) => ensure_table(table, rest),
        None => Err(Garbled(format!("{key} is not a table"))),
    }
}

/// A value inside a table, if present.
pub(super) fn get<'a>(table: &'a dyn TableLike, keys: &[&str]) -> Option<&'a Item> {
    let (key, rest) = keys.split_first()?;
    let item = table.get(key)?;
    if rest.is_empty() { Some(item) } else { get(item.as_table_like()?, rest) }
}

/// A string inside a table.
pub(super) fn get_string(table: &dyn TableLike, keys: &[&str]) -> Option<String> {
    get(table, keys)?.as_str().map(str::to_owned)
}

/// The strings of a list.
pub(super) fn string_list(item: Option<&Item>) -> Option<Vec<String>> {
    let values = item?.as_array()?.iter();
    Some(values.filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Replaces a value and keeps its comments, or adds it.
pub(super) fn set_value(table: &mut dyn TableLike, key: &str, new: impl Into<Value>) {
    let mut new = new.into();
    match table.get_mut(key) {
        Some(Item::Value(old)) => {
            *new.decor_mut() = old.decor().clone();
            *old = new;
        }
        _ => {
            table.insert(key, Item::Value(new));
        }
    }
}

/// Adds a string to a list unless it is in it; a missing list is created with the values of `usual`.
pub(super) fn add_to_list(
    table: &mut dyn TableLike,
    key: &str,
    usual: &[String],
    new: &str,
) -> Result<(), Garbled> {
    let list = table.entry(key).or_insert_with(|| Item::Value(usual.iter().collect::<Array>().into()));
    let Some(list) = list.as_array_mut() else { return Err(Garbled(format!("{key} is not a list"))) };
    if !list.iter().any(|there| there.as_str() == Some(new)) {
        list.push(new);
    }
    Ok(())
}

/// Removes a string from a list.
pub(super) fn remove_from_list(table: &mut dyn TableLike, key: &str, old: &str) {
    if let Some(list) = table.get_mut(key).and_then(Item::as_array_mut) {
        list.retain(|there| there.as_str() != Some(old));
    }
}

/// Restores a default: sets the previous value, or removes the key if there was none.
pub(super) fn give_back(table: &mut dyn TableLike, key: &str, was: Option<String>, ours: &str) {
    match was.filter(|was| was != ours) {
        Some(was) => set_value(table, key, was),
        None => drop(table.remove(key)),
    }
}

/// A copy of the values and tables, without positions and comments.
pub(super) fn copy_table(table: &dyn TableLike) -> Table {
    let mut new = Table::new();
    for (key, item) in table.iter() {
        let item = match item {
            Item::Value(value) => {
                let mut value = value.clone();
                value.decor_mut().clear();
                Item::Value(value)
            }
            item => match item.as_table_like() {
                Some(table) => Item::Table(copy_table(table)),
                None => continue,
            },
        };
        new.insert(key, item);
    }
    new
}
