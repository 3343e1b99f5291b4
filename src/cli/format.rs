//! `tidegate sub -F`: the output formats of mosquitto_sub. Times are UTC.

use super::exit::Failure;
use super::json;
use crate::wire::packet::Publish;
use crate::wire::{PacketId, Property};

/// A parsed output format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format {
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    /// `%` and this letter.
    Field(u8, Padding),
    /// `@` and this letter.
    Time(u8),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Padding {
    left: bool,
    zero: bool,
    width: usize,
    max: Option<usize>,
}

/// The letters that may follow `%`.
const FIELDS: &[u8] = b"ACDEFIJPRSUXjlmpqrtx";
/// The letters that may follow `@`.
const TIMES: &[u8] = b"YmdHMSNFTjyzZs";
/// The widest field, in characters. A limit, so that a mistyped width does not fill the memory.
const MAX_WIDTH: usize = 10_000;

impl Format {
    /// Parses a format.
    ///
    /// # Errors
    /// Names the first unknown sequence.
    pub fn parse(text: &str) -> Result<Format, String> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((&first, after)) = rest.split_first() {
            rest = after;
            let piece = match first {
                b'%' => field(&mut rest)?,
                b'@' => time(&mut rest)?,
                b'\\' => Piece::Text(vec![escape(&mut rest)?]),
                other => Piece::Text(vec![other]),
            };
            match piece {
                Piece::Text(more) => plain.extend(more),
                other => {
                    if !plain.is_empty() {
                        pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    }
                    pieces.push(other);
                }
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Format { pieces })
    }

    /// Appends a message to `out`. `unix` is the time of reception in milliseconds since 1970.
    /// `pretty` formats JSON over several lines.
    ///
    /// # Errors
    /// Fails if the format has `%J` and the payload is not JSON. Appends nothing then.
    pub fn write(
        &self,
        publish: &Publish<'_>,
        unix: u64,
        pretty: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Failure> {
        let start = out.len();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => out.extend_from_slice(text),
                Piece::Time(letter) => push_time(*letter, unix, out),
                Piece::Field(b'J', _) if !is_json(publish.payload) => {
                    out.truncate(start);
                    let what = format!("the payload on {} is not JSON", publish.topic);
                    return Err(Failure::new(super::exit::FAILED, what));
                }
                Piece::Field(letter @ (b'j' | b'J'), _) if pretty => {
                    let mut compact = Vec::new();
                    push_field(*letter, publish, unix, &mut compact);
                    json::push_pretty(out, &compact);
                }
                Piece::Field(letter, padding) => {
                    let mut value = Vec::new();
                    push_field(*letter, publish, unix, &mut value);
                    padding.apply(*letter, value, out);
                }
            }
        }
        Ok(())
    }
}

fn is_json(payload: &[u8]) -> bool {
    payload.is_empty() || json::is_valid(payload)
}

fn take(rest: &mut &[u8]) -> Option<u8> {
    let (first, after) = rest.split_first()?;
    *rest = after;
    Some(*first)
}

fn number(rest: &mut &[u8]) -> Result<Option<usize>, String> {
    let len = rest.iter().take_while(|c| c.is_ascii_digit()).count();
    let (digits, after) = rest.split_at(len);
    *rest = after;
    if digits.is_empty() {
        return Ok(None);
    }
    String::from_utf8_lossy(digits)
        .parse()
        .ok()
        .filter(|width| *width <= MAX_WIDTH)
        .map(Some)
        .ok_or_else(|| format!("a width is {MAX_WIDTH} at most"))
}

fn field(rest: &mut &[u8]) -> Result<Piece, String> {
    let mut padding = Padding::default();
    while let [flag @ (b'-' | b'0'), after @ ..] = *rest {
        padding.left |= *flag == b'-';
        padding.zero |= *flag == b'0';
        *rest = after;
    }
    padding.width = number(rest)?.unwrap_or(0);
    if let [b'.', after @ ..] = *rest {
        *rest = after;
        padding.max = Some(number(rest)?.unwrap_or(0));
    }
    match take(rest) {
        Some(b'%') => Ok(Piece::Text(b"%".to_vec())),
        Some(letter) if FIELDS.contains(&letter) => Ok(Piece::Field(letter, padding)),
        letter => Err(unknown('%', letter, FIELDS)),
    }
}

