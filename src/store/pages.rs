//! The pages of a database file, read as they lie there: no cache, no repair, no write. For files
//! that redb would rather not open.
//!
//! The layout is that of redb's file format 3. Every page is named by its parent together with the
//! checksum of what is in it, and the roots stand in two commit slots with a checksum of their own.
//! So what is read here is what was once committed, or it is damage; and a damaged page costs the
//! rows below it and no others. Whatever the bytes are, nothing panics and nothing goes round in
//! circles: a page cannot contain its own checksum.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use xxhash_rust::xxh3::xxh3_128;

use super::backend::PAGE;

/// Bytes at the start of the file: a magic number, flags, sizes, and the two commit slots.
const HEADER: usize = 64 + 2 * SLOT;
const SLOT: usize = 128;
const FILE_FORMAT: u8 = 3;
const LEAF: u8 = 1;
const BRANCH: u8 = 2;
/// A sound tree is never so deep.
const DEEPEST: usize = 128;

const MAGIC: &[u8; 9] = b"redb\x1a\x0a\xa9\x0d\x0a";
const SECOND_IS_PRIMARY: u8 = 1;
const STILL_OPEN: u8 = 2;
const TWO_PHASES: u8 = 4;

/// Why a page, or what hangs on it, cannot be read.
pub(super) struct Damaged;

/// A page and what is in it: the root of a tree, with the number of its rows, or a page on the way.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Root {
    page: u64,
    checksum: u128,
    /// Rows of the tree.
    pub(super) rows: u64,
}

impl Root {
    /// Bytes of a root as it is stored.
    pub(super) const LEN: usize = 32;

    /// Reads a root.
    pub(super) fn read(bytes: &[u8; Root::LEN]) -> Root {
        Root {
            page: number(bytes, 0),
            checksum: checksum(bytes, 8),
            rows: number(bytes, 24),
        }
    }
}

/// A commit that the file still has: the tree of its tables, if it has any.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Commit {
    /// The tree of tables.
    pub(super) tables: Option<Root>,
    id: u64,
}

/// A database file.
pub(super) struct Pages {
    file: File,
    len: u64,
    /// Bytes of a region, and of what stands in it before its pages.
    region: u64,
    region_head: u64,
}

/// The commits of a file, and how it ended.
pub(super) struct Commits {
    /// The one that a start would take comes first. Those whose slot is damaged are left out.
    pub(super) commits: Vec<Commit>,
    /// The database was not closed: if the last commit is damaged, it may have been cut short, and
    /// the one before it is what counts.
    pub(super) still_open: bool,
}

impl Pages {
    /// Reads the header.
    ///
    /// # Errors
    /// What is wrong with it; or if the operating system refuses.
    pub(super) fn open(file: File) -> io::Result<Result<(Pages, Commits), &'static str>> {
        let len = file.metadata()?.len();
        let mut head = [0; HEADER];
        if len < PAGE {
            return Ok(Err("it is shorter than the header of a store"));
        }
        file.read_exact_at(&mut head, 0)?;
        if head[..MAGIC.len()] != *MAGIC {
            return Ok(Err("its header is damaged, or it is not a tidegate store"));
        }
        let flags = head[9];
        let field = |at: usize| u64::from(u32::from_le_bytes([0, 1, 2, 3].map(|n| head[at + n])));
        if field(12) != PAGE {
            return Ok(Err(
                "its header is damaged: its pages are not of 4096 bytes",
            ));
        }
        let region_head = field(16) * PAGE;
        let pages = Pages {
            file,
            len,
            region: region_head + field(20) * PAGE,
            region_head,
        };
        let mut slots = [0, 1].map(|n| commit(&head[64 + n * SLOT..][..SLOT]));
        if flags & SECOND_IS_PRIMARY != 0 {
            slots.reverse();
        }
        // As redb does: if the machine stopped while a commit was ended, the newer one may not have
        // been made the primary yet.
        let id = |slot: &Option<Commit>| slot.map(|commit| commit.id);
        if flags & TWO_PHASES == 0 && id(&slots[1]) > id(&slots[0]) {
            slots.reverse();
        }
        let commits: Vec<Commit> = slots.into_iter().flatten().collect();
        if commits.is_empty() {
            return Ok(Err("its header is damaged: it names no commit"));
        }
        let still_open = flags & STILL_OPEN != 0 && flags & TWO_PHASES == 0;
        Ok(Ok((
            pages,
            Commits {
                commits,
                still_open,
            },
        )))
    }

    /// All rows of a tree from the key `from` on, in the order of their keys.
    pub(super) fn rows<'p>(&'p self, root: Option<Root>, from: &'p [u8]) -> Rows<'p> {
        let start = root.map(|root| (root.page, root.checksum));
        Rows {
            pages: self,
            from,
            start,
            way: Vec::new(),
        }
    }

    fn read(&self, page: u64, expected: u128) -> Result<Page, Damaged> {
        let order = page >> 59;
        let index = page & (0x000F_FFFF >> order);
        let size = PAGE << order;
        let region = (page >> 20) & 0x000F_FFFF;
        let start = (region.saturating_mul(self.region))
            .saturating_add(PAGE + self.region_head + index * size);
        if start.saturating_add(size) > self.len {
            return Err(Damaged);
        }
        let mut bytes = vec![0; usize::try_from(size).map_err(|_| Damaged)?];
        self.file
            .read_exact_at(&mut bytes, start)
            .map_err(|_| Damaged)?;
        let page = Page::new(bytes).ok_or(Damaged)?;
        let used = page.bytes.get(..page.end()).ok_or(Damaged)?;
        if xxh3_128(used) == expected {
            Ok(page)
        } else {
            Err(Damaged)
        }
    }
}

