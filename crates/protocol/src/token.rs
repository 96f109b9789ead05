//! Tokens: who may do what with which streams of a project, until when.
//!
//! A token is a JWT (RFC 7519) in the compact form of RFC 7515, signed with HS256 and with nothing
//! else. Its claims:
//!
//! | claim | meaning |
//! |---|---|
//! | `sub` | the project |
//! | `scope` | `read`, `write` or `manage`, or several with spaces between; the highest counts |
//! | `exp` | end, in seconds since 1970; required |
//! | `nbf` | begin, likewise; optional |
//! | `stream_id` | a path, or a [`StreamPattern`]; without it, every stream of the project |
//!
//! Other claims are ignored.
//!
//! **Invariants.** [`verify`] looks at no claim before the signature is right. The header does not
//! choose the algorithm: it has to name the only one. Every secret is tried, so the time that it
//! takes does not tell which one fits.
//!
//! **Error semantics.** [`TokenError`] says what is wrong in one clause, and never holds any part
//! of the token. [`Denied`] is about a good token that does not reach far enough.
//!
//! **What stays out.** Where a token comes from in a request, and where secrets are kept.

mod pattern;
#[cfg(test)]
mod tests;

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny};
use serde_json::Number;
use sha2::Sha256;

use crate::limits::{SAFE_INTEGER_MAX, TOKEN_BYTES_MAX, TOKEN_LEEWAY_MS};
use crate::name::{Project, StreamPath};
use crate::time::UnixMillis;

pub use pattern::{InvalidPattern, StreamPattern};

/// The only algorithm, as a header names it.
const ALGORITHM: &str = "HS256";

/// What a token allows; each scope includes the ones before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Read and follow streams.
    Read,
    /// Create, append, close and delete as well.
    Write,
    /// Whatever is for operators of the project, as well.
    Manage,
}

impl Scope {
    /// The word in a claim.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Read => "read",
            Scope::Write => "write",
            Scope::Manage => "manage",
        }
    }

    /// The highest known scope of a list with spaces between; `None` when there is none. Unknown
    /// words are somebody else's.
    #[must_use]
    pub fn parse_list(text: &str) -> Option<Scope> {
        let known = |word: &str| {
            [Scope::Read, Scope::Write, Scope::Manage].into_iter().find(|s| s.as_str() == word)
        };
        text.split(' ').filter_map(known).max()
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Claim `sub`: the project that it is for.
    pub project: Project,
    /// Claim `scope`: how much it allows.
    pub scope: Scope,
    /// Claim `exp`: from then on it is worth nothing, apart from the leeway.
    pub expires: UnixMillis,
    /// Claim `nbf`: before, it is worth nothing, apart from the leeway.
    pub not_before: Option<UnixMillis>,
    /// Claim `stream_id`: the streams that it covers; `None`: all of the project.
    pub streams: Option<StreamPattern>,
}

impl Claims {
    /// Whether the token reaches `path` in `project` with `needed`. `path` is `None` for what
    /// belongs to the project as a whole: a token for some streams does not reach that.
    ///
    /// # Errors
    /// The first of project, scope and stream that does not fit.
    pub fn permit(
        &self,
        project: &Project,
        path: Option<&StreamPath>,
        needed: Scope,
    ) -> Result<(), Denied> {
        self.permit_some(project, needed)?;
        let is_covered = match (&self.streams, path) {
            (None, _) => true,
            (Some(pattern), Some(path)) => pattern.matches(path),
            (Some(_), None) => false,
        };
        if is_covered { Ok(()) } else { Err(Denied::Stream) }
    }

    /// Whether the token reaches anything at all in `project` with `needed`: for requests whose
    /// streams stand in the body, and are looked at when that is read.
    ///
    /// # Errors
    /// The first of project and scope that does not fit.
    pub fn permit_some(&self, project: &Project, needed: Scope) -> Result<(), Denied> {
        if self.project != *project {
            return Err(Denied::Project);
        }
        if self.scope < needed {
            return Err(Denied::Scope(needed));
        }
        Ok(())
    }
}

/// Why a good token does not allow a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Denied {
    /// It is for another project.
    Project,
    /// Its scope is below the one that is needed.
    Scope(Scope),
    /// It does not cover the stream.
    Stream,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Project => f.write_str("the token is for another project"),
            Self::Scope(needed) => write!(f, "the token lacks the scope `{needed}`"),
            Self::Stream => f.write_str("the token does not cover this stream"),
        }
    }
}

