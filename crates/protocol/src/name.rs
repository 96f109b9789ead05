//! Names of streams, and the URL paths in which they appear.
//!
//! ```text
//! /v1/{project}/stream/{path}      /v1/stream/{path}    (project `_default`)
//!     └ Project        └ StreamPath, percent-encoded
//! ```
//!
//! A path is decoded exactly once, here. A [`StreamName`] is the decoded form; everything behind
//! the edge names a stream by it and by nothing else.
//!
//! **Invariants.** Two URLs with equal names are the same stream. A path has no empty, `.` or `..`
//! segment, no control character and no backslash, in whatever spelling, so no other software can
//! read it as another path. A project holds no slash, so `{project}/{path}` is unambiguous.
//!
//! **Error semantics.** A URL that has the form of a stream's or a session's but a name that is not
//! allowed is a [`NameError`]; any other URL is [`Route::NotFound`]. References in headers have
//! [`ForkSourceError`], which tells another project apart.
//!
//! **What stays out.** Queries, methods, and who may use a name.

mod session;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use crate::limits::{
    PROJECT_BYTES_MAX, SESSION_ID_BYTES_MAX, STREAM_PATH_BYTES_MAX, URL_PATH_BYTES_MAX,
};
use crate::percent::{Decoded, decoded};
use session::SESSION_SEGMENT;
pub use session::SessionId;

/// The segment between a project and a stream's path.
const STREAM_SEGMENT: &str = "stream";
/// The project of URLs that name none.
const DEFAULT_PROJECT: &str = "_default";

/// A project: 1 to 64 ASCII letters, digits, `_` or `-`, and not `stream`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Project(Box<str>);

impl Project {
    /// Reads a segment of a URL path. No escape is decoded: no legal character needs one.
    ///
    /// # Errors
    /// [`NameError::InvalidProject`].
    pub fn parse(segment: &str) -> Result<Project, NameError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        let valid = (1..=PROJECT_BYTES_MAX).contains(&segment.len())
            && segment.bytes().all(legal)
            && segment != STREAM_SEGMENT;
        if valid { Ok(Project(segment.into())) } else { Err(NameError::InvalidProject) }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `_default`, the project of URLs that name none.
impl Default for Project {
    fn default() -> Project {
        Project(DEFAULT_PROJECT.into())
    }
}

impl fmt::Display for Project {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The decoded path of a stream within its project: 1 to [`STREAM_PATH_BYTES_MAX`] bytes of UTF-8,
/// segments joined by `/`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamPath(Box<str>);

impl StreamPath {
    /// Decodes the percent-encoded rest of a URL path behind the stream root.
    ///
    /// # Errors
    /// [`NameError`], see its variants.
    pub fn decode(encoded: &str) -> Result<StreamPath, NameError> {
        StreamPath::from_decoded(&percent_decode(encoded)?)
    }

    /// Checks a path that is already decoded, such as one from storage.
    ///
    /// # Errors
    /// [`NameError`], see its variants.
    pub fn from_decoded(path: &str) -> Result<StreamPath, NameError> {
        if path.is_empty() {
            return Err(NameError::PathEmpty);
        }
        if path.len() > STREAM_PATH_BYTES_MAX {
            return Err(NameError::PathTooLong);
        }
        if path.chars().any(char::is_control) {
            return Err(NameError::ControlCharacter);
        }
        if path.contains('\\') {
            return Err(NameError::Backslash);
        }
        for segment in path.split('/') {
            match segment {
                "" => return Err(NameError::EmptySegment),
                "." | ".." => return Err(NameError::DotSegment),
                _ => {}
            }
        }
        Ok(StreamPath(path.into()))
    }

    /// The decoded path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Which reserved segment the path begins with, if any.
    #[must_use]
    pub fn reserved(&self) -> Option<Reserved> {
        match self.0.split('/').next() {
            Some("__ds") => Some(Reserved::Subscriptions),
            Some(SESSION_SEGMENT) => Some(Reserved::Session),
            _ => None,
        }
    }
}

impl fmt::Display for StreamPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// First segments of paths that clients may not write to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reserved {
    /// `__ds`: subscriptions (PROTOCOL.md §6).
    Subscriptions,
    /// `session`: streams of sessions. GET and HEAD work as on any stream.
    Session,
}

/// A stream, named across the deployment.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName {
    /// The project that the stream belongs to.
    pub project: Project,
    /// Its path there.
    pub path: StreamPath,
}

