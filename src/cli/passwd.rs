//! `tidegate passwd`: writes password files, with the flags of mosquitto_passwd.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, IsTerminal, Write};
use std::num::NonZeroU32;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::process;
use std::thread;

use clap::Args;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{SignalKind, signal};

use super::exit::{self, Failure};
use super::print;
use crate::net::auth::hash::{HashKind, PasswordHash};
use crate::net::auth::password_file::{Line, check_user, parse_line, read};

/// The flags of `tidegate passwd`.
#[derive(Args, Clone, Debug)]
pub struct PasswdFlags {
    /// Make a new file; one that is there is overwritten
    #[arg(short, conflicts_with_all = ["delete", "upgrade"])]
    pub create: bool,
    /// Take the password from the command line, where others on this machine may see it
    #[arg(short, requires = "password", conflicts_with_all = ["delete", "upgrade"])]
    pub batch: bool,
    /// Delete the user
    #[arg(short = 'D', conflicts_with = "upgrade")]
    pub delete: bool,
    /// Hash all passwords of the file that stand there in plain text
    #[arg(short = 'U')]
    pub upgrade: bool,
    /// argon2id (Mosquitto 2.1 and later read it), sha512-pbkdf2 (2.0 and later) or sha512 (all)
    #[arg(short = 'H', value_name = "HASH", default_value = "argon2id", value_parser = hash_kind)]
    pub hash: HashKind,
    /// Iterations of sha512-pbkdf2, or passes of argon2id; more make every login slower, and every
    /// guess
    #[arg(short = 'I', value_name = "COUNT")]
    pub iterations: Option<NonZeroU32>,
    /// The password file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// The user
    #[arg(
        value_name = "USERNAME",
        required_unless_present = "upgrade",
        conflicts_with = "upgrade"
    )]
    pub username: Option<String>,
    /// The password, with -b; without it, it is asked for, or read from stdin
    #[arg(value_name = "PASSWORD", requires = "batch")]
    pub password: Option<String>,
}

fn hash_kind(text: &str) -> Result<HashKind, String> {
    match text {
        "sha512" => Ok(HashKind::Sha512),
        "sha512-pbkdf2" => Ok(HashKind::Sha512Pbkdf2),
        "argon2id" => Ok(HashKind::Argon2id),
        _ => Err("expected argon2id, sha512-pbkdf2 or sha512".to_owned()),
    }
}

/// Changes the file.
///
/// # Errors
/// Exit code 1 if the file cannot be read or written, the user does not exist, or the password is
/// not allowed.
pub fn run(flags: &PasswdFlags) -> Result<(), Failure> {
    let failed = |what: String| Failure::new(exit::FAILED, what);
    if flags.hash == HashKind::Sha512 && flags.iterations.is_some() {
        return Err(Failure::usage("sha512 has no iterations"));
    }
    let in_file = |what: String| failed(format!("{}: {what}", flags.file.display()));
    let old = match flags.create {
        true => String::new(),
        false => read(&flags.file).map_err(&in_file)?,
    };
    let new = match flags.username.as_deref() {
        None => upgrade(&old, flags).map_err(&in_file)?,
        Some(user) if flags.delete => without(&old, user).map_err(&in_file)?,
        Some(user) => {
            check_user(user).map_err(failed)?;
            let password = match &flags.password {
                Some(password) => password.clone(),
                None => ask().map_err(failed)?,
            };
            if password.is_empty() {
                return Err(failed("the password is empty".to_owned()));
            }
            let hash = hash(&password, flags).map_err(failed)?;
            with(&old, user, &hash)
        }
    };
    write(&flags.file, &new).map_err(|error| in_file(error.to_string()))
}

fn hash(password: &str, flags: &PasswdFlags) -> Result<String, String> {
    let hash = PasswordHash::new(flags.hash, flags.iterations, password.as_bytes());
    Ok(hash?.to_string())
}

/// Returns the text with the line of this user replaced or added.
fn with(text: &str, user: &str, hash: &str) -> String {
    let mut new = String::new();
    let mut found = false;
    for line in text.lines() {
        if matches!(parse_line(line), Ok(Line::User(name, _)) if name == user) {
            if !found {
                let _ = writeln!(new, "{user}:{hash}");
            }
            found = true;
        } else {
            let _ = writeln!(new, "{line}");
        }
    }
    if !found {
        let _ = writeln!(new, "{user}:{hash}");
    }
    new
}

