//! Reading a store without opening it: whatever can be read of a file, damaged or not. Nothing is written.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;

use redb::TableHandle;

use super::error::StoreError;
use super::open::{FORMAT, OLDEST_FORMAT, io_error, unknown_format};
use super::pages::{Commit, Damaged, Pages, Root};
use super::recover::read_row;
use super::rows::meta::{self, META};
use super::rows::{self, Definition, KINDS, Table as _, What, key_u64};
use super::tables::{PART, PARTS, part_key};
use crate::broker::Message;
use crate::broker::record::{BodyId, Write};
use crate::clock::Reading;

/// A store's file, opened for reading only and locked against a broker.
pub struct Export {
    pages: Pages,
    tables: Tables,
    age: Age,
}

/// Which commit of a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    /// The last.
    Last,
    /// The one before, since the last was cut short: a start would take it, too.
    BeforeTheLast,
    /// The one before, since of the last less can be read: something is missing.
    Older,
}

/// Tables by name.
type Tables = HashMap<Vec<u8>, Table>;

/// A table as the tree of tables has it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Table {
    root: Option<Root>,
    rows: u64,
}

/// What was read of a table.
#[derive(Clone, Debug, PartialEq)]
pub struct TableReport {
    /// Its name.
    pub table: String,
    /// Rows that were read.
    pub rows: u64,
    /// Rows that it had; `None` if the table cannot be found.
    pub had: Option<u64>,
    /// Pages that cannot be read; how many more hang on them nobody knows.
    pub damaged_pages: u64,
    /// Rows that were found and are not what this program writes, or whose further parts cannot be read.
    pub bad_rows: u64,
}

impl TableReport {
    /// Whether every row was read.
    pub fn is_complete(&self) -> bool {
        self.had == Some(self.rows) && self.damaged_pages == 0 && self.bad_rows == 0
    }
}

impl Export {
    /// Opens a file and looks through it for the commit of which most can be read: the last, if that is whole.
    ///
    /// # Errors
    /// If a broker has it, the operating system refuses, its header is damaged, or another version of the program wrote it.
    pub fn open(path: &Path) -> Result<Export, StoreError> {
        let unreadable = |why: &str| StoreError::Unreadable {
            path: path.into(),
            why: why.to_owned(),
        };
        let file = File::open(path).map_err(io_error("open", path))?;
        match file.try_lock_shared() {
            Ok(()) => (),
            Err(TryLockError::WouldBlock) => return Err(StoreError::InUse { path: path.into() }),
            Err(TryLockError::Error(error)) => return Err(io_error("lock", path)(error)),
        }
        let (pages, commits) = Pages::open(file)
            .map_err(io_error("read", path))?
            .map_err(unreadable)?;
        let mut best = None;
        for (at, commit) in commits.commits.iter().enumerate() {
            let tables = tables(&pages, commit);
            let (whole, rows) = look(&pages, &tables);
            let age = match (at, whole && commits.still_open) {
                (0, _) => Age::Last,
                (_, true) => Age::BeforeTheLast,
                (_, false) => Age::Older,
            };
            if best.as_ref().is_none_or(|(most, _, _)| rows > *most) || age == Age::BeforeTheLast {
                best = Some((rows, tables, age));
            }
            if whole {
                break;
            }
        }
        let (_, tables, age) = best.ok_or_else(|| unreadable("it names no commit"))?;
        match format(&pages, &tables) {
            Some(Ok(other)) if !(OLDEST_FORMAT..=FORMAT).contains(&other) => {
                Err(unreadable(&unknown_format(other)))
            }
            _ => Ok(Export { pages, tables, age }),
        }
    }

    /// What the clocks showed last; `None` if that cannot be read, or nobody has written it. Moments in rows are in broker time, and cannot be told
    /// by the wall clock without it.
    pub fn clock(&self) -> Option<Reading> {
        let record = record(&self.pages, &self.tables, META, meta::CLOCK)?;
        meta::reading(&record).ok()
    }

    /// Which commit is read.
    pub fn age(&self) -> Age {
        self.age
    }

    /// Hands out every row that can be read, as the write that would put it there: sessions and groups, what belongs to them, retained messages,
    /// identities of messages, whom messages are still to be given to, deliveries, each with its message if that can be read, and the messages of
    /// no delivery.
    ///
    /// The reports are of the tables in this order, and of the store's own numbers last.
    ///
    /// # Errors
    /// What `each` returns; damage to the file is in the reports.
    pub fn read(
        &self,
        each: &mut dyn FnMut(Write, Option<Message>) -> io::Result<()>,
    ) -> io::Result<Vec<TableReport>> {
        let mut delivered = HashSet::new();
        let mut last = None;
        let mut reports = Vec::new();
        for table in known(&self.pages, &self.tables) {
            let report = self.read_table(table, |key, first| {
                let Some(write) = self.row(table, key, first, &delivered) else {
                    return Ok(false);
                };
                match write {
                    Row::Delivered => Ok(()),
                    Row::Of(Write::PutDelivery(seq, queue, delivery)) => {
                        let body = delivery.message.body_at(seq);
                        if last.as_ref().is_none_or(|(before, _)| *before != body) {
                            last = Some((body, self.message(body)));
                        }
                        let message = last.as_ref().and_then(|(_, message)| message.clone());
                        if message.is_some() {
                            delivered.insert(body);
                        }
                        each(Write::PutDelivery(seq, queue, delivery), message)
                    }
                    Row::Of(write) => each(write, None),
                }
                .map(|()| true)
            })?;
            reports.push(report);
        }
        reports.push(self.read_table(META, |_, _| Ok(true))?);
        Ok(reports)
    }

