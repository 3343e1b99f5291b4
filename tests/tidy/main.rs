//! Checks of style: what files may import, how long they may be, and what they must not contain.
//!
//! Folders are floors. A floor imports only from floors below it, by the rules in `FLOORS`. No
//! files import each other in a circle. Comments and items under `#[cfg(test)]` are ignored unless
//! a rule says otherwise.

mod imports;
mod source;

use std::fs;
use std::path::Path;

use source::sources;

/// Maximum length of a file under `src` in lines.
const LONGEST: usize = 700;

struct Floor {
    /// Path below `src`: a file, or a folder if it ends with a slash.
    path: &'static str,
    /// What it may import from this crate, as beginnings of paths.
    may: &'static [&'static str],
    /// What it must not contain.
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
        // The types of times. It must not read a clock.
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
        may: &["wire", "store", "broker::model", "clock"],
        never: &["tokio", "std::net", "socket2", "rustls"],
    },
    Floor {
        path: "net/",
        may: &["wire", "broker", "store", "net", "limits", "clock"],
        never: &["redb"],
    },
    Floor {
        path: "config/",
        // It builds the settings of all floors below but uses none of them.
        may: &["wire", "broker", "store", "net", "config", "limits"],
        never: &["redb::", "tokio"],
    },
    Floor {
        path: "server.rs",
        may: &[
            "wire", "broker", "store", "net", "config", "server", "limits", "clock",
        ],
        never: &["redb::"],
    },
    Floor {
        path: "server/",
        may: &[
            "wire", "broker", "store", "net", "config", "server", "limits", "clock",
        ],
        never: &["redb::"],
    },
    Floor {
        path: "cli/",
        may: &[
            "wire", "broker", "store", "net", "config", "server", "cli", "limits", "clock",
        ],
        never: &["redb::"],
    },
    Floor {
        path: "main.rs",
        may: &["cli"],
        never: &["tokio", "redb"],
    },
    Floor {
        path: "limits.rs",
        may: &["wire", "limits"],
        never: &["tokio", "redb"],
    },
    Floor {
        path: "clock.rs",
        may: &["clock"],
        never: &["tokio", "redb"],
    },
];

/// Files that must use `expect` with a reason instead of `unwrap`.
const NO_UNWRAP: &[&str] = &[
    "wire/",
    "broker/",
    "store/",
    "net/",
    "config/",
    "cli/",
    "server.rs",
    "server/",
    "main.rs",
];

fn is_in(path: &str, places: &[&str]) -> bool {
    places.iter().any(|place| match place.strip_suffix('/') {
        Some(_) => path.starts_with(place),
        None => path == *place,
    })
}

fn check(problems: Vec<String>) {
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
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
    for import in imports::imports(sources()) {
        // A macro or a constant at the root of the crate belongs to no floor; a module does.
        let first = import.path.split("::").next().unwrap_or_default();
        if first.chars().next().is_none_or(char::is_uppercase) {
            continue;
        }
        let floors = FLOORS
            .iter()
            .filter(|floor| is_in(&import.from, &[floor.path]));
        for floor in floors.filter(|floor| !allows(floor.may, &import.path)) {
            problems.push(format!(
                "src/{}:{}: imports {}, not below {}",
                import.from, import.line, import.path, floor.path
            ));
        }
    }
    check(problems);
}

/// Rooms of the broker that only add methods to it. Files outside must not import from them.
const ROOMS: &[&str] = &["access", "delivery", "driver", "flows", "observe", "upkeep"];

#[test]
fn rooms_of_the_broker_know_each_other_only_by_its_methods() {
    let mut problems = Vec::new();
    for import in imports::imports(sources()) {
        let Some(below) = import.path.strip_prefix("broker::") else {
            continue;
        };
        let from = |room: &str| import.from.starts_with(&format!("broker/{room}/"));
        let names = |room: &str| below.starts_with(&format!("{room}::"));
        let problem = if ROOMS.iter().any(|room| names(room) && !from(room)) {
            "which is in a room above the Broker"
        } else if from("model") && names("state") {
            "though data knows no state"
        } else if (from("model") || from("state")) && below == "Broker" {
            "though state knows no Broker"
        } else {
            continue;
        };
        problems.push(format!(
            "src/{}:{}: imports {}, {problem}",
            import.from, import.line, import.path
        ));
    }
    check(problems);
}

#[test]
fn no_files_import_each_other_in_a_circle() {
    let imports = imports::imports(sources());
    let ties = imports::ties(&imports);
    let circles = imports::circles(&ties);
    check(
        circles
            .iter()
            .map(|circle| imports::describe(circle, &ties))
            .collect(),
    );
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
    let too_long = sources().iter().filter_map(|source| {
        let lines = source.text.lines().count();
        (lines > LONGEST).then(|| format!("src/{}: {lines} lines", source.path))
    });
    check(too_long.collect());
}

#[test]
fn each_file_says_what_it_is() {
    let silent = sources().iter().filter_map(|source| {
        let is_silent = !source.text.starts_with("//!") && !source.path.ends_with("tests.rs");
        is_silent.then(|| format!("src/{}: does not begin with //!", source.path))
    });
    check(silent.collect());
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
                        "src/{}:{line}: {word}, expected cli::print",
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
fn a_floor_allows_a_module_and_what_is_in_it() {
    let broker = &FLOORS[1];
    assert!(allows(broker.may, "clock::Now") && !allows(broker.may, "clock::Clock"));
    assert!(!allows(broker.may, "wireless::X"));
}
