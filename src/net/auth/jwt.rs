//! Tokens (JWT, RFC 7519) as passwords. A token can also contain the client's rights.
//!
//! The claims:
//!
//! - `exp`: when the token expires, in seconds since 1970. Required. The connection ends then,
//!   unless `disconnect_at_expiry` is off.
//! - `nbf`: when the token becomes valid. Optional.
//! - `sub`, or the configured claim: the user name. That of the CONNECT is not used.
//! - `iss`, `aud`: as configured.
//! - `publish`, `subscribe`: lists of topic filters. They replace the broker's access list: the
//!   client has these rights only.

use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value};

use super::method_result::{MethodResult, NO_FILTERS, accepted, credential_of, rules_of};
use super::problem::Problem;
use super::secret::read_secret;
use crate::broker::{Identity, Rules};

/// Bytes of the shortest secret for HS256: as many as the hash has (RFC 7518 section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// A key, and what is expected of tokens signed with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct JwtSettings {
    /// The signature algorithm.
    pub algorithm: JwtAlgorithm,
    /// The file of the key. For HS256 it is the secret itself, of 32 bytes or more. For the others
    /// it is a public key in PEM (`BEGIN PUBLIC KEY`).
    pub keyfile: PathBuf,
    /// If set, only tokens with this `kid` in their header use this key.
    pub kid: Option<String>,
    /// The expected `iss`.
    pub issuer: Option<String>,
    /// The expected `aud`, or one of its values. If it is not set, `aud` is not checked.
    pub audience: Option<String>,
    /// The claim with the user name.
    pub username_claim: String,
    /// How far the clocks of the issuers may be wrong.
    pub leeway: Duration,
    /// A connection ends when its token expires.
    pub disconnect_at_expiry: bool,
}

/// A signature algorithm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256 and a shared secret.
    Hs256,
    /// RSA (PKCS #1, 2048 bits or more) with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

/// The loaded keys.
pub struct Jwt(Vec<Key>);

/// A loaded key, and the [`Identity::credential`](crate::broker::Identity::credential) of clients
/// whose token it has signed.
struct Key {
    settings: JwtSettings,
    key: DecodingKey,
    credential: u64,
}

impl JwtAlgorithm {
    fn as_crate(self) -> Algorithm {
        match self {
            JwtAlgorithm::Hs256 => Algorithm::HS256,
            JwtAlgorithm::Rs256 => Algorithm::RS256,
            JwtAlgorithm::Es256 => Algorithm::ES256,
        }
    }
}

impl Jwt {
    /// Reads the keys.
    ///
    /// # Errors
    /// All keys that cannot be used.
    pub fn load(all: &[JwtSettings]) -> Result<Jwt, Vec<Problem>> {
        let (mut keys, mut problems) = (Vec::new(), Vec::new());
        for settings in all {
            match load_key(settings) {
                Ok((key, bytes)) => keys.push(Key {
                    settings: settings.clone(),
                    key,
                    credential: credential_of(&(settings, bytes)),
                }),
                Err(what) => problems.push(Problem::new(&settings.keyfile, None, what)),
            }
        }
        if problems.is_empty() {
            Ok(Jwt(keys))
        } else {
            Err(problems)
        }
    }

    /// Returns whether one of the keys has this credential.
    pub(super) fn has(&self, credential: u64) -> bool {
        self.0.iter().any(|key| key.credential == credential)
    }

    /// Checks a password at `now`, in seconds since 1970. One that is not a token is unknown.
    pub(super) fn ask(&self, password: &[u8], now: i64) -> MethodResult {
        let Ok(header) = decode_header(password) else {
            return MethodResult::Unknown;
        };
        // RFC 7515 section 4.1.11: unknown critical extensions must be refused. None is known here.
        if header.crit.is_some() {
            return MethodResult::Refused(
                "the token's header has crit: an extension that is not known",
            );
        }
        let mut why = "no key is known for the token's algorithm and kid";
        for Key {
            settings,
            key,
            credential,
        } in &self.0
        {
            let is_meant = settings.algorithm.as_crate() == header.alg
                && (settings.kid.is_none() || settings.kid == header.kid);
            if !is_meant {
                continue;
            }
            match decode::<Map<String, Value>>(password, key, &settings.validation()) {
                Ok(token) => {
                    let checked = settings.check_claims(&token.claims, *credential, now);
                    return checked.map_or_else(MethodResult::Refused, MethodResult::Accepted);
                }
                Err(error) => why = words(error.kind()),
            }
        }
        MethodResult::Refused(why)
    }
}

