//! Style as a test: what the sources may import, how long a file may be, and what must not be in them.
//!
//! Folders are floors; a floor imports only from floors below it. The rules are in `FLOORS`; this test reads the sources and knows no more Rust
//! than it needs: comments and everything from `#[cfg(test)]` on are left out, except where a rule says otherwise.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest file under `src`, in lines.
const LONGEST: usize = 700;

struct Floor {
    /// Path below `src`: a folder with a slash at its end, or a file.
    path: &'static str,
    /// What it may import from this crate, as the beginning of a path.
    may: &'static [&'static str],
    /// What must not stand in it.
    never: &'static [&'static str],
}

const CLOCKS_AND_CHANCE: &[&str] = &[
    "Instant::now",
    "SystemTime",
    "RandomState",
    "rand::",
    "getrandom",
    "fastrand",
    "thread_rng",
];

const FLOORS: &[Floor] = &[
    Floor {
        path: "wire/",
        may: &["wire"],
        never: &[
            "tokio",
            "redb",
            "std::net",
            "std::thread",
            "std::sync",
            "std::fs",
            "std::io",
            "std::time",
            "tracing",
            "metrics::",
        ],
    },
    Floor {
        path: "broker/",
        // What it is told of clocks: it reads none.
        may: &[
            "wire",
            "broker",
            "limits",
            "clock::Now",
            "clock::Reading",
            "clock::READING_MS",
        ],
        never: &[
            "tokio",
            "redb",
            "rustls",
            "std::net",
            "std::thread",
            "std::fs",
            "std::io",
            "std::time",
            "Mutex",
            "RwLock",
            "Atomic",
            "Condvar",
        ],
    },
    Floor {
        path: "store/",
        // A stopwatch for the log, and the wall clock for the name of a file that is moved aside.
        may: &[
            "wire",
            "store",
            "broker::message",
            "broker::Message",
            "broker::record",
            "clock",
        ],
        never: &["tokio", "std::net", "socket2", "rustls"],
    },
    Floor {
        path: "net/",
        may: &["wire", "broker", "store", "net", "limits", "clock"],
        never: &["redb"],
    },
    Floor {
        path: "limits.rs",
        may: &["wire"],
        never: &["tokio", "redb"],
    },
    Floor {
        path: "clock.rs",
        may: &[],
        never: &["tokio", "redb"],
    },
];

/// Files whose every mention of a panic on `None` or `Err` must give its reason: `expect`, not `unwrap`.
const NO_UNWRAP: &[&str] = &[
    "wire/",
    "broker/",
    "store/",
    "net/",
    "config/",
    "cli/",
    "server.rs",
    "main.rs",
];

struct Source {
    /// Path below `src`, with slashes.
    path: String,
    text: String,
    /// Lines with their numbers, without comments, up to the tests at the foot.
    code: Vec<(usize, String)>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder of the sources can be read") {
            let path: PathBuf = entry.expect("an entry can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).expect("a source can be read");
                let below = path.strip_prefix(&root).expect("it is below the root");
                found.push(Source {
                    path: below.to_string_lossy().replace('\\', "/"),
                    code: code_of(&text),
                    text,
                });
            }
        }
    }
    assert!(found.len() > 10, "the sources have been found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn code_of(text: &str) -> Vec<(usize, String)> {
    let before_tests = text
        .lines()
        .take_while(|line| !line.starts_with("#[cfg(test)]"));
    before_tests
        .enumerate()
        .map(|(i, line)| (i + 1, without_comment(line).to_owned()))
        .collect()
}

/// The line without a comment at its end. `//` within a string, as in a URL, is taken for a string when a quote stands before it.
fn without_comment(line: &str) -> &str {
    match line.find("//") {
        Some(at) if line[..at].matches('"').count().is_multiple_of(2) => &line[..at],
        _ => line,
    }
}

fn is_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| match place.strip_suffix('/') {
        Some(_) => path.starts_with(place),
        None => path == *place,
    })
}

fn check(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// All that a file names of this crate, with line numbers: `crate::a::b`, and the same with `tidegate::` and `super::`.
fn imports(source: &Source) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let whole: String = source
        .code
        .iter()
        .map(|(_, line)| format!("{line}\n"))
        .collect();
    for prefix in ["crate::", "tidegate::"] {
        for (at, _) in whole.match_indices(prefix) {
            let line = whole[..at].matches('\n').count() + 1;
            for path in expand(&whole[at + prefix.len()..]) {
                found.push((line, path));
            }
        }
    }
    // Modules of a floor are at most one level deep: two `super` lead out of it.
    let module_depth = source.path.matches('/').count();
    for (at, _) in whole.match_indices("super::super::") {
        let line = whole[..at].matches('\n').count() + 1;
        let is_root = source.path.ends_with("mod.rs");
        if module_depth <= 1 && !is_root {
            for path in expand(&whole[at + "super::super::".len()..]) {
                found.push((line, path));
            }
        }
    }
    found
}

