//! Finds which file imports what from which other file. Modules, their names, and the paths in the
//! code are resolved to the file that defines the name.
//!
//! Follows `crate::`, `self::`, `super::`, `use`, re-exports and globs. `mod x;` is no import, nor
//! is a re-export of something below the module that re-exports it. A method call names no file and
//! is not found.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use proc_macro2::{Delimiter, TokenTree};

use crate::source::{Source, is_punct};

/// One use of a name of this crate.
#[derive(Debug)]
pub struct Import {
    /// Path below `src` of the importing file.
    pub from: String,
    pub line: usize,
    /// Path from the root of the crate to the definition: `broker::message::Message`.
    pub path: String,
    /// Path below `src` of the defining file, and the name. None if it names a module.
    pub tie: Option<(String, String)>,
}

/// For each file, the names that it imports from each other file.
pub type Ties = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// Returns all imports of the product. Files that only tests use are not included.
pub fn imports(sources: &[Source]) -> Vec<Import> {
    let mut crates = Crate::read(sources);
    let mut found = Vec::new();
    for id in 0..crates.modules.len() {
        let uses = std::mem::take(&mut crates.modules[id].named);
        for (line, path) in &uses {
            crates.name(id, *line, path, &mut found);
        }
        let module = &crates.modules[id];
        for import in &module.imports {
            if !(import.is_public && module.has_files) {
                crates.name(id, import.line, &import.path, &mut found);
            }
        }
    }
    found
}

pub fn ties(imports: &[Import]) -> Ties {
    let mut ties = Ties::new();
    for import in imports {
        if let Some((owner, name)) = import
            .tie
            .as_ref()
            .filter(|(owner, _)| *owner != import.from)
        {
            let from = ties.entry(import.from.clone()).or_default();
            from.entry(owner.clone()).or_default().insert(name.clone());
        }
    }
    ties
}

/// Returns each set of files that import each other in a circle.
pub fn circles(ties: &Ties) -> Vec<Vec<String>> {
    let reached: BTreeMap<&String, BTreeSet<&String>> =
        ties.keys().map(|from| (from, reach(ties, from))).collect();
    let reaches = |from: &String, to: &String| {
        reached
            .get(from)
            .is_some_and(|reached| reached.contains(to))
    };
    let mut circles: Vec<Vec<String>> = Vec::new();
    for file in ties.keys().filter(|file| reaches(file, file)) {
        if !circles.iter().flatten().any(|seen| seen == file) {
            let back = reached[file].iter().filter(|other| reaches(other, file));
            circles.push(back.map(|other| (*other).clone()).collect());
        }
    }
    circles
}

fn reach<'a>(ties: &'a Ties, from: &String) -> BTreeSet<&'a String> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(file) = open.pop() {
        for to in ties.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(to) {
                open.push(to);
            }
        }
    }
    reached
}

/// Returns the imports between the files of a circle, one on each line: `file -> file: names`.
pub fn describe(circle: &[String], ties: &Ties) -> String {
    let mut text = format!("a circle of {} files:", circle.len());
    for from in circle {
        for (to, names) in ties[from].iter().filter(|(to, _)| circle.contains(to)) {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            text += &format!("\n  src/{from} -> src/{to}: {}", names.join(", "));
        }
    }
    text
}

/// All modules. The root of the library comes first.
struct Crate {
    modules: Vec<Module>,
}

#[derive(Default)]
struct Module {
    /// Path below `src`.
    file: String,
    /// Names from the root of the crate to the module.
    path: Vec<String>,
    parent: Option<usize>,
    children: HashMap<String, usize>,
    /// Whether its children have files of their own.
    has_files: bool,
    /// Names defined here.
    items: HashSet<String>,
    imports: Vec<Use>,
    /// Paths in the code, with their lines.
    named: Vec<(usize, Vec<String>)>,
}

/// One name or glob of a `use`.
struct Use {
    line: usize,
    /// `*` for a glob.
    name: String,
    path: Vec<String>,
    is_public: bool,
}

enum Found {
    Module(usize),
    /// The module whose file defines it, and its name.
    Item(usize, String),
}

impl Crate {
    fn read(sources: &[Source]) -> Self {
        let files: HashMap<&str, &Source> = sources
            .iter()
            .map(|source| (source.path.as_str(), source))
            .collect();
        let mut all = Self {
            modules: Vec::new(),
        };
        // The root of the library comes first: `crate` and `tidegate` lead there. The file of the
        // binary defines no modules.
        for root in ["lib.rs", "main.rs"] {
            if let Some(source) = files.get(root) {
                let id = all.add(None, root, Vec::new());
                all.fill(id, &source.tokens(), "", true, &files);
            }
        }
        all
    }

