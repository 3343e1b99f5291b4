//! What was written, before it means anything: one tree from the file and the environment, read key
//! by key into typed values.
//!
//! Reading takes a key out of its table and remembers its name; what is left when a table closes
//! was not known. So the list of known keys is the code that reads them, and nowhere else. Every
//! problem found is collected: one run tells all that is wrong.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::advice;
use super::value::{exact_duration, parse_duration, parse_size, show_size};
use super::variable::variable_of;

/// Problems told in full; more are counted.
const MAX_PROBLEMS: usize = 50;

/// Where something was written.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// At this byte of the file.
    File(usize),
    /// In an environment variable.
    Variable(Rc<str>),
    /// In a flag of the command line.
    Flag(&'static str),
}

/// A value as written.
#[derive(Debug)]
pub(super) enum Value {
    /// Text of an environment variable or flag, which may mean any type.
    Raw(String),
    Text(String),
    Integer(Option<i64>),
    Bool(bool),
    List(Vec<Node>),
    Table(Table),
    /// A type no key has, and its name.
    Other(&'static str),
}

/// A value, and where it and its key stand.
#[derive(Debug)]
pub(super) struct Node {
    pub key_at: Origin,
    pub at: Origin,
    pub value: Value,
}

pub(super) type Table = BTreeMap<String, Node>;

/// One thing that is wrong in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `file:line:column`, the environment variable or the flag.
    pub place: String,
    /// The key, with its tables: `limits.max_packet_size`. Empty where the text is not TOML.
    pub key: String,
    /// What was found and what was expected.
    pub what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.key.is_empty() {
            write!(f, "{}: {}", self.place, self.what)
        } else {
            write!(f, "{}: {}: {}", self.place, self.key, self.what)
        }
    }
}

/// Collects what is wrong, and which keys exist.
pub(super) struct Report<'a> {
    file: &'a Path,
    text: &'a str,
    problems: Vec<Problem>,
    uncounted: usize,
    known: Vec<(String, &'static str)>,
    unknown: Vec<(Origin, String, String)>,
}

impl<'a> Report<'a> {
    /// A report about the file of this name and text.
    pub fn new(file: &'a Path, text: &'a str) -> Report<'a> {
        Report {
            file,
            text,
            problems: Vec::new(),
            uncounted: 0,
            known: Vec::new(),
            unknown: Vec::new(),
        }
    }

    /// Adds a problem.
    pub fn add(&mut self, at: &Origin, key: impl Into<String>, what: impl Into<String>) {
        if self.problems.len() >= MAX_PROBLEMS {
            self.uncounted += 1;
            return;
        }
        let place = match at {
            Origin::File(offset) => {
                let (line, column) = line_and_column(self.text, *offset);
                format!("{}:{line}:{column}", self.file.display())
            }
            Origin::Variable(name) => name.to_string(),
            Origin::Flag(name) => (*name).to_owned(),
        };
        let (key, what) = (key.into(), what.into());
        self.problems.push(Problem { place, key, what });
    }

    /// The names of all keys that were read, with their tables.
    pub fn known_keys(&self) -> impl Iterator<Item = String> {
        self.known.iter().map(|(table, key)| join(table, key))
    }

    /// All problems, unknown keys included; none if the configuration is good.
    pub fn finish(mut self) -> Vec<Problem> {
        for (at, table, key) in std::mem::take(&mut self.unknown) {
            let mut what = "unknown key".to_owned();
            if let Some(advice) = advice::for_key(&table, &key) {
                what += &format!("; {advice}");
            } else if let Some(nearest) = self.nearest(&table, &key) {
                let nearest = match at {
                    Origin::Variable(_) => variable_of(&nearest),
                    _ => nearest,
                };
                what += &format!("; did you mean {nearest}?");
            }
            self.add(&at, join(&table, &key), what);
        }
        if self.uncounted > 0 {
            self.problems.push(Problem {
                place: self.file.display().to_string(),
                key: String::new(),
                what: format!("and {} more problems", self.uncounted),
            });
        }
        self.problems
    }

    /// The known key that was probably meant: the same name in another table, or the most similar
    /// one, this table's first.
    fn nearest(&self, table: &str, key: &str) -> Option<String> {
        let score = |(known_table, known): &(String, &'static str)| {
            let similar = strsim::normalized_damerau_levenshtein(key, known);
            let bonus = if without_indices(table) == without_indices(known_table) {
                0.1
            } else {
                0.0
            };
            similar + bonus
        };
        // Backwards: of those that are equally similar the last one counts, and the key that was
        // read first should.
        self.known
            .iter()
            .rev()
            .map(|known| (score(known), known))
            .filter(|(score, _)| *score > 0.6)
            .max_by(|a, b| a.0.total_cmp(&b.0))
            .map(|(_, (table, key))| join(table, key))
    }
}

