//! Entity tags of catch-up pages, and `If-None-Match` (PROTOCOL.md §5.6, §10.1).
//!
//! ```text
//! "1769853600500:0:4096"      a page inside the log
//! "1769853600500:0:4096:u"    a page that ends at the tail
//! "1769853600500:0:4096:c"    a page that ends at the end of a closed stream
//! ```
//!
//! **Invariants.** Bytes at a position never change and no generation comes back, so equal tags
//! mean equal bodies and equal end-of-stream headers, also across a delete and a re-create.
//!
//! **Error semantics.** A malformed `If-None-Match` matches as far as it can be read: the worst
//! outcome is a full response.
//!
//! **What stays out.** Which responses carry a tag.

use std::fmt;

use crate::offset::{Generation, Position};

/// What a page's entity tag is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Etag {
    /// The stream's own generation, also for the inherited part of a fork.
    pub generation: Generation,
    /// Where the page begins.
    pub from: Position,
    /// Where it ends.
    pub to: Position,
    /// Whether the response tells that the stream is closed.
    pub closed: bool,
    /// Whether the response tells that it reaches the tail. Without effect on a closed one.
    pub up_to_date: bool,
}

/// The quoted tag, as it stands in the `ETag` header.
impl fmt::Display for Etag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let suffix = match (self.closed, self.up_to_date) {
            (true, _) => ":c",
            (false, true) => ":u",
            (false, false) => "",
        };
        write!(f, "\"{}:{}:{}{suffix}\"", self.generation.0, self.from.0, self.to.0)
    }
}

/// Whether the value of an `If-None-Match` header names `etag`, which is quoted.
///
/// `*` names every tag. A list is compared member by member, weakly: `W/` before a tag does not
/// matter (RFC 9110 §8.8.3.2, §13.1.2).
#[must_use]
pub fn matches_if_none_match(header: &str, etag: &str) -> bool {
    if header.trim_matches(is_list_white_space) == "*" {
        return true;
    }
    let wanted = etag.strip_prefix("W/").unwrap_or(etag);
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches(|c| c == ',' || is_list_white_space(c));
        let member = rest.strip_prefix("W/").unwrap_or(rest);
        let Some((tag, after)) = split_tag(member) else {
            return false;
        };
        if tag == wanted {
            return true;
        }
        rest = after;
    }
}

fn is_list_white_space(c: char) -> bool {
    matches!(c, ' ' | '\t')
}

/// A quoted tag at the begin of `text`, quotes included, and what follows it.
fn split_tag(text: &str) -> Option<(&str, &str)> {
    let inner = text.strip_prefix('"')?;
    let closing_quote = inner.find('"')?;
    text.split_at_checked(closing_quote + 2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn etag(to: u64, closed: bool, up_to_date: bool) -> String {
        let (generation, from) = (Generation(17), Position(0));
        Etag { generation, from, to: Position(to), closed, up_to_date }.to_string()
    }

    #[test]
    fn form() {
        assert_eq!(etag(5, false, false), "\"17:0:5\"");
        assert_eq!(etag(5, false, true), "\"17:0:5:u\"");
        assert_eq!(etag(5, true, true), "\"17:0:5:c\"");
        assert_eq!(etag(5, true, false), "\"17:0:5:c\"");
    }

    #[test]
    fn matching() {
        let tag = etag(5, false, false);
        for header in [
            "*",
            " * ",
            "\"17:0:5\"",
            "W/\"17:0:5\"",
            "\"a\", \"17:0:5\"",
            "\"a\",W/\"17:0:5\" , \"b\"",
            ", ,\"17:0:5\",",
            "\"a,\\\",\"17:0:5\"",
            "\"\",\t\"17:0:5\"",
        ] {
            assert!(matches_if_none_match(header, &tag), "{header}");
        }
        assert!(matches_if_none_match("\"x\"", "W/\"x\""));
    }

    #[test]
    fn not_matching() {
        let tag = etag(5, false, false);
        for header in [
            "",
            ",",
            "\"17:0:5",
            "17:0:5",
            "\"17:0:5:c\"",
            "\"17:0:50\"",
            "w/\"17:0:5\"",
            "W/W/\"17:0:5\"",
            "\"a, \"17:0:5\"",
            "**",
            "*, \"a\"",
        ] {
            assert!(!matches_if_none_match(header, &tag), "{header}");
        }
    }

    proptest! {
        #[test]
        fn finds_its_own_tag_in_any_list(
            before in prop::collection::vec("(W/)?\"[!#-~]{0,12}\"", 0..4), to: u64, weak: bool,
        ) {
            let tag = etag(to, false, true);
            let own = if weak { format!("W/{tag}") } else { tag.clone() };
            let list = [&before[..], &[own]].concat().join(", ");
            prop_assert!(matches_if_none_match(&list, &tag));
            let others = before.iter().all(|other| other.trim_start_matches("W/") != tag);
            prop_assert_eq!(!matches_if_none_match(&before.join(","), &tag), others);
        }

        #[test]
        fn never_panics(header in "\\PC*|[W/\", *a]{0,20}", etag: String) {
            let _ = matches_if_none_match(&header, &etag);
        }
    }
}
