//! The one deployable: the route table, and the classes that the platform looks for.

use durable_streams_core::edge::{self, Audience};
use js_sys::Promise;
use protocol::error::{ApiError, ErrorCode};
use protocol::name::{Reserved, Route};
use wasm_bindgen::prelude::*;
use worker::Env;

pub use durable_streams_core::StreamObject;

/// Every request of a client. Exported by hand, so that a promise of the platform can be passed
/// on as it is.
///
/// # Errors
/// Only what the platform throws while a response is built.
#[wasm_bindgen]
pub fn fetch(request: web_sys::Request, env: Env, context: JsValue) -> Result<Promise, JsValue> {
    let url = request.url();
    let method = request.method();
    let route = match Route::parse(edge::path_of(&url)) {
        Ok(route) => route,
        Err(error) => return edge::resolved(request, edge::bad_name(&error)),
    };
    let reply = match (route, method.as_str()) {
        (Route::Stream { reserved: Some(Reserved::Session) | None, name }, "GET" | "HEAD")
        | (Route::Stream { reserved: None, name }, "PUT" | "POST" | "DELETE") => {
            return edge::stream(request, &name, env, Audience::Authorised, context);
        }
        (Route::Stream { reserved: Some(_), .. }, "GET" | "HEAD") => {
            edge::error(ApiError::new(ErrorCode::RouteNotFound, "There is no such resource."))
        }
        (Route::Stream { reserved: Some(_), .. }, "PUT" | "POST" | "DELETE") => edge::error(
            ApiError::new(ErrorCode::Reserved, "This path is reserved for the service."),
        ),
        (Route::Stream { .. }, "OPTIONS") => edge::options(edge::STREAM_METHODS),
        (Route::Stream { .. }, _) => edge::method_not_allowed(edge::STREAM_METHODS),
        (Route::Health, "GET" | "HEAD") => edge::health(&env),
        (Route::Health, "OPTIONS") => edge::options(edge::REPORT_METHODS),
        (Route::Health, _) => edge::method_not_allowed(edge::REPORT_METHODS),
        (Route::Reconcile { project }, "GET" | "HEAD") => {
            return Ok(edge::reconcile(url, project, env));
        }
        (Route::Reconcile { .. }, "OPTIONS") => edge::options(edge::REPORT_METHODS),
        (Route::Reconcile { .. }, _) => edge::method_not_allowed(edge::REPORT_METHODS),
        (Route::ProjectRoot { .. } | Route::NotFound, _) => {
            edge::error(ApiError::new(ErrorCode::RouteNotFound, "There is no such resource."))
        }
    };
    edge::resolved(request, reply)
}