/// Parses TOML; what is wrong with it is reported, and what can be read of it is read.
pub(super) fn parse(report: &mut Report<'_>) -> Table {
    let (root, errors) = DeTable::parse_recoverable(report.text);
    if !errors.is_empty()
        && let Some(at) = advice::mosquitto_conf(report.text)
    {
        report.add(&Origin::File(at), "", advice::OF_MOSQUITTO);
        return Table::new();
    }
    for error in &errors {
        let at = Origin::File(error.span().map_or(0, |span| span.start));
        report.add(&at, "", format!("not TOML: {}", error.message()));
    }
    table(root.into_inner())
}

fn table(from: DeTable<'_>) -> Table {
    from.into_iter()
        .map(|(key, value)| {
            let key_at = Origin::File(key.span().start);
            (key.into_inner().into_owned(), node(key_at, value))
        })
        .collect()
}

fn node(key_at: Origin, from: Spanned<DeValue<'_>>) -> Node {
    let at = Origin::File(from.span().start);
    let value = match from.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => {
            Value::Integer(i64::from_str_radix(number.as_str(), number.radix()).ok())
        }
        DeValue::Boolean(value) => Value::Bool(value),
        DeValue::Array(items) => Value::List(
            items
                .into_iter()
                .map(|item| node(Origin::File(item.span().start), item))
                .collect(),
        ),
        DeValue::Table(entries) => Value::Table(table(entries)),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    };
    Node { key_at, at, value }
}

/// A table being read.
pub(super) struct Section<'r, 'a> {
    /// Its name with the tables around it; empty for the whole.
    path: String,
    /// Where it begins.
    at: Origin,
    entries: Table,
    report: &'r mut Report<'a>,
}

impl<'r, 'a> Section<'r, 'a> {
    /// Begins to read a table.
    pub fn open(
        path: impl Into<String>,
        at: Origin,
        entries: Table,
        report: &'r mut Report<'a>,
    ) -> Section<'r, 'a> {
        Section {
            path: path.into(),
            at,
            entries,
            report,
        }
    }

    /// Whether a key is there.
    pub fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// The table of this name inside; an empty one if there is none.
    pub fn section(&mut self, key: &'static str) -> Section<'_, 'a> {
        let path = join(&self.path, key);
        let (at, entries) = match self.take(key) {
            None => (self.at.clone(), Table::new()),
            Some(Node { key_at, at, value }) => match value {
                Value::Table(entries) => (key_at, entries),
                other => {
                    self.mismatch(&at, key, &other, &format!("a table: [{path}]"));
                    (at, Table::new())
                }
            },
        };
        Section::open(path, at, entries, self.report)
    }

    /// Reads a table whose keys are not this program's: each with its text, sorted by key.
    pub fn texts(&mut self, key: &'static str) -> Vec<(String, String)> {
        let path = join(&self.path, key);
        let Some(node) = self.take(key) else {
            return Vec::new();
        };
        let Value::Table(entries) = node.value else {
            let expected = format!("a table of texts: [{path}]");
            self.mismatch(&node.at, key, &node.value, &expected);
            return Vec::new();
        };
        let mut all = Vec::new();
        for (name, Node { at, value, .. }) in entries {
            match value.as_text() {
                Some(text) => all.push((name, text.to_owned())),
                None => {
                    let what = format!("found {}, expected a text", value.found());
                    self.report.add(&at, join(&path, &name), what);
                }
            }
        }
        all
    }

