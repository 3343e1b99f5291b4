//! Password files in the format of mosquitto_passwd and `tidegate passwd`: a line `name:hash` for
//! each user. Empty lines and lines that start with `#` are ignored.

use std::collections::HashMap;
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use foldhash::quality::FixedState;

use super::hash::PasswordHash;
use super::problem::Problem;
use crate::clock;

/// Bytes of the largest password file, enough for some hundred thousand users. A longer one is an
/// error.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// The users of a file with their password hashes.
#[derive(Debug)]
pub struct PasswordFile {
    index: HashMap<Box<str>, usize>,
    hashes: Vec<Arc<PasswordHash>>,
    hasher: FixedState,
}

/// A line of a password file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// An empty line or a comment.
    Other,
    /// A user, and what follows the colon.
    User(&'a str, &'a str),
}

impl PasswordFile {
    /// Reads a file.
    ///
    /// # Errors
    /// The file cannot be read; or all malformed lines.
    pub fn load(path: &Path) -> Result<PasswordFile, Vec<Problem>> {
        let text = read(path).map_err(|what| vec![Problem::new(path, None, what)])?;
        PasswordFile::parse(path, &text)
    }

    /// As [`PasswordFile::load`], with the text of the file. Problems name `path`.
    ///
    /// # Errors
    /// All malformed lines.
    pub fn parse(path: &Path, text: &str) -> Result<PasswordFile, Vec<Problem>> {
        let mut file = PasswordFile {
            index: HashMap::new(),
            hashes: Vec::new(),
            hasher: FixedState::with_seed(clock::seed()),
        };
        let mut problems = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let mut report = |what| problems.push(Problem::new(path, Some(index + 1), what));
            let (user, hash) = match parse_line(line) {
                Ok(Line::Other) => continue,
                Ok(Line::User(user, hash)) => (user, hash),
                Err(what) => {
                    report(what);
                    continue;
                }
            };
            match PasswordHash::parse(hash) {
                Err(what) => report(format!(
                    "{what}; `tidegate passwd {} {user}` writes a new one{}",
                    path.display(),
                    if hash.starts_with('$') {
                        ""
                    } else {
                        ", with -U instead of the name all of them"
                    }
                )),
                Ok(_) if file.index.contains_key(user) => {
                    report(format!("the user {user:?} has a line above already"));
                }
                Ok(hash) => {
                    file.index.insert(user.into(), file.hashes.len());
                    file.hashes.push(Arc::new(hash));
                }
            }
        }
        if problems.is_empty() {
            Ok(file)
        } else {
            Err(problems)
        }
    }

    /// Returns the hash of a user's password, and whether the user exists. For an unknown user it
    /// is the hash of some other user, always the same one. To verify it takes as long, so the time
    /// does not show which users exist. Returns `None` if there are no users at all.
    pub fn find(&self, user: &str) -> Option<(Arc<PasswordHash>, bool)> {
        let (at, known) = match self.index.get(user) {
            Some(at) => (*at, true),
            None => {
                let any =
                    self.hasher.hash_one(user) % u64::try_from(self.hashes.len()).ok()?.max(1);
                (usize::try_from(any).ok()?, false)
            }
        };
        Some((Arc::clone(self.hashes.get(at)?), known))
    }

    /// Returns a number that identifies a user's password. `None` if there is no such user.
    pub fn credential(&self, user: &str) -> Option<u64> {
        let hash = self.hashes.get(*self.index.get(user)?)?;
        Some(hash.number())
    }
}

/// Parses a line.
///
/// # Errors
/// The error text for a malformed line.
pub fn parse_line(line: &str) -> Result<Line<'_>, String> {
    let line = line.trim_end_matches('\r');
    if line.trim().is_empty() || line.starts_with('#') {
        return Ok(Line::Other);
    }
    let Some((user, hash)) = line.split_once(':') else {
        return Err("expected a user name, a colon and a hashed password".to_owned());
    };
    check_user(user)?;
    Ok(Line::User(user, hash))
}

/// Checks a user name for a password file.
///
/// # Errors
/// The error text.
pub fn check_user(user: &str) -> Result<(), String> {
    let is_wrong = user.is_empty()
        || user.len() > usize::from(u16::MAX)
        || user.starts_with('#')
        || user.contains(|c: char| c == ':' || c.is_control());
    if is_wrong {
        return Err(format!(
            "found the user name {user:?}, expected 1 to 65535 bytes without colons and control characters, and no # at the beginning"
        ));
    }
    Ok(())
}

/// Reads the text of a file, for [`PasswordFile::parse`].
///
/// # Errors
/// The error text: the file cannot be read, is too long, or is not UTF-8.
pub fn read(path: &Path) -> Result<String, String> {
    let read = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        File::open(path)?
            .take(MAX_FILE_BYTES + 1)
            .read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err("is longer than 64MiB".to_owned());
    }
    String::from_utf8(bytes).map_err(|_| "is not UTF-8 text".to_owned())
}

#[cfg(test)]
mod tests {
    use super::super::hash::HashKind;
    use super::*;

    fn hash(password: &str) -> String {
        let hash = PasswordHash::new(HashKind::Sha512, None, password.as_bytes());
        hash.expect("hashed").to_string()
    }

    fn parse(text: &str) -> Result<PasswordFile, Vec<String>> {
        PasswordFile::parse(Path::new("p"), text)
            .map_err(|problems| problems.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn users_are_found_and_strangers_get_somebody_elses_hash() {
        let text = format!("# comment\n\nann:{}\r\nbob:{}\n", hash("a"), hash("b"));
        let file = parse(&text).expect("good");
        let (ann, known) = file.find("ann").expect("there are users");
        assert!(known && ann.verify(b"a") && !ann.verify(b"b"));
        let strangers: Vec<bool> = (0..100)
            .map(|n| {
                let name = format!("stranger{n}");
                let (hash, known) = file.find(&name).expect("there are users");
                let (again, _) = file.find(&name).expect("there are users");
                assert!(!known && again == hash);
                hash.verify(b"a")
            })
            .collect();
        assert!(strangers.contains(&true) && strangers.contains(&false));
        assert!(parse("").expect("good").find("ann").is_none());
    }

    #[test]
    fn every_wrong_line_is_told_with_its_number_and_without_the_password() {
        let text = format!(
            "ann\nbob:secret\ncid:{}\n:x\ncid:{}\n",
            hash("c"),
            hash("c")
        );
        let problems = parse(&text).expect_err("problems");
        assert_eq!(problems.len(), 4, "{problems:?}");
        assert_eq!(
            problems[0],
            "p:1: expected a user name, a colon and a hashed password"
        );
        assert!(problems[1].starts_with("p:2: the password is not hashed"));
        assert!(problems[1].contains("-U"), "{}", problems[1]);
        assert!(problems[2].starts_with("p:4: found the user name \"\""));
        assert_eq!(
            problems[3],
            "p:5: the user \"cid\" has a line above already"
        );
        assert!(!problems.concat().contains("secret"));
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let problems = PasswordFile::load(Path::new("/no/such/file")).expect_err("no file");
        let told = problems[0].to_string();
        assert!(
            told.starts_with("/no/such/file: cannot be read: "),
            "{told}"
        );
    }
}
