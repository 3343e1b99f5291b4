//! When a bridge connects, and whether its sessions outlast its connections.

use std::time::Duration;

use super::tree::Section;
use crate::net::bridge::StartType;

/// Reads `start_type`, `threshold` and `idle_timeout`; `clean_session` is what `cleansession` says.
pub(super) fn start(s: &mut Section<'_, '_>, clean_session: bool) -> StartType {
    #[derive(Clone, Copy, PartialEq)]
    enum Word {
        Automatic,
        Lazy,
        Once,
    }
    let expected = "\"automatic\", \"lazy\" or \"once\"";
    let word = s.get("start_type", Word::Automatic, expected, |value| {
        Some(match value.as_text()? {
            "automatic" => Word::Automatic,
            "lazy" => Word::Lazy,
            "once" => Word::Once,
            _ => return None,
        })
    });
    let is_said = s.has("threshold") || s.has("idle_timeout");
    let threshold = s.number("threshold", 1, 1..=1_000_000_000);
    let second = Duration::from_secs(1);
    let idle_timeout = s.duration("idle_timeout", 60 * second, second..=86_400 * second);
    if is_said && word != Word::Lazy {
        s.reject(
            "start_type",
            "threshold and idle_timeout are for bridges that connect when messages wait; expected \"lazy\"",
        );
    }
    if clean_session && word == Word::Lazy {
        s.reject(
            "start_type",
            "with cleansession = true nothing waits for a bridge that is not connected, so it would never connect; expected \"automatic\" or \"once\"",
        );
    }
    match word {
        Word::Automatic => StartType::Automatic,
        Word::Lazy => StartType::Lazy {
            threshold,
            idle_timeout,
        },
        Word::Once => StartType::Once,
    }
}
