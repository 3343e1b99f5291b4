//! What else gets all that is committed.

use crate::broker::record::BatchId;

/// Gets each batch that a [`Store`](super::Store) commits, row by row, as it is written: sorted by table and
/// key, each row once. To put or remove a row twice changes nothing.
///
/// Nobody is told that a batch is committed before all followers have had all of it. They run on the thread
/// that commits, and hold it up.
pub trait Follower: Send {
    /// A batch begins. Its number is above all before it. Numbers may be missing after a restart.
    fn begin(&mut self, batch: BatchId);

    /// A row has this record now. `table` is the name of its table.
    fn put(&mut self, table: &str, key: &[u8], record: &[u8]);

    /// A row is gone, if there was one.
    fn remove(&mut self, table: &str, key: &[u8]);

    /// That was all of the batch. Its sync is still to come: the process may end before it, and the batch be
    /// lost here.
    fn end(&mut self);
}
