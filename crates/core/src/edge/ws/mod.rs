//! WebSocket: frames of the internal socket as frames for the client, and its appends as batches
//! for the object. The wire is described in docs/live.md.
//!
//! - [`connection`] is one connection: everything that can happen to it, in one loop.
//! - [`client`] is the client's socket, [`calls`] its appends, [`page`] the data that is being sent.

mod calls;
mod client;
mod connection;
mod page;

use protocol::error::{ApiError, ErrorCode};
use protocol::headers::name;
use protocol::name::Route;
use protocol::ws::choose_subprotocol;
use wasm_bindgen::JsValue;
use wasm_bindgen_futures::spawn_local;
use worker::{Response, WebSocketPair};

use super::gate::Caller;
use super::socket::{Attached, attach};
use super::{Audience, Target};
use crate::config::Config;
use crate::request::{Headers, ReadQuery, split_url};
use crate::respond::{Failure, headers_of, internal};
use client::Client;
use connection::{Connection, Opening};

/// Opens one WebSocket.
pub(crate) async fn serve(
    target: Target,
    request: &web_sys::Request,
    query: &ReadQuery,
    caller: &Caller,
) -> Result<web_sys::Response, Failure> {
    let headers = Headers(request.headers());
    let upgrade = headers.get(name::UPGRADE).unwrap_or_default();
    if !upgrade.eq_ignore_ascii_case("websocket") {
        let message = "With `live=ws`, the request upgrades to `websocket`.";
        let failure = Failure::new(ErrorCode::UpgradeRequired, message);
        return Err(failure.header(name::UPGRADE, "websocket"));
    }
    let offered = headers.get(name::SEC_WEBSOCKET_PROTOCOL);
    let subprotocol = choose_subprotocol(offered.as_deref())?;
    let limits = Config::of(&target.env)?.limits;
    let (origin, path, _) = split_url(&target.url);
    let refusal = refusal_of(path, caller, target.audience);
    let target = target.at(format!("{origin}{path}"));
    let has_credit = query.credit != Some(0);
    let begin = Connection::url(&target.url, query.offset, has_credit);
    let reader = match attach(&target.at(begin), has_credit).await? {
        Attached::Answer(response) => return Ok(response),
        Attached::Reader(reader) => reader,
    };
    let failed = |error: JsValue| internal("opening a socket", &error);
    let WebSocketPair { client, server } =
        WebSocketPair::new().map_err(|error| failed(error.to_string().into()))?;
    let server = Client::accept(server, limits.ws_message_bytes_max).map_err(failed)?;
    if query.credit.is_none() && !server.has_buffered() {
        let message = "This runtime cannot pace a client: open the socket with `credit`.";
        return Err(Failure::new(ErrorCode::InvalidQuery, message));
    }
    let (judged_until, is_public) = (caller.until, reader.is_public);
    let opening = Opening { target, query: query.clone(), refusal, judged_until, limits };
    let connection = Connection::open(opening, server, reader);
    spawn_local(connection.run());
    let mut headers = Vec::new();
    if is_public {
        headers.push((name::STREAM_PUBLIC, "true".into()));
    }
    if let Some(subprotocol) = subprotocol {
        headers.push((name::SEC_WEBSOCKET_PROTOCOL, subprotocol.into()));
    }
    let response =
        Response::from_websocket(client).map_err(|error| failed(error.to_string().into()))?;
    Ok(response.with_headers(headers_of(&headers).map_err(failed)?).into())
}

/// Why a client may not append: it reads a stream that the service writes, or its token is for
/// reading, or it has none.
fn refusal_of(path: &str, caller: &Caller, audience: Audience) -> Option<ApiError> {
    let (code, message) = match Route::parse(path) {
        Ok(Route::Stream { reserved: None, .. })
            if caller.can_write && audience == Audience::Authorised =>
        {
            return None;
        }
        Ok(Route::Stream { reserved: None, .. })
            if caller.is_anonymous() || audience == Audience::Anonymous =>
        {
            (ErrorCode::Unauthorized, "Appends need a token.")
        }
        Ok(Route::Stream { reserved: None, .. }) => {
            (ErrorCode::Forbidden, "The token lacks the scope `write`.")
        }
        _ => (ErrorCode::Reserved, "This path is reserved for the service."),
    };
    Some(ApiError::new(code, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_do_not_append_to_what_the_service_writes() {
        for path in ["/v1/p/stream/a", "/v1/stream/a/session"] {
            assert_eq!(refusal_of(path, &Caller::EVERYBODY, Audience::Authorised), None, "{path}");
            let refusal = refusal_of(path, &Caller::EVERYBODY, Audience::Anonymous);
            assert_eq!(refusal.map(|error| error.code), Some(ErrorCode::Unauthorized), "{path}");
        }
        for path in ["/v1/p/stream/session/s", "/v1/stream/sessio%6E/s", "/v1/p/stream/__ds/x"] {
            let refusal = refusal_of(path, &Caller::EVERYBODY, Audience::Authorised);
            assert_eq!(refusal.map(|error| error.code), Some(ErrorCode::Reserved), "{path}");
        }
    }
}
