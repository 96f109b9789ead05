//! Origins whose pages may call (RFC 6454, and the CORS protocol of the Fetch standard).
//!
//! An entry is `*`, or `scheme://host[:port]` as a browser writes it in `Origin`: `http` or
//! `https`, lower case, without the scheme's default port. The first label of the host may be `*`
//! and stands for exactly one label.
//!
//! A browser compares `Access-Control-Allow-Origin` with its own origin byte for byte, so an
//! `Origin` is matched the same way: one with capital letters matches nothing but `*`. `null`, the
//! origin of a page that has none, cannot be listed, because any page can have it.
//!
//! **What stays out.** Methods and headers of a preflight.

use garde::Validate;
use serde::{Deserialize, Serialize};

use crate::limits::{CORS_ORIGIN_BYTES_MAX, CORS_ORIGINS_MAX};

/// The entry that stands for every origin.
const ANY: &str = "*";
const SCHEMES: [(&str, &str); 2] = [("http://", "80"), ("https://", "443")];
/// Bytes of one label of a DNS name.
const LABEL_BYTES_MAX: usize = 63;

/// The list, at most [`CORS_ORIGINS_MAX`] entries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, Validate)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[cfg_attr(
    feature = "schema",
    schemars(description = "`*`, or `scheme://host[:port]`; the first label may be `*`.")
)]
#[serde(transparent)]
#[garde(transparent)]
pub struct AllowedOrigins(
    /// The entries.
    #[garde(length(max = CORS_ORIGINS_MAX), inner(custom(check_entry)))]
    #[cfg_attr(
        feature = "schema",
        schemars(inner(regex(pattern = "^([*]|https?://[^A-Z/?#@]+)$")))
    )]
    pub Vec<String>,
);

impl AllowedOrigins {
    /// The list that allows every origin.
    #[must_use]
    pub fn any() -> AllowedOrigins {
        AllowedOrigins(vec![ANY.to_owned()])
    }

    /// What to answer to a request with this `Origin` in `Access-Control-Allow-Origin`: `*` when
    /// every origin is allowed, `origin` itself when it is in the list, else no such header.
    ///
    /// The answer depends on `Origin` unless it is `*`: caches want `Vary: Origin` then, also when
    /// there is no header.
    #[must_use]
    pub fn allows<'a>(&self, origin: &'a str) -> Option<&'a str> {
        if self.is_any() {
            return Some(ANY);
        }
        self.0.iter().any(|entry| matches(entry, origin)).then_some(origin)
    }

    /// Whether every origin is allowed.
    #[must_use]
    pub fn is_any(&self) -> bool {
        self.0.iter().any(|entry| entry == ANY)
    }
}

fn matches(entry: &str, origin: &str) -> bool {
    let Some((scheme, rest)) = entry.split_once("*.") else {
        return entry == origin;
    };
    let host = origin.strip_prefix(scheme).and_then(|host| host.split_once('.'));
    host.is_some_and(|(label, behind)| is_label(label) && behind == rest)
}

fn check_entry(entry: &str, (): &()) -> garde::Result {
    if entry == ANY || is_origin(entry) {
        return Ok(());
    }
    Err(garde::Error::new(
        "neither `*` nor `scheme://host[:port]` with http or https, in lower case, \
         without the default port and without a path",
    ))
}

fn is_origin(entry: &str) -> bool {
    let with_scheme = |(scheme, default_port)| Some((entry.strip_prefix(scheme)?, default_port));
    let Some((rest, default_port)) = SCHEMES.into_iter().find_map(with_scheme) else {
        return false;
    };
    let colon = if rest.starts_with('[') { "]:" } else { ":" };
    let (host, port) = match rest.rsplit_once(colon) {
        Some((host, port)) => (rest.get(..host.len() + colon.len() - 1), Some(port)),
        None => (Some(rest), None),
    };
    entry.len() <= CORS_ORIGIN_BYTES_MAX
        && port.is_none_or(|port| is_port(port) && port != default_port)
        && host.is_some_and(is_host)
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit())
        && !port.starts_with('0')
        && port.parse::<u16>().is_ok()
}

fn is_host(host: &str) -> bool {
    if let Some(address) = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        // As a browser prints it: the one shortest form.
        return address.parse::<std::net::Ipv6Addr>().is_ok_and(|ip| ip.to_string() == address);
    }
    let named = host.strip_prefix("*.").unwrap_or(host);
    named.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let is_legal = |byte: u8| {
        byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_')
    };
    (1..=LABEL_BYTES_MAX).contains(&label.len()) && label.bytes().all(is_legal)
}
