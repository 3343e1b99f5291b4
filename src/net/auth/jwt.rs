//! Tokens (JWT, RFC 7519): the password is one, signed by somebody whose key is known. What a client may do can stand in it, too.
//!
//! | claim | means |
//! |---|---|
//! | `exp` | until when the token is good for a CONNECT, in seconds since 1970; it must be there |
//! | `nbf` | from when on, if it is there |
//! | `sub`, or the configured claim | the user name; the one in the CONNECT is not looked at |
//! | `iss`, `aud` | as configured |
//! | `publish`, `subscribe` | lists of topic filters: what the client may do, and nothing else, instead of the broker's access list |

use std::path::{Path, PathBuf};
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value};

use super::{Answer, Problem, accepted, read_secret};
use crate::broker::{Permission, Rules};

/// Bytes of a secret for HS256: as many as the hash has (RFC 7518, section 3.2).
const MIN_SECRET_BYTES: usize = 32;

/// A key for tokens, and what is expected of those that it has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSettings {
    /// How they are signed.
    pub algorithm: JwtAlgorithm,
    /// The file: for HS256 the secret itself, of 32 bytes or more; for the others a public key in PEM (`BEGIN PUBLIC KEY`).
    pub keyfile: PathBuf,
    /// Only for tokens that name this key in their header (`kid`).
    pub kid: Option<String>,
    /// What `iss` must be.
    pub issuer: Option<String>,
    /// What `aud` must be, or have among its values; without it `aud` is not looked at.
    pub audience: Option<String>,
    /// The claim that is the user name.
    pub username_claim: String,
    /// How far the clocks of those who sign may be off.
    pub leeway: Duration,
}

/// How tokens are signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JwtAlgorithm {
    /// HMAC with SHA-256 and a shared secret.
    Hs256,
    /// RSA (PKCS #1, 2048 bits or more) with SHA-256.
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
}

/// The keys, read.
pub struct Jwt(Vec<(JwtSettings, DecodingKey)>);

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
                Ok(key) => keys.push((settings.clone(), key)),
                Err(what) => problems.push(Problem::new(&settings.keyfile, None, what)),
            }
        }
        if problems.is_empty() {
            Ok(Jwt(keys))
        } else {
            Err(problems)
        }
    }

    /// What a password says at this time, in seconds since 1970; one that does not look like a token says nothing.
    pub(super) fn ask(&self, password: &[u8], now: i64) -> Answer {
        let Ok(header) = decode_header(password) else {
            return Answer::Unknown;
        };
        let mut why = "no key is known for the token's algorithm and kid";
        for (settings, key) in &self.0 {
            let is_meant = settings.algorithm.as_crate() == header.alg
                && (settings.kid.is_none() || settings.kid == header.kid);
            if !is_meant {
                continue;
            }
            match decode::<Map<String, Value>>(password, key, &settings.validation()) {
                Ok(token) => {
                    let judged = settings.judge(&token.claims, now);
                    return judged.unwrap_or_else(Answer::Refused);
                }
                Err(error) => why = words(error.kind()),
            }
        }
        Answer::Refused(why)
    }
}

impl JwtSettings {
    /// What is checked together with the signature. Times are not: that is done with the time that is given.
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

    fn judge(&self, claims: &Map<String, Value>, now: i64) -> Result<Answer, &'static str> {
        let leeway = self.leeway.as_secs_f64();
        let now = now as f64;
        let time = |name: &str| claims.get(name).map(Value::as_f64);
        match time("exp") {
            Some(Some(exp)) if now < exp + leeway => {}
            Some(Some(_)) => return Err("the token has expired"),
            _ => return Err("the token has no time as exp"),
        }
        match time("nbf") {
            Some(Some(nbf)) if now + leeway < nbf => return Err("the token is not good yet"),
            Some(None) => return Err("the token's nbf is not a time"),
            _ => {}
        }
        let user = claims.get(&self.username_claim);
        let user = user
            .and_then(Value::as_str)
            .ok_or("the token has no user name")?;
        accepted(user, rules(claims)?)
    }
}

/// The rules that stand in these claims, or in a callout's answer; `None` if none do.
///
/// # Errors
/// They are not lists of topic filters.
pub(super) fn rules(claims: &Map<String, Value>) -> Result<Option<Rules>, &'static str> {
    const EXPECTED: &str = "publish or subscribe is not a list of topic filters";
    let mut rules = Rules::default();
    let mut any = false;
    for (name, permission) in [
        ("publish", Permission::Write),
        ("subscribe", Permission::Read),
    ] {
        let Some(list) = claims.get(name) else {
            continue;
        };
        any = true;
        for filter in list.as_array().ok_or(EXPECTED)? {
            let filter = filter.as_str().ok_or(EXPECTED)?;
            rules.add_topic(permission, filter).map_err(|_| EXPECTED)?;
        }
    }
    Ok(any.then_some(rules))
}

fn load_key(settings: &JwtSettings) -> Result<DecodingKey, String> {
    match settings.algorithm {
        JwtAlgorithm::Hs256 => {
            let secret = read_secret(&settings.keyfile)?;
            if secret.len() < MIN_SECRET_BYTES {
                return Err(format!(
                    "has {} bytes, expected a secret of {MIN_SECRET_BYTES} or more for HS256",
                    secret.len()
                ));
            }
            Ok(DecodingKey::from_secret(&secret))
        }
        JwtAlgorithm::Rs256 => {
            let der = public_key(&settings.keyfile)?;
            is_usable(
                &aws_lc_rs::signature::RSA_PKCS1_2048_8192_SHA256,
                &der,
                "RS256",
            )?;
            Ok(DecodingKey::from_rsa_der(&der))
        }
        JwtAlgorithm::Es256 => {
            let der = public_key(&settings.keyfile)?;
            is_usable(
                &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED,
                &der,
                "ES256",
            )?;
            Ok(DecodingKey::from_ec_der(&der))
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

/// Nothing of the keys.
impl std::fmt::Debug for Jwt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let settings = self.0.iter().map(|(settings, _)| settings);
        f.debug_list().entries(settings).finish()
    }
}