    /// Reads each table of a list (`[[key]]`).
    pub fn each<T>(
        &mut self,
        key: &'static str,
        mut read: impl FnMut(Section<'_, 'a>) -> Option<T>,
    ) -> Vec<T> {
        let path = join(&self.path, key);
        let Some(node) = self.take(key) else {
            // An empty table is read all the same, so that its keys are known.
            let mut silent = Report::new(self.report.file, self.report.text);
            read(Section::open(
                path,
                self.at.clone(),
                Table::new(),
                &mut silent,
            ));
            self.report.known.append(&mut silent.known);
            return Vec::new();
        };
        let Value::List(items) = node.value else {
            self.mismatch(&node.at, key, &node.value, &format!("tables: [[{path}]]"));
            return Vec::new();
        };
        let mut all = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let path = format!("{path}[{index}]");
            match item.value {
                Value::Table(entries) => {
                    let section = Section::open(path, item.at, entries, self.report);
                    all.extend(read(section));
                }
                other => {
                    let what = format!("found {}, expected a table", other.found());
                    self.report.add(&item.at, path, what);
                }
            }
        }
        all
    }

    /// Reads a value, if it is there.
    ///
    /// # Errors
    /// It is not what was expected; that has been reported.
    pub fn optional<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Result<Option<T>, ()> {
        let Some(node) = self.take(key) else {
            return Ok(None);
        };
        let value = read(&node.value);
        if value.is_none() {
            self.mismatch(&node.at, key, &node.value, expected);
        }
        value.map(Some).ok_or(())
    }

    /// Reads a value; `default` if it is not there, or not what was expected, which is reported.
    pub fn get<T>(
        &mut self,
        key: &'static str,
        default: T,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> T {
        let value = self.optional(key, expected, read);
        value.ok().flatten().unwrap_or(default)
    }

    /// Reads a value that must be there; `None` has been reported.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        let value = self.optional(key, expected, read).ok()?;
        if value.is_none() {
            self.reject(key, format!("missing, expected {expected}"));
        }
        value
    }

    /// Reads `true` or `false`.
    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.get(key, default, "true or false", Value::as_bool)
    }

    /// Reads a whole number in a range.
    pub fn number<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<u64>) -> T
    where
        T: TryFrom<u64>,
    {
        let expected = match (*range.start(), *range.end()) {
            (low, u64::MAX) => format!("a whole number, {low} or more"),
            (low, high) => format!("a whole number from {low} to {high}"),
        };
        self.get(key, default, &expected, |value| {
            let number = value.as_u64().filter(|number| range.contains(number))?;
            T::try_from(number).ok()
        })
    }

    /// Reads a whole number in a range, if it is there.
    pub fn optional_number<T>(&mut self, key: &'static str, range: RangeInclusive<u64>) -> Option<T>
    where
        T: TryFrom<u64>,
    {
        let (low, high) = (range.start(), range.end());
        let expected = format!("a whole number from {low} to {high}");
        let read = self.optional(key, &expected, |value| {
            let number = value.as_u64().filter(|number| range.contains(number))?;
            T::try_from(number).ok()
        });
        read.ok().flatten()
    }

    /// Reads a size in bytes in a range.
    pub fn size<T>(&mut self, key: &'static str, default: T, range: RangeInclusive<u64>) -> T
    where
        T: TryFrom<u64>,
    {
        let bounds = match (*range.start(), *range.end()) {
            (0, u64::MAX) => String::new(),
            (low, u64::MAX) => format!(", {} or more", show_size(low)),
            (low, high) => format!(", from {} to {}", show_size(low), show_size(high)),
        };
        let expected = format!("a size such as \"64MB\" or \"64MiB\"{bounds}");
        self.get(key, default, &expected, |value| {
            let bytes = value.as_size().filter(|bytes| range.contains(bytes))?;
            T::try_from(bytes).ok()
        })
    }

    /// Reads a duration in a range.
    pub fn duration(
        &mut self,
        key: &'static str,
        default: Duration,
        range: RangeInclusive<Duration>,
    ) -> Duration {
        let expected = format!(
            "a duration with its unit, such as \"100ms\", \"30s\" or \"7d\", from {} to {}",
            exact_duration(*range.start()),
            exact_duration(*range.end())
        );
        self.get(key, default, &expected, |value| {
            value.as_duration().filter(|length| range.contains(length))
        })
    }

    /// Reports that this table as a whole is wrong.
    pub fn reject(&mut self, key: &str, what: impl Into<String>) {
        let key = join(&self.path, key);
        self.report.add(&self.at, key, what);
    }

    /// Reports all keys nothing has read.
    pub fn close(self) {
        for (key, node) in self.entries {
            let unknown = (node.key_at, self.path.clone(), key);
            if self.report.unknown.len() < MAX_PROBLEMS {
                self.report.unknown.push(unknown);
            } else {
                self.report.uncounted += 1;
            }
        }
    }

    fn take(&mut self, key: &'static str) -> Option<Node> {
        self.report.known.push((self.path.clone(), key));
        self.entries.remove(key)
    }

    fn mismatch(&mut self, at: &Origin, key: &str, value: &Value, expected: &str) {
        let what = format!("found {}, expected {expected}", value.found());
        self.report.add(at, join(&self.path, key), what);
    }
}

impl Value {
    /// The value in words, for a message.
    pub fn found(&self) -> String {
        match self {
            Value::Raw(text) | Value::Text(text) => {
                let mut shown: String = text.chars().take(80).collect();
                if shown.len() < text.len() {
                    shown.push('…');
                }
                format!("{shown:?}")
            }
            Value::Integer(Some(number)) => number.to_string(),
            Value::Integer(None) => "a number beyond 64 bits".to_owned(),
            Value::Bool(value) => value.to_string(),
            Value::List(_) => "a list".to_owned(),
            Value::Table(_) => "a table".to_owned(),
            Value::Other(name) => (*name).to_owned(),
        }
    }

    /// Text.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Raw(text) | Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A whole number that is not negative.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::Raw(text) => text.trim().parse().ok(),
            Value::Integer(number) => u64::try_from((*number)?).ok(),
            _ => None,
        }
    }

    /// `true` or `false`.
    pub fn as_bool(&self) -> Option<bool> {
        match self {
            Value::Raw(text) => text.trim().parse().ok(),
            Value::Bool(value) => Some(*value),
            _ => None,
        }
    }

    fn as_size(&self) -> Option<u64> {
        match self {
            Value::Integer(_) => self.as_u64(),
            other => parse_size(other.as_text()?),
        }
    }

    /// A duration with its unit.
    pub fn as_duration(&self) -> Option<Duration> {
        parse_duration(self.as_text()?)
    }
}

