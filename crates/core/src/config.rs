//! What an operator may set: variables of the deployment, read once per isolate.
//!
//! A bad value is answered on every request as `MISCONFIGURED`, naming the variable; nothing is
//! served with a limit that nobody asked for.

use std::cell::OnceCell;

use protocol::error::{ApiError, ErrorCode};
use protocol::limits::Limits;
use worker::Env;

use crate::respond::sentence;
use crate::store::store;

/// Who may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Auth {
    /// Everybody may do everything: for local use.
    None,
}

/// The parsed variables.
#[derive(Clone, Debug)]
pub struct Config {
    /// Limits that have a variable.
    pub limits: Limits,
    /// Mode of the deployment.
    pub auth: Auth,
}

impl Config {
    /// The variables as this isolate has read them first: they do not change while it lives.
    ///
    /// # Errors
    /// As [`Config::from_env`].
    pub fn of_isolate(env: &Env) -> Result<Self, ApiError> {
        thread_local! {
            static CONFIG: OnceCell<Result<Config, ApiError>> = const { OnceCell::new() };
        }
        CONFIG.with(|config| config.get_or_init(|| Self::from_env(env)).clone())
    }

    /// Reads the variables.
    ///
    /// # Errors
    /// `MISCONFIGURED`, naming the variable, its value and what it may be.
    pub fn from_env(env: &Env) -> Result<Self, ApiError> {
        let variable = |name: &str| env.var(name).ok().map(|value| value.to_string());
        let limits = Limits::from_vars(variable).map_err(|error| misconfigured(sentence(error)))?;
        let auth = match variable("AUTH").as_deref() {
            Some("none") => Auth::None,
            Some(other) => {
                return Err(misconfigured(format!("AUTH is `{other}`; this build knows `none`.")));
            }
            None => return Err(misconfigured("AUTH is not set; this build knows `none`.".into())),
        };
        store(env).map_err(|error| misconfigured(sentence(error.0)))?;
        Ok(Self { limits, auth })
    }
}

fn misconfigured(message: String) -> ApiError {
    ApiError::new(ErrorCode::Misconfigured, message)
}