impl StreamName {
    /// The name of the stream's object: `{project}/{path}`, at most 577 bytes.
    #[must_use]
    pub fn object_name(&self) -> String {
        format!("{}/{}", self.project, self.path)
    }

    /// Reads what [`StreamName::object_name`] wrote.
    ///
    /// # Errors
    /// [`NameError`] for anything else.
    pub fn parse_object_name(name: &str) -> Result<StreamName, NameError> {
        let (project, path) = name.split_once('/').ok_or(NameError::PathEmpty)?;
        Ok(StreamName { project: Project::parse(project)?, path: StreamPath::from_decoded(path)? })
    }

    /// The URL path of the stream, with its project and percent-encoded.
    #[must_use]
    pub fn url_path(&self) -> String {
        let mut url_path = format!("/v1/{}/{STREAM_SEGMENT}/", self.project);
        for byte in self.path.0.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                    url_path.push(char::from(byte));
                }
                _ => url_path.push_str(&format!("%{byte:02X}")),
            }
        }
        url_path
    }

    /// Reads the value of `Stream-Forked-From` (PROTOCOL.md §4.2): the URL path of a stream, in
    /// either form, percent-encoded as in a request. `within` is the project of the request.
    ///
    /// Full URLs, and paths relative to a stream root, are refused: each has an equal spelling as
    /// a URL path, and one stream should have few.
    ///
    /// # Errors
    /// [`ForkSourceError`], see its variants.
    pub fn parse_reference(value: &str, within: &Project) -> Result<StreamName, ForkSourceError> {
        match Route::parse(value).map_err(ForkSourceError::Name)? {
            Route::Stream { name, .. } if name.project == *within => Ok(name),
            Route::Stream { .. } => Err(ForkSourceError::OtherProject),
            _ => Err(ForkSourceError::NotAStream),
        }
    }
}

/// What a URL path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/health`.
    Health,
    /// A stream.
    Stream {
        /// Its name.
        name: StreamName,
        /// Whether clients may not write there, and why.
        reserved: Option<Reserved>,
    },
    /// A stream root without a path: `/v1/{project}/stream` or `/v1/stream`.
    ProjectRoot {
        /// The project.
        project: Project,
    },
    /// `/v1/{project}/reconcile`: the object store compared with the logs of a project.
    Reconcile {
        /// The project.
        project: Project,
    },
    /// `/v1/{project}/config`: the project's record in the registry.
    Config {
        /// The project.
        project: Project,
    },
    /// `/v1/{project}/config/secrets`: its signing secrets.
    Secrets {
        /// The project.
        project: Project,
    },
    /// `/v1/{project}/config/secrets/{id}`: one of them.
    Secret {
        /// The project.
        project: Project,
        /// What stands for the secret; unchecked.
        id: Box<str>,
    },
    /// `/v1/{project}/session/{session}`.
    Session {
        /// The project.
        project: Project,
        /// The session.
        session: SessionId,
    },
    /// `/v1/{project}/session/{session}/touch`.
    SessionTouch {
        /// The project.
        project: Project,
        /// The session.
        session: SessionId,
    },
    /// `/v1/{project}/subscribe`.
    Subscribe {
        /// The project.
        project: Project,
    },
    /// `/v1/{project}/subscribe/batch`.
    SubscribeBatch {
        /// The project.
        project: Project,
    },
    /// `/v1/{project}/unsubscribe`.
    Unsubscribe {
        /// The project.
        project: Project,
    },
    /// `/v1/{project}/publish/{path}`.
    Publish {
        /// The stream that is appended to.
        name: StreamName,
        /// Whether clients may not write there, and why.
        reserved: Option<Reserved>,
    },
    /// `/openapi.json`.
    OpenApi,
    /// Anything else.
    NotFound,
}

