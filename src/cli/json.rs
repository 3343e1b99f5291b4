//! JSON for `tidegate sub -F %j` and `%J`: writing strings, and telling JSON from what is not.

use serde_json::Value;

/// Appends `text` as a JSON string; bytes that are not UTF-8 become U+FFFD.
pub fn push_string(out: &mut Vec<u8>, text: &[u8]) {
    serde_json::to_writer(out, &String::from_utf8_lossy(text))
        .expect("a string is JSON and a Vec takes it");
}

/// Whether `bytes` are one JSON document, nested less deep than serde_json's limit of 128 levels.
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
    fn a_string_is_escaped_so_that_it_is_json() {
        let mut out = Vec::new();
        push_string(&mut out, b"a\"b\\c\n\x01\xffd");
        assert_eq!(out, "\"a\\\"b\\\\c\\n\\u0001\u{fffd}d\"".as_bytes());
        assert!(is_valid(&out));
    }
}
