//! What an operator may set: variables and secrets of the deployment, parsed once per isolate.
//!
//! A bad value is answered on every request as `MISCONFIGURED`, naming the variable; nothing is
//! served with a setting that nobody asked for.

use std::cell::{Cell, OnceCell};
use std::rc::Rc;

use garde::Validate;
use js_sys::Reflect;
use protocol::error::{ApiError, ErrorCode};
use protocol::limits::Limits;
use protocol::registry::AllowedOrigins;
use worker::{Env, console_error};

use crate::registry;
use crate::respond::sentence;
use crate::store::store;

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Who shows a token of the project (`jwt`, the default).
    Jwt,
    /// Everybody may do everything (`none`): for local use.
    None,
}

/// Of which requests a line is logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogRequests {
    /// Of each (`all`, the default).
    All,
    /// Of those that the service failed to answer, status 500 and up (`errors`).
    Errors,
    /// Of none (`none`).
    None,
}

/// The parsed variables.
#[derive(Clone, Debug)]
pub struct Config {
    /// Limits that have a variable.
    pub limits: Limits,
    /// Mode of the deployment.
    pub auth: Auth,
    /// What opens the configuration of every project; none if it is not set.
    pub(crate) admin_token: Option<AdminToken>,
    /// Origins that may read every project's answers in a browser.
    pub(crate) cors_origins: AllowedOrigins,
    pub(crate) log_requests: LogRequests,
}

/// A secret that is never printed.
#[derive(Clone)]
pub(crate) struct AdminToken(pub(crate) String);

impl std::fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AdminToken")
    }
}

/// The variables that are texts, as they are set.
#[derive(Validate)]
#[garde(allow_unvalidated)]
struct Settings {
    #[garde(custom(one_of(&["jwt", "none"])))]
    auth: String,
    #[garde(inner(length(min = 32, max = 256), custom(visible)))]
    admin_token: Option<String>,
    #[garde(dive)]
    cors_origins: AllowedOrigins,
    #[garde(custom(one_of(&["all", "errors", "none"])))]
    log_requests: String,
}

fn one_of(words: &'static [&'static str]) -> impl Fn(&String, &()) -> garde::Result {
    move |value, ()| {
        let known = words.contains(&value.as_str());
        let names = words.join("`, `");
        if known { Ok(()) } else { Err(garde::Error::new(format!("is none of `{names}`"))) }
    }
}

/// What a header carries as it is: a line end that was stored along would match no request.
fn visible(value: &str, (): &()) -> garde::Result {
    let is_visible = value.bytes().all(|byte| byte.is_ascii_graphic());
    let problem = "has characters that are no visible ASCII";
    if is_visible { Ok(()) } else { Err(garde::Error::new(problem)) }
}

impl Settings {
    fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let auth = variable("AUTH").unwrap_or_else(|| "jwt".to_owned());
        let everybody = if auth == "none" { "*" } else { "" };
        let origins = variable("CORS_ORIGINS").unwrap_or_else(|| everybody.to_owned());
        let origins = origins.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        let settings = Self {
            admin_token: variable("ADMIN_TOKEN"),
            cors_origins: AllowedOrigins(origins.map(str::to_owned).collect()),
            log_requests: variable("LOG_REQUESTS").unwrap_or_else(|| "all".to_owned()),
            auth,
        };
        match settings.validate() {
            Ok(()) => Ok(settings),
            Err(report) => Err(report
                .iter()
                .next()
                .map(|(path, error)| format!("{} {error}.", variable_of(&path.to_string())))
                .unwrap_or_default()),
        }
    }
}

/// The variable of a field: the same name in upper case. An element of a list stands for the list.
fn variable_of(path: &str) -> String {
    path.split('[').next().unwrap_or_default().to_ascii_uppercase()
}

thread_local! {
    static CONFIG: OnceCell<Result<Rc<Config>, ApiError>> = const { OnceCell::new() };
    static IS_CORS_OPEN: Cell<bool> = const { Cell::new(false) };
}

impl Config {
    /// The configuration of the isolate: its bindings are the same for its whole life.
    ///
    /// # Errors
    /// `MISCONFIGURED`, naming the variable and what it may be.
    pub fn of(env: &Env) -> Result<Rc<Self>, ApiError> {
        CONFIG.with(|known| {
            let parse = || {
                let config = Self::from_env(env).inspect_err(|error| {
                    let line =
                        serde_json::json!({"event": "misconfigured", "cause": error.message});
                    console_error!("{line}");
                })?;
                IS_CORS_OPEN.set(config.is_cors_open());
                Ok(Rc::new(config))
            };
            known.get_or_init(parse).clone()
        })
    }

    fn from_env(env: &Env) -> Result<Self, ApiError> {
        let variable = |name: &str| text_of(env, name);
        let limits = Limits::from_vars(variable).map_err(|error| misconfigured(sentence(error)))?;
        let settings = Settings::read(variable).map_err(misconfigured)?;
        store(env).map_err(|error| misconfigured(sentence(error.0)))?;
        if settings.auth != "none" {
            registry::namespace(env)?;
        }
        Ok(Self {
            limits,
            auth: if settings.auth == "none" { Auth::None } else { Auth::Jwt },
            admin_token: settings.admin_token.map(AdminToken),
            cors_origins: settings.cors_origins,
            log_requests: match settings.log_requests.as_str() {
                "none" => LogRequests::None,
                "errors" => LogRequests::Errors,
                _ => LogRequests::All,
            },
        })
    }

    /// Whether every origin may read every answer, so that each answer can say so by itself.
    pub(crate) fn is_cors_open(&self) -> bool {
        self.cors_origins.is_any()
    }
}

/// [`Config::is_cors_open`] of the isolate.
pub(crate) fn is_cors_open() -> bool {
    IS_CORS_OPEN.get()
}

/// A variable as text. One that is written as a number in the configuration is as good; of anything
/// else the JSON is taken, which no variable's parser takes.
fn text_of(env: &Env, name: &str) -> Option<String> {
    let value = Reflect::get(env, &name.into()).ok().filter(|value| !value.is_undefined())?;
    let json = || js_sys::JSON::stringify(&value).ok().and_then(|text| text.as_string());
    Some(value.as_string().or_else(json).unwrap_or_default())
}

fn misconfigured(message: String) -> ApiError {
    ApiError::new(ErrorCode::Misconfigured, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<Settings, String> {
        let find = |name: &str| set.iter().find(|(known, _)| *known == name);
        Settings::read(|name| find(name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn nothing_set_is_the_strict_mode() {
        let settings = read(&[]).ok().unwrap();
        assert_eq!((settings.auth.as_str(), settings.log_requests.as_str()), ("jwt", "all"));
        assert!(settings.cors_origins.0.is_empty() && settings.admin_token.is_none());
        assert_eq!(read(&[("AUTH", "none")]).ok().unwrap().cors_origins.0, ["*"]);
    }

    #[test]
    fn a_bad_value_is_named() {
        for (name, value) in [
            ("AUTH", "JWT"),
            ("AUTH", ""),
            ("ADMIN_TOKEN", "short"),
            ("CORS_ORIGINS", "https://a.example, example.com"),
            ("LOG_REQUESTS", "some"),
        ] {
            let message = read(&[(name, value)]).err().unwrap();
            assert!(message.starts_with(&format!("{name} ")), "{message}");
            assert!(name != "ADMIN_TOKEN" || !message.contains(value), "{message}");
        }
        let message = read(&[("AUTH", "JWT")]).err().unwrap();
        assert_eq!(message, "AUTH is none of `jwt`, `none`.");
    }
}