    fn add(&mut self, parent: Option<usize>, file: &str, path: Vec<String>) -> usize {
        self.modules.push(Module {
            file: file.to_owned(),
            path,
            parent,
            ..Module::default()
        });
        self.modules.len() - 1
    }

    /// Reads the tokens of a module. Its children are files of the folder. Only its own level
    /// defines names and declares modules.
    fn fill(
        &mut self,
        id: usize,
        tokens: &[TokenTree],
        folder: &str,
        at_its_level: bool,
        files: &HashMap<&str, &Source>,
    ) {
        let mut at = 0;
        while at < tokens.len() {
            let word = match &tokens[at] {
                TokenTree::Group(group) => {
                    self.fill(id, &Vec::from_iter(group.stream()), folder, false, files);
                    at += 1;
                    continue;
                }
                TokenTree::Ident(word) => word.to_string(),
                _ => {
                    at += 1;
                    continue;
                }
            };
            let line = tokens[at].span().start().line;
            match word.as_str() {
                "use" if !is_punct(tokens.get(at + 1), '<') => {
                    let end = (at..tokens.len()).find(|i| is_punct(tokens.get(*i), ';'));
                    let end = end.unwrap_or(tokens.len());
                    let is_public = at_its_level && is_after_pub(&tokens[..at]);
                    let mut paths = Vec::new();
                    expand(&tokens[at + 1..end], &mut Vec::new(), &mut paths);
                    let uses = paths.into_iter().map(|(line, path, name)| Use {
                        line,
                        name,
                        path,
                        is_public,
                    });
                    self.modules[id].imports.extend(uses);
                    at = end;
                }
                "mod" if at_its_level => {
                    if let Some(TokenTree::Ident(name)) = tokens.get(at + 1) {
                        self.declare(id, &name.to_string(), tokens.get(at + 2), folder, files);
                        at += 3;
                        continue;
                    }
                }
                "fn" | "struct" | "enum" | "union" | "trait" | "type" | "const" | "static"
                | "macro_rules"
                    if at_its_level =>
                {
                    let mut next = at + 1;
                    while is_punct(tokens.get(next), '!')
                        || is_word(tokens.get(next), &["mut", "unsafe", "fn"])
                    {
                        next += 1;
                    }
                    if let Some(TokenTree::Ident(name)) = tokens.get(next) {
                        self.modules[id].items.insert(name.to_string());
                        at = next;
                    }
                }
                _ => {
                    let (path, after) = path_at(tokens, at);
                    if !is_part_of_another(tokens, at) {
                        self.modules[id].named.push((line, path));
                    }
                    at = after;
                    continue;
                }
            }
            at += 1;
        }
    }

    fn declare(
        &mut self,
        id: usize,
        name: &str,
        body: Option<&TokenTree>,
        folder: &str,
        files: &HashMap<&str, &Source>,
    ) {
        let mut path = self.modules[id].path.clone();
        path.push(name.to_owned());
        let below = format!("{folder}{name}/");
        let child = if let Some(TokenTree::Group(group)) = body {
            let file = self.modules[id].file.clone();
            let child = self.add(Some(id), &file, path);
            self.fill(child, &Vec::from_iter(group.stream()), &below, true, files);
            child
        } else {
            let places = [format!("{folder}{name}.rs"), format!("{below}mod.rs")];
            let source = places.iter().find_map(|place| files.get(place.as_str()));
            let source = source
                .unwrap_or_else(|| panic!("neither {} nor {} is there", places[0], places[1]));
            let child = self.add(Some(id), &source.path, path);
            self.fill(child, &source.tokens(), &below, true, files);
            self.modules[id].has_files = true;
            child
        };
        self.modules[id].children.insert(name.to_owned(), child);
    }

    /// Adds what the path names of this crate, if anything.
    fn name(&self, id: usize, line: usize, path: &[String], found: &mut Vec<Import>) {
        let (owner, name) = match self.resolve(id, path, &mut HashSet::new()) {
            Some(Found::Item(owner, name)) => (owner, Some(name)),
            Some(Found::Module(module)) => (module, None),
            None => return,
        };
        let module = &self.modules[owner];
        let mut path = module.path.clone();
        path.extend(name.clone());
        found.push(Import {
            from: self.modules[id].file.clone(),
            line,
            path: path.join("::"),
            tie: name.map(|name| (module.file.clone(), name)),
        });
    }

