//! What is remembered: one redb database, the record layouts, the committer thread.

use std::path::PathBuf;

/// Where the store is and how large it may get.
#[derive(Clone, Debug, PartialEq)]
pub struct StoreOptions {
    /// The database file.
    pub path: PathBuf,
    /// Hard cap on the file, in bytes.
    pub max_bytes: u64,
    /// Bytes of free disk that are left alone.
    pub min_free_bytes: u64,
    /// Page cache, in bytes.
    pub cache_bytes: usize,
    /// A file that cannot be read is moved aside and an empty one begun, instead of refusing to start.
    pub move_corrupt_aside: bool,
}
