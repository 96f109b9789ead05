//! The contract suites on the platform: `Log`, `Roster` and `Ledger` on Durable Object SQLite,
//! `Segments` on R2.
//!
//! A Worker of its own, never deployed: `cargo xtask test --only contracts` builds and hosts it.
//! Any request runs all suites inside one object and is answered `ok`. A case that fails panics:
//! the request breaks, and the words are on the console.

use durable_streams_core::suite;
use js_sys::Promise;
use wasm_bindgen::prelude::*;
use wasm_bindgen_futures::future_to_promise;
use worker::{Env, State, console_error, worker_sys};

/// The object whose storage the suites use up.
#[wasm_bindgen]
pub struct ContractObject {
    state: State,
    env: Env,
}

#[wasm_bindgen]
impl ContractObject {
    /// Called by the platform.
    #[wasm_bindgen(constructor)]
    #[must_use]
    pub fn new(state: worker_sys::DurableObjectState, env: Env) -> Self {
        std::panic::set_hook(Box::new(|info| console_error!("{info}")));
        Self { state: State::from(state), env }
    }

    /// Runs all suites.
    pub fn fetch(&self, _request: web_sys::Request) -> Promise {
        suite::log(&self.state);
        suite::rosters(&self.state);
        suite::ledgers(&self.state);
        let env = self.env.clone();
        future_to_promise(async move {
            suite::segments(&env).await;
            Ok(web_sys::Response::new_with_opt_str(Some("ok"))?.into())
        })
    }
}

/// Passes every request on to one object.
///
/// # Errors
/// What the platform throws.
#[wasm_bindgen]
pub async fn fetch(
    request: web_sys::Request,
    env: Env,
    _context: JsValue,
) -> Result<JsValue, JsValue> {
    let namespace = env.durable_object("CONTRACT")?;
    let stub = namespace.get_by_name("contract")?;
    let response = stub.fetch_with_request(worker::Request::from(request)).await?;
    let response: web_sys::Response = response.into();
    Ok(response.into())
}
