//! Just enough JSON for `tidegate sub -F %j` and `%J`: writing strings, and telling JSON from what is not.

/// How deep a document may be nested.
const MAX_DEPTH: usize = 128;

/// Appends `text` as a JSON string; bytes that are not UTF-8 become U+FFFD.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    out.push(b'"');
    for c in String::from_utf8_lossy(text).chars() {
        match c {
            '"' => out.extend_from_slice(b"\\\""),
            '\\' => out.extend_from_slice(b"\\\\"),
            '\n' => out.extend_from_slice(b"\\n"),
            '\r' => out.extend_from_slice(b"\\r"),
            '\t' => out.extend_from_slice(b"\\t"),
            c if u32::from(c) < 0x20 => {
                out.extend_from_slice(format!("\\u{:04x}", u32::from(c)).as_bytes());
            }
            c => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    out.push(b'"');
}

/// Whether `bytes` are one JSON document, nested no deeper than 128 levels.
pub fn is_valid(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return false;
    };
    let mut scan = Scan(text.as_bytes());
    scan.value(0).is_some() && {
        scan.space();
        scan.0.is_empty()
    }
}

/// What is left of a document. Each step takes what it names, or answers `None`.
struct Scan<'a>(&'a [u8]);

impl Scan<'_> {
    fn value(&mut self, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.space();
        match self.0.first()? {
            b'{' => self.members(depth, b'}', true),
            b'[' => self.members(depth, b']', false),
            b'"' => self.string(),
            b't' => self.word(b"true"),
            b'f' => self.word(b"false"),
            b'n' => self.word(b"null"),
            _ => self.number(),
        }
    }

    fn members(&mut self, depth: usize, end: u8, named: bool) -> Option<()> {
        self.take()?;
        self.space();
        if self.eat(end) {
            return Some(());
        }
        loop {
            if named {
                self.space();
                self.string()?;
                self.space();
                self.word(b":")?;
            }
            self.value(depth + 1)?;
            self.space();
            if self.eat(end) {
                return Some(());
            }
            self.word(b",")?;
        }
    }

    fn string(&mut self) -> Option<()> {
        self.word(b"\"")?;
        loop {
            match self.take()? {
                b'"' => return Some(()),
                b'\\' => match self.take()? {
                    b'u' => {
                        for _ in 0..4 {
                            self.take()?.is_ascii_hexdigit().then_some(())?;
                        }
                    }
                    c => b"\"\\/bfnrt".contains(&c).then_some(())?,
                },
                0..0x20 => return None,
                _ => {}
            }
        }
    }

    fn number(&mut self) -> Option<()> {
        self.eat(b'-');
        if !self.eat(b'0') {
            self.digits()?;
        }
        if self.eat(b'.') {
            self.digits()?;
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits()?;
        }
        Some(())
    }

    fn digits(&mut self) -> Option<()> {
        let count = self.0.iter().take_while(|c| c.is_ascii_digit()).count();
        self.0 = &self.0[count..];
        (count > 0).then_some(())
    }

    fn space(&mut self) {
        let is_space = |c: &&u8| matches!(c, b' ' | b'\t' | b'\n' | b'\r');
        let count = self.0.iter().take_while(is_space).count();
        self.0 = &self.0[count..];
    }

    fn word(&mut self, word: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(word)?;
        Some(())
    }

    fn eat(&mut self, byte: u8) -> bool {
        self.word(&[byte]).is_some()
    }

    fn take(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_from_what_is_not() {
        for good in [
            "{}",
            "[]",
            " [1, -2.5e+3, 0, 0.1E9] ",
            "\"a\\u00e9\\n\"",
            "null",
            "true",
            "false",
            "{\"a\": {\"b\": [{}, \"é\"]}, \"c\": null}\n",
            "7",
        ] {
            assert!(is_valid(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            " ",
            "{",
            "[1,]",
            "{\"a\"}",
            "{a:1}",
            "{\"a\":1,}",
            "01",
            "1.",
            "-",
            "1e",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\n\"",
            "nul",
            "[1]]",
            "1 2",
            "tru e",
            "+1",
            ".5",
            "'a'",
        ] {
            assert!(!is_valid(bad.as_bytes()), "{bad}");
        }
        assert!(!is_valid(b"\"\xff\""));
    }

    #[test]
    fn nesting_is_limited() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(is_valid(nested(MAX_DEPTH).as_bytes()));
        assert!(!is_valid(nested(100_000).as_bytes()));
    }

    #[test]
    fn a_string_is_escaped_so_that_it_is_json() {
        let mut out = Vec::new();
        push_string(&mut out, b"a\"b\\c\n\x01\xffd");
        assert_eq!(out, "\"a\\\"b\\\\c\\n\\u0001\u{fffd}d\"".as_bytes());
        assert!(is_valid(&out));
    }
}
