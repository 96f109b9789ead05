//! The statistics of a stream, as operators get them: the JSON of `GET …?stats`.
//!
//! Sizes are bytes, times RFC 3339 in UTC. Rows of the log are counted up to 100,000 of a kind, so
//! a larger number means at least that many.
//!
//! **What stays out.** How anything is counted, and who may ask.

use serde::{Deserialize, Serialize};

/// What a stream is and holds at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct StreamStats {
    /// `{project}/{path}`, the path percent-decoded.
    pub stream: String,
    /// As given at creation.
    pub content_type: String,
    /// The tail.
    pub next_offset: String,
    /// Whether the stream is closed.
    pub closed: bool,
    /// Whether the stream is readable without a token.
    pub public: bool,
    /// When the stream ends by itself; `null` when it does not.
    pub lifetime: Option<LifetimeStats>,
    /// What lies in the object's own database.
    pub hot: HotStats,
    /// What lies in the object store.
    pub segments: SegmentStats,
    /// Who follows the stream live.
    pub readers: ReaderStats,
    /// Producers that have ever appended.
    pub producers: u64,
    /// Forks that reference the stream.
    pub forks: u64,
    /// Requests that the object has got since it woke, from clients and from other objects, this
    /// one included.
    pub requests: u64,
    /// The upload that made the last segment; `null` when the stream has made none itself.
    pub last_rotation: Option<RotationStats>,
}

/// The configured lifetime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub enum LifetimeStats {
    /// Seconds after the last access.
    TtlSeconds(u64),
    /// A fixed end, RFC 3339.
    ExpiresAt(String),
}

/// What lies in the object's own database.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct HotStats {
    /// Rows of bytes.
    pub rows: u64,
    /// Bytes of the stream in them.
    pub bytes: u64,
    /// How many bytes the object may hold.
    pub bytes_max: u64,
    /// The part of `bytes_max` that is taken, from 0 to 1. Bytes of deleted streams of the same path
    /// count until they are erased.
    pub share: f64,
}

impl HotStats {
    /// `held`: the bytes that count for the share.
    #[must_use]
    pub fn new(rows: u64, bytes: u64, held: u64, bytes_max: u64) -> HotStats {
        let share = if bytes_max == 0 { 1.0 } else { held as f64 / bytes_max as f64 };
        HotStats { rows, bytes, bytes_max, share }
    }
}

/// What lies in the object store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct SegmentStats {
    /// Segments; those that a fork shares with its source count for both.
    pub count: u64,
    /// Bytes of the stream in them.
    pub bytes: u64,
}

/// Live readers by mode.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct ReaderStats {
    /// Long-polls that wait.
    pub long_poll: u64,
    /// Event streams.
    pub sse: u64,
    /// WebSockets.
    pub web_socket: u64,
}

/// An upload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct RotationStats {
    /// When it was done, RFC 3339; `null` when the object has slept since.
    pub at: Option<String>,
    /// Bytes of the segment.
    pub bytes: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_is_as_documented() {
        let stats = StreamStats {
            stream: "p/a".into(),
            content_type: "text/plain".into(),
            next_offset: "0001795258346428_0000000000000009".into(),
            closed: false,
            public: true,
            lifetime: Some(LifetimeStats::TtlSeconds(60)),
            hot: HotStats::new(2, 9, 10, 40),
            segments: SegmentStats { count: 0, bytes: 0 },
            readers: ReaderStats { long_poll: 1, sse: 2, web_socket: 3 },
            producers: 1,
            forks: 0,
            requests: 5,
            last_rotation: None,
        };
        let json = concat!(
            r#"{"stream":"p/a","contentType":"text/plain","#,
            r#""nextOffset":"0001795258346428_0000000000000009","closed":false,"public":true,"#,
            r#""lifetime":{"ttlSeconds":60},"#,
            r#""hot":{"rows":2,"bytes":9,"bytesMax":40,"share":0.25},"#,
            r#""segments":{"count":0,"bytes":0},"#,
            r#""readers":{"longPoll":1,"sse":2,"webSocket":3},"#,
            r#""producers":1,"forks":0,"requests":5,"lastRotation":null}"#,
        );
        assert_eq!(serde_json::to_string(&stats).unwrap(), json);
        assert_eq!(serde_json::from_str::<StreamStats>(json).unwrap(), stats);
    }

    #[test]
    fn a_share_is_a_number() {
        assert_eq!(HotStats::new(0, 0, 0, 0).share, 1.0);
        assert_eq!(HotStats::new(0, 0, 0, 8).share, 0.0);
    }
}