    /// Walks through a table; `each` tells whether a row was good.
    fn read_table(
        &self,
        table: Definition,
        mut each: impl FnMut(&[u8], &[u8]) -> io::Result<bool>,
    ) -> io::Result<TableReport> {
        let found = self.tables.get(table.name().as_bytes());
        let mut report = TableReport {
            table: table.name().to_owned(),
            rows: 0,
            had: found.map(|table| table.rows),
            damaged_pages: 0,
            bad_rows: 0,
        };
        let mut rows = self.pages.rows(found.and_then(|table| table.root), &[]);
        while let Some(row) = rows.next() {
            match row {
                Ok((key, first)) => match each(key, first)? {
                    true => report.rows += 1,
                    false => report.bad_rows += 1,
                },
                Err(Damaged) => report.damaged_pages += 1,
            }
        }
        Ok(report)
    }

    /// Reads a row; `None` if it is not one.
    fn row(
        &self,
        table: Definition,
        key: &[u8],
        first: &[u8],
        delivered: &HashSet<BodyId>,
    ) -> Option<Row> {
        if table.name() == rows::Message::TABLE.name()
            && key_u64(key).is_ok_and(|id| delivered.contains(&BodyId(id)))
        {
            return Some(Row::Delivered);
        }
        let record = whole(&self.pages, &self.tables, table, key, first)?;
        read_row(table.name(), key, &record).ok().map(Row::Of)
    }

    fn message(&self, id: BodyId) -> Option<Message> {
        let record = record(
            &self.pages,
            &self.tables,
            rows::Message::TABLE,
            &id.0.to_be_bytes(),
        )?;
        rows::Message::of(&record).ok()
    }
}

/// What a row turned out to be.
enum Row {
    /// A message that has been handed out with a delivery.
    Delivered,
    /// This.
    Of(Write),
}

/// The tables of a commit, as far as they can be found.
fn tables(pages: &Pages, commit: &Commit) -> Tables {
    let mut tables = HashMap::new();
    let mut rows = pages.rows(commit.tables, &[]);
    while let Some(row) = rows.next() {
        if let Ok((name, definition)) = row
            && let Some(table) = definition_of(definition)
        {
            tables.insert(name.to_vec(), table);
        }
    }
    tables
}

/// Reads a table's definition: a plain one, with keys and values of any length.
fn definition_of(bytes: &[u8]) -> Option<Table> {
    const PLAIN: u8 = 3;
    let (kind, bytes) = bytes.split_first()?;
    let (rows, bytes) = bytes.split_first_chunk()?;
    let (has_root, bytes) = bytes.split_first()?;
    let (root, bytes) = bytes.split_first_chunk::<{ Root::LEN }>()?;
    let has_width = [*bytes.first()?, *bytes.get(5)?];
    (*kind == PLAIN && has_width == [0, 0]).then(|| Table {
        root: (*has_root != 0).then(|| Root::read(root)),
        rows: u64::from_le_bytes(*rows),
    })
}

/// The whole of a record whose first row is `first`; `None` if some of it cannot be read.
fn whole<'r>(
    pages: &Pages,
    tables: &Tables,
    table: Definition,
    key: &[u8],
    first: &'r [u8],
) -> Option<Cow<'r, [u8]>> {
    if first.len() < PART {
        return Some(Cow::Borrowed(first));
    }
    let (mut from, mut to) = (Vec::new(), Vec::new());
    part_key(&mut from, table, key, 0);
    part_key(&mut to, table, key, u32::MAX);
    let parts = tables.get(PARTS.name().as_bytes())?;
    let mut record = first.to_vec();
    let mut rows = pages.rows(parts.root, &from);
    while let Some(row) = rows.next() {
        let (key, part) = row.ok()?;
        if key > to.as_slice() {
            break;
        }
        record.extend_from_slice(part);
    }
    Some(Cow::Owned(record))
}

/// The record of one key; `None` if there is none, or it cannot be read.
fn record(pages: &Pages, tables: &Tables, table: Definition, key: &[u8]) -> Option<Vec<u8>> {
    let root = tables.get(table.name().as_bytes())?.root;
    let mut rows = pages.rows(root, key);
    let (found, first) = rows.next()?.ok()?;
    let record = whole(pages, tables, table, key, first)?;
    (found == key).then(|| record.into_owned())
}

fn format(pages: &Pages, tables: &Tables) -> Option<Result<u64, What>> {
    Some(meta::number(&record(pages, tables, META, meta::FORMAT)?))
}

/// The tables of rows that a commit should have, in the order in which they are handed out.
fn known(pages: &Pages, tables: &Tables) -> impl Iterator<Item = Definition> {
    let format = match format(pages, tables) {
        Some(Ok(format)) => format,
        _ => FORMAT,
    };
    let known = KINDS.iter().filter(move |kind| kind.since <= format);
    known.map(|kind| kind.table)
}

/// Whether every page of a commit's tables can be read, and how many rows can, but for the store's own numbers.
fn look(pages: &Pages, tables: &Tables) -> (bool, u64) {
    let (mut whole, mut read) = (true, 0);
    for table in known(pages, tables).chain([PARTS, META]) {
        let counts = table.name() != META.name();
        let Some(table) = tables.get(table.name().as_bytes()) else {
            whole = false;
            continue;
        };
        let mut rows = pages.rows(table.root, &[]);
        while let Some(row) = rows.next() {
            match row {
                Ok(_) => read += u64::from(counts),
                Err(Damaged) => whole = false,
            }
        }
    }
    (whole, read)
}