fn without(text: &str, user: &str) -> Result<String, String> {
    let is_other =
        |line: &&str| !matches!(parse_line(line), Ok(Line::User(name, _)) if name == user);
    let kept: Vec<&str> = text.lines().filter(is_other).collect();
    if kept.len() == text.lines().count() {
        return Err(format!("there is no user {user:?}"));
    }
    Ok(kept.iter().map(|line| format!("{line}\n")).collect())
}

/// Returns the text with all plain passwords hashed. Hashed ones are not changed.
fn upgrade(text: &str, flags: &PasswdFlags) -> Result<String, String> {
    let mut new = String::new();
    for (index, line) in text.lines().enumerate() {
        let at = |what: String| format!("line {}: {what}", index + 1);
        let (user, password) = match parse_line(line).map_err(at)? {
            Line::Other => {
                let _ = writeln!(new, "{line}");
                continue;
            }
            Line::User(user, password) => (user, password),
        };
        let hashed = match PasswordHash::parse(password) {
            Ok(_) => password.to_owned(),
            Err(what)
                if ["$6$", "$7$", "$argon2id$"]
                    .iter()
                    .any(|kind| password.starts_with(kind)) =>
            {
                return Err(at(what));
            }
            Err(_) if password.is_empty() => return Err(at("the password is empty".to_owned())),
            Err(_) => hash(password, flags).map_err(at)?,
        };
        let _ = writeln!(new, "{user}:{hashed}");
    }
    Ok(new)
}

/// Replaces the file as a whole: a reader sees the old one or the new one. A new file can be read
/// by its owner only. An existing file keeps its owner and permissions.
fn write(path: &Path, text: &str) -> io::Result<()> {
    // Follows a symbolic link and replaces its target.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new{}", std::process::id()));
    let beside = path.with_file_name(name);
    let write = || -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        if let Ok(old) = fs::metadata(&path) {
            let own = file.metadata()?;
            if (own.uid(), own.gid()) != (old.uid(), old.gid()) {
                fchown(&file, Some(old.uid()), Some(old.gid()))?;
            }
            file.set_permissions(Permissions::from_mode(old.mode() & 0o777))?;
        }
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, &path)?;
        let directory = path.parent().filter(|it| !it.as_os_str().is_empty());
        File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    let written = write();
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
}

/// Asks twice for the password if stdin is a terminal. Otherwise returns the first line of stdin.
fn ask() -> Result<String, String> {
    if !io::stdin().is_terminal() {
        return line();
    }
    let shown = tcgetattr(io::stdin()).map_err(|error| error.to_string())?;
    restore_on_signal(shown.clone()).map_err(|error| error.to_string())?;
    let password = ask_once("Password: ", &shown)?;
    if ask_once("Reenter password: ", &shown)? != password {
        return Err("the passwords are not the same".to_owned());
    }
    Ok(password)
}

/// Restores the terminal when a signal ends the process (Ctrl-C); otherwise it would stay without
/// echo.
///
/// # Errors
/// Fails if the operating system provides no thread or no signals.
fn restore_on_signal(shown: Termios) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (mut hangup, mut interrupt, mut quit, mut terminate) = {
        let _context = runtime.enter();
        (
            signal(SignalKind::hangup())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::quit())?,
            signal(SignalKind::terminate())?,
        )
    };
    let wait = async move {
        tokio::select! {
            _ = hangup.recv() => SignalKind::hangup(),
            _ = interrupt.recv() => SignalKind::interrupt(),
            _ = quit.recv() => SignalKind::quit(),
            _ = terminate.recv() => SignalKind::terminate(),
        }
    };
    // The main thread waits for a line, which cannot be interrupted.
    thread::Builder::new().spawn(move || {
        let kind = runtime.block_on(wait);
        let _ = tcsetattr(io::stdin(), OptionalActions::Now, &shown);
        print::err("");
        process::exit(128 + kind.as_raw_value());
    })?;
    Ok(())
}

