//! Statistics of the stream, for operators: what the engine counts, and what this instance knows of
//! itself. A missing stream is refused as on GET.

use protocol::headers::name;
use protocol::lifetime::Lifetime;
use protocol::stats::{HotStats, LifetimeStats, RotationStats, SegmentStats, StreamStats};
use protocol::time::format_rfc3339;

use super::{Answer, Inner};
use crate::call::to_json;
use crate::js;
use crate::respond::{Body, Failure, Reply};

impl Inner {
    /// The operation `stats`: its answer is passed on to the client as it is.
    pub(crate) fn stats(&self) -> Result<Answer, Failure> {
        let stats = self.with_stream(|stream| stream.stats(js::now()))??;
        let stats = StreamStats {
            stream: self.name()?,
            content_type: stats.metadata.content_type.as_str().to_owned(),
            next_offset: stats.metadata.next.to_string(),
            closed: stats.metadata.closed,
            public: stats.metadata.public,
            lifetime: match stats.metadata.lifetime {
                Lifetime::Unlimited => None,
                Lifetime::Ttl { seconds } => Some(LifetimeStats::TtlSeconds(seconds)),
                Lifetime::ExpiresAt { at } => Some(LifetimeStats::ExpiresAt(format_rfc3339(at))),
            },
            hot: HotStats::new(
                stats.counts.extents,
                stats.hot_bytes,
                stats.held_bytes,
                stats.bytes_max,
            ),
            segments: SegmentStats { count: stats.counts.segments, bytes: stats.cold_bytes },
            readers: self.readers.stats(),
            producers: stats.counts.producers,
            forks: stats.counts.forks,
            requests: self.requests.get(),
            last_rotation: stats.last_rotated.map(|bytes| RotationStats {
                at: self.rotated_at.get().map(format_rfc3339),
                bytes,
            }),
        };
        Ok(Reply::new(200)
            .header(name::CONTENT_TYPE, "application/json")
            .header(name::CACHE_CONTROL, "no-store")
            .body(Body::Text(to_json(&stats)))
            .into())
    }
}
