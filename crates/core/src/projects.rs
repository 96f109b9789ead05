//! The admin API: what a project's operators may see and change of its record in the registry.
//!
//! | method and path | what it does |
//! |---|---|
//! | `GET /v1/{project}/config` | shows it, without secrets |
//! | `PUT /v1/{project}/config` | creates it |
//! | `PATCH /v1/{project}/config` | changes origins and the public flag |
//! | `POST /v1/{project}/config/secrets` | adds a signing secret |
//! | `DELETE /v1/{project}/config/secrets/{id}` | removes one, never the last |
//!
//! A change reads the record, changes it and writes it. KV knows no transaction, and a read may be a
//! minute old: of two changes of one project within that time the later one can undo the earlier. The
//! answer to each shows what it wrote.

use engine::log::Blob;
use protocol::body::parse_body;
use protocol::error::ErrorCode;
use protocol::headers::name;
use protocol::limits::CONFIG_BODY_BYTES_MAX;
use protocol::name::{Project, Route};
use protocol::registry::{
    AddSecret, ChangeProject, CreateProject, ProjectRecord, Removal, SecretView,
};
use protocol::routes::Operation;
use serde::Serialize;
use serde::de::DeserializeOwned;
use worker::Env;

use crate::body::{self, Bounds};
use crate::call::to_json;
use crate::registry;
use crate::respond::{Body, Failure, Reply, sentence};

/// Answers one call.
pub(crate) async fn serve(
    operation: Operation,
    route: &Route,
    request: &web_sys::Request,
    env: &Env,
) -> Result<Reply, Failure> {
    let Some(project) = route.project() else {
        return Err(Failure::new(ErrorCode::RouteNotFound, "There is no such resource."));
    };
    match (operation, route) {
        (Operation::CreateProject, _) => create(project, request, env).await,
        (Operation::ChangeConfig, _) => change(project, request, env).await,
        (Operation::AddSecret, _) => add_secret(project, request, env).await,
        (_, Route::Secret { id, .. }) => remove_secret(project, id, env).await,
        _ => Ok(json(200, &record_of(project, env).await?.view(project))),
    }
}

async fn create(
    project: &Project,
    request: &web_sys::Request,
    env: &Env,
) -> Result<Reply, Failure> {
    let wanted: CreateProject = body_of(request).await?;
    if registry::load(project, env).await?.is_some() {
        let message = "The project exists; change it with PATCH.";
        return Err(Failure::new(ErrorCode::ProjectExists, message));
    }
    let record = ProjectRecord::from(wanted);
    let view = record.view(project);
    registry::save(project, record, env).await?;
    Ok(json(201, &view))
}

async fn change(
    project: &Project,
    request: &web_sys::Request,
    env: &Env,
) -> Result<Reply, Failure> {
    let wanted: ChangeProject = body_of(request).await?;
    let mut record = record_of(project, env).await?;
    wanted.apply(&mut record);
    let view = record.view(project);
    registry::save(project, record, env).await?;
    Ok(json(200, &view))
}

async fn add_secret(
    project: &Project,
    request: &web_sys::Request,
    env: &Env,
) -> Result<Reply, Failure> {
    let AddSecret { signing_secret } = body_of(request).await?;
    let mut record = record_of(project, env).await?;
    let view = SecretView::of(&signing_secret);
    match record.add_secret(signing_secret) {
        Ok(true) => {
            registry::save(project, record, env).await?;
            Ok(json(201, &view))
        }
        Ok(false) => Ok(json(200, &view)),
        Err(error) => Err(Failure::new(ErrorCode::TooManySecrets, sentence(error))),
    }
}

async fn remove_secret(project: &Project, id: &str, env: &Env) -> Result<Reply, Failure> {
    let mut record = record_of(project, env).await?;
    match record.remove_secret(id) {
        Removal::Removed => {
            registry::save(project, record, env).await?;
            Ok(Reply::new(204).header(name::CACHE_CONTROL, "no-store"))
        }
        Removal::NotFound => {
            Err(Failure::new(ErrorCode::SecretNotFound, "The project has no such secret."))
        }
        Removal::Last => {
            let message = "This is the project's last secret; add another one first.";
            Err(Failure::new(ErrorCode::LastSecret, message))
        }
    }
}

/// The record as KV tells it: a change is never made to what this isolate kept.
async fn record_of(project: &Project, env: &Env) -> Result<ProjectRecord, Failure> {
    match registry::load(project, env).await? {
        Some(record) => Ok(ProjectRecord::clone(&record)),
        None => {
            let message = "There is no such project; create it with PUT.";
            Err(Failure::new(ErrorCode::ProjectNotFound, message))
        }
    }
}

async fn body_of<T>(request: &web_sys::Request) -> Result<T, Failure>
where
    T: DeserializeOwned + garde::Validate<Context = ()>,
{
    const BOUNDS: Bounds = Bounds { bytes_max: CONFIG_BODY_BYTES_MAX, timeout_ms: 10_000 };
    let bytes = body::read(request, BOUNDS).await?.to_vec();
    Ok(parse_body(&bytes)?)
}

fn json(status: u16, view: &impl Serialize) -> Reply {
    Reply::new(status)
        .header(name::CONTENT_TYPE, "application/json")
        .header(name::CACHE_CONTROL, "no-store")
        .body(Body::Text(to_json(view)))
}