    /// Follows a path from a module to a module or an item.
    fn resolve(
        &self,
        from: usize,
        path: &[String],
        seen: &mut HashSet<(usize, String)>,
    ) -> Option<Found> {
        let (first, rest) = path.split_first()?;
        let mut at = match first.as_str() {
            "crate" | "tidegate" => Found::Module(0),
            "self" => Found::Module(from),
            "super" => Found::Module(self.modules[from].parent?),
            name => self.look_up(from, name, seen)?,
        };
        for name in rest {
            let Found::Module(module) = at else {
                break;
            };
            at = match name.as_str() {
                "*" | "self" => Found::Module(module),
                "super" => Found::Module(self.modules[module].parent?),
                name => {
                    let found = self.look_up(module, name, seen);
                    // A name without a definition is defined by a macro.
                    found.unwrap_or_else(|| Found::Item(module, name.to_owned()))
                }
            };
        }
        Some(at)
    }

    fn look_up(
        &self,
        module: usize,
        name: &str,
        seen: &mut HashSet<(usize, String)>,
    ) -> Option<Found> {
        if !seen.insert((module, name.to_owned())) {
            return None;
        }
        let here = &self.modules[module];
        let found = if let Some(child) = here.children.get(name) {
            Some(Found::Module(*child))
        } else if here.items.contains(name) {
            Some(Found::Item(module, name.to_owned()))
        } else if let Some(import) = here.imports.iter().find(|import| import.name == name) {
            self.resolve(module, &import.path, seen)
        } else {
            let globs = here.imports.iter().filter(|import| import.name == "*");
            let mut globs =
                globs.filter_map(|glob| match self.resolve(module, &glob.path, seen)? {
                    Found::Module(other) => self.look_up(other, name, seen),
                    Found::Item(..) => None,
                });
            globs.next()
        };
        seen.remove(&(module, name.to_owned()));
        found
    }
}

fn is_word(token: Option<&TokenTree>, words: &[&str]) -> bool {
    matches!(token, Some(TokenTree::Ident(ident)) if words.iter().any(|word| ident == word))
}

fn is_after_pub(before: &[TokenTree]) -> bool {
    match before {
        [.., TokenTree::Group(group)] if group.delimiter() == Delimiter::Parenthesis => {
            is_word(before.iter().rev().nth(1), &["pub"])
        }
        before => is_word(before.last(), &["pub"]),
    }
}

/// Returns whether the name is a field or a method (`.name`), a lifetime (`'name`), or the end of a
/// path that begins earlier (`>::name`).
fn is_part_of_another(tokens: &[TokenTree], at: usize) -> bool {
    let before = |back: usize, c| at >= back && is_punct(tokens.get(at - back), c);
    before(1, '\'') || (before(1, '.') && !before(2, '.')) || (before(1, ':') && before(2, ':'))
}

/// Returns the names joined by `::` from here on, and the position after them.
fn path_at(tokens: &[TokenTree], mut at: usize) -> (Vec<String>, usize) {
    let mut path = Vec::new();
    while let Some(TokenTree::Ident(name)) = tokens.get(at) {
        path.push(name.to_string());
        at += 1;
        let is_followed = is_punct(tokens.get(at), ':') && is_punct(tokens.get(at + 1), ':');
        if !(is_followed && matches!(tokens.get(at + 2), Some(TokenTree::Ident(_)))) {
            break;
        }
        at += 2;
    }
    (path, at)
}

/// Adds each path of a `use` with its line and the name that it introduces.
fn expand(
    tokens: &[TokenTree],
    before: &mut Vec<String>,
    found: &mut Vec<(usize, Vec<String>, String)>,
) {
    for tree in tokens.split(|token| is_punct(Some(token), ',')) {
        let depth = before.len();
        let start = tree
            .iter()
            .position(|token| !is_punct(Some(token), ':'))
            .unwrap_or(tree.len());
        let (path, mut at) = path_at(tree, start);
        let line = tree.get(start).map_or(0, |token| token.span().start().line);
        before.extend(path);
        if is_punct(tree.get(at), ':') {
            at += 2;
        }
        match tree.get(at) {
            Some(TokenTree::Group(group)) => expand(&Vec::from_iter(group.stream()), before, found),
            Some(token) if is_punct(Some(token), '*') => {
                before.push("*".to_owned());
                found.push((line, before.clone(), "*".to_owned()));
            }
            Some(token) if is_word(Some(token), &["as"]) => {
                let name = tree.get(at + 1).map(ToString::to_string);
                found.push((line, before.clone(), name.unwrap_or_default()));
            }
            _ if before.len() > depth => {
                let name = before.iter().rev().find(|name| *name != "self");
                let name = name.cloned().unwrap_or_default();
                found.push((line, before.clone(), name));
            }
            _ => {}
        }
        before.truncate(depth);
    }
}

