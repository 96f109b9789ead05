//! Who may do what: the one place where a request is admitted or refused.
//!
//! Every stream that a request names is looked at here, the source of a fork among them; but those
//! that stand in a body only whoever reads that can look at, with [`Caller::permits`]. What a
//! stream's own flag decides (`Stream-Public`) the object says: the edge only marks the request as
//! anonymous.
//!
//! # Error semantics
//! 401 `UNAUTHORIZED` when there is no valid token, or no such project; 403 `FORBIDDEN` when the
//! token is valid and does not reach that far. A bad token is never treated as no token. A header
//! that names a stream and cannot be read is left to its parser behind the gate, which refuses it.

use protocol::error::{ApiError, ErrorCode};
use protocol::limits::TOKEN_LEEWAY_MS;
use protocol::name::{Project, StreamName, StreamPath};
use protocol::percent::decode_value;
use protocol::registry::ProjectRecord;
use protocol::routes::{Access, Operation};
use protocol::time::UnixMillis;
use protocol::token::{Claims, Denied, Scope, StreamPattern, constant_time_eq, verify};
use protocol::ws::offered_token;

use super::audience::Audience;
use super::exchange::Preamble;
use crate::config::{AdminToken, Auth, Config};
use crate::respond::{Failure, sentence};

/// How long what was found out about a caller holds for a connection: then secrets and public flags
/// are looked at anew.
const JUDGED_MS: u64 = 3_600_000;

/// What an admitted caller may do with the stream that it named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// How the stream's object is to treat it.
    pub(crate) audience: Audience,
    /// Whether appends over its socket are taken.
    pub(crate) can_write: bool,
    /// Whether what it reads is for everybody.
    pub(crate) is_public: bool,
    /// Until when a connection may live before its caller is asked again who it is.
    pub(crate) until: Option<UnixMillis>,
    /// What stands for its token where it is counted: never the token.
    pub(crate) token_id: Option<String>,
    /// The streams that its token covers; `None`: all of the project.
    streams: Option<StreamPattern>,
}

impl Caller {
    /// Everybody, where nobody is asked for a token.
    pub(crate) const EVERYBODY: Self = Self::with(Audience::Authorised, true);

    /// Somebody without a token, who reads what is public.
    fn anonymous(audience: Audience, now: UnixMillis) -> Self {
        Self { until: Some(now.saturating_add_ms(JUDGED_MS)), ..Self::with(audience, false) }
    }

    /// Whether its token covers a stream that is named in the request's body, which the gate has not
    /// seen.
    ///
    /// # Errors
    /// `FORBIDDEN`.
    pub fn permits(&self, stream: &StreamPath) -> Result<(), Failure> {
        match &self.streams {
            Some(pattern) if !pattern.matches(stream) => Err(forbidden(&sentence(Denied::Stream))),
            _ => Ok(()),
        }
    }

    /// Whether it has shown no token where one could be asked for.
    pub(crate) fn is_anonymous(&self) -> bool {
        self.until.is_some() && self.token_id.is_none()
    }

    const fn with(audience: Audience, can_write: bool) -> Self {
        Self { audience, can_write, is_public: true, until: None, token_id: None, streams: None }
    }
}

/// What is asked for.
pub(crate) struct Question<'a> {
    pub(crate) operation: Operation,
    pub(crate) project: Option<&'a Project>,
    pub(crate) stream: Option<&'a StreamPath>,
}

/// Admits a request, or says why not. `record`: what the registry knows of the project.
pub(crate) fn admit(
    question: &Question<'_>,
    preamble: &Preamble,
    config: &Config,
    record: Option<&ProjectRecord>,
    now: UnixMillis,
) -> Result<Caller, Failure> {
    let access = question.operation.access();
    let project = match question.project {
        Some(project) if config.auth == Auth::Jwt && access != Access::Open => project,
        _ => return Ok(Caller::EVERYBODY),
    };
    let token = token_of(preamble, question.operation)?;
    let for_admins = matches!(access, Access::Config | Access::Admin);
    if for_admins && is_admin(token.as_deref(), config.admin_token.as_ref()) {
        return Ok(Caller::EVERYBODY);
    }
    let record = record.ok_or_else(|| unauthorized("There is no such project."))?;
    let Some(token) = token else {
        return match access {
            Access::Read if record.is_public => Ok(Caller::anonymous(Audience::Authorised, now)),
            Access::Read => Ok(Caller::anonymous(Audience::Anonymous, now)),
            _ => Err(unauthorized("This request needs a token.")),
        };
    };
    let claims = verify(&token, &record.signing_secrets, now)
        .map_err(|error| unauthorized(&sentence(error)))?;
    covers(question, project, &claims)?;
    check_source(preamble, question, project, &claims)?;
    // As long as the gate takes the token, and no longer.
    let expires = claims.expires.saturating_add_ms(TOKEN_LEEWAY_MS);
    Ok(Caller {
        audience: Audience::Authorised,
        can_write: claims.scope >= Scope::Write,
        is_public: record.is_public,
        until: Some(expires.min(now.saturating_add_ms(JUDGED_MS))),
        token_id: Some(token_id(&token)),
        streams: claims.streams,
    })
}

