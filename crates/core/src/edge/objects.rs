//! Calls of streams' objects by name.

use std::cell::RefCell;

use js_sys::{Function, Promise};
use protocol::error::ErrorCode;
use protocol::headers::name;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

use super::STREAM_BINDING;
use crate::js::Namespace;
use crate::respond::{Failure, internal};

/// Starts a call of a stream's object.
pub(super) fn call_object(
    request: &web_sys::Request,
    object: &str,
    env: &Env,
) -> Result<Promise, JsValue> {
    thread_local! {
        /// The binding: the same object for the whole life of the isolate.
        static NAMESPACE: RefCell<Option<Namespace>> = const { RefCell::new(None) };
    }
    let known =
        NAMESPACE.with(|namespace| namespace.try_borrow().ok().and_then(|known| known.clone()));
    let namespace = match known {
        Some(namespace) => namespace,
        None => {
            let namespace = env.durable_object(STREAM_BINDING)?;
            let namespace: Namespace = JsValue::from(namespace.as_ref()).unchecked_into();
            NAMESPACE.with(|known| known.replace(Some(namespace.clone())));
            namespace
        }
    };
    namespace.get_by_name(object)?.fetch(request)
}

/// Passes a request on to a stream's object, and its response back, as they are.
pub(crate) async fn forward(
    request: &web_sys::Request,
    object: &str,
    env: &Env,
) -> Result<web_sys::Response, Failure> {
    let response = JsFuture::from(call_object(request, object, env).map_err(unavailable)?).await;
    response.map(JsCast::unchecked_into).map_err(unavailable)
}

/// The object of a stream did not answer.
pub(crate) fn unavailable(error: JsValue) -> Failure {
    internal("calling the stream", &error);
    Failure::new(ErrorCode::Unavailable, "The stream did not answer; ask again.")
        .header(name::RETRY_AFTER, "1")
}

/// Turns a rejection into the response that tells it.
pub(super) fn unavailable_callback() -> Function {
    thread_local! {
        static UNAVAILABLE: Function = Closure::<dyn Fn(JsValue) -> Result<JsValue, JsValue>>::new(
            |error| unavailable(error).reply().into_response().map(JsValue::from),
        )
        .into_js_value()
        .unchecked_into();
    }
    UNAVAILABLE.with(Clone::clone)
}