fn time(rest: &mut &[u8]) -> Result<Piece, String> {
    match take(rest) {
        Some(sign @ (b'@' | b'%')) => Ok(Piece::Text(vec![sign])),
        Some(letter) if TIMES.contains(&letter) => Ok(Piece::Time(letter)),
        letter => Err(unknown('@', letter, TIMES)),
    }
}

fn escape(rest: &mut &[u8]) -> Result<u8, String> {
    Ok(match take(rest) {
        Some(b'\\') => b'\\',
        Some(b'0') => 0,
        Some(b'a') => 7,
        Some(b'e') => 27,
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'v') => 11,
        letter => return Err(unknown('\\', letter, b"\\0aenrtv")),
    })
}

fn unknown(sign: char, letter: Option<u8>, letters: &[u8]) -> String {
    let found = letter.map_or_else(String::new, |letter| char::from(letter).to_string());
    let letters = String::from_utf8_lossy(letters);
    format!("{sign}{found} is not known; {sign} stands before {sign} or one of {letters}")
}

impl Padding {
    /// Appends `value` in this width, counted in characters if the value is UTF-8. As in
    /// mosquitto_sub, a width cuts a payload (in hex to whole bytes), and has no effect on QoS and
    /// retain flag.
    fn apply(&self, letter: u8, mut value: Vec<u8>, out: &mut Vec<u8>) {
        if matches!(letter, b'q' | b'r') {
            return out.append(&mut value);
        }
        match letter {
            b'p' if self.width > 0 => value.truncate(cut(&value, self.width)),
            b'x' | b'X' if self.width > 0 => value.truncate(self.width / 2 * 2),
            _ => {}
        }
        let chars = |value: &[u8]| {
            std::str::from_utf8(value).map_or(value.len(), |text| text.chars().count())
        };
        if let (Some(max), b'C' | b'I' | b'R' | b't') = (self.max, letter) {
            value.truncate(cut(&value, max));
        }
        let missing = self.width.saturating_sub(chars(&value));
        let is_number = b"AEFlmSXx".contains(&letter);
        let fill = if self.zero && !self.left && is_number {
            b'0'
        } else {
            b' '
        };
        let fill = std::iter::repeat_n(fill, missing);
        if self.left {
            out.append(&mut value);
            out.extend(fill);
        } else {
            out.extend(fill);
            out.append(&mut value);
        }
    }
}

/// Returns the length of the first `max` characters, or bytes if the value is not UTF-8.
fn cut(value: &[u8], max: usize) -> usize {
    match std::str::from_utf8(value) {
        Ok(text) => text
            .char_indices()
            .nth(max)
            .map_or(text.len(), |(end, _)| end),
        Err(_) => value.len().min(max),
    }
}

fn push_field(letter: u8, publish: &Publish<'_>, unix: u64, out: &mut Vec<u8>) {
    let text = match letter {
        b't' => publish.topic.to_owned(),
        b'q' => (publish.qos as u8).to_string(),
        b'r' => u8::from(publish.retain).to_string(),
        b'm' => publish.packet_id.map_or(0, PacketId::get).to_string(),
        b'l' => publish.payload.len().to_string(),
        b'U' => format!("{}.{:03}000000", unix / 1000, unix % 1000),
        b'p' => return out.extend_from_slice(publish.payload),
        b'x' => return push_hex(publish.payload, b"0123456789abcdef", out),
        b'X' => return push_hex(publish.payload, b"0123456789ABCDEF", out),
        b'I' => Date::of(unix).iso(""),
        b'j' => return push_message(publish, unix, false, out),
        b'J' => return push_message(publish, unix, true, out),
        _ => return push_property(letter, publish, out),
    };
    out.extend_from_slice(text.as_bytes());
}

