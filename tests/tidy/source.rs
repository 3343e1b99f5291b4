//! The sources as tokens, without comments, documentation and items under `#[cfg(test)]`.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};

/// Returns all files below `src` in the order of their paths.
pub fn sources() -> &'static [Source] {
    static SOURCES: LazyLock<Vec<Source>> = LazyLock::new(read_all);
    &SOURCES
}

pub struct Source {
    /// Path below `src`, with slashes.
    pub path: String,
    pub text: String,
    /// Lines with their numbers, without comments and items under `#[cfg(test)]`.
    pub code: Vec<(usize, String)>,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            code: code_of(path, text),
        }
    }

    pub fn tokens(&self) -> Vec<TokenTree> {
        tokens(&self.path, &self.text)
    }
}

fn read_all() -> Vec<Source> {
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
                found.push(Source::new(
                    &below.to_string_lossy().replace('\\', "/"),
                    &text,
                ));
            }
        }
    }
    assert!(found.len() > 10, "the sources have been found");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn tokens(path: &str, text: &str) -> Vec<TokenTree> {
    let stream: TokenStream = text
        .parse()
        .unwrap_or_else(|error| panic!("src/{path} is no Rust: {error}"));
    product(stream)
}

/// Returns the lines of the text in which everything that is no token of the product is replaced by
/// blanks.
fn code_of(path: &str, text: &str) -> Vec<(usize, String)> {
    let mut kept = vec![false; text.len()];
    mark(&tokens(path, text), &mut kept);
    let bytes = text.bytes().enumerate();
    let code = bytes.map(|(at, byte)| {
        if kept[at] || byte == b'\n' {
            byte
        } else {
            b' '
        }
    });
    let code = String::from_utf8(code.collect()).expect("whole tokens are kept");
    let lines = code.lines().enumerate();
    lines
        .map(|(i, line)| (i + 1, line.trim_end().to_owned()))
        .collect()
}

fn mark(tokens: &[TokenTree], kept: &mut [bool]) {
    for token in tokens {
        match token {
            TokenTree::Group(group) => {
                kept[group.span_open().byte_range()].fill(true);
                kept[group.span_close().byte_range()].fill(true);
                mark(&Vec::from_iter(group.stream()), kept);
            }
            token => kept[token.span().byte_range()].fill(true),
        }
    }
}

/// Returns the tokens at every depth, without documentation and what is under `#[cfg(test)]`.
fn product(stream: TokenStream) -> Vec<TokenTree> {
    let all = Vec::from_iter(stream);
    let mut kept = Vec::new();
    let mut at = 0;
    while at < all.len() {
        match attribute(&all, at) {
            Some((attribute, after)) if attribute == "cfg(test)" => {
                at = end_of_item(&all, after);
                continue;
            }
            Some((attribute, after)) if attribute.starts_with("doc=") => {
                at = after;
                continue;
            }
            _ => {}
        }
        kept.push(match &all[at] {
            TokenTree::Group(group) => {
                let inner = product(group.stream()).into_iter().collect();
                let mut new = Group::new(group.delimiter(), inner);
                new.set_span(group.span());
                TokenTree::Group(new)
            }
            token => token.clone(),
        });
        at += 1;
    }
    kept
}

/// Returns the attribute that begins here, without blanks, and the position after it.
fn attribute(tokens: &[TokenTree], mut at: usize) -> Option<(String, usize)> {
    if !is_punct(tokens.get(at), '#') {
        return None;
    }
    at += 1;
    if is_punct(tokens.get(at), '!') {
        at += 1;
    }
    match tokens.get(at) {
        Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Bracket => {
            let text = group.stream().to_string();
            Some((text.split_whitespace().collect(), at + 1))
        }
        _ => None,
    }
}

/// Returns the end of the item, field, statement or match arm that begins here: after its `;`, its
/// braces or its `,`.
fn end_of_item(tokens: &[TokenTree], mut at: usize) -> usize {
    while let Some((_, after)) = attribute(tokens, at) {
        at = after;
    }
    let mut ends_with_braces = true;
    let mut angles = 0;
    while let Some(token) = tokens.get(at) {
        match token {
            TokenTree::Ident(word) if angles == 0 => {
                // A `const fn` ends with braces, a `const` with a semicolon.
                if ["use", "let", "const", "static", "type"]
                    .iter()
                    .any(|with| word == with)
                {
                    ends_with_braces = false;
                } else if word == "fn" {
                    ends_with_braces = true;
                }
            }
            TokenTree::Group(group)
                if group.delimiter() == Delimiter::Brace && ends_with_braces =>
            {
                let comma = is_punct(tokens.get(at + 1), ',');
                return at + 1 + usize::from(comma);
            }
            TokenTree::Punct(punct) => match punct.as_char() {
                ';' => return at + 1,
                ',' if angles == 0 => return at + 1,
                '<' => angles += 1,
                '>' if !(at > 0 && is_joint(&tokens[at - 1], &['-', '='])) => angles -= 1,
                _ => {}
            },
            _ => {}
        }
        at += 1;
    }
    at
}

pub fn is_punct(token: Option<&TokenTree>, c: char) -> bool {
    matches!(token, Some(TokenTree::Punct(punct)) if punct.as_char() == c)
}

fn is_joint(token: &TokenTree, any: &[char]) -> bool {
    matches!(token, TokenTree::Punct(punct)
        if any.contains(&punct.as_char()) && punct.spacing() == proc_macro2::Spacing::Joint)
}

#[test]
fn only_what_stands_under_the_attribute_is_left_out() {
    let text = r##"
//! mod_documentation
use a::A; // comment_one
#[cfg(test)]
pub(crate) mod test_module;
#[cfg(test)]
use b::{test_use, C};
struct Kept {
    field: HashMap<u8, u16>,
    /// documentation
    #[cfg(test)]
    test_field: HashMap<u8, u16>,
    last: u8,
}
#[cfg(test)]
#[allow(x)]
const TEST_CONST: Test = Test { a: 1 };
impl Kept {
    #[cfg(test)]
    pub fn test_method<A, B>(&self) -> Vec<u8> where A: X<B> { let s = "} "; r#"}" "#; '}'; /* } */ }
    fn method(&self) {
        #[cfg(test)]
        { test_statement(); }
        let quote = '"'; // comment_two
        let url = "http://kept_text";
        Self { #[cfg(test)] test_value: f(1, 2), value: 1 }
    }
}
#[cfg(test)]
mod tests { fn test_inner() {} }
#[cfg(not(test))]
fn foot() {}
"##;
    let source = Source::new("x.rs", text);
    let code: Vec<&str> = source.code.iter().map(|(_, line)| line.as_str()).collect();
    let code = code.join("\n");
    for kept in [
        "a::A",
        "Kept",
        "field",
        "u16",
        "last",
        "method",
        "quote",
        "http://kept_text",
        "value: 1",
        "foot",
    ] {
        assert!(code.contains(kept), "{kept} is missing in {code}");
    }
    for left in ["test_", "TEST_", "comment", "documentation", "Test"] {
        assert!(!code.contains(left), "{left} is still in {code}");
    }
    assert!(source.code[2].1 == "use a::A;", "lines keep their numbers");
}