#[cfg(test)]
fn files(all: &[(&str, &str)]) -> Vec<Source> {
    all.iter()
        .map(|(path, text)| Source::new(path, text))
        .collect()
}

#[test]
fn imports_are_found_in_all_their_forms() {
    let sources = files(&[
        (
            "lib.rs",
            "pub mod broker; pub mod wire; mod clock; mod server;",
        ),
        ("main.rs", "fn main() { tidegate::clock::now(); }"),
        (
            "clock.rs",
            "pub fn now() {} pub struct Now; counters! { pub struct Counters {} }",
        ),
        (
            "server.rs",
            "mod stop; pub use stop::Stop; use crate::broker; fn f(m: broker::Message, s: Stop) {}",
        ),
        (
            "server/stop.rs",
            "pub struct Stop; use super::super::wire as said; fn g() { said::qos::lower(); }",
        ),
        (
            "broker/mod.rs",
            "mod message; mod gate; pub use message::{Message, Id as MessageId}; pub fn top() {}",
        ),
        (
            "broker/message.rs",
            "pub struct Message; pub struct Id; use crate::{wire::{self, *}, clock::Now}; const A: QoS = 1;",
        ),
        (
            "broker/gate.rs",
            "// crate::server::x\n fn g() { select! { _ = super::top() => crate::clock::Counters } }\n#[cfg(test)] use crate::server;",
        ),
        ("wire/mod.rs", "pub mod qos; pub use qos::*;"),
        ("wire/qos.rs", "pub enum QoS { A } pub fn lower() {}"),
    ]);
    let imports = imports(&sources);
    let ties = ties(&imports);
    let has = |from: &str, to: &str, name: &str| {
        ties[from].get(to).is_some_and(|names| names.contains(name))
    };
    assert!(
        has("main.rs", "clock.rs", "now"),
        "the binary names the library"
    );
    assert!(
        has("server.rs", "broker/message.rs", "Message"),
        "through a module and a re-export"
    );
    assert!(
        has("server.rs", "server/stop.rs", "Stop"),
        "re-exported and used"
    );
    assert!(
        has("server/stop.rs", "wire/qos.rs", "lower"),
        "through a name of its own"
    );
    assert!(
        has("broker/message.rs", "wire/qos.rs", "QoS"),
        "through two globs"
    );
    assert!(has("broker/message.rs", "clock.rs", "Now"));
    assert!(
        has("broker/gate.rs", "broker/mod.rs", "top"),
        "in a macro, without use"
    );
    assert!(
        has("broker/gate.rs", "clock.rs", "Counters"),
        "defined by a macro"
    );
    assert!(
        !ties["broker/gate.rs"].contains_key("server.rs"),
        "comments and tests are none"
    );
    assert!(
        !ties.contains_key("broker/mod.rs"),
        "declarations and re-exports are none"
    );
    assert!(!ties.contains_key("wire/mod.rs") && !ties.contains_key("lib.rs"));
    let said: Vec<&str> = imports.iter().map(|import| import.path.as_str()).collect();
    for path in [
        "broker::message::Message",
        "clock::Now",
        "broker::top",
        "wire",
    ] {
        assert!(said.contains(&path), "{path} in {said:?}");
    }
    assert!(circles(&ties).is_empty());
}

#[test]
fn a_circle_is_named_file_by_file() {
    let sources = files(&[
        ("lib.rs", "mod a; mod b; mod c; mod d;"),
        ("a.rs", "use crate::b::B; pub struct A;"),
        ("b.rs", "pub struct B(super::c::C);"),
        (
            "c.rs",
            "pub struct C; use crate::d; fn f() { crate::a::A; d::g() }",
        ),
        ("d.rs", "pub fn g() {}"),
    ]);
    let ties = ties(&imports(&sources));
    let circles = circles(&ties);
    assert_eq!(circles, [["a.rs", "b.rs", "c.rs"]]);
    assert_eq!(
        describe(&circles[0], &ties),
        "a circle of 3 files:\n  src/a.rs -> src/b.rs: B\n  src/b.rs -> src/c.rs: C\n  src/c.rs -> src/a.rs: A"
    );
}