impl JwtSettings {
    /// Returns what is checked with the signature. Times are checked later, with the given time.
    fn validation(&self) -> Validation {
        let mut validation = Validation::new(self.algorithm.as_crate());
        let mut required = Vec::new();
        validation.validate_exp = false;
        validation.validate_aud = self.audience.is_some();
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &self.audience {
            validation.set_audience(&[audience]);
            required.push("aud");
        }
        validation.set_required_spec_claims(&required);
        validation
    }

    fn check_claims(
        &self,
        claims: &Map<String, Value>,
        credential: u64,
        now: i64,
    ) -> Result<Identity, &'static str> {
        let leeway = self.leeway.as_secs_f64();
        let now = now as f64;
        let time = |name: &str| claims.get(name).map(Value::as_f64);
        let left = match time("exp") {
            Some(Some(exp)) if now < exp + leeway => exp + leeway - now,
            Some(Some(_)) => return Err("the token has expired"),
            _ => return Err("the token has no time as exp"),
        };
        match time("nbf") {
            Some(Some(nbf)) if now + leeway < nbf => return Err("the token is not good yet"),
            Some(None) => return Err("the token's nbf is not a time"),
            _ => {}
        }
        let user = claims.get(&self.username_claim);
        let user = user
            .and_then(Value::as_str)
            .ok_or("the token has no user name")?;
        Ok(Identity {
            expires_in: self.disconnect_at_expiry.then_some((left * 1000.0) as u64),
            ..accepted(user, rules(claims)?, credential)?
        })
    }
}

/// Returns the rules in these claims. `None` if there are none.
///
/// # Errors
/// They are not lists of topic filters.
fn rules(claims: &Map<String, Value>) -> Result<Option<Rules>, &'static str> {
    let list = |name: &str| -> Result<Option<Vec<String>>, &'static str> {
        let list = claims.get(name).cloned().map(serde_json::from_value);
        list.transpose().map_err(|_| NO_FILTERS)
    };
    rules_of(list("publish")?, list("subscribe")?)
}

/// Reads a key. Also returns its bytes.
fn load_key(settings: &JwtSettings) -> Result<(DecodingKey, Vec<u8>), String> {
    match settings.algorithm {
        JwtAlgorithm::Hs256 => {
            let secret = read_secret(&settings.keyfile)?;
            if secret.len() < MIN_SECRET_BYTES {
                return Err(format!(
                    "has {} bytes, expected a secret of {MIN_SECRET_BYTES} or more for HS256",
                    secret.len()
                ));
            }
            Ok((DecodingKey::from_secret(&secret), secret))
        }
        JwtAlgorithm::Rs256 => {
            let der = public_key(&settings.keyfile)?;
            is_usable(
                &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
                &der,
                "RS256",
            )?;
            Ok((DecodingKey::from_rsa_der(&der), der))
        }
        JwtAlgorithm::Es256 => {
            let der = public_key(&settings.keyfile)?;
            is_usable(
                &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED,
                &der,
                "ES256",
            )?;
            Ok((DecodingKey::from_ec_der(&der), der))
        }
    }
}

fn is_usable(
    algorithm: &'static dyn aws_lc_rs::signature::VerificationAlgorithm,
    der: &[u8],
    name: &str,
) -> Result<(), String> {
    let parsed = aws_lc_rs::signature::ParsedPublicKey::new(algorithm, der);
    parsed
        .map(drop)
        .map_err(|_| format!("its public key is not one for {name}"))
}

fn public_key(file: &Path) -> Result<Vec<u8>, String> {
    let pem = read_secret(file)?;
    let key = SubjectPublicKeyInfoDer::from_pem_slice(&pem)
        .map_err(|_| "has no public key in PEM; expected BEGIN PUBLIC KEY".to_owned())?;
    Ok(key.to_vec())
}

fn words(error: &ErrorKind) -> &'static str {
    match error {
        ErrorKind::InvalidSignature => "the token's signature is wrong",
        ErrorKind::InvalidIssuer => "the token's iss is another",
        ErrorKind::InvalidAudience => "the token's aud is another",
        ErrorKind::MissingRequiredClaim(_) => "the token lacks iss or aud",
        _ => "the token cannot be read",
    }
}