impl Route {
    /// Reads the path of a URL, still percent-encoded, without query and fragment.
    ///
    /// # Errors
    /// [`NameError`] when the path has the form of a resource of a project and its project, path or
    /// session is not allowed, or when it is longer than any stream's.
    pub fn parse(raw_path: &str) -> Result<Route, NameError> {
        if raw_path.len() > URL_PATH_BYTES_MAX {
            return Err(NameError::UrlTooLong);
        }
        let versioned = raw_path.strip_prefix("/v1/");
        match (raw_path, versioned.map(split_segment)) {
            ("/health", _) => return Ok(Route::Health),
            ("/openapi.json", _) => return Ok(Route::OpenApi),
            (_, Some((project, Some(rest)))) if project != STREAM_SEGMENT => {
                if let Some(route) = Route::parse_project(project, rest)? {
                    return Ok(route);
                }
            }
            _ => {}
        }
        let Some((project, encoded_path)) = versioned.and_then(split_root) else {
            return Ok(Route::NotFound);
        };
        let project = match project {
            Some(segment) => Project::parse(segment)?,
            None => Project::default(),
        };
        let Some(encoded_path) = encoded_path else {
            return Ok(Route::ProjectRoot { project });
        };
        let path = StreamPath::decode(encoded_path)?;
        let reserved = path.reserved();
        Ok(Route::Stream { name: StreamName { project, path }, reserved })
    }

    /// Reads what follows `/v1/{project}/`, if it names a resource of the project itself.
    fn parse_project(project: &str, rest: &str) -> Result<Option<Route>, NameError> {
        type Make = fn(Project) -> Route;
        let fixed: Option<Make> = match rest {
            "reconcile" => Some(|project| Route::Reconcile { project }),
            "config" => Some(|project| Route::Config { project }),
            "config/secrets" => Some(|project| Route::Secrets { project }),
            "subscribe" => Some(|project| Route::Subscribe { project }),
            "subscribe/batch" => Some(|project| Route::SubscribeBatch { project }),
            "unsubscribe" => Some(|project| Route::Unsubscribe { project }),
            _ => None,
        };
        if let Some(make) = fixed {
            return Ok(Some(make(Project::parse(project)?)));
        }
        if let Some(encoded_path) = rest.strip_prefix("publish/") {
            let project = Project::parse(project)?;
            let path = StreamPath::decode(encoded_path)?;
            let reserved = path.reserved();
            return Ok(Some(Route::Publish { name: StreamName { project, path }, reserved }));
        }
        if let Some((SESSION_SEGMENT, below)) = rest.split_once('/') {
            return Route::parse_session(project, below);
        }
        let secret = rest.strip_prefix("config/secrets/").filter(|id| !id.contains('/'));
        let Some(id) = secret else { return Ok(None) };
        Ok(Some(Route::Secret { project: Project::parse(project)?, id: id.into() }))
    }

    /// Reads what follows `/v1/{project}/session/`.
    fn parse_session(project: &str, below: &str) -> Result<Option<Route>, NameError> {
        let (session, touches) = match below.split_once('/') {
            None => (below, false),
            Some((session, "touch")) => (session, true),
            Some(_) => return Ok(None),
        };
        let (project, session) = (Project::parse(project)?, SessionId::decode(session)?);
        Ok(Some(if touches {
            Route::SessionTouch { project, session }
        } else {
            Route::Session { project, session }
        }))
    }

    /// Path of the stream that the URL names: of its own, or of a session's.
    #[must_use]
    pub fn stream_path(&self) -> Option<Cow<'_, StreamPath>> {
        match self {
            Route::Stream { name, .. } | Route::Publish { name, .. } => {
                Some(Cow::Borrowed(&name.path))
            }
            Route::Session { session, .. } | Route::SessionTouch { session, .. } => {
                Some(Cow::Owned(session.stream_path()))
            }
            _ => None,
        }
    }

    /// The project that the path names, if it names one.
    #[must_use]
    pub fn project(&self) -> Option<&Project> {
        match self {
            Route::Stream { name, .. } | Route::Publish { name, .. } => Some(&name.project),
            Route::ProjectRoot { project }
            | Route::Reconcile { project }
            | Route::Config { project }
            | Route::Secrets { project }
            | Route::Secret { project, .. }
            | Route::Session { project, .. }
            | Route::SessionTouch { project, .. }
            | Route::Subscribe { project }
            | Route::SubscribeBatch { project }
            | Route::Unsubscribe { project } => Some(project),
            Route::Health | Route::OpenApi | Route::NotFound => None,
        }
    }
}

