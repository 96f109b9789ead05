//! What operators get compared, as they get it: the JSON of `GET /v1/{project}/reconcile`.
//!
//! - [`ReconcileReport`]: the object store and the logs.
//! - [`SubscribersReport`]: subscribers of a source, and the sessions that they are. A [`Place`] is
//!   where a page of it begins.
//!
//! **Invariants.** A [`Place`] is read only in the spelling in which it is printed.
//!
//! **Error semantics.** Text that is no place is `None`.
//!
//! **What stays out.** How anything is compared.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::fanout::ShardId;
use crate::name::SessionId;
use crate::offset::Generation;

/// What a log says of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum ObjectState {
    /// A segment of the stream.
    Referenced,
    /// An upload is under way.
    Intended,
    /// It waits to be deleted.
    Marked,
    /// Nothing knows of it.
    Orphaned,
}

/// An object of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StoredObject {
    /// Its name.
    pub name: String,
    /// Its bytes.
    pub size: u64,
    /// What the log of its stream says of it.
    pub state: ObjectState,
}

/// One page of the report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ReconcileReport {
    /// The page's objects.
    pub objects: Vec<StoredObject>,
    /// Names that a stream references and the store has not.
    pub missing: Vec<String>,
    /// The `after` of the next page; `null` behind the last one.
    pub next: Option<String>,
}

/// What a session says of a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum SubscriberState {
    /// It is subscribed.
    Live,
    /// Its subscription, or the source, is over, and the rest of it is on its way out.
    Leaving,
    /// It knows nothing of it.
    Orphaned,
}

/// A session that a source's messages are delivered to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "camelCase")]
pub struct Subscriber {
    /// Id of the session.
    pub session_id: String,
    /// Which part of the subscribers it is in.
    pub shard: u32,
    /// Which subscription of the session.
    pub epoch: u64,
    /// What the session says of it.
    pub state: SubscriberState,
}

/// One page of a source's subscribers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SubscribersReport {
    /// The page's subscribers.
    pub subscribers: Vec<Subscriber>,
    /// Sessions that the directory of a source names and no shard has.
    pub missing: Vec<String>,
    /// The `after` of the next page; `null` behind the last one.
    pub next: Option<String>,
}

/// Where a page of subscribers begins. Opaque to clients.
///
/// ```text
/// 3                          shard 3          d          the directory
/// 3.1769828898548.tab-1      behind a member  d.tab-1    behind an entry
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In a shard.
    Shard {
        /// Which one.
        shard: ShardId,
        /// Behind this session and life of the source.
        after: Option<(String, Generation)>,
    },
    /// In the directory, behind the shards.
    Directory {
        /// Behind this session; empty: at its beginning.
        after: String,
    },
}

impl Place {
    /// Where the first page begins.
    pub const START: Place = Place::Shard { shard: ShardId::ROOT, after: None };

    /// Reads a place.
    #[must_use]
    pub fn parse(text: &str) -> Option<Place> {
        let session = |text: &str| SessionId::parse(text).ok().map(|id| id.as_str().to_owned());
        let (part, behind) = text.split_once('.').map_or((text, None), |(a, b)| (a, Some(b)));
        let place = match (part, behind) {
            ("d", None) => Place::Directory { after: String::new() },
            ("d", Some(behind)) => Place::Directory { after: session(behind)? },
            (shard, None) => Place::Shard { shard: ShardId(shard.parse().ok()?), after: None },
            (shard, Some(behind)) => {
                let (life, id) = behind.split_once('.')?;
                let life = life.parse().ok().map(Generation)?;
                let shard = ShardId(shard.parse().ok()?);
                Place::Shard { shard, after: Some((session(id)?, life)) }
            }
        };
        (place.to_string() == text).then_some(place)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Shard { shard, after: None } => write!(f, "{}", shard.0),
            Place::Shard { shard, after: Some((session, life)) } => {
                write!(f, "{}.{}.{session}", shard.0, life.0)
            }
            Place::Directory { after } if after.is_empty() => f.write_str("d"),
            Place::Directory { after } => write!(f, "d.{after}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_else_is_a_place() {
        for text in ["", "x", "-1", "+1", "01", "1.", "1.2", "1.2.", "1.2.a/b", "1.+2.a", "d.", "D"]
        {
            assert_eq!(Place::parse(text), None, "{text}");
        }
        assert_eq!(Place::parse("0"), Some(Place::START));
    }

    fn places() -> impl Strategy<Value = Place> {
        let behind = ("[a-zA-Z0-9_:.-]{3,9}", any::<u64>().prop_map(Generation));
        let shard = (any::<u32>(), proptest::option::of(behind))
            .prop_map(|(shard, after)| Place::Shard { shard: ShardId(shard), after });
        let directory = "([a-zA-Z0-9_:.-]{3,9})?".prop_map(|after| Place::Directory { after });
        prop_oneof![shard, directory]
    }

    proptest! {
        #[test]
        fn places_are_read_as_they_are_printed(place in places()) {
            prop_assert_eq!(Place::parse(&place.to_string()), Some(place));
        }

        #[test]
        fn what_is_read_is_printed_alike(text in "[d0-9]{0,2}[.]?[0-9a-z.]{0,8}") {
            if let Some(place) = Place::parse(&text) {
                prop_assert_eq!(place.to_string(), text);
            }
        }
    }
}