fn join(table: &str, key: &str) -> String {
    match (table.is_empty(), key.is_empty()) {
        (true, _) => key.to_owned(),
        (_, true) => table.to_owned(),
        _ => format!("{table}.{key}"),
    }
}

/// `listeners[3].bind` is the key `listeners.bind`.
fn without_indices(path: &str) -> &str {
    path.split('[').next().unwrap_or(path)
}

/// Counted from 1; a column is a character.
fn line_and_column(text: &str, offset: usize) -> (usize, usize) {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_characters_from_one() {
        let text = "a = 1\nü = 2\n";
        assert_eq!(line_and_column(text, 0), (1, 1));
        assert_eq!(line_and_column(text, text.find('2').expect("a 2")), (2, 5));
        assert_eq!(line_and_column(text, 999), (3, 1));
    }

    #[test]
    fn text_that_is_not_toml_is_told_with_every_place() {
        let file = Path::new("f.toml");
        let mut report = Report::new(file, "a = \nb = 1\nc = = 2\n");
        parse(&mut report);
        let places: Vec<String> = report.finish().into_iter().map(|p| p.place).collect();
        assert!(
            places.iter().any(|p| p.starts_with("f.toml:1:")),
            "{places:?}"
        );
        assert!(
            places.iter().any(|p| p.starts_with("f.toml:3:")),
            "{places:?}"
        );
    }

    #[test]
    fn problems_are_told_up_to_a_limit_and_then_counted() {
        let text: String = (0..MAX_PROBLEMS + 7)
            .map(|n| format!("k{n} = 1\n"))
            .collect();
        let file = Path::new("f.toml");
        let mut report = Report::new(file, &text);
        let root = parse(&mut report);
        Section::open("", Origin::File(0), root, &mut report).close();
        let problems = report.finish();
        assert_eq!(problems.len(), MAX_PROBLEMS + 1);
        assert_eq!(problems[MAX_PROBLEMS].what, "and 7 more problems");
    }
}