/// Why a name is not allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NameError {
    /// The URL path is longer than [`URL_PATH_BYTES_MAX`].
    UrlTooLong,
    /// The project is no [`Project`].
    InvalidProject,
    /// The session is no [`SessionId`].
    InvalidSession,
    /// Nothing stands behind the stream root.
    PathEmpty,
    /// The decoded path is longer than [`STREAM_PATH_BYTES_MAX`].
    PathTooLong,
    /// A `%` without two hexadecimal digits behind it.
    InvalidEscape,
    /// A character that a URL path cannot hold as it is: outside ASCII, `?` or `#`.
    Unencoded,
    /// The decoded path is not UTF-8.
    NotUtf8,
    /// The decoded path holds a control character.
    ControlCharacter,
    /// The decoded path holds a backslash.
    Backslash,
    /// A slash is percent-encoded.
    EncodedSlash,
    /// Two slashes in a row, or one at the begin or end.
    EmptySegment,
    /// A segment is `.` or `..`.
    DotSegment,
}

impl fmt::Display for NameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UrlTooLong => {
                write!(f, "the URL path is longer than {URL_PATH_BYTES_MAX} bytes")
            }
            Self::InvalidProject => write!(
                f,
                "the project is not 1 to {PROJECT_BYTES_MAX} letters, digits, `_` or `-`, \
                 or it is `{STREAM_SEGMENT}`"
            ),
            Self::InvalidSession => write!(
                f,
                "the session is not 1 to {SESSION_ID_BYTES_MAX} letters, digits, `_`, `-`, `:` or \
                 `.`, or it is `.` or `..`"
            ),
            Self::PathEmpty => f.write_str("the stream's path is empty"),
            Self::PathTooLong => {
                write!(f, "the stream's path is longer than {STREAM_PATH_BYTES_MAX} bytes")
            }
            Self::InvalidEscape => {
                f.write_str("the stream's path has a `%` without two hexadecimal digits")
            }
            Self::Unencoded => {
                f.write_str("the stream's path has a character that must be percent-encoded")
            }
            Self::NotUtf8 => f.write_str("the stream's path is not UTF-8"),
            Self::ControlCharacter => f.write_str("the stream's path has a control character"),
            Self::Backslash => f.write_str("the stream's path has a backslash"),
            Self::EncodedSlash => f.write_str("the stream's path has an encoded slash"),
            Self::EmptySegment => f.write_str("the stream's path has an empty segment"),
            Self::DotSegment => f.write_str("the stream's path has a `.` or `..` segment"),
        }
    }
}

impl std::error::Error for NameError {}

/// Why a reference to another stream cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForkSourceError {
    /// The value is not the URL path of a stream.
    NotAStream,
    /// The value has the form of one, with a name that is not allowed.
    Name(NameError),
    /// The stream belongs to another project; for the caller it does not exist.
    OtherProject,
}

impl fmt::Display for ForkSourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAStream => f.write_str("the value is not the URL path of a stream"),
            Self::Name(error) => error.fmt(f),
            Self::OtherProject => f.write_str("the stream belongs to another project"),
        }
    }
}

impl std::error::Error for ForkSourceError {}

/// Splits what follows `/v1/` into a project segment and the path behind the stream root, each
/// `None` where it is left out. `None`: no stream root.
fn split_root(rest: &str) -> Option<(Option<&str>, Option<&str>)> {
    let (first, behind_first) = split_segment(rest);
    if first == STREAM_SEGMENT {
        return Some((None, behind_first));
    }
    let (second, behind_second) = split_segment(behind_first?);
    (second == STREAM_SEGMENT).then_some((Some(first), behind_second))
}

/// The text before the first slash, and the text behind it if there is a slash.
fn split_segment(path: &str) -> (&str, Option<&str>) {
    match path.split_once('/') {
        Some((segment, rest)) => (segment, Some(rest)),
        None => (path, None),
    }
}

/// Decodes each `%XX` once, except `%2F`, which is refused.
fn percent_decode(encoded: &str) -> Result<String, NameError> {
    let bytes = decoded(encoded).map(|decoded| match decoded {
        None => Err(NameError::InvalidEscape),
        Some(Decoded { byte: b'/', escaped: true }) => Err(NameError::EncodedSlash),
        Some(Decoded { byte: b'?' | b'#' | 0x80.., escaped: false }) => Err(NameError::Unencoded),
        Some(Decoded { byte, .. }) => Ok(byte),
    });
    String::from_utf8(bytes.collect::<Result<_, _>>()?).map_err(|_| NameError::NotUtf8)
}