impl std::error::Error for Denied {}

/// Why a token is worth nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TokenError {
    /// Too long, not three parts of base64url, or not JSON of the expected types.
    Malformed,
    /// The header names another algorithm than HS256, another type, or a critical extension.
    Algorithm,
    /// No secret fits.
    Signature,
    /// `exp` has passed.
    Expired,
    /// `nbf` has not come yet.
    NotYetValid,
    /// A claim is missing or means nothing here; the clause says which.
    Claims(&'static str),
}

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Malformed => "the token is malformed",
            Self::Algorithm => "the token's header does not name HS256, or demands more",
            Self::Signature => "the token's signature is wrong",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::Claims(clause) => clause,
        })
    }
}

impl std::error::Error for TokenError {}

/// Checks `token` against each of `secrets`, and against the clock.
///
/// # Errors
/// [`TokenError`], see its variants. Whoever has no secret learns nothing about claims.
pub fn verify<S: AsRef<[u8]>>(
    token: &str,
    secrets: &[S],
    now: UnixMillis,
) -> Result<Claims, TokenError> {
    let signed = verify_signature(token, secrets)?;
    let claims = parse_claims(&signed)?;
    if claims.expires.saturating_add_ms(TOKEN_LEEWAY_MS) <= now {
        return Err(TokenError::Expired);
    }
    if claims.not_before.is_some_and(|begin| now.saturating_add_ms(TOKEN_LEEWAY_MS) < begin) {
        return Err(TokenError::NotYetValid);
    }
    Ok(claims)
}

/// A token with these claims: for our own tools and tests.
#[must_use]
pub fn sign(claims: &Claims, secret: &[u8]) -> String {
    let header = serde_json::json!({ "alg": ALGORITHM, "typ": "JWT" });
    let mut payload = serde_json::json!({
        "sub": claims.project.as_str(),
        "scope": claims.scope.as_str(),
        "exp": seconds(claims.expires),
    });
    if let Some(object) = payload.as_object_mut() {
        object.extend(claims.not_before.map(|at| ("nbf".to_owned(), seconds(at).into())));
        let streams = claims.streams.as_ref();
        object.extend(streams.map(|pattern| ("stream_id".to_owned(), pattern.as_str().into())));
    }
    sign_parts(&header.to_string(), &payload.to_string(), secret)
}

/// A rightly signed token of any header and payload: tests and fuzzing get past the signature.
pub(crate) fn sign_parts(header: &str, payload: &str, secret: &[u8]) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload));
    let tag = mac(secret, message.as_bytes()).finalize().into_bytes();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag))
}

/// Whether two secrets are equal. The time that it takes tells nothing about `expected`: not how
/// much of it is right, nor how long it is.
#[must_use]
pub fn constant_time_eq(given: &[u8], expected: &[u8]) -> bool {
    // Tags have one length whatever was hashed, and `verify_slice` compares them in constant time.
    const KEY: &[u8] = b"durable-streams";
    let tag = mac(KEY, given).finalize().into_bytes();
    mac(KEY, expected).verify_slice(&tag).is_ok()
}

/// The payload of `token`, decoded, when its header and its signature are right.
fn verify_signature<S: AsRef<[u8]>>(token: &str, secrets: &[S]) -> Result<Vec<u8>, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Malformed);
    }
    let (message, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
    let (header, payload) = message.split_once('.').ok_or(TokenError::Malformed)?;
    if [header, payload, signature].iter().any(|part| part.is_empty()) {
        return Err(TokenError::Malformed);
    }
    let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Malformed);
    // A fourth part leaves a dot in the payload, which base64url has not.
    let (header, payload, signature) = (decoded(header)?, decoded(payload)?, decoded(signature)?);
    check_header(&header)?;
    let fits =
        |secret: &S| mac(secret.as_ref(), message.as_bytes()).verify_slice(&signature).is_ok();
    // `|` and not `any`: the last secret is tried like the first.
    if secrets.iter().fold(false, |found, secret| found | fits(secret)) {
        Ok(payload)
    } else {
        Err(TokenError::Signature)
    }
}

