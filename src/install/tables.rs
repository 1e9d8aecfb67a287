//! TOML whose comments, order and spaces stay: what the files of containerd, podman and CRI-O have in common.

use toml_edit::{Array, DocumentMut, Item, Table, TableLike, Value};

use super::Garbled;

/// Reads a file. One that could not be written again as it is, is refused.
pub(super) fn read(text: &str) -> Result<DocumentMut, Garbled> {
    let document: DocumentMut =
        text.parse().map_err(|error: toml_edit::TomlError| Garbled(error.to_string().trim().to_owned()))?;
    if document.to_string() == text {
        Ok(document)
    } else {
        Err(Garbled("its line ends or spaces could not be kept; give it the usual line ends".to_owned()))
    }
}

/// Edits a file. What stands in one that has no values, or `header` where there is no file, stays before what is added.
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

/// A table below another, made where it is missing.
pub(super) fn ensure_table<'a>(
    table: &'a mut dyn TableLike,
    keys: &[&str],
) -> Result<&'a mut dyn TableLike, Garbled> {
    let Some((key, rest)) = keys.split_first() else { return Ok(table) };
    let item = table.entry(key).or_insert_with(|| {
        let mut made = Table::new();
        // No header of its own as long as only tables stand in it.
        made.set_implicit(true);
        Item::Table(made)
    });
    match item.as_table_like_mut() {
        Some(table) => ensure_table(table, rest),
        None => Err(Garbled(format!("{key} is not a table"))),
    }
}

/// A value below a table, where it is.
pub(super) fn get<'a>(table: &'a dyn TableLike, keys: &[&str]) -> Option<&'a Item> {
    let (key, rest) = keys.split_first()?;
    let item = table.get(key)?;
    if rest.is_empty() { Some(item) } else { get(item.as_table_like()?, rest) }
}

/// A text below a table.
pub(super) fn get_string(table: &dyn TableLike, keys: &[&str]) -> Option<String> {
    get(table, keys)?.as_str().map(str::to_owned)
}

/// The texts of a list.
pub(super) fn string_list(item: Option<&Item>) -> Option<Vec<String>> {
    let values = item?.as_array()?.iter();
    Some(values.filter_map(Value::as_str).map(str::to_owned).collect())
}

/// Replaces a value where it stands, with what is said beside it; or adds it.
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

/// Adds a text to a list, where it is not there yet; a list that is missing begins with those that hold without it.
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

/// Takes a text out of a list.
pub(super) fn remove_from_list(table: &mut dyn TableLike, key: &str, old: &str) {
    if let Some(list) = table.get_mut(key).and_then(Item::as_array_mut) {
        list.retain(|there| there.as_str() != Some(old));
    }
}

/// Gives a default back: as it was before, or to whoever reads the file where nothing was said.
pub(super) fn give_back(table: &mut dyn TableLike, key: &str, was: Option<String>, ours: &str) {
    match was.filter(|was| was != ours) {
        Some(was) => set_value(table, key, was),
        None => drop(table.remove(key)),
    }
}

/// The same values and tables, without places and comments of their own.
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
