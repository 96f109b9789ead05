//! `GET /v1/{project}/reconcile?source=`: the subscribers of a stream, as [`engine::fanout::audit`]
//! compares them.
//!
//! **Error semantics.** 400 `INVALID_QUERY` for a source that is no path or cannot be one, and for an
//! `after` that no page has named; 503 `UNAVAILABLE` when somebody did not answer.
//!
//! **What stays out.** The object store: without `source` the request is none of this.

use durable_streams_core::edge::{self, Admitted, Exchange};
use durable_streams_core::respond::{Failure, Reply, internal};
use engine::fanout::audit;
use js_sys::Promise;
use protocol::error::ErrorCode;
use protocol::headers::name;
use protocol::name::{Project, StreamName, StreamPath};
use protocol::reconcile::Place;
use protocol::trace::TraceParent;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::future_to_promise;
use worker::Env;

use crate::edge::json;
use crate::peers::WorkersPeers;

/// One page of what is compared: subscribers if the query names a source, else the object store.
pub fn reconcile(admitted: &Admitted) -> Promise {
    let asked = match admitted.query_values(["source", "after"]) {
        Ok([None, _]) => return edge::reconcile(admitted),
        Ok([Some(source), after]) => parse(&source, after.as_deref()),
        Err(failure) => Err(failure),
    };
    let project = admitted.route.project().cloned().unwrap_or_default();
    let Exchange { env, preamble, .. } = &admitted.exchange;
    let (env, trace) = (env.clone(), preamble.trace);
    future_to_promise(async move {
        let reply = match asked {
            Ok((path, place)) => report(project, path, &place, (env, trace)).await,
            Err(failure) => Err(failure),
        };
        reply.unwrap_or_else(Failure::reply).into_response().map(JsValue::from)
    })
}

fn parse(source: &str, after: Option<&str>) -> Result<(StreamPath, Place), Failure> {
    let path = StreamPath::from_decoded(source).ok().filter(|path| path.reserved().is_none());
    let place = after.map_or(Some(Place::START), Place::parse);
    match (path, place) {
        (Some(path), Some(place)) => Ok((path, place)),
        (None, _) => Err(invalid("The query parameter `source` is no path of a source.")),
        (_, None) => Err(invalid("The query parameter `after` is no `next` of a page.")),
    }
}

fn invalid(message: &str) -> Failure {
    Failure::new(ErrorCode::InvalidQuery, message)
}

async fn report(
    project: Project,
    path: StreamPath,
    place: &Place,
    (env, trace): (Env, Option<TraceParent>),
) -> Result<Reply, Failure> {
    let source = StreamName { project, path }.object_name();
    let peers = WorkersPeers::new(env, source.clone());
    peers.set_trace(trace);
    match audit::page(&peers, &source, place).await {
        Ok(report) => Ok(json(200, &report)),
        Err(no_answer) => {
            internal("comparing subscribers", &JsValue::from_str(&no_answer.0));
            let message = "Not everybody who had to be asked answered; ask again.";
            Err(Failure::new(ErrorCode::Unavailable, message).header(name::RETRY_AFTER, "1"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_a_path_that_may_be_one() {
        let path = |source| parse(source, None).map(|(path, _)| path.to_string()).ok();
        assert_eq!(path("rooms/1").as_deref(), Some("rooms/1"));
        for bad in ["", "a//b", "/a", "session/x", "session", "__ds/x", "a/../b"] {
            assert_eq!(path(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_page_begins_where_another_has_ended() {
        let place = |after| parse("a", after).map(|(_, place)| place).ok();
        assert_eq!(place(None), Some(Place::START));
        assert_eq!(place(Some("d")), Some(Place::Directory { after: String::new() }));
        assert_eq!(place(Some("p/a//1/2.3")), None);
        assert_eq!(place(Some("")), None);
    }
}
