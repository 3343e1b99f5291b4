//! Files with a key or a secret.

use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes of a file with a key or a secret that are read.
const MAX_SECRET_BYTES: u64 = 64 * 1024;

/// A key or a secret, without the line feed that an editor has left at the end.
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
