//! Projects: what the registry keeps of each, and the bodies of the admin API.
//!
//! ```json
//! {"signingSecrets":["…"],"corsOrigins":["https://*.example.com"],"isPublic":false}
//! ```
//!
//! A project has one to [`SECRETS_MAX`] secrets that sign its tokens. A secret is rotated by adding
//! the next one, waiting until tokens of the old one have ended, and removing that.
//!
//! **Invariants.** A record that was read has at least one secret, and [`ProjectRecord`]'s methods
//! keep it so. No view holds a secret, and neither does `Debug`.
//!
//! **Error semantics.** [`parse_body`](crate::body::parse_body) answers `INVALID_BODY` with a sentence that names the field
//! and never its value, since that may be a secret. A record from storage is read with it too; what
//! a bad one means is the caller's matter.
//!
//! **What stays out.** Where records are kept and for how long they are cached.

mod origins;
#[cfg(test)]
mod tests;

use std::fmt;

use garde::Validate;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::limits::{SECRET_BYTES_MAX, SECRET_BYTES_MIN, SECRETS_MAX};
use crate::name::Project;

pub use origins::AllowedOrigins;

/// A signing secret: [`SECRET_BYTES_MIN`] to [`SECRET_BYTES_MAX`] visible ASCII characters.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(description = "A signing secret: visible ASCII."))]
#[serde(transparent)]
#[garde(transparent)]
pub struct Secret(
    #[garde(custom(check_secret))]
    #[cfg_attr(feature = "schema", schemars(
        length(min = SECRET_BYTES_MIN, max = SECRET_BYTES_MAX),
        regex(pattern = "^[!-~]+$")
    ))]
    String,
);

impl Secret {
    /// A secret of this text; `None` when its length or a character is not allowed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Secret> {
        let secret = Secret(text.to_owned());
        secret.validate().is_ok().then_some(secret)
    }

    /// What names the secret in URLs and views: the first 16 hexadecimal digits of its SHA-256.
    #[must_use]
    pub fn id(&self) -> String {
        let digest = Sha256::digest(self.0.as_bytes());
        digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// The bytes that sign.
impl AsRef<[u8]> for Secret {
    fn as_ref(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

/// Its id: a secret in a log is no secret any more.
impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.id())
    }
}

/// A project, as the registry keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProjectRecord {
    /// What its tokens may be signed with; the newest last.
    #[garde(length(min = 1, max = SECRETS_MAX), dive)]
    pub signing_secrets: Vec<Secret>,
    /// Pages of which origins may call.
    #[garde(dive)]
    pub cors_origins: AllowedOrigins,
    /// Whether everybody may read its streams without a token.
    #[garde(skip)]
    pub is_public: bool,
}

impl ProjectRecord {
    /// Adds `secret` and answers `true`; `false` when it is there already.
    ///
    /// # Errors
    /// [`TooManySecrets`]; the record is as before.
    pub fn add_secret(&mut self, secret: Secret) -> Result<bool, TooManySecrets> {
        if self.signing_secrets.contains(&secret) {
            return Ok(false);
        }
        if self.signing_secrets.len() >= SECRETS_MAX {
            return Err(TooManySecrets);
        }
        self.signing_secrets.push(secret);
        Ok(true)
    }

    /// Removes the secret with this id, unless it is the last one.
    pub fn remove_secret(&mut self, id: &str) -> Removal {
        if !self.signing_secrets.iter().any(|secret| secret.id() == id) {
            return Removal::NotFound;
        }
        if self.signing_secrets.len() == 1 {
            return Removal::Last;
        }
        self.signing_secrets.retain(|secret| secret.id() != id);
        Removal::Removed
    }

    /// What an answer may show of it.
    #[must_use]
    pub fn view(&self, project: &Project) -> ProjectView {
        ProjectView {
            project: project.as_str().to_owned(),
            cors_origins: self.cors_origins.clone(),
            is_public: self.is_public,
            secrets: self.signing_secrets.iter().map(SecretView::of).collect(),
        }
    }
}

/// The project has [`SECRETS_MAX`] secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooManySecrets;

impl fmt::Display for TooManySecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the project has {SECRETS_MAX} secrets, and no more are allowed")
    }
}

impl std::error::Error for TooManySecrets {}

/// What became of [`ProjectRecord::remove_secret`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Removal {
    /// It is gone.
    Removed,
    /// The project has no secret with this id.
    NotFound,
    /// It is the only one. Without it nobody could sign a token; nothing was removed.
    Last,
}

/// Body of a request that creates a project.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Validate)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateProject {
    /// Its first secret.
    #[garde(dive)]
    pub signing_secret: Secret,
    /// Pages of which origins may call; by default none.
    #[serde(default)]
    #[garde(dive)]
    pub cors_origins: AllowedOrigins,
    /// Whether everybody may read; by default not.
    #[serde(default)]
    #[garde(skip)]
    pub is_public: bool,
}

impl From<CreateProject> for ProjectRecord {
    fn from(create: CreateProject) -> ProjectRecord {
        ProjectRecord {
            signing_secrets: vec![create.signing_secret],
            cors_origins: create.cors_origins,
            is_public: create.is_public,
        }
    }
}

/// Body of a request that changes a project. What is absent stays as it is.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Validate)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(feature = "schema", schemars(extend("minProperties" = 1)))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeProject {
    /// The origins from now on, all of them.
    #[garde(dive)]
    pub cors_origins: Option<AllowedOrigins>,
    /// Whether everybody may read from now on.
    #[garde(custom(check_change(self.cors_origins.is_some())))]
    pub is_public: Option<bool>,
}

impl ChangeProject {
    /// Changes `record`.
    pub fn apply(self, record: &mut ProjectRecord) {
        if let Some(origins) = self.cors_origins {
            record.cors_origins = origins;
        }
        record.is_public = self.is_public.unwrap_or(record.is_public);
    }
}

/// Body of a request that adds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Validate)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AddSecret {
    /// The secret.
    #[garde(dive)]
    pub signing_secret: Secret,
}

/// A project, as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ProjectView {
    /// Its name.
    pub project: String,
    /// Pages of which origins may call.
    pub cors_origins: AllowedOrigins,
    /// Whether everybody may read.
    pub is_public: bool,
    /// Its secrets, by name.
    pub secrets: Vec<SecretView>,
}

/// A secret, as an answer shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SecretView {
    /// The first 16 hexadecimal digits of its SHA-256.
    pub id: String,
}

impl SecretView {
    /// The view of `secret`.
    #[must_use]
    pub fn of(secret: &Secret) -> SecretView {
        SecretView { id: secret.id() }
    }
}

fn check_secret(text: &str, (): &()) -> garde::Result {
    let is_valid = (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    let problem = format!("not {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} visible ASCII characters");
    if is_valid { Ok(()) } else { Err(garde::Error::new(problem)) }
}

fn check_change(has_origins: bool) -> impl FnOnce(&Option<bool>, &()) -> garde::Result {
    move |is_public, ()| {
        if has_origins || is_public.is_some() {
            return Ok(());
        }
        Err(garde::Error::new("missing, and so is every other field"))
    }
}
