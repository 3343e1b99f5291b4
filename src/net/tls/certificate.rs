//! What the broker wants to know of an X.509 certificate (RFC 5280): until when it is valid, and whom it names. Signatures are rustls's matter.
//!
//! A certificate may come from a peer: reading never fails loudly and never goes round in circles; what cannot be read is not there.

use crate::broker::{CertificateName, CertificateNames};

const INTEGER: u8 = 0x02;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OID: u8 = 0x06;
const OCTET_STRING: u8 = 0x04;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
/// `[0]` and `[3]`, constructed: the version and the extensions of a certificate.
const VERSION: u8 = 0xA0;
const EXTENSIONS: u8 = 0xA3;

/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// 2.5.29.17
const SUBJECT_ALTERNATIVE_NAME: &[u8] = &[0x55, 0x1D, 0x11];

/// Names taken from one certificate; more are left out.
const MAX_NAMES: usize = 64;

/// What is read of a certificate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificate {
    /// First second it is valid, since 1970.
    pub not_before: i64,
    /// Last second it is valid, since 1970.
    pub not_after: i64,
    /// Whom it names.
    pub names: CertificateNames,
}

impl Certificate {
    /// Reads a certificate in DER; `None` if it is none.
    pub fn parse(der: &[u8]) -> Option<Certificate> {
        let mut certificate = Reader(Reader(der).expect(SEQUENCE)?);
        let mut fields = Reader(certificate.expect(SEQUENCE)?);
        fields.skip_if(VERSION);
        // Serial number, signature algorithm, issuer.
        for _ in 0..3 {
            fields.next()?;
        }
        let mut validity = Reader(fields.expect(SEQUENCE)?);
        let not_before = time(validity.next()?)?;
        let not_after = time(validity.next()?)?;
        let mut names = CertificateNames::default();
        common_names(Reader(fields.expect(SEQUENCE)?), &mut names)?;
        while let Some((tag, content)) = fields.next() {
            if tag == EXTENSIONS {
                extensions(Reader(Reader(content).expect(SEQUENCE)?), &mut names)?;
            }
        }
        Some(Certificate {
            not_before,
            not_after,
            names,
        })
    }
}

/// When a revocation list in DER should have been replaced, in seconds since 1970; `None` if it does not
/// say or is none.
pub fn next_update(der: &[u8]) -> Option<i64> {
    let mut list = Reader(Reader(der).expect(SEQUENCE)?);
    let mut fields = Reader(list.expect(SEQUENCE)?);
    fields.skip_if(INTEGER);
    // Signature algorithm, issuer, and when this list was made.
    for _ in 0..3 {
        fields.next()?;
    }
    time(fields.next()?)
}

/// The last common name counts: it is the most specific one.
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

fn extensions(mut all: Reader<'_>, names: &mut CertificateNames) -> Option<()> {
    while let Some((_, content)) = all.next() {
        let mut extension = Reader(content);
        if extension.expect(OID)? != SUBJECT_ALTERNATIVE_NAME {
            continue;
        }
        // "critical" may stand between.
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

/// UTF8String, PrintableString and IA5String are what is used; the rest has been deprecated for long.
fn string(tag: u8, bytes: &[u8]) -> Option<Box<str>> {
    matches!(tag, 0x0C | 0x13 | 0x16)
        .then(|| name(bytes))
        .flatten()
}

/// A name that may stand where MQTT has a user name or a client identifier: no control characters, which could also deceive the reader of a log.
fn name(bytes: &[u8]) -> Option<Box<str>> {
    let text = std::str::from_utf8(bytes).ok()?;
    (!text.is_empty() && !text.chars().any(char::is_control)).then(|| text.into())
}

/// Seconds since 1970 of a UTCTime `YYMMDDhhmmssZ` or GeneralizedTime `YYYYMMDDhhmmssZ`.
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

/// Years begin in March here, so that the day a leap year adds is a year's last.
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month < 3 { year - 1 } else { year };
    let since_march = (month + 9) % 12;
    let day_of_year = (153 * since_march + 2) / 5 + day - 1;
    year * 365 + year.div_euclid(4) - year.div_euclid(100) + year.div_euclid(400) + day_of_year
        - 719_468
}

/// Reads one element of DER after the other.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The tag and content of the next element; `None` at the end, or if it is not whole.
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

    /// The content of the next element, which must have this tag.
    fn expect(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next()
            .and_then(|(found, content)| (found == tag).then_some(content))
    }

    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            let _ = self.next();
        }
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
    fn a_revocation_list_tells_when_the_next_one_is_due() {
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