/// Reads a commit slot, if it is sound.
fn commit(slot: &[u8]) -> Option<Commit> {
    let sound = slot[0] == FILE_FORMAT && checksum(slot, SLOT - 16) == xxh3_128(&slot[..SLOT - 16]);
    let tables = Root::read(slot[8..8 + Root::LEN].try_into().ok()?);
    sound.then(|| Commit {
        tables: (slot[1] != 0).then_some(tables),
        id: number(slot, 8 + 3 * Root::LEN),
    })
}

/// A page whose offsets have been looked at.
struct Page {
    bytes: Vec<u8>,
    is_leaf: bool,
    /// Rows of a leaf, keys of a branch.
    count: usize,
}

impl Page {
    /// Whether the kind and the table of offsets make sense: each within the page, none before the
    /// last.
    fn new(bytes: Vec<u8>) -> Option<Page> {
        let is_leaf = match bytes[0] {
            LEAF => true,
            BRANCH => false,
            _ => return None,
        };
        let count = usize::from(u16::from_le_bytes([bytes[2], bytes[3]]));
        let page = Page {
            bytes,
            is_leaf,
            count,
        };
        if count == 0 || page.first() > page.bytes.len() {
            return None;
        }
        let mut last = page.first();
        for n in 0..page.offsets() {
            let end = page.offset(n);
            if end < last || end > page.bytes.len() {
                return None;
            }
            last = end;
        }
        Some(page)
    }

    /// Where the offsets begin: after the children of a branch.
    fn table(&self) -> usize {
        if self.is_leaf {
            4
        } else {
            8 + 24 * self.children()
        }
    }

    fn children(&self) -> usize {
        self.count + 1
    }

    /// A leaf has the ends of its keys and then of its values, a branch those of its keys.
    fn offsets(&self) -> usize {
        if self.is_leaf {
            2 * self.count
        } else {
            self.count
        }
    }

    /// Where the first key begins.
    fn first(&self) -> usize {
        self.table() + 4 * self.offsets()
    }

    fn offset(&self, n: usize) -> usize {
        let at = self.table() + 4 * n;
        u32::from_le_bytes([0, 1, 2, 3].map(|n| self.bytes[at + n])) as usize
    }

    /// The end of what is used.
    fn end(&self) -> usize {
        self.offset(self.offsets() - 1)
    }

    /// What lies before offset number `n`.
    fn span(&self, n: usize) -> Range<usize> {
        let start = match n {
            0 => self.first(),
            n => self.offset(n - 1),
        };
        start..self.offset(n)
    }

    fn key(&self, n: usize) -> &[u8] {
        &self.bytes[self.span(n)]
    }

    fn value(&self, n: usize) -> &[u8] {
        &self.bytes[self.span(self.count + n)]
    }

