//! Values that are texts: one, a list of them, or the path of a file.

use std::path::PathBuf;

use super::tree::{Section, Value};

pub(super) fn path(s: &mut Section<'_, '_>, key: &'static str) -> Option<PathBuf> {
    text(s, key, "the path of a file").map(PathBuf::from)
}

pub(super) fn text(s: &mut Section<'_, '_>, key: &'static str, expected: &str) -> Option<String> {
    let read = s.optional(key, expected, |value| {
        let text = value.as_text().filter(|text| !text.is_empty())?;
        Some(text.to_owned())
    });
    read.ok().flatten()
}

/// One text, a list of them, or several in a variable, separated by commas.
pub(super) fn texts(value: &Value) -> Option<Vec<&str>> {
    match value {
        Value::Raw(text) => Some(text.split(',').map(str::trim).collect()),
        Value::List(items) => items.iter().map(|item| item.value.as_text()).collect(),
        other => Some(vec![other.as_text()?]),
    }
}