fn push_property(letter: u8, publish: &Publish<'_>, out: &mut Vec<u8>) {
    for property in publish.properties.iter() {
        let text = match (letter, property) {
            (b'A', Property::TopicAlias(alias)) => alias.to_string(),
            (b'C', Property::ContentType(text)) => text.to_owned(),
            (b'D', Property::CorrelationData(data)) => {
                out.extend_from_slice(data);
                continue;
            }
            (b'E', Property::MessageExpiryInterval(seconds)) => seconds.to_string(),
            (b'F', Property::PayloadFormatIndicator(format)) => format.to_string(),
            (b'P', Property::UserProperty(name, value)) => format!("{name}:{value}"),
            (b'R', Property::ResponseTopic(topic)) => topic.to_owned(),
            (b'S', Property::SubscriptionIdentifier(id)) => id.to_string(),
            _ => continue,
        };
        // There may be several user properties and subscription identifiers.
        if !out.is_empty() {
            out.push(b' ');
        }
        out.extend_from_slice(text.as_bytes());
    }
}

fn push_hex(bytes: &[u8], digits: &[u8; 16], out: &mut Vec<u8>) {
    for byte in bytes {
        out.push(digits[usize::from(byte >> 4)]);
        out.push(digits[usize::from(byte & 15)]);
    }
}

fn push_message(publish: &Publish<'_>, unix: u64, raw: bool, out: &mut Vec<u8>) {
    let date = Date::of(unix);
    let micros = format!(".{:03}000", unix % 1000);
    out.extend_from_slice(format!("{{\"tst\":\"{}\",\"topic\":", date.iso(&micros)).as_bytes());
    json::push_string(out, publish.topic.as_bytes());
    let (qos, retain, len) = (
        publish.qos as u8,
        u8::from(publish.retain),
        publish.payload.len(),
    );
    out.extend_from_slice(
        format!(",\"qos\":{qos},\"retain\":{retain},\"payloadlen\":{len}").as_bytes(),
    );
    if let Some(id) = publish.packet_id {
        out.extend_from_slice(format!(",\"mid\":{id}").as_bytes());
    }
    push_properties(publish, out);
    out.extend_from_slice(b",\"payload\":");
    match (publish.payload.is_empty(), raw) {
        (true, _) => out.extend_from_slice(b"null"),
        (false, true) => out.extend_from_slice(publish.payload),
        (false, false) => json::push_string(out, publish.payload),
    }
    out.push(b'}');
}

fn push_properties(publish: &Publish<'_>, out: &mut Vec<u8>) {
    let mut members = Vec::new();
    let mut user = Vec::new();
    let mut ids = Vec::new();
    let string = |name: &str, value: &[u8]| {
        let mut member = format!("\"{name}\":").into_bytes();
        json::push_string(&mut member, value);
        member
    };
    for property in publish.properties.iter() {
        members.push(match property {
            Property::PayloadFormatIndicator(format) => {
                format!("\"payload-format-indicator\":{format}").into_bytes()
            }
            Property::MessageExpiryInterval(seconds) => {
                format!("\"message-expiry-interval\":{seconds}").into_bytes()
            }
            Property::ContentType(text) => string("content-type", text.as_bytes()),
            Property::ResponseTopic(text) => string("response-topic", text.as_bytes()),
            Property::CorrelationData(data) => string("correlation-data", data),
            Property::TopicAlias(alias) => format!("\"topic-alias\":{alias}").into_bytes(),
            Property::SubscriptionIdentifier(id) => {
                ids.push(id.to_string());
                continue;
            }
            Property::UserProperty(name, value) => {
                let mut pair = Vec::new();
                json::push_string(&mut pair, name.as_bytes());
                pair.push(b':');
                json::push_string(&mut pair, value.as_bytes());
                user.push(pair);
                continue;
            }
            _ => continue,
        });
    }
    match ids.as_slice() {
        [] => {}
        [id] => members.push(format!("\"subscription-identifier\":{id}").into_bytes()),
        ids => {
            members.push(format!("\"subscription-identifier\":[{}]", ids.join(",")).into_bytes())
        }
    }
    if !user.is_empty() {
        let mut member = b"\"user-properties\":{".to_vec();
        member.extend(user.join(&b','));
        member.push(b'}');
        members.push(member);
    }
    if !members.is_empty() {
        out.extend_from_slice(b",\"properties\":{");
        out.extend(members.join(&b','));
        out.push(b'}');
    }
}