    fn child(&self, n: usize) -> (u64, u128) {
        (
            number(&self.bytes, 8 + 16 * self.children() + 8 * n),
            checksum(&self.bytes, 8 + 16 * n),
        )
    }
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|n| bytes[at + n]))
}

fn checksum(bytes: &[u8], at: usize) -> u128 {
    u128::from(number(bytes, at)) | u128::from(number(bytes, at + 8)) << 64
}

/// A row: its key and its value.
pub(super) type KeyValue<'r> = (&'r [u8], &'r [u8]);

/// The rows of a tree; `Damaged` stands for a page that cannot be read and all that hangs on it.
pub(super) struct Rows<'p> {
    pages: &'p Pages,
    from: &'p [u8],
    start: Option<(u64, u128)>,
    /// The pages from the root to the row, and what comes next in each.
    way: Vec<(Page, usize)>,
}

impl Rows<'_> {
    /// The next key and value.
    pub(super) fn next(&mut self) -> Option<Result<KeyValue<'_>, Damaged>> {
        if let Some((page, checksum)) = self.start.take()
            && self.enter(page, checksum).is_err()
        {
            return Some(Err(Damaged));
        }
        loop {
            let (page, next) = self.way.last_mut()?;
            let n = *next;
            *next += 1;
            if page.is_leaf && n < page.count {
                // Borrowed anew: the way may not be held while it is still walked.
                let (page, _) = self.way.last()?;
                return Some(Ok((page.key(n), page.value(n))));
            }
            if page.is_leaf || n >= page.children() {
                self.way.pop();
                continue;
            }
            let (child, checksum) = page.child(n);
            if self.enter(child, checksum).is_err() {
                return Some(Err(Damaged));
            }
        }
    }

    /// Goes into a page, to the first place where the key `from` may be.
    fn enter(&mut self, page: u64, checksum: u128) -> Result<(), Damaged> {
        if self.way.len() == DEEPEST {
            return Err(Damaged);
        }
        let page = self.pages.read(page, checksum)?;
        // Below a key of a branch are keys up to it; a leaf has the keys themselves.
        let first = (0..page.count).take_while(|n| page.key(*n) < self.from);
        let first = first.count();
        self.way.push((page, first));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// A page is taken apart only after its checksum, but looked at before.
        #[test]
        fn no_bytes_make_a_page_panic(
            kind in 0_u8..4,
            count in any::<u16>(),
            offsets in prop::collection::vec(0_u32..200, 0..40),
        ) {
            let count = if count % 2 == 0 { count } else { count % 20 };
            let mut bytes = vec![kind, 0];
            bytes.extend_from_slice(&count.to_le_bytes());
            bytes.extend(offsets.iter().flat_map(|offset| offset.to_le_bytes()));
            bytes.resize(200, 0xff);
            if let Some(page) = Page::new(bytes) {
                prop_assert!(page.end() <= 200);
                for n in 0..page.count {
                    page.key(n);
                    match page.is_leaf {
                        true => drop(page.value(n).to_vec()),
                        false => drop(page.child(n + 1)),
                    }
                }
            }
        }

        /// A header of sound sizes or of none, with whatever else.
        #[test]
        fn no_header_makes_the_reader_panic(
            mut bytes in prop::collection::vec(any::<u8>(), HEADER..HEADER + 1),
            root in any::<[u8; Root::LEN]>(),
        ) {
            bytes[..MAGIC.len()].copy_from_slice(MAGIC);
            bytes[12..16].copy_from_slice(&(PAGE as u32).to_le_bytes());
            bytes[64] = FILE_FORMAT;
            let sum = xxh3_128(&bytes[64..64 + SLOT - 16]);
            bytes[64 + SLOT - 16..64 + SLOT].copy_from_slice(&sum.to_le_bytes());
            bytes.resize(3 * PAGE as usize, 1);
            let mut file = tempfile::tempfile().expect("a file");
            std::io::Write::write_all(&mut file, &bytes).expect("written");
            let (pages, commits) = Pages::open(file).expect("read").expect("one sound slot");
            prop_assert!(!commits.commits.is_empty());
            for tables in [commits.commits[0].tables, Some(Root::read(&root))] {
                let mut rows = pages.rows(tables, &[]);
                while let Some(row) = rows.next() {
                    prop_assert!(row.is_err(), "no checksum is right");
                }
            }
        }
    }
}
