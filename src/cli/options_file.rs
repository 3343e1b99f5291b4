//! Files with options of `pub` and `sub`, one on each line, as in mosquitto_pub and mosquitto_sub:
//! `-h gw.local`, `--cafile /etc/ca.pem`.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::exit::Failure;

/// Flags with several values.
const OF_SEVERAL_WORDS: [&str; 2] = ["-D", "--property"];

/// Inserts the options of a file between the subcommand and its own options, so that those of the
/// command line replace them. The file is the one that `-o` names, otherwise the default file if it
/// exists.
///
/// # Errors
/// Fails if the file that `-o` names cannot be read, or a line is no option.
pub fn expand(arguments: Vec<OsString>) -> Result<Vec<OsString>, Failure> {
    let command = arguments.get(1).and_then(|command| command.to_str());
    let Some(command @ ("pub" | "sub")) = command else {
        return Ok(arguments);
    };
    let (path, text) = match named(&arguments[2..]) {
        Some(path) => {
            let failed = |error| Failure::usage(format!("{}: {error}", path.display()));
            let text = fs::read_to_string(&path).map_err(failed)?;
            (path, text)
        }
        None => {
            let Some(path) = usual(command) else {
                return Ok(arguments);
            };
            match fs::read_to_string(&path) {
                Ok(text) => (path, text),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(arguments),
                Err(error) => {
                    return Err(Failure::usage(format!("{}: {error}", path.display())));
                }
            }
        }
    };
    let options = options(&path, &text)?;
    let mut rest = arguments.into_iter();
    let before: Vec<OsString> = rest.by_ref().take(2).collect();
    Ok(before.into_iter().chain(options).chain(rest).collect())
}

/// Returns the file that `-o` names.
fn named(arguments: &[OsString]) -> Option<PathBuf> {
    let at = |argument: &OsString| argument == "-o" || argument == "--options-file";
    let by_two = arguments.iter().position(at);
    let by_two = by_two
        .and_then(|at| arguments.get(at + 1))
        .map(PathBuf::from);
    by_two.or_else(|| {
        let texts = arguments.iter().filter_map(|argument| argument.to_str());
        let mut values = texts.filter_map(|text| text.strip_prefix("--options-file="));
        values.next().map(PathBuf::from)
    })
}

/// Returns the default file.
fn usual(command: &str) -> Option<PathBuf> {
    let of_variable = |name| {
        env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let directory = of_variable("XDG_CONFIG_HOME")
        .or_else(|| of_variable("HOME").map(|home| home.join(".config")))?;
    Some(directory.join("tidegate").join(command))
}

/// Returns the words of all lines.
fn options(path: &Path, text: &str) -> Result<Vec<OsString>, Failure> {
    let mut words = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if !line.starts_with('-') {
            let what = format!(
                "{}:{}: {line:?} is no option; expected one a line, as in -h localhost",
                path.display(),
                at + 1
            );
            return Err(Failure::usage(what));
        }
        match line.split_once(char::is_whitespace) {
            None => words.push(line.into()),
            Some((flag, value)) => {
                words.push(flag.into());
                let value = value.trim_start();
                match OF_SEVERAL_WORDS.contains(&flag) {
                    true => words.extend(value.split_whitespace().map(OsString::from)),
                    false => words.push(value.into()),
                }
            }
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_follows_the_file_it_names() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let text =
            "# a gateway\n\n-h gw.local\n  --pw  two words \n-D publish user-property k v\n-d\n";
        std::fs::write(&file, text).expect("written");
        let path = file.path().display().to_string();
        for flag in [
            &["-o", path.as_str()][..],
            &[&format!("--options-file={path}")],
        ] {
            let line = ["tidegate", "pub"].iter().chain(flag).chain(&["-h", "x"]);
            let words = expand(line.map(OsString::from).collect()).expect("good");
            let mut expected = vec![
                "tidegate",
                "pub",
                "-h",
                "gw.local",
                "--pw",
                "two words",
                "-D",
                "publish",
                "user-property",
                "k",
                "v",
                "-d",
            ];
            expected.extend(flag);
            expected.extend(["-h", "x"]);
            assert_eq!(words, expected);
        }
    }

    #[test]
    fn what_is_no_option_is_told_with_its_line() {
        let told = options(Path::new("f"), "-h a\nport 5\n").expect_err("no option");
        assert!(
            told.message.starts_with("f:2: \"port 5\" is no option"),
            "{told}"
        );
        let line = ["tidegate", "sub", "-o", "/nowhere/at/all"].map(OsString::from);
        let told = expand(line.to_vec()).expect_err("no file");
        assert!(told.message.contains("/nowhere/at/all"), "{told}");
        let other = ["tidegate", "run", "-o", "/nowhere/at/all"].map(OsString::from);
        assert_eq!(expand(other.to_vec()).expect("as it was"), other);
    }
}