/// HMAC-SHA256 of `message`, not yet finished.
fn mac(secret: &[u8], message: &[u8]) -> Hmac<Sha256> {
    let mut mac = match Hmac::<Sha256>::new_from_slice(secret) {
        Ok(mac) => mac,
        // HMAC takes keys of any length (RFC 2104), so this is never reached.
        Err(_) => Hmac::<Sha256>::new(&Default::default()),
    };
    mac.update(message);
    mac
}

/// The protected header (RFC 7515 §4.1).
#[derive(Deserialize)]
struct Header {
    #[serde(default, deserialize_with = "present")]
    alg: Option<String>,
    #[serde(default, deserialize_with = "present")]
    typ: Option<String>,
    /// Extensions that must be understood; there are none that we do.
    #[serde(default, deserialize_with = "present")]
    crit: Option<IgnoredAny>,
}

fn check_header(header: &[u8]) -> Result<(), TokenError> {
    let header: Header = parse_object(header)?;
    let is_jwt = header.typ.is_none_or(|typ| typ.eq_ignore_ascii_case("JWT"));
    if header.alg.as_deref() == Some(ALGORITHM) && is_jwt && header.crit.is_none() {
        Ok(())
    } else {
        Err(TokenError::Algorithm)
    }
}

/// The claims as they stand in a token; duplicates are refused by serde.
#[derive(Deserialize)]
struct Payload {
    #[serde(default, deserialize_with = "present")]
    sub: Option<String>,
    #[serde(default, deserialize_with = "present")]
    scope: Option<String>,
    #[serde(default, deserialize_with = "present")]
    exp: Option<Number>,
    #[serde(default, deserialize_with = "present")]
    nbf: Option<Number>,
    #[serde(default, deserialize_with = "present")]
    stream_id: Option<String>,
}

/// Reads a JSON object. Serde by itself would take an array of the fields' values as well.
fn parse_object<'a, T: Deserialize<'a>>(json: &'a [u8]) -> Result<T, TokenError> {
    if !json.trim_ascii_start().starts_with(b"{") {
        return Err(TokenError::Malformed);
    }
    serde_json::from_slice(json).map_err(|_| TokenError::Malformed)
}

/// A field that stands there has a value: `null` would else read as a claim that is left out, and
/// a token without `stream_id` covers every stream.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<T>, D::Error> {
    T::deserialize(from).map(Some)
}

fn parse_claims(payload: &[u8]) -> Result<Claims, TokenError> {
    let payload: Payload = parse_object(payload)?;
    let sub = payload.sub.ok_or(TokenError::Claims("the token has no `sub`"))?;
    let scope = payload.scope.ok_or(TokenError::Claims("the token has no `scope`"))?;
    let exp = payload.exp.ok_or(TokenError::Claims("the token has no `exp`"))?;
    let pattern = |text: String| {
        let error = TokenError::Claims("the token's `stream_id` is empty or too long");
        StreamPattern::parse(&text).map_err(|_| error)
    };
    Ok(Claims {
        project: Project::parse(&sub)
            .map_err(|_| TokenError::Claims("the token's `sub` is no project"))?,
        scope: Scope::parse_list(&scope)
            .ok_or(TokenError::Claims("the token's `scope` has no known word"))?,
        expires: millis(&exp)?,
        not_before: payload.nbf.as_ref().map(millis).transpose()?,
        streams: payload.stream_id.map(pattern).transpose()?,
    })
}

/// A `NumericDate` (RFC 7519 §2): seconds, possibly with a fraction, rounded to milliseconds.
fn millis(seconds: &Number) -> Result<UnixMillis, TokenError> {
    if let Some(seconds) = seconds.as_u64() {
        return Ok(UnixMillis(seconds.saturating_mul(1000)));
    }
    match seconds.as_f64() {
        // The cast saturates.
        Some(seconds) if seconds.is_finite() && seconds >= 0.0 => {
            Ok(UnixMillis((seconds * 1000.0).round() as u64))
        }
        _ => Err(TokenError::Malformed),
    }
}

/// A `NumericDate`, with a fraction only where it needs one.
fn seconds(at: UnixMillis) -> Number {
    let fraction = if at.0 > SAFE_INTEGER_MAX { 0 } else { at.0 % 1000 };
    let exact = Number::from(at.0 / 1000);
    if fraction == 0 {
        return exact;
    }
    Number::from_f64(at.0 as f64 / 1000.0).unwrap_or(exact)
}
