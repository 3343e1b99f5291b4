//! Reads files with a key or a secret.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of the largest file that is read.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// Reads a key or a secret, without line ends at the end of the file.
pub(super) fn read_secret(file: &Path) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let read =
        File::open(file).and_then(|file| file.take(MAX_SECRET_BYTES).read_to_end(&mut bytes));
    read.map_err(|error| format!("cannot be read: {error}"))?;
    while bytes
        .last()
        .is_some_and(|last| matches!(last, b'\n' | b'\r'))
    {
        bytes.pop();
    }
    Ok(bytes)
}
