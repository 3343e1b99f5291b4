//! Files that the configuration consists of.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::error::ConfigError;
use super::tree::Problem;
use super::value::show_size;

/// The text of a file of at most `most` bytes.
pub(super) fn read_text(path: &Path, most: u64) -> Result<String, ConfigError> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?.take(most + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = match read() {
        Err(error) => Err(format!("cannot be read: {error}")),
        Ok(bytes) if bytes.len() as u64 > most => {
            Err(format!("is longer than {}", show_size(most)))
        }
        Ok(bytes) => String::from_utf8(bytes).map_err(|error| {
            let offset = error.utf8_error().valid_up_to();
            format!("is not UTF-8 text, from byte {offset} on")
        }),
    };
    text.map_err(|what| ConfigError {
        problems: vec![Problem {
            place: path.display().to_string(),
            key: String::new(),
            what,
        }],
    })
}