/// The paths that begin here: `a::b::C` is itself, `{a::B, c}` is each of them, to the second level.
fn expand(rest: &str) -> Vec<String> {
    let Some(group) = rest.strip_prefix('{') else {
        let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'));
        let path = &rest[..end.unwrap_or(rest.len())];
        let is_group = rest[path.len()..].starts_with('{');
        if is_group && path.matches("::").count() == 1 {
            let inner = expand(&rest[path.len()..]);
            return inner.iter().map(|inner| format!("{path}{inner}")).collect();
        }
        return vec![path.trim_end_matches(':').to_owned()];
    };
    let mut depth = 1;
    let mut paths = Vec::new();
    let mut start = 0;
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            let part = group[start..at].trim();
            if !part.is_empty() {
                paths.extend(expand(part));
            }
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    paths
}

fn allows(may: &[&str], path: &str) -> bool {
    may.iter().any(|allowed| {
        path == *allowed
            || path
                .strip_prefix(allowed)
                .is_some_and(|rest| rest.starts_with("::"))
    })
}

#[test]
fn a_floor_imports_only_from_floors_below_it() {
    let mut problems = Vec::new();
    for source in sources() {
        for floor in FLOORS
            .iter()
            .filter(|floor| is_in(&source.path, &[floor.path]))
        {
            for (line, import) in imports(&source) {
                // A macro or a constant at the root of the crate is nobody's floor; a module is.
                let first = import.split("::").next().unwrap_or_default();
                if first.chars().next().is_some_and(char::is_uppercase) {
                    continue;
                }
                if !allows(floor.may, &import) {
                    problems.push(format!("src/{}:{line}: imports {import}", source.path));
                }
            }
        }
    }
    check(problems);
}

#[test]
fn a_floor_never_sees_what_is_not_its_business() {
    let mut problems = Vec::new();
    for source in sources() {
        for floor in FLOORS
            .iter()
            .filter(|floor| is_in(&source.path, &[floor.path]))
        {
            for (line, code) in &source.code {
                for never in floor.never.iter().filter(|never| code.contains(*never)) {
                    problems.push(format!("src/{}:{line}: {never}", source.path));
                }
            }
        }
    }
    check(problems);
}

#[test]
fn time_and_chance_come_from_one_file() {
    let mut problems = Vec::new();
    for source in sources() {
        if source.path == "clock.rs" {
            continue;
        }
        for (line, code) in &source.code {
            for forbidden in CLOCKS_AND_CHANCE.iter().filter(|word| code.contains(*word)) {
                problems.push(format!("src/{}:{line}: {forbidden}", source.path));
            }
        }
    }
    check(problems);
}

#[test]
fn no_file_is_too_long_to_read() {
    let too_long = sources().into_iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > LONGEST).then(|| format!("src/{}: {lines} lines", source.path))
    });
    check(too_long.collect());
}

#[test]
fn nothing_is_left_for_later() {
    let words = [
        concat!("TO", "DO"),
        concat!("FIX", "ME"),
        concat!("XX", "X"),
        concat!("unimpl", "emented!"),
        concat!("to", "do!("),
        concat!("#[ig", "nore"),
        concat!("allow(dead", "_code)"),
        concat!("db", "g!("),
    ];
    let mut problems = Vec::new();
    for source in sources() {
        for (i, line) in source.text.lines().enumerate() {
            for word in words.iter().filter(|word| line.contains(*word)) {
                problems.push(format!("src/{}:{}: {word}", source.path, i + 1));
            }
        }
    }
    check(problems);
}

#[test]
fn nothing_panics_without_a_reason() {
    let mut problems = Vec::new();
    for source in sources() {
        if !is_in(&source.path, NO_UNWRAP) {
            continue;
        }
        for (line, code) in &source.code {
            for word in [".unwrap()", ".unwrap_err()", "panic!()", "unreachable!()"] {
                if code.contains(word) {
                    problems.push(format!("src/{}:{line}: {word}", source.path));
                }
            }
        }
    }
    check(problems);
}

#[test]
fn nothing_aborts_because_nobody_reads_what_it_prints() {
    let mut problems = Vec::new();
    for source in sources() {
        for (line, code) in &source.code {
            for word in ["print!(", "println!("] {
                if code.contains(word) {
                    problems.push(format!(
                        "src/{}:{line}: {word}, expected cli::tell",
                        source.path
                    ));
                }
            }
        }
    }
    check(problems);
}

#[test]
fn nothing_is_unsafe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let lib = fs::read_to_string(root.join("lib.rs")).expect("there is a library");
    assert!(lib.contains("#![forbid(unsafe_code)]"));
}

#[test]
fn imports_are_found_in_all_their_forms() {
    let text = "use crate::wire::QoS;\nuse crate::{broker::record::Seq, net::{core, listener}, clock::Now};\nlet x = crate::store::open();\n// crate::server\n#[cfg(test)]\nuse crate::main;";
    let source = Source {
        path: "broker/x.rs".into(),
        text: text.into(),
        code: code_of(text),
    };
    let found: Vec<String> = imports(&source).into_iter().map(|(_, path)| path).collect();
    for path in [
        "wire::QoS",
        "broker::record::Seq",
        "clock::Now",
        "store::open",
    ] {
        assert!(found.iter().any(|f| f == path), "{path} in {found:?}");
    }
    assert!(found.iter().any(|f| f.starts_with("net")), "{found:?}");
    assert!(
        !found
            .iter()
            .any(|f| f.starts_with("server") || f.starts_with("main"))
    );
    let broker = &FLOORS[1];
    assert!(allows(broker.may, "clock::Now") && !allows(broker.may, "clock::Clock"));
    assert!(!allows(broker.may, "wireless::X"));
}
