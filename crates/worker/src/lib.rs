//! The one deployable: the route table, and the classes that the platform looks for.

use durable_streams_core::edge;
use protocol::error::{ApiError, ErrorCode};
use protocol::name::{Reserved, Route};
use wasm_bindgen::JsValue;
use worker::{Context, Env, Result, event};

pub use durable_streams_core::StreamObject;

/// Every request of a client.
#[event(fetch)]
async fn fetch(request: web_sys::Request, env: Env, _context: Context) -> Result<web_sys::Response> {
    Ok(route(request, &env).await?)
}

async fn route(
    request: web_sys::Request,
    env: &Env,
) -> core::result::Result<web_sys::Response, JsValue> {
    let url = request.url();
    let method = request.method();
    let route = match Route::parse(edge::path_of(&url)) {
        Ok(route) => route,
        Err(error) => return edge::bad_name(&error),
    };
    match (route, method.as_str()) {
        (Route::Stream { .. }, "OPTIONS") => edge::options(edge::STREAM_METHODS),
        (Route::Stream { reserved: Some(Reserved::Session), name }, "GET" | "HEAD") => {
            edge::stream(request, &name, env).await
        }
        (Route::Stream { reserved: Some(_), .. }, "GET" | "HEAD") => {
            edge::error(ApiError::new(ErrorCode::RouteNotFound, "There is nothing at this path yet."))
        }
        (Route::Stream { reserved: Some(_), .. }, "PUT" | "POST" | "DELETE") => {
            edge::error(ApiError::new(ErrorCode::Reserved, "This path is reserved for the service."))
        }
        (Route::Stream { name, .. }, "GET" | "HEAD" | "PUT" | "POST" | "DELETE") => {
            edge::stream(request, &name, env).await
        }
        (Route::Stream { .. }, _) => edge::method_not_allowed(edge::STREAM_METHODS),
        (Route::Health, "GET" | "HEAD") => edge::health(env),
        (Route::Health, "OPTIONS") => edge::options("GET, HEAD, OPTIONS"),
        (Route::Health, _) => edge::method_not_allowed("GET, HEAD, OPTIONS"),
        (Route::ProjectRoot { .. } | Route::NotFound, _) => {
            edge::error(ApiError::new(ErrorCode::RouteNotFound, "There is no such resource."))
        }
    }
}
