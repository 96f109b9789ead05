//! CORS (Fetch standard): which origin may read an answer, and the answer to a preflight.
//!
//! Allowed are the origins of the deployment (`CORS_ORIGINS`) and those of the project. Where every
//! origin is allowed by the deployment, each answer says so by itself and does not depend on who
//! asks; elsewhere it is said to who asks, with `Vary: Origin`. A foreign origin gets no CORS header.

use protocol::headers::name;
use protocol::registry::AllowedOrigins;

use crate::config::Config;
use crate::respond::Reply;

/// Request headers that a preflight allows.
const ALLOWED_HEADERS: &str = "content-type, authorization, if-none-match, stream-seq, stream-ttl, \
    stream-expires-at, stream-closed, stream-public, stream-forked-from, stream-fork-offset, \
    stream-fork-sub-offset, stream-timing, producer-id, producer-epoch, producer-seq, traceparent, \
    tracestate, baggage";

/// Seconds for which a preflight's answer holds: the longest that browsers keep one.
const PREFLIGHT_SECONDS: &str = "86400";

/// What CORS adds to an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Cors {
    /// Nothing: the answer already allows every origin.
    Open,
    /// This origin, or every one, may read the answer.
    Allowed(String),
    /// No origin asks: no browser needs to be told.
    Absent,
    /// The asking origin may not.
    Foreign,
}

impl Cors {
    /// Decides for a request. `project`: the origins of its project.
    pub(crate) fn decide(
        origin: Option<&str>,
        config: Option<&Config>,
        project: Option<&AllowedOrigins>,
    ) -> Self {
        let Some(config) = config else {
            // Nobody knows who may; what is wrong with the deployment, a page may show.
            return Self::Allowed("*".to_owned());
        };
        if config.is_cors_open() {
            return Self::Open;
        }
        let Some(origin) = origin else { return Self::Absent };
        let mut lists = [Some(&config.cors_origins), project].into_iter().flatten();
        let allowed = lists.find_map(|origins| origins.allows(origin));
        allowed.map_or(Self::Foreign, |allowed| Self::Allowed(allowed.to_owned()))
    }

    /// Whether the answer depends on the origin that asks.
    pub(crate) fn varies(&self) -> bool {
        *self != Self::Open
    }

    /// The origin that is named in the answer, which does not name one by itself.
    pub(crate) fn allowed(&self) -> Option<&str> {
        match self {
            Self::Allowed(origin) => Some(origin),
            _ => None,
        }
    }

    /// The answer to OPTIONS.
    pub(crate) fn preflight(&self, methods: &'static str) -> Reply {
        let reply =
            Reply::new(204).header(name::ALLOW, methods).header(name::CACHE_CONTROL, "no-store");
        if *self == Self::Foreign {
            return reply;
        }
        reply
            .header(name::ACCESS_CONTROL_ALLOW_METHODS, methods)
            .header(name::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED_HEADERS)
            .header(name::ACCESS_CONTROL_MAX_AGE, PREFLIGHT_SECONDS)
    }
}