/// Does not show the keys.
impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let settings = self.0.iter().map(|key| &key.settings);
        f.debug_list().entries(settings).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Permission;
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::signature::KeyPair;
    use aws_lc_rs::{hmac, rand, rsa, signature};
    use base64::Engine as _;
    use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
    use serde_json::json;

    const NOW: i64 = 1_800_000_000;
    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

    fn settings(algorithm: JwtAlgorithm, key: &[u8]) -> (tempfile::NamedTempFile, JwtSettings) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), key).expect("written");
        let keyfile = file.path().to_owned();
        let settings = JwtSettings {
            algorithm,
            keyfile,
            kid: None,
            issuer: None,
            audience: None,
            username_claim: "sub".to_owned(),
            leeway: Duration::ZERO,
            disconnect_at_expiry: true,
        };
        (file, settings)
    }

    fn pem(spki: &[u8]) -> Vec<u8> {
        let text = BASE64_STANDARD.encode(spki);
        format!("-----BEGIN PUBLIC KEY-----\n{text}\n-----END PUBLIC KEY-----\n").into_bytes()
    }

    fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let signature = BASE64_URL_SAFE_NO_PAD.encode(sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }

    fn hs256(header: &Value, claims: &Value) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
        token(header, claims, |text| {
            hmac::sign(&key, text).as_ref().to_vec()
        })
    }

    /// Returns the user and the rules of a token, or why it is refused. `None` if it is unknown.
    fn ask(
        settings: &[JwtSettings],
        token: &str,
    ) -> Option<Result<(String, Option<Rules>), &'static str>> {
        let jwt = Jwt::load(settings).expect("good keys");
        match jwt.ask(token.as_bytes(), NOW) {
            MethodResult::Accepted(identity) => {
                let user = identity.user.expect("a user").into();
                Some(Ok((user, identity.rules.map(|rules| (*rules).clone()))))
            }
            MethodResult::Refused(why) => Some(Err(why)),
            MethodResult::Failed(why) => panic!("{why}"),
            MethodResult::Unknown => None,
        }
    }

    #[test]
    fn a_header_with_something_critical_is_refused() {
        let (_file, settings) = settings(JwtAlgorithm::Hs256, SECRET);
        let claims = json!({"sub": "ann", "exp": NOW + 60});
        for crit in [json!(["b64"]), json!(["exp"]), json!([])] {
            let token = hs256(&json!({"alg": "HS256", "crit": crit, "exp": 1}), &claims);
            let why = ask(std::slice::from_ref(&settings), &token).expect("an answer");
            assert!(why.expect_err("refused").contains("crit"), "{token}");
        }
    }

    #[test]
    fn a_login_lasts_as_long_as_its_token_and_its_key() {
        let (file, one) = settings(JwtAlgorithm::Hs256, SECRET);
        let token = hs256(
            &json!({"alg": "HS256"}),
            &json!({"sub": "ann", "exp": NOW + 60}),
        );
        let login = |settings: &JwtSettings| {
            let jwt = Jwt::load(std::slice::from_ref(settings)).expect("a good key");
            match jwt.ask(token.as_bytes(), NOW) {
                MethodResult::Accepted(identity) => (jwt, identity),
                other => panic!("{other:?}"),
            }
        };
        let (jwt, identity) = login(&one);
        assert_eq!(identity.expires_in, Some(60_000));
        let credential = identity.credential.expect("it can be withdrawn");
        assert!(jwt.has(credential) && !jwt.has(credential ^ 1));
        let lasting = JwtSettings {
            leeway: Duration::from_secs(5),
            disconnect_at_expiry: false,
            ..one.clone()
        };
        assert_eq!(login(&lasting).1.expires_in, None);
        let late = JwtSettings {
            disconnect_at_expiry: true,
            ..lasting
        };
        assert_eq!(login(&late).1.expires_in, Some(65_000));
        std::fs::write(file.path(), b"another secret of 32 bytes or more").expect("written");
        assert!(!Jwt::load(&[one]).expect("a good key").has(credential));
    }

    #[test]
    fn the_examples_of_rfc_7515_are_verified() {
        // Appendix A.1 (HS256) and A.3 (ES256). They expired in 2011.
        let claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
        let secret = BASE64_URL_SAFE_NO_PAD
            .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
            .expect("base64");
        let mut spki = vec![
            0x30, 0x59, 0x30, 0x13, 6, 7, 0x2A, 0x86, 0x48, 0xCE, 0x3D, 2, 1, 6, 8, 0x2A, 0x86,
            0x48, 0xCE, 0x3D, 3, 1, 7, 3, 0x42, 0, 4,
        ];
        for part in [
            "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        ] {
            spki.extend(BASE64_URL_SAFE_NO_PAD.decode(part).expect("base64"));
        }
        for (algorithm, key, token) in [
            (
                JwtAlgorithm::Hs256,
                secret,
                format!(
                    "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{claims}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
                ),
            ),
            (
                JwtAlgorithm::Es256,
                pem(&spki),
                format!(
                    "eyJhbGciOiJFUzI1NiJ9.{claims}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
                ),
            ),
        ] {
            let (_file, mut settings) = settings(algorithm, &key);
            settings.username_claim = "iss".to_owned();
            let jwt = Jwt::load(&[settings]).expect("good keys");
            let answer = jwt.ask(token.as_bytes(), 1_300_819_379);
            assert!(
                matches!(&answer, MethodResult::Accepted(it) if it.user.as_deref() == Some("joe")),
                "{answer:?}"
            );
            let answer = jwt.ask(token.as_bytes(), 1_300_819_380);
            assert!(matches!(
                answer,
                MethodResult::Refused("the token has expired")
            ));
            let forged = token.replace("eyJpc3MiOiJqb2Ui", "eyJpc3MiOiJqb2Ei");
            let answer = jwt.ask(forged.as_bytes(), 1_300_819_379);
            assert!(matches!(
                answer,
                MethodResult::Refused("the token's signature is wrong")
            ));
        }
    }

    #[test]
    fn rsa_signatures_are_verified_and_keys_are_told_apart_by_kid() {
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
        let public =
            AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).expect("a public key");
        let sign = |text: &[u8]| {
            let mut signature = vec![0; pair.public_modulus_len()];
            let random = rand::SystemRandom::new();
            let signed = pair.sign(&signature::RSA_PKCS1_SHA256, &random, text, &mut signature);
            signed.expect("signed");
            signature
        };
        let (_file, mut rs) = settings(JwtAlgorithm::Rs256, &pem(public.as_ref()));
        rs.kid = Some("new".to_owned());
        let (_other, hs) = settings(JwtAlgorithm::Hs256, SECRET);
        let all = [hs, rs];
        let claims = json!({"sub": "ann", "exp": NOW + 1});
        let with = |kid: &str| json!({"alg": "RS256", "kid": kid});
        let found = ask(&all, &token(&with("new"), &claims, sign));
        assert_eq!(found, Some(Ok(("ann".to_owned(), None))));
        let missing = Some(Err("no key is known for the token's algorithm and kid"));
        assert_eq!(ask(&all, &token(&with("old"), &claims, sign)), missing);
        // A public key must not be usable as the secret of HS256.
        let public = pem(public.as_ref());
        let key = hmac::Key::new(hmac::HMAC_SHA256, &public);
        let confused = token(&json!({"alg": "HS256", "kid": "new"}), &claims, |text| {
            hmac::sign(&key, text).as_ref().to_vec()
        });
        assert_eq!(ask(&all[1..], &confused), missing);
    }

    #[test]
    fn claims_are_checked_each() {
        let (_file, mut settings) = settings(JwtAlgorithm::Hs256, SECRET);
        settings.issuer = Some("me".to_owned());
        settings.audience = Some("broker".to_owned());
        settings.leeway = Duration::from_secs(5);
        let all = [settings];
        let header = json!({"alg": "HS256"});
        let good = json!({"sub": "ann", "exp": NOW - 4, "nbf": NOW + 5, "iss": "me", "aud": ["x", "broker"]});
        assert_eq!(
            ask(&all, &hs256(&header, &good)),
            Some(Ok(("ann".to_owned(), None)))
        );
        for (claim, value, why) in [
            ("exp", json!(NOW - 5), "the token has expired"),
            ("exp", json!(null), "the token has no time as exp"),
            ("exp", json!("2100"), "the token has no time as exp"),
            ("nbf", json!(NOW + 6), "the token is not good yet"),
            ("nbf", json!("now"), "the token's nbf is not a time"),
            ("iss", json!("you"), "the token's iss is another"),
            ("aud", json!("x"), "the token's aud is another"),
            ("sub", json!(1), "the token has no user name"),
            (
                "sub",
                json!("a\nb"),
                "the user name is empty, too long or has control characters",
            ),
            (
                "sub",
                json!(""),
                "the user name is empty, too long or has control characters",
            ),
            (
                "publish",
                json!("a"),
                "publish or subscribe is not a list of topic filters",
            ),
            (
                "subscribe",
                json!(["a/#/b"]),
                "publish or subscribe is not a list of topic filters",
            ),
        ] {
            let mut claims = good.clone();
            claims[claim] = value;
            assert_eq!(
                ask(&all, &hs256(&header, &claims)),
                Some(Err(why)),
                "{claim}"
            );
        }
        for claim in ["iss", "aud", "exp"] {
            let mut claims = good.clone();
            claims.as_object_mut().expect("an object").remove(claim);
            assert!(
                matches!(ask(&all, &hs256(&header, &claims)), Some(Err(_))),
                "{claim}"
            );
        }
    }

    #[test]
    fn claims_become_rules() {
        let (_file, settings) = settings(JwtAlgorithm::Hs256, SECRET);
        let header = json!({"alg": "HS256"});
        let claims =
            json!({"sub": "ann", "exp": NOW + 1, "publish": ["a/+", "b"], "subscribe": ["#"]});
        let mut rules = Rules::default();
        for (permission, filter) in [
            (Permission::Write, "a/+"),
            (Permission::Write, "b"),
            (Permission::Read, "#"),
        ] {
            rules.add_topic(permission, filter).expect("a filter");
        }
        let settings = [settings];
        let found = ask(&settings, &hs256(&header, &claims));
        assert_eq!(found, Some(Ok(("ann".to_owned(), Some(rules)))));
        // An empty list is a rule, too: it allows nothing.
        let claims = json!({"sub": "ann", "exp": NOW + 1, "publish": []});
        let found = ask(&settings, &hs256(&header, &claims));
        assert_eq!(found, Some(Ok(("ann".to_owned(), Some(Rules::default())))));
    }

    #[test]
    fn what_is_no_token_says_nothing_and_an_unsigned_one_is_none() {
        let (_file, settings) = settings(JwtAlgorithm::Hs256, SECRET);
        let settings = [settings];
        let claims = json!({"sub": "ann", "exp": NOW + 1});
        let unsigned = token(&json!({"alg": "none"}), &claims, |_| Vec::new());
        for text in ["secret", "", "a.b.c", "..", &unsigned] {
            assert_eq!(ask(&settings, text), None, "{text}");
        }
        let stripped = hs256(&json!({"alg": "HS256"}), &claims);
        let stripped = stripped.rsplit_once('.').expect("three parts").0;
        assert!(matches!(
            ask(&settings, &format!("{stripped}.")),
            Some(Err(_))
        ));
    }

    #[test]
    fn a_key_that_cannot_be_used_is_told_with_its_file() {
        for (algorithm, key, what) in [
            (
                JwtAlgorithm::Hs256,
                &b"short"[..],
                "has 5 bytes, expected a secret of 32 or more",
            ),
            (JwtAlgorithm::Rs256, b"secret", "has no public key in PEM"),
            (
                JwtAlgorithm::Es256,
                &pem(b"nonsense"),
                "its public key is not one for ES256",
            ),
        ] {
            let (file, settings) = settings(algorithm, key);
            let problems = Jwt::load(&[settings]).expect_err("no key");
            let told = problems[0].to_string();
            let place = format!("{}: {what}", file.path().display());
            assert!(told.starts_with(&place), "{told}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_token_that_was_changed_anywhere_lets_nobody_in(at in 0_usize..200, byte in proptest::prelude::any::<u8>()) {
            let (_file, settings) = settings(JwtAlgorithm::Hs256, SECRET);
            let jwt = Jwt::load(&[settings]).expect("a good key");
            let claims = json!({"sub": "ann", "exp": NOW + 1});
            let good = hs256(&json!({"alg": "HS256"}), &claims).into_bytes();
            let mut changed = good.clone();
            let at = at % good.len();
            changed[at] = byte;
            let accepted = matches!(jwt.ask(&changed, NOW), MethodResult::Accepted(_));
            proptest::prop_assert!(!accepted || changed == good, "{}", String::from_utf8_lossy(&changed));
        }
    }
}
