//! Reads X.509 certificates (RFC 5280): their validity and their names. It checks no signatures:
//! rustls does.
//!
//! A certificate may come from a peer. Reading never panics and always ends. What cannot be read
//! counts as missing.

use crate::broker::{CertificateName, CertificateNames};

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]` and `[3]`, constructed: version and extensions of a certificate.
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;

/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// Attributes of distinguished names, with their names in OpenSSL.
const ATTRIBUTES: &[(&[u8], &str)] = &[
    (COMMON_NAME, "CN"),
    (&[0x55, 0x04, 0x04], "SN"),
    (&[0x55, 0x04, 0x05], "serialNumber"),
    (&[0x55, 0x04, 0x06], "C"),
    (&[0x55, 0x04, 0x07], "L"),
    (&[0x55, 0x04, 0x08], "ST"),
    (&[0x55, 0x04, 0x09], "street"),
    (&[0x55, 0x04, 0x0A], "O"),
    (&[0x55, 0x04, 0x0B], "OU"),
    (&[0x55, 0x04, 0x0C], "title"),
    (&[0x55, 0x04, 0x2A], "GN"),
    (&[0x55, 0x04, 0x2B], "initials"),
    (&[0x55, 0x04, 0x2E], "dnQualifier"),
    (
        &[0x2A, 0x86, 0x48, 0x86, 0xF7, 0x0D, 0x01, 0x09, 0x01],
        "emailAddress",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x01],
        "UID",
    ),
    (
        &[0x09, 0x92, 0x26, 0x89, 0x93, 0xF2, 0x2C, 0x64, 0x01, 0x19],
        "DC",
    ),
];

/// 2.5.29.17
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1D, 0x11];

/// Names that are read from one certificate, at most.
const MAX_NAMES: usize = 64;

/// The fields that are read of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// The first second of its validity, since 1970.
    pub not_before: i64,
    /// The last second of its validity, since 1970.
    pub not_after: i64,
    /// Its names.
    pub names: CertificateNames,
    /// Its public key: subjectPublicKeyInfo in DER.
    pub public_key: Vec<u8>,
    /// It is of version 1, which has no extensions. `openssl x509 -req` makes such certificates if
    /// it is given none.
    pub is_v1: bool,
}

impl Certificate {
    /// Reads a certificate in DER. Returns `None` if it is malformed.
    pub fn parse(der: &[u8]) -> Option<Certificate> {
        let mut certificate = Reader(Reader(der).expect(SEQUENCE)?);
        let mut fields = Reader(certificate.expect(SEQUENCE)?);
        let is_v1 = !fields.skip_if(VERSION);
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            fields.next()?;
        }
        let mut validity = Reader(fields.expect(SEQUENCE)?);
        let not_before = time(validity.next()?)?;
        let not_after = time(validity.next()?)?;
        let mut names = CertificateNames::default();
        let subject = fields.expect(SEQUENCE)?;
        common_names(Reader(subject), &mut names)?;
        names.subject = distinguished_name(Reader(subject))?;
        let start = fields.0;
        fields.expect(SEQUENCE)?;
        let public_key = start[..start.len() - fields.0.len()].to_vec();
        while let Some((tag, content)) = fields.next() {
            if tag == EXTENSIONS {
                extensions(Reader(Reader(content).expect(SEQUENCE)?), &mut names)?;
            }
        }
        Some(Certificate {
            not_before,
            not_after,
            names,
            public_key,
            is_v1,
        })
    }
}

/// Returns the algorithm of a subjectPublicKeyInfo in DER, without the header of its sequence.
pub fn algorithm_of(public_key: &[u8]) -> Option<&[u8]> {
    Reader(Reader(public_key).expect(SEQUENCE)?).expect(SEQUENCE)
}

/// Returns the nextUpdate of a revocation list in DER, in seconds since 1970. `None` if it has none
/// or is malformed.
pub fn next_update(der: &[u8]) -> Option<i64> {
    let mut list = Reader(Reader(der).expect(SEQUENCE)?);
    let mut fields = Reader(list.expect(SEQUENCE)?);
    fields.skip_if(INTEGER);
    // Signature algorithm, issuer, thisUpdate.
    for _ in 0..3 {
        fields.next()?;
    }
    time(fields.next()?)
}

/// Reads the last common name, which is the most specific one.
fn common_names(mut subject: Reader<'_>, names: &mut CertificateNames) -> Option<()> {
    while let Some((tag, content)) = subject.next() {
        let mut set = Reader((tag == SET).then_some(content)?);
        while let Some((_, attribute)) = set.next() {
            let mut attribute = Reader(attribute);
            if attribute.expect(OID)? == COMMON_NAME {
                let (tag, value) = attribute.next()?;
                names.common_name = string(tag, value);
            }
        }
    }
    Some(())
}

/// Returns a distinguished name as in RFC 2253, OpenSSL and Mosquitto: the last part first.
/// `Some(None)` for an empty one.
fn distinguished_name(mut parts: Reader<'_>) -> Option<Option<Box<str>>> {
    let mut text = String::new();
    while let Some((tag, content)) = parts.next() {
        let mut set = Reader((tag == SET).then_some(content)?);
        let mut part = String::new();
        while let Some((_, attribute)) = set.next() {
            let mut attribute = Reader(attribute);
            let kind = attribute.expect(OID)?;
            let start = attribute.0;
            let (tag, value) = attribute.next()?;
            let der = &start[..start.len() - attribute.0.len()];
            let known = ATTRIBUTES.iter().find(|(oid, _)| *oid == kind);
            let written = match known {
                Some((_, name)) => match plain(tag, value) {
                    Some(value) => format!("{name}={}", escaped(value)),
                    None => format!("{name}=#{}", hex(der)),
                },
                None => format!("{}=#{}", dotted(kind), hex(der)),
            };
            let join = if part.is_empty() { "" } else { "+" };
            part = written + join + &part;
        }
        let join = if text.is_empty() { "" } else { "," };
        text = part + join + &text;
    }
    Some((!text.is_empty()).then(|| text.into()))
}

/// Returns the text of a UTF8String, PrintableString or IA5String.
fn plain(tag: u8, bytes: &[u8]) -> Option<&str> {
    let is_text = matches!(tag, 0x0C | 0x13 | 0x16);
    std::str::from_utf8(bytes).ok().filter(|_| is_text)
}

/// Escapes an attribute's value: special characters, and all that is not printable ASCII.
fn escaped(value: &str) -> String {
    let mut text = String::new();
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        let is_edge = byte == b' ' && (at == 0 || at == last) || byte == b'#' && at == 0;
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => {
                text.push('\\');
                text.push(char::from(byte));
            }
            _ if is_edge => {
                text.push('\\');
                text.push(char::from(byte));
            }
            b' '..=b'~' => text.push(char::from(byte)),
            _ => text += &format!("\\{byte:02X}"),
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Returns an object identifier in decimal numbers.
fn dotted(oid: &[u8]) -> String {
    let mut numbers: Vec<u64> = Vec::new();
    let mut number = 0u64;
    for byte in oid {
        number = number.wrapping_mul(128) + u64::from(byte & 0x7F);
        if byte & 0x80 == 0 {
            if numbers.is_empty() {
                let first = (number / 40).min(2);
                numbers.push(first);
                number -= first * 40;
            }
            numbers.push(number);
            number = 0;
        }
    }
    let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
    numbers.join(".")
}

fn extensions(mut all: Reader<'_>, names: &mut CertificateNames) -> Option<()> {
    while let Some((_, content)) = all.next() {
        let mut extension = Reader(content);
        if extension.expect(OID)? != SUBJECT_ALTERNATIVE_NAME {
            continue;
        }
        // "critical" may come before it.
        let value = loop {
            let (tag, value) = extension.next()?;
            if tag == OCTET_STRING {
                break value;
            }
        };
        let mut alternatives = Reader(Reader(value).expect(SEQUENCE)?);
        while let Some((tag, value)) = alternatives.next() {
            let kind: fn(Box<str>) -> CertificateName = match tag {
                0x81 => CertificateName::Email,
                0x82 => CertificateName::Dns,
                0x86 => CertificateName::Uri,
                _ => continue,
            };
            if names.alternatives.len() < MAX_NAMES {
                names.alternatives.extend(name(value).map(kind));
            }
        }
    }
    Some(())
}

/// Returns the name in a UTF8String, PrintableString or IA5String. All other types are deprecated.
fn string(tag: u8, bytes: &[u8]) -> Option<Box<str>> {
    matches!(tag, 0x0C | 0x13 | 0x16)
        .then(|| name(bytes))
        .flatten()
}

/// Returns a name that may be a user name or client identifier. It has no control characters, which
/// could also deceive the reader of a log.
fn name(bytes: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.into())
}

/// Returns the seconds since 1970 of a UTCTime `YYMMDDhhmmssZ` or GeneralizedTime
/// `YYYYMMDDhhmmssZ`.
fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |part: &[u8]| part.iter().fold(0i64, |n, d| n * 10 + i64::from(d - b'0'));
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2]);
            (if year < 50 { 2000 } else { 1900 } + year, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
        _ => return None,
    };
    let at = |index: usize| number(&rest[index * 2..index * 2 + 2]);
    let (month, day) = (at(0), at(1));
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + at(2) * 3600 + at(3) * 60 + at(4))
}

/// Counts years from March, so that the leap day is the last day of a year.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month < 3 { year - 1 } else { year };
    let since_march = (month + 9) % 12;
    let day_of_year = (153 * since_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

/// Reads DER elements.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Returns the tag and content of the next element. `None` at the end, or if it is not whole.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, mut rest) = rest.split_first()?;
        let mut length = usize::from(first);
        if first >= 0x80 {
            let count = usize::from(first & 0x7F);
            let bytes = rest.get(..count).filter(|_| (1..=4).contains(&count))?;
            length = bytes.iter().try_fold(0usize, |length, byte| {
                length.checked_mul(256)?.checked_add(usize::from(*byte))
            })?;
            rest = &rest[count..];
        }
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// Returns the content of the next element. `None` if it has another tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .and_then(|(found, content)| (found == tag).then_some(content))
    }

    /// Skips the next element if it has this tag. Returns whether it did.
    fn skip_if(&mut self, tag: u8) -> bool {
        self.0.first() == Some(&tag) && self.next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType, date_time_ymd};

    fn der() -> Vec<u8> {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).expect("a name");
        let uri = "urn:device:7".try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::URI(uri));
        let email = "d@example".try_into().expect("ASCII");
        params.subject_alt_names.push(SanType::Rfc822Name(email));
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Org");
        params
            .distinguished_name
            .push(DnType::CommonName, "gerät-7");
        params.not_before = date_time_ymd(1999, 12, 31);
        params.not_after = date_time_ymd(2100, 3, 1);
        let key = KeyPair::generate().expect("a key");
        params
            .self_signed(&key)
            .expect("a certificate")
            .der()
            .to_vec()
    }

    #[test]
    fn times_and_names_are_read() {
        let certificate = Certificate::parse(&der()).expect("a certificate");
        assert_eq!(certificate.not_before, 946_598_400);
        assert_eq!(certificate.not_after, 4_107_542_400);
        assert_eq!(certificate.names.common_name.as_deref(), Some("gerät-7"));
        assert_eq!(
            certificate.names.alternatives,
            [
                CertificateName::Dns("a.example".into()),
                CertificateName::Uri("urn:device:7".into()),
                CertificateName::Email("d@example".into())
            ]
        );
    }

    #[test]
    fn the_next_update_of_a_revocation_list_is_read() {
        use rcgen::{
            CertificateRevocationListParams, Issuer, KeyIdMethod, KeyUsagePurpose, SerialNumber,
        };
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.key_usages = vec![KeyUsagePurpose::CrlSign];
        let issuer = Issuer::new(params, KeyPair::generate().expect("a key"));
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(1999, 12, 30),
            next_update: date_time_ymd(1999, 12, 31),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: Vec::new(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&issuer).expect("signed");
        assert_eq!(next_update(list.der()), Some(946_598_400));
        for end in 0..list.der().len() {
            assert_eq!(next_update(&list.der()[..end]), None, "{end}");
        }
        assert_eq!(next_update(&der()), None);
    }

    #[test]
    fn the_subject_is_written_as_openssl_does() {
        let certificate = Certificate::parse(&der()).expect("a certificate");
        let subject = certificate.names.subject.expect("a subject");
        assert_eq!(&*subject, "O=Org,CN=ger\\C3\\A4t-7");
        let sequence = |parts: &[&[u8]]| {
            parts
                .iter()
                .flat_map(|part| part.iter().copied())
                .collect::<Vec<u8>>()
        };
        let name = |bytes: &[u8]| {
            let read = distinguished_name(Reader(bytes)).expect("whole");
            read.map(String::from).unwrap_or_default()
        };
        // C=DE, then O and OU in one part, then a CN with all special characters.
        let country: &[u8] = b"\x31\x0b\x30\x09\x06\x03\x55\x04\x06\x13\x02DE";
        let pair: &[u8] =
            b"\x31\x14\x30\x08\x06\x03\x55\x04\x0a\x0c\x01o\x30\x08\x06\x03\x55\x04\x0b\x0c\x01u";
        let odd: &[u8] = b"\x31\x11\x30\x0f\x06\x03\x55\x04\x03\x0c\x08 #a,\\\n\" ";
        assert_eq!(
            name(&sequence(&[country, pair, odd])),
            "CN=\\ #a\\,\\\\\\0A\\\"\\ ,OU=u+O=o,C=DE"
        );
        // An unknown attribute (1.2.840.3), and a string of an unused type.
        let unknown: &[u8] = b"\x31\x0b\x30\x09\x06\x04\x2a\x86\x48\x03\x0c\x01x";
        assert_eq!(name(unknown), "1.2.840.3=#0C0178");
        let wide: &[u8] = b"\x31\x0b\x30\x09\x06\x03\x55\x04\x03\x1e\x02\0x";
        assert_eq!(name(wide), "CN=#1E020078");
        assert_eq!(name(b""), "");
        for end in 1..odd.len() {
            assert_eq!(distinguished_name(Reader(&odd[..end])).flatten(), None);
        }
    }

    #[test]
    fn the_calendar_knows_leap_years() {
        assert_eq!(days_since_1970(1970, 1, 1), 0);
        assert_eq!(days_since_1970(2000, 2, 29), 11_016);
        assert_eq!(days_since_1970(2000, 3, 1), 11_017);
        assert_eq!(
            days_since_1970(2100, 3, 1) - days_since_1970(2100, 2, 28),
            1
        );
        assert_eq!(time((UTC_TIME, b"491231235959Z")), Some(2_524_607_999));
        assert_eq!(time((UTC_TIME, b"500101000000Z")), Some(-631_152_000));
        for bad in ["4912312359Z", "491331235959Z", "4912312359599", ""] {
            assert_eq!(time((UTC_TIME, bad.as_bytes())), None, "{bad}");
        }
    }

    #[test]
    fn names_with_control_characters_are_left_out() {
        assert_eq!(name(b"a\0b"), None);
        assert_eq!(name(b"a\nb"), None);
        assert_eq!(name(b"\xFF"), None);
        assert_eq!(name(b""), None);
        assert_eq!(string(0x1E, b"bmp"), None);
    }

    #[test]
    fn a_cut_certificate_is_none() {
        let der = der();
        for end in 0..der.len() {
            assert_eq!(Certificate::parse(&der[..end]), None, "{end}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_do_harm(changes in proptest::collection::vec((0usize..800, 0u8..=255), 0..8)) {
            let mut der = der();
            for (at, byte) in changes {
                let at = at % der.len();
                der[at] = byte;
            }
            let _ = Certificate::parse(&der);
        }
    }
}
