//! What `GET /health` answers.

use serde::{Deserialize, Serialize};

/// That the service runs, and which one it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// `durable-streams`.
    pub name: String,
    /// The version of the code.
    pub version: String,
}

impl Health {
    /// This code's.
    #[must_use]
    pub fn here() -> Health {
        Health { name: "durable-streams".into(), version: env!("CARGO_PKG_VERSION").into() }
    }
}
