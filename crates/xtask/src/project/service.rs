//! The config routes of a running service, asked with its admin token.
//!
//! An error names the request, and what was refused why: status, code and message of the answer.
//! It never contains the admin token or a request's body. Redirects are not followed: the token is
//! for the service that was named.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use protocol::name::Project;
use serde_json::{Value, json};
use ureq::http::{Method, Request, Uri};
use ureq::{Agent, Proxy};

const TIMEOUT: Duration = Duration::from_secs(30);
/// The service takes none that is shorter.
const ADMIN_TOKEN_CHARS_MIN: usize = 32;
/// How much of an answer that makes no sense is shown.
const SHOWN_CHARS_MAX: usize = 200;

/// A service that the operator may configure.
pub(super) struct Service {
    agent: Agent,
    /// Without a slash at the end.
    url: String,
    admin_token: String,
}

/// What the service said.
struct Answer {
    status: u16,
    text: String,
}

impl Service {
    /// # Errors
    /// A URL that is no base of a service, or would carry the token in the clear; a token that the
    /// service would not take.
    pub(super) fn new(url: &str, admin_token: String) -> Result<Self> {
        let is_local = check_url(url)?;
        ensure!(
            admin_token.len() >= ADMIN_TOKEN_CHARS_MIN,
            "ADMIN_TOKEN has fewer than {ADMIN_TOKEN_CHARS_MIN} characters"
        );
        ensure!(
            admin_token.bytes().all(|byte| byte.is_ascii_graphic()),
            "ADMIN_TOKEN has characters that a header cannot carry, such as spaces or a line end"
        );
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_global(Some(TIMEOUT))
            .proxy(if is_local { None } else { Proxy::try_from_env() })
            .build()
            .into();
        Ok(Self { agent, url: url.trim_end_matches('/').to_owned(), admin_token })
    }

    /// Where it is, without a slash at the end.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Creates a project.
    pub(super) fn create(&self, project: &Project, body: &Value) -> Result<()> {
        let route = format!("{}/v1/{project}/config", self.url);
        self.call(&Method::PUT, &route, Some(body), &[201]).map(drop)
    }

    /// The project's view.
    pub(super) fn show(&self, project: &Project) -> Result<Value> {
        let route = format!("{}/v1/{project}/config", self.url);
        let answer = self.call(&Method::GET, &route, None, &[200])?;
        answer.json(&route)
    }

    /// Adds a secret and returns its id.
    pub(super) fn add_secret(&self, project: &Project, secret: &str) -> Result<String> {
        let route = format!("{}/v1/{project}/config/secrets", self.url);
        let body = json!({ "signingSecret": secret });
        let answer = self.call(&Method::POST, &route, Some(&body), &[200, 201])?.json(&route)?;
        let id = answer.get("id").and_then(Value::as_str);
        Ok(id.with_context(|| format!("{route}: no id in {}", shown(&answer.to_string())))?.into())
    }

    /// Removes a secret; one that is gone already is as good.
    pub(super) fn remove_secret(&self, project: &Project, id: &str) -> Result<()> {
        let route = format!("{}/v1/{project}/config/secrets/{id}", self.url);
        let answer = self.ask(&Method::DELETE, &route, None)?;
        match answer.code().as_deref() {
            Some("SECRET_NOT_FOUND") => Ok(()),
            _ => answer.expect(&Method::DELETE, &route, &[204]).map(drop),
        }
    }

    fn call(
        &self,
        method: &Method,
        route: &str,
        body: Option<&Value>,
        expected: &[u16],
    ) -> Result<Answer> {
        self.ask(method, route, body)?.expect(method, route, expected)
    }

    fn ask(&self, method: &Method, route: &str, body: Option<&Value>) -> Result<Answer> {
        let lost = || match *method {
            Method::GET => format!("{method} {route}: no answer"),
            _ => format!(
                "{method} {route}: no answer; whether it took effect is unknown: `cargo xtask \
                 project show` tells, and `rotate` makes a new secret"
            ),
        };
        let request = Request::builder()
            .method(method)
            .uri(route)
            .header("authorization", format!("Bearer {}", self.admin_token));
        let answer = match body {
            Some(body) => {
                let request = request.header("content-type", "application/json");
                self.agent.run(request.body(body.to_string())?)
            }
            None => self.agent.run(request.body(())?),
        };
        let mut answer = answer.with_context(lost)?;
        let status = answer.status().as_u16();
        let text = answer.body_mut().read_to_string().with_context(lost)?;
        Ok(Answer { status, text })
    }
}

impl Answer {
    fn expect(self, method: &Method, route: &str, expected: &[u16]) -> Result<Self> {
        if expected.contains(&self.status) {
            return Ok(self);
        }
        bail!("{method} {route}: status {}: {}", self.status, self.reason());
    }

