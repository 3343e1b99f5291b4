//! JSON for `tidegate sub -F %j` and `%J`: writes strings and validates documents.

use serde_json::Value;

/// Appends `text` as a JSON string. Bytes that are not UTF-8 become U+FFFD.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    serde_json::to_writer(out, &String::from_utf8_lossy(text))
        .expect("a string is JSON and a Vec takes it");
}

/// Appends a JSON document over several lines, two spaces for each level. Strings and numbers are
/// not changed.
pub fn push_pretty(out: &mut Vec<u8>, document: &[u8]) {
    let mut depth = 0;
    let mut rest = document.iter().copied().peekable();
    let line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        out.extend(std::iter::repeat_n(b' ', 2 * depth));
    };
    while let Some(byte) = rest.next() {
        match byte {
            b' ' | b'\t' | b'\r' | b'\n' => {}
            b'"' => {
                out.push(byte);
                let mut escaped = false;
                for byte in rest.by_ref() {
                    out.push(byte);
                    if byte == b'"' && !escaped {
                        break;
                    }
                    escaped = byte == b'\\' && !escaped;
                }
            }
            b'{' | b'[' => {
                out.push(byte);
                while rest.next_if(u8::is_ascii_whitespace).is_some() {}
                match rest.next_if(|next| matches!(next, b'}' | b']')) {
                    Some(end) => out.push(end),
                    None => {
                        depth += 1;
                        line(out, depth);
                    }
                }
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                line(out, depth);
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                line(out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            other => out.push(other),
        }
    }
}

/// Returns whether `bytes` are one JSON document with at most 127 levels, the limit of serde_json.
pub fn is_valid(bytes: &[u8]) -> bool {
    serde_json::from_slice::<Value>(bytes).is_ok()
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
        assert!(is_valid(nested(100).as_bytes()));
        assert!(!is_valid(nested(100_000).as_bytes()));
    }

    #[test]
    fn a_document_over_several_lines_is_the_same_document() {
        let pretty = |text: &str| {
            let mut out = Vec::new();
            push_pretty(&mut out, text.as_bytes());
            String::from_utf8(out).expect("UTF-8")
        };
        assert_eq!(
            pretty(r#"{"b":[1, 2.50,{"x":[ ],"y" : {}}],"a{,\":":"\\"}"#),
            "{\n  \"b\": [\n    1,\n    2.50,\n    {\n      \"x\": [],\n      \"y\": {}\n    }\n  ],\n  \"a{,\\\":\": \"\\\\\"\n}"
        );
        assert_eq!(pretty(" 7 "), "7");
        let nested = r#"[[],{"a":null,"b":[true,"é]"]}]"#;
        let back: Value = serde_json::from_str(&pretty(nested)).expect("JSON");
        assert_eq!(back, serde_json::from_str::<Value>(nested).expect("JSON"));
    }

    #[test]
    fn a_string_is_escaped_so_that_it_is_json() {
        let mut out = Vec::new();
        push_string(&mut out, b"a\"b\\c\n\x01\xffd");
        assert_eq!(out, "\"a\\\"b\\\\c\\n\\u0001\u{fffd}d\"".as_bytes());
        assert!(is_valid(&out));
    }
}
