//! The one deployable: router and route table, nothing else.
use worker::{Context, Env, Request, Response, Result, event};

pub use durable_streams_core::StreamObject;

#[event(fetch)]
async fn fetch(req: Request, env: Env, _ctx: Context) -> Result<Response> {
    if req.path() == "/health" {
        return Response::from_json(&"ok");
    }
    let stub = env.durable_object("STREAM")?.get_by_name("x")?;
    stub.fetch_with_request(req).await
}
