//! Ids of sessions.

use std::fmt;

use super::{NameError, Project, StreamName, StreamPath, percent_decode};
use crate::limits::SESSION_ID_BYTES_MAX;

/// First segment of the paths of sessions' streams.
pub(super) const SESSION_SEGMENT: &str = "session";

/// A session within its project: 1 to [`SESSION_ID_BYTES_MAX`] of `a-z A-Z 0-9 _ - : .`, and not `.`
/// or `..`. It is chosen by clients.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(Box<str>);

impl SessionId {
    /// Reads an id.
    ///
    /// # Errors
    /// [`NameError::InvalidSession`].
    pub fn parse(text: &str) -> Result<SessionId, NameError> {
        let legal =
            |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b':' | b'.');
        let valid = (1..=SESSION_ID_BYTES_MAX).contains(&text.len())
            && text.bytes().all(legal)
            && !matches!(text, "." | "..");
        if valid { Ok(SessionId(text.into())) } else { Err(NameError::InvalidSession) }
    }

    /// Reads a segment of a URL path. Clients' libraries escape the colon, so escapes are decoded.
    ///
    /// # Errors
    /// [`NameError::InvalidSession`].
    pub(super) fn decode(segment: &str) -> Result<SessionId, NameError> {
        SessionId::parse(&percent_decode(segment).map_err(|_| NameError::InvalidSession)?)
    }

    /// The id.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Path of the session's stream: `session/{id}`.
    #[must_use]
    pub fn stream_path(&self) -> StreamPath {
        // No id holds a slash, so the path is legal.
        StreamPath(format!("{SESSION_SEGMENT}/{}", self.0).into())
    }

    /// The session's stream.
    #[must_use]
    pub fn stream(&self, project: &Project) -> StreamName {
        StreamName { project: project.clone(), path: self.stream_path() }
    }

    /// Name of the session's own object: `{project}/{id}`.
    #[must_use]
    pub fn object_name(&self, project: &Project) -> String {
        format!("{project}/{}", self.0)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
