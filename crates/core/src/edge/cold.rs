//! Answers whose bytes lie in the object store, completed at the edge.

use wasm_bindgen::JsValue;
use wasm_bindgen_futures::JsFuture;
use worker::Env;

use super::forward;
use crate::cold::{COLD_STATUS, ColdError, ColdPage, dressed, fetch};
use crate::respond::{Failure, internal};

/// The response for the client: as it is, or with the cold bytes in it.
pub(crate) async fn complete(
    response: web_sys::Response,
    env: &Env,
) -> Result<web_sys::Response, Failure> {
    if response.status() != COLD_STATUS {
        return Ok(response);
    }
    let page = page_of(&response).await?;
    match fetch(&page.range.clone().into(), env).await {
        Ok(bytes) => fill(&response, &page, bytes),
        // The stream may have ended since it was asked. Then it says so now.
        Err(ColdError::Missing(name)) => {
            let response = ask_again(&page, env).await?;
            if page.live && response.status() == 200 {
                // Asked as a live read it might have to wait by now: the client asks again.
                return Err(ColdError::Unavailable.into());
            }
            if response.status() != COLD_STATUS {
                return Ok(response);
            }
            let again = page_of(&response).await?;
            if again.range.name == name {
                return Err(ColdError::Missing(name).into());
            }
            let bytes = fetch(&again.range.clone().into(), env).await?;
            fill(&response, &again, bytes)
        }
        Err(error) => Err(error.into()),
    }
}

async fn page_of(response: &web_sys::Response) -> Result<ColdPage, Failure> {
    let broken = |error: JsValue| internal("reading where cold bytes are", &error);
    let text = JsFuture::from(response.text().map_err(broken)?).await.map_err(broken)?;
    serde_json::from_str(&text.as_string().unwrap_or_default())
        .map_err(|error| broken(JsValue::from_str(&error.to_string())))
}

async fn ask_again(page: &ColdPage, env: &Env) -> Result<web_sys::Response, Failure> {
    let failed = |error: JsValue| internal("asking again for cold bytes", &error);
    let headers = web_sys::Headers::new().map_err(failed)?;
    page.audience.mark(&headers).map_err(failed)?;
    let init = web_sys::RequestInit::new();
    init.set_headers(&headers);
    let request = web_sys::Request::new_with_str_and_init(&page.url, &init).map_err(failed)?;
    forward(&request, &page.object, env).await
}

fn fill(
    response: &web_sys::Response,
    page: &ColdPage,
    bytes: crate::object::JsBytes,
) -> Result<web_sys::Response, Failure> {
    let failed = |error: JsValue| internal("answering with cold bytes", &error);
    let headers = web_sys::Headers::new_with_headers(&response.headers()).map_err(failed)?;
    // That of the message.
    headers.delete("content-length").map_err(failed)?;
    let init = web_sys::ResponseInit::new();
    init.set_status(200);
    init.set_headers(&headers);
    let bytes = dressed(bytes, page.json);
    web_sys::Response::new_with_opt_buffer_source_and_init(Some(bytes.array()), &init)
        .map_err(failed)
}