    fn json(&self, route: &str) -> Result<Value> {
        serde_json::from_str(&self.text)
            .with_context(|| format!("{route}: not JSON: {}", shown(&self.text)))
    }

    fn error(&self) -> Option<Value> {
        serde_json::from_str::<Value>(&self.text).ok()?.get("error").cloned()
    }

    fn code(&self) -> Option<String> {
        Some(self.error()?.get("code")?.as_str()?.to_owned())
    }

    /// Code, message and details of a refusal, or the beginning of what else came.
    fn reason(&self) -> String {
        let words = || {
            let error = self.error()?;
            let text = |name| error.get(name).and_then(Value::as_str);
            let reason = format!("{}: {}", text("code")?, text("message")?);
            let details = error.get("details").map(|details| format!(" {details}"));
            Some(reason + &details.unwrap_or_default())
        };
        words().unwrap_or_else(|| format!("not an answer of the service: {}", shown(&self.text)))
    }
}

/// Whether the service is on this machine.
///
/// # Errors
/// What is wrong with the URL.
fn check_url(url: &str) -> Result<bool> {
    let parsed: Uri = url.parse().with_context(|| format!("--url {url}"))?;
    let scheme = parsed.scheme_str().unwrap_or_default();
    ensure!(matches!(scheme, "http" | "https"), "--url {url}: not http:// or https://");
    let host = parsed.host().unwrap_or_default();
    let has_user = parsed.authority().is_some_and(|authority| authority.as_str().contains('@'));
    ensure!(
        !host.is_empty() && !has_user && parsed.query().is_none() && parsed.path() == "/",
        "--url {url}: more than a scheme, a host and a port"
    );
    let is_local = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    ensure!(
        scheme == "https" || is_local,
        "--url {url}: http would send the admin token in the clear; use https"
    );
    Ok(is_local)
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::super::server::Server;
    use super::*;

    const TOKEN: &str = "an-admin-token-of-more-than-32-characters";

    fn refusal(status: u16, body: &str) -> String {
        let server = Server::start(&[(status, body)]);
        let service = Service::new(server.url(), TOKEN.to_owned()).unwrap();
        format!("{:#}", service.show(&Project::default()).unwrap_err())
    }

    #[test]
    fn urls() {
        for url in ["http://127.0.0.1:4437", "http://localhost:1/", "http://[::1]:4437"] {
            assert!(check_url(url).unwrap(), "{url}");
        }
        for url in ["https://streams.example.com", "https://streams.example.com:8443/"] {
            assert!(!check_url(url).unwrap(), "{url}");
        }
        for url in [
            "",
            "127.0.0.1:4437",
            "/v1",
            "ftp://a.example",
            "http://a.example",
            "http://localhost.a.example",
            "https://user:word@a.example",
            "https://a.example/v1",
            "https://a.example?x",
        ] {
            assert!(check_url(url).is_err(), "{url}");
        }
    }

    #[test]
    fn admin_tokens_that_the_service_would_not_take() {
        for token in ["", "short", &format!("{TOKEN}\n"), &format!("two words {TOKEN}")] {
            let error = Service::new("http://127.0.0.1:1", token.to_owned()).err().unwrap();
            let shown = error.to_string();
            assert!(shown.starts_with("ADMIN_TOKEN has ") && !shown.contains(TOKEN), "{shown}");
        }
    }

    #[test]
    fn refusals_have_status_code_message_and_details() {
        let body = r#"{"error":{"code":"INVALID_BODY","message":"No.","details":{"field":"x"}}}"#;
        let shown = refusal(400, body);
        assert!(shown.ends_with(r#": status 400: INVALID_BODY: No. {"field":"x"}"#), "{shown}");
        for (status, body) in [(502, "<html>bad gateway"), (500, "{}"), (500, r#"{"error":1}"#)] {
            let shown = refusal(status, body);
            let said = format!("status {status}: not an answer of the service: {body}");
            assert!(shown.contains(&said), "{shown}");
        }
        assert!(refusal(200, "hello").contains("not JSON: hello"));
    }

    #[test]
    fn redirects_are_not_followed() {
        let shown = refusal(302, "");
        assert!(shown.contains("status 302"), "{shown}");
    }

    #[test]
    fn a_lost_answer_leaves_the_outcome_unknown() {
        let service = |server: &Server| Service::new(server.url(), TOKEN.to_owned()).unwrap();
        let server = Server::start(&[]);
        let error = service(&server).create(&Project::default(), &json!({})).unwrap_err();
        assert!(format!("{error:#}").contains("whether it took effect is unknown"));
        let error = service(&server).show(&Project::default()).unwrap_err();
        assert!(!format!("{error:#}").contains("unknown"), "{error:#}");
    }
}