/// Whether valid claims reach as far as the question.
fn covers(question: &Question<'_>, project: &Project, claims: &Claims) -> Result<(), Failure> {
    let needed = match question.operation.access() {
        Access::Open => return Ok(()),
        Access::Read | Access::Token => Scope::Read,
        Access::Write => Scope::Write,
        Access::Manage | Access::Config => Scope::Manage,
        Access::Admin => return Err(forbidden("This takes the deployment's admin token.")),
    };
    let permitted = if question.operation.names_streams_in_body() {
        claims.permit_some(project, needed)
    } else {
        claims.permit(project, question.stream, needed)
    };
    permitted.map_err(|denied| forbidden(&sentence(denied)))
}

/// Whether the claims also cover the source of a fork. A source in another project does not exist
/// for the caller, and one that cannot be read is malformed: both are for the stream to say.
fn check_source(
    preamble: &Preamble,
    question: &Question<'_>,
    project: &Project,
    claims: &Claims,
) -> Result<(), Failure> {
    let (Operation::CreateStream, Some(pattern)) = (question.operation, &claims.streams) else {
        return Ok(());
    };
    let Some(source) = &preamble.forked_from else { return Ok(()) };
    match StreamName::parse_reference(source, project) {
        Ok(source) if !pattern.matches(&source.path) => {
            Err(forbidden("The token does not cover the stream to fork."))
        }
        _ => Ok(()),
    }
}

fn is_admin(token: Option<&str>, admin_token: Option<&AdminToken>) -> bool {
    match (token, admin_token) {
        (Some(token), Some(admin)) => constant_time_eq(token.as_bytes(), admin.0.as_bytes()),
        _ => false,
    }
}

/// The token of a request: of its `Authorization`, or, for reads by browsers, which cannot set
/// headers on event streams and sockets, of its query or its subprotocols.
fn token_of(preamble: &Preamble, operation: Operation) -> Result<Option<String>, Failure> {
    if operation != Operation::ReadStream && query_tokens(preamble.query()).next().is_some() {
        let message = "A token in the query is for GET of a stream; send `Authorization`.";
        return Err(unauthorized(message));
    }
    if let Some(value) = &preamble.authorization {
        let (scheme, token) = value.split_once(' ').unwrap_or((value, ""));
        let token = token.trim();
        if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
            return Err(unauthorized("`Authorization` is not `Bearer` and a token."));
        }
        return Ok(Some(token.to_owned()));
    }
    let mut tokens = query_tokens(preamble.query());
    if operation != Operation::ReadStream {
        return Ok(None);
    }
    if let Some(token) = tokens.next() {
        // Of two, one could be somebody else's: nobody guesses which one counts.
        return match token.filter(|token| !token.is_empty() && tokens.next().is_none()) {
            Some(token) => Ok(Some(token)),
            None => Err(unauthorized("The query parameter `token` holds no token, or several.")),
        };
    }
    match preamble.subprotocols.as_deref().and_then(offered_token) {
        Some("") => Err(unauthorized("The subprotocol `bearer.` holds no token.")),
        token => Ok(token.map(str::to_owned)),
    }
}

/// Every `token` of a query; `None` stands for one that cannot be decoded.
fn query_tokens(query: &str) -> impl Iterator<Item = Option<String>> {
    query.split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode_value(key).as_deref() == Some("token")).then(|| decode_value(value))
    })
}

/// A query without its tokens, whatever their spelling.
pub(crate) fn without_tokens(query: &str) -> String {
    let is_token = |pair: &&str| {
        let key = pair.split('=').next().unwrap_or_default();
        decode_value(key).as_deref() == Some("token")
    };
    query.split('&').filter(|pair| !is_token(pair)).collect::<Vec<_>>().join("&")
}

/// The begin of a token's signature: enough to tell tokens apart, not enough to use one.
fn token_id(token: &str) -> String {
    const CHARACTERS: usize = 16;
    token.rsplit('.').next().unwrap_or_default().chars().take(CHARACTERS).collect()
}

fn unauthorized(message: &str) -> Failure {
    Failure::from(ApiError::new(ErrorCode::Unauthorized, message))
        .header(protocol::headers::name::WWW_AUTHENTICATE, "Bearer")
}

fn forbidden(message: &str) -> Failure {
    Failure::new(ErrorCode::Forbidden, message)
}