fn push_time(letter: u8, unix: u64, out: &mut Vec<u8>) {
    let date = Date::of(unix);
    let Date {
        year,
        month,
        day,
        hour,
        minute,
        second,
        ..
    } = date;
    let text = match letter {
        b'Y' => format!("{year:04}"),
        b'y' => format!("{:02}", year % 100),
        b'm' => format!("{month:02}"),
        b'd' => format!("{day:02}"),
        b'H' => format!("{hour:02}"),
        b'M' => format!("{minute:02}"),
        b'S' => format!("{second:02}"),
        b'N' => format!("{:03}000000", unix % 1000),
        b'F' => format!("{year:04}-{month:02}-{day:02}"),
        b'T' => format!("{hour:02}:{minute:02}:{second:02}"),
        b'j' => format!("{:03}", date.day_of_year),
        b's' => (unix / 1000).to_string(),
        b'z' => "+0000".to_owned(),
        _ => "UTC".to_owned(),
    };
    out.extend_from_slice(text.as_bytes());
}

/// A date and time of the Gregorian calendar, UTC.
struct Date {
    year: u64,
    month: u64,
    day: u64,
    day_of_year: u64,
    hour: u64,
    minute: u64,
    second: u64,
}

impl Date {
    fn of(unix: u64) -> Date {
        let seconds = unix / 1000;
        let mut days = seconds / 86_400;
        // The calendar repeats every 400 years, which are 146,097 days.
        let mut year = 1970 + 400 * (days / 146_097);
        days %= 146_097;
        let is_leap = |year: u64| {
            year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
        };
        while days >= 365 + u64::from(is_leap(year)) {
            days -= 365 + u64::from(is_leap(year));
            year += 1;
        }
        let day_of_year = days + 1;
        let february = 28 + u64::from(is_leap(year));
        let mut month = 1;
        for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30] {
            if days < length {
                break;
            }
            days -= length;
            month += 1;
        }
        Date {
            year,
            month,
            day: days + 1,
            day_of_year,
            hour: seconds / 3600 % 24,
            minute: seconds / 60 % 60,
            second: seconds % 60,
        }
    }

    /// Formats as ISO 8601. `fraction` follows the seconds.
    fn iso(&self, fraction: &str) -> String {
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}{fraction}+0000",
            self.year, self.month, self.day, self.hour, self.minute, self.second
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{PropertiesBuf, QoS};

    /// 2026-11-22T18:18:04.782Z
    const RECEIVED: u64 = 1_795_371_484_782;

    fn with_properties(format: &str, payload: &[u8], properties: &[Property<'_>]) -> String {
        let mut block = PropertiesBuf::new();
        properties.iter().for_each(|property| block.push(*property));
        let publish = Publish {
            dup: false,
            qos: QoS::AtLeastOnce,
            retain: true,
            topic: "a/topic",
            packet_id: PacketId::new(9),
            properties: block.as_properties(),
            payload,
        };
        let mut out = Vec::new();
        let format = Format::parse(format).expect("a good format");
        match format.write(&publish, RECEIVED, false, &mut out) {
            Ok(()) => String::from_utf8(out).expect("UTF-8"),
            Err(failure) => {
                assert!(out.is_empty());
                failure.message
            }
        }
    }

    fn show(format: &str) -> String {
        with_properties(format, b"hi\xc3\xa9", &[])
    }

    fn all() -> [Property<'static>; 8] {
        [
            Property::PayloadFormatIndicator(1),
            Property::MessageExpiryInterval(60),
            Property::ContentType("text/x"),
            Property::ResponseTopic("r/t"),
            Property::CorrelationData(b"cc"),
            Property::SubscriptionIdentifier(7),
            Property::UserProperty("k", "v"),
            Property::UserProperty("k2", "v\"2"),
        ]
    }

    #[test]
    fn the_parts_of_a_message_are_shown() {
        assert_eq!(
            show("%t|%p|%q|%r|%m|%l|%x|%X|%%"),
            "a/topic|hi\u{e9}|1|1|9|4|6869c3a9|6869C3A9|%"
        );
        assert_eq!(show("plain"), "plain");
        assert_eq!(show(""), "");
    }

    #[test]
    fn properties_are_shown_and_nothing_where_there_are_none() {
        assert_eq!(show("%A|%C|%D|%E|%F|%P|%R|%S"), "|||||||");
        let shown = with_properties("%A|%C|%D|%E|%F|%P|%R|%S", b"", &all());
        assert_eq!(shown, "|text/x|cc|60|1|k:v k2:v\"2|r/t|7");
    }

    #[test]
    fn times_are_those_of_reception() {
        assert_eq!(show("%I"), "2026-11-22T18:18:04+0000");
        assert_eq!(show("%U"), "1795371484.782000000");
        assert_eq!(
            show("@Y-@m-@d @H:@M:@S.@N @z @Z @s @@"),
            "2026-11-22 18:18:04.782000000 +0000 UTC 1795371484 @"
        );
        assert_eq!(show("@F @T @j @y"), "2026-11-22 18:18:04 326 26");
    }

    #[test]
    fn the_calendar_is_right_around_leap_days_and_centuries() {
        for (unix, iso) in [
            (0, "1970-01-01T00:00:00+0000"),
            (951_782_400, "2000-02-29T00:00:00+0000"),
            (951_868_800, "2000-03-01T00:00:00+0000"),
            (1_709_164_800, "2024-02-29T00:00:00+0000"),
            (1_735_689_599, "2024-12-31T23:59:59+0000"),
            (4_107_542_400, "2100-03-01T00:00:00+0000"),
            (13_574_563_200, "2400-02-29T00:00:00+0000"),
        ] {
            assert_eq!(Date::of(unix * 1000).iso(""), iso);
        }
    }

    #[test]
    fn fields_are_padded_and_cut() {
        assert_eq!(
            show("%10t|%-10t|%.2t|%3.1t|%-03t|"),
            "   a/topic|a/topic   |a/|  a|a/topic|"
        );
        assert_eq!(
            show("%05l|%-05l|%5l|%010x|%6p|"),
            "00004|4    |    4|006869c3a9|   hi\u{e9}|"
        );
        // The output of mosquitto_sub.
        assert_eq!(
            show("%2p|%5x|%-5X|%5q|%-3r|%5m"),
            "hi| 6869|6869 |1|1|    9"
        );
        assert_eq!(show("@%|@@"), "%|@");
    }

    #[test]
    fn escapes_stand_for_control_characters() {
        assert_eq!(
            show("\\\\ \\0 \\a \\e \\n \\r \\t \\v"),
            "\\ \0 \x07 \x1b \n \r \t \x0b"
        );
    }

    #[test]
    fn json_has_all_of_a_message() {
        assert_eq!(
            with_properties("%j", b"a\"\n", &all()),
            "{\"tst\":\"2026-11-22T18:18:04.782000+0000\",\"topic\":\"a/topic\",\"qos\":1,\"retain\":1,\"payloadlen\":3,\"mid\":9,\
             \"properties\":{\"payload-format-indicator\":1,\"message-expiry-interval\":60,\"content-type\":\"text/x\",\
             \"response-topic\":\"r/t\",\"correlation-data\":\"cc\",\"subscription-identifier\":7,\
             \"user-properties\":{\"k\":\"v\",\"k2\":\"v\\\"2\"}},\"payload\":\"a\\\"\\n\"}"
        );
        let raw = with_properties("%J", b"{\"a\": 1}", &[]);
        assert!(raw.ends_with("\"payload\":{\"a\": 1}}"), "{raw}");
        assert!(json::is_valid(raw.as_bytes()));
        assert!(with_properties("%j", b"", &[]).ends_with("\"payload\":null}"));
        assert_eq!(
            with_properties("%t %J", b"{", &[]),
            "the payload on a/topic is not JSON"
        );
    }

    #[test]
    fn an_unknown_sequence_is_refused() {
        for bad in [
            "%", "%5", "%k", "@", "@Q", "\\", "\\q", "%99999t", "%.99999t",
        ] {
            assert!(Format::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(
            Format::parse("%k").expect_err("unknown"),
            "%k is not known; % stands before % or one of ACDEFIJPRSUXjlmpqrtx"
        );
    }
}