fn ask_once(prompt: &str, shown: &Termios) -> Result<String, String> {
    let stdin = io::stdin();
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let _ = write!(io::stderr(), "{prompt}");
    tcsetattr(&stdin, OptionalActions::Flush, &hidden).map_err(|error| error.to_string())?;
    let line = line();
    let restored = tcsetattr(&stdin, OptionalActions::Now, shown);
    print::err("");
    restored.map_err(|error| error.to_string())?;
    line
}

fn line() -> Result<String, String> {
    let mut line = String::new();
    let read = io::stdin().read_line(&mut line);
    read.map_err(|error| format!("the password cannot be read: {error}"))?;
    let bare = line.strip_suffix('\n').unwrap_or(&line);
    Ok(bare.strip_suffix('\r').unwrap_or(bare).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(file: &Path, user: Option<&str>, password: Option<&str>) -> PasswdFlags {
        PasswdFlags {
            create: false,
            batch: password.is_some(),
            delete: false,
            upgrade: user.is_none(),
            hash: HashKind::Sha512,
            iterations: None,
            file: file.to_owned(),
            username: user.map(str::to_owned),
            password: password.map(str::to_owned),
        }
    }

    fn verifies(file: &Path, user: &str, password: &str) -> bool {
        let file = crate::net::auth::password_file::PasswordFile::load(file).expect("a good file");
        let (hash, known) = file.find(user).expect("there are users");
        known && hash.verify(password.as_bytes())
    }

    #[test]
    fn users_are_added_changed_and_deleted_and_the_rest_stays() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("passwords");
        let set = |user, password| flags(&file, Some(user), Some(password));
        let failure = run(&set("ann", "a")).expect_err("no file yet");
        assert!(failure.message.contains("cannot be read"), "{failure}");
        let mut create = set("ann", "a");
        create.create = true;
        run(&create).expect("written");
        let mode = fs::metadata(&file).expect("it is there").mode();
        assert_eq!(mode & 0o777, 0o600);
        fs::set_permissions(&file, Permissions::from_mode(0o640)).expect("set");
        let text = fs::read_to_string(&file).expect("text");
        fs::write(&file, format!("# who\n\n{text}")).expect("written");
        run(&set("bob", "b")).expect("written");
        run(&set("ann", "c")).expect("written");
        assert!(verifies(&file, "ann", "c") && verifies(&file, "bob", "b"));
        let mut delete = flags(&file, Some("ann"), None);
        delete.delete = true;
        run(&delete).expect("deleted");
        assert_eq!(
            run(&delete).expect_err("gone").message,
            format!("{}: there is no user \"ann\"", file.display())
        );
        let text = fs::read_to_string(&file).expect("text");
        assert!(text.starts_with("# who\n\nbob:$6$") && text.lines().count() == 3);
        assert_eq!(fs::metadata(&file).expect("there").mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(dir.path()).expect("files").count(), 1);
    }

    #[test]
    fn plain_passwords_are_hashed_and_hashed_ones_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("passwords");
        fs::write(&file, "ann:a:b\n# x\nbob:$ecret\n").expect("written");
        run(&flags(&file, None, None)).expect("upgraded");
        let once = fs::read_to_string(&file).expect("text");
        assert!(verifies(&file, "ann", "a:b") && verifies(&file, "bob", "$ecret"));
        run(&flags(&file, None, None)).expect("upgraded");
        assert_eq!(fs::read_to_string(&file).expect("text"), once);
        fs::write(&file, "ann:$7$broken\n").expect("written");
        let failure = run(&flags(&file, None, None)).expect_err("a broken hash");
        assert!(failure.message.contains(": line 1: "), "{failure}");
    }

    #[test]
    fn what_cannot_be_a_user_or_a_password_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("passwords");
        for (user, password) in [
            ("", "p"),
            ("a:b", "p"),
            ("#a", "p"),
            ("a\nb", "p"),
            ("a", ""),
        ] {
            let mut flags = flags(&file, Some(user), Some(password));
            flags.create = true;
            assert!(run(&flags).is_err(), "{user:?} {password:?}");
        }
        assert!(!file.exists());
    }
}
