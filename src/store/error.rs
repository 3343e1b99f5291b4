//! What can be wrong with a store, told to the person who has to put it right.

use std::io;
use std::path::PathBuf;

/// Why the store cannot be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has the file open.
    #[error("data_dir {} is in use by another process ({} is locked)", path.parent().unwrap_or(path).display(), path.display())]
    InUse {
        /// The database file.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was attempted.
        doing: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        source: io::Error,
    },
    /// The file is damaged, of another program, or of a newer version of this one.
    #[error(
        "the store {} cannot be used: {why}. Nothing was changed. Put a good copy of the file in its place; or start once with the environment \
         variable TIDEGATE_STORE__MOVE_CORRUPT_ASIDE=true (`store.move_corrupt_aside`), which keeps this file under another name and begins with \
         an empty store. What can still be read of it, `tidegate export --file {}` writes as JSON",
        path.display(),
        path.display()
    )]
    Unusable {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An export finds nothing at all to read.
    #[error("nothing can be read of the store {}: {why}", path.display())]
    Unreadable {
        /// The database file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A row that this program did not write, or not so.
    #[error("the store's table {table} has a bad record at {key}: {what}")]
    Record {
        /// Name of the table.
        table: String,
        /// The row's key.
        key: String,
        /// What was expected.
        what: &'static str,
    },
    /// The database failed; what it says.
    #[error("the store failed to {doing}: {source}")]
    Database {
        /// What was attempted.
        doing: &'static str,
        /// What the database says.
        source: Box<redb::Error>,
    },
    /// An earlier write failed: memory may be ahead of disk, so nothing more is written.
    #[error("the store stopped after a failed write; restart to go on with what is on disk")]
    Stopped,
}

impl StoreError {
    /// Whether the file itself is at fault, so that moving it aside would help.
    pub fn is_unusable_file(&self) -> bool {
        matches!(self, StoreError::Unusable { .. })
    }
}

/// Says what was being done when the database failed.
pub(super) trait Doing<T> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError>;
}

impl<T, E: Into<redb::Error>> Doing<T> for Result<T, E> {
    fn doing(self, doing: &'static str) -> Result<T, StoreError> {
        self.map_err(|error| StoreError::Database {
            doing,
            source: Box::new(error.into()),
        })
    }
}
