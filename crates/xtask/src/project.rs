//! `cargo xtask project`: projects of a running service, by the routes for operators, and tokens
//! for their clients.
//!
//! The admin token comes from the variable `ADMIN_TOKEN`, a signing secret from `SIGNING_SECRET`:
//! neither is ever an argument, which other users of the machine could see, and neither is printed.
//! What is created is one line on stdout, so that it can be piped into a secret store; all else goes
//! to stderr. A secret is printed once: the service returns none.
//!
//! An answer that is lost leaves the outcome unknown, and the error says so; nothing is tried
//! twice.

#[cfg(test)]
mod server;
mod service;
mod token;

use std::fs::File;
use std::io::{self, Read, Write};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use protocol::name::Project;
use serde_json::{Value, json};

use self::service::Service;

const ADMIN_TOKEN: &str = "ADMIN_TOKEN";
/// 256 bits, the size of the hash that signs.
const SECRET_BYTES: usize = 32;
/// Between two changes of a project: the registry takes one write of a key in a second.
const BETWEEN_WRITES: Duration = Duration::from_millis(1_100);

#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Create a project and print its signing secret, once
    Create(Create),
    /// Add a signing secret and print it, once; with --finish, remove all but the newest
    Rotate(Rotate),
    /// Print what is configured
    Show(Target),
    /// Print a token, signed with the secret in SIGNING_SECRET
    Token(token::Args),
}

/// A project of a service. The variable ADMIN_TOKEN has the service's admin token.
#[derive(clap::Args)]
struct Target {
    /// The project
    #[arg(value_parser = project)]
    name: Project,
    /// The service
    #[arg(long, default_value = "http://127.0.0.1:4437")]
    url: String,
}

#[derive(clap::Args)]
struct Create {
    #[command(flatten)]
    target: Target,
    /// Origin whose pages may call, such as `https://app.example.com`; may be repeated
    #[arg(long = "cors", value_name = "ORIGIN")]
    cors_origins: Vec<String>,
    /// Let everybody read without a token
    #[arg(long = "public")]
    is_public: bool,
}

#[derive(clap::Args)]
struct Rotate {
    #[command(flatten)]
    target: Target,
    /// End a rotation: tokens of all but the newest secret are refused from then on
    #[arg(long)]
    finish: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    match &args.command {
        Command::Create(args) => {
            let secret = create(&connect(&args.target)?, &args.target.name, args)?;
            print_line(&secret)
        }
        Command::Rotate(args) if args.finish => {
            finish(&connect(&args.target)?, &args.target.name, BETWEEN_WRITES)
        }
        Command::Rotate(args) => {
            let secret = rotate(&connect(&args.target)?, &args.target.name)?;
            print_line(&secret)
        }
        Command::Show(target) => {
            let view = connect(target)?.show(&target.name)?;
            print_line(&serde_json::to_string_pretty(&view)?)
        }
        Command::Token(args) => print_line(&token::mint(args)?),
    }
}

fn project(name: &str) -> Result<Project, String> {
    Project::parse(name)
        .map_err(|_| "not 1 to 64 letters, digits, `_` or `-`, or it is `stream`".into())
}

fn connect(target: &Target) -> Result<Service> {
    Service::new(&target.url, variable(ADMIN_TOKEN)?)
}

/// A variable that has to be set.
fn variable(name: &str) -> Result<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    value.with_context(|| format!("the environment variable {name} is not set"))
}

/// Creates the project and returns its secret.
fn create(service: &Service, project: &Project, args: &Create) -> Result<String> {
    let secret = random_secret()?;
    let body = json!({
        "signingSecret": secret,
        "corsOrigins": args.cors_origins,
        "isPublic": args.is_public,
    });
    service.create(project, &body)?;
    eprintln!("project {project} is there; everywhere within 60 s");
    eprintln!("its signing secret follows on stdout; it cannot be asked for again");
    Ok(secret)
}

/// Adds a secret and returns it.
fn rotate(service: &Service, project: &Project) -> Result<String> {
    let old = secret_ids(&service.show(project)?)?;
    let secret = random_secret()?;
    let id = service.add_secret(project, &secret)?;
    eprintln!("secret {id} is added; tokens of it are accepted everywhere within 60 s");
    eprintln!("until the rotation ends, tokens of these are accepted too: {}", old.join(", "));
    eprintln!(
        "wait 60 s, sign with the new secret, wait until the last old token has expired, then:"
    );
    eprintln!("  cargo xtask project rotate {project} --url {} --finish", service.url());
    eprintln!("the new secret follows on stdout; it cannot be asked for again");
    Ok(secret)
}

/// Removes all secrets but the newest, with a pause between the removals.
fn finish(service: &Service, project: &Project, pause: Duration) -> Result<()> {
    let mut old = secret_ids(&service.show(project)?)?;
    let newest = old.pop().context("the project has no secrets")?;
    if old.is_empty() {
        eprintln!("nothing to do: {newest} is the only secret of {project}");
        return Ok(());
    }
    for id in &old {
        service.remove_secret(project, id)?;
        eprintln!("secret {id} is removed; tokens of it are refused everywhere within 60 s");
        thread::sleep(pause);
    }
    // The registry is eventually consistent: a removal that read an old record undoes another.
    let left = secret_ids(&service.show(project)?)?;
    ensure!(
        left == [newest.as_str()],
        "the registry still lists {}: run this again in a minute",
        left.join(", ")
    );
    eprintln!("secret {newest} stays");
    Ok(())
}

/// The ids of a project's secrets, oldest first.
fn secret_ids(view: &Value) -> Result<Vec<String>> {
    let id = |secret: &Value| Some(secret.get("id")?.as_str()?.to_owned());
    let secrets = view.get("secrets").and_then(Value::as_array);
    let ids = secrets.and_then(|secrets| secrets.iter().map(id).collect());
    ids.with_context(|| format!("not the view of a project: {view}"))
}

/// Hexadecimal digits, which no shell, header or variable changes.
fn random_secret() -> Result<String> {
    let mut bytes = [0; SECRET_BYTES];
    let source = "/dev/urandom";
    File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).context(source)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// To stdout. A reader who is gone is an error: what is printed here cannot be had again.
fn print_line(text: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{text}").and_then(|()| stdout.flush()).context("stdout")
}

#[cfg(test)]
mod tests {
    use super::server::Server;
    use super::*;

    const TOKEN: &str = "an-admin-token-of-more-than-32-characters";

    fn app() -> Project {
        Project::parse("app").unwrap()
    }

    fn service(server: &Server) -> Service {
        Service::new(server.url(), TOKEN.to_owned()).unwrap()
    }

    fn creation(origins: &[&str]) -> Create {
        Create {
            target: Target { name: app(), url: String::new() },
            cors_origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            is_public: true,
        }
    }

    fn view(ids: &[&str]) -> String {
        let secrets: Vec<Value> = ids.iter().map(|id| json!({ "id": id })).collect();
        json!({"project": "app", "corsOrigins": [], "isPublic": false, "secrets": secrets})
            .to_string()
    }

    #[test]
    fn create_sends_the_secret_that_it_returns() {
        let server = Server::start(&[(201, &view(&["aa"]))]);
        let args = creation(&["https://a.example"]);
        let secret = create(&service(&server), &app(), &args).unwrap();
        assert_eq!(secret.len(), 64);
        let [request] = server.requests().try_into().unwrap();
        assert_eq!(request.line, "PUT /v1/app/config HTTP/1.1");
        assert_eq!(request.header("authorization"), Some(&*format!("Bearer {TOKEN}")));
        assert_eq!(request.header("content-type"), Some("application/json"));
        let body: Value = serde_json::from_str(&request.body).unwrap();
        let expected = json!({
            "signingSecret": secret, "corsOrigins": ["https://a.example"], "isPublic": true,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn a_refusal_is_shown_without_secrets() {
        let body = r#"{"error":{"code":"PROJECT_EXISTS","message":"It exists."}}"#;
        let server = Server::start(&[(409, body)]);
        let error = create(&service(&server), &app(), &creation(&[])).unwrap_err();
        let shown = format!("{error:#}");
        assert!(
            shown.ends_with("/v1/app/config: status 409: PROJECT_EXISTS: It exists."),
            "{shown}"
        );
        let [request] = server.requests().try_into().unwrap();
        let sent: Value = serde_json::from_str(&request.body).unwrap();
        assert!(!shown.contains(sent["signingSecret"].as_str().unwrap()));
        assert!(!shown.contains(TOKEN));
    }

    #[test]
    fn rotate_adds_a_secret() {
        let server = Server::start(&[(200, &view(&["aa"])), (201, r#"{"id":"bb"}"#)]);
        let secret = rotate(&service(&server), &app()).unwrap();
        let [_, request] = server.requests().try_into().unwrap();
        assert_eq!(request.line, "POST /v1/app/config/secrets HTTP/1.1");
        let body: Value = serde_json::from_str(&request.body).unwrap();
        assert_eq!(body, json!({ "signingSecret": secret }));
    }

    #[test]
    fn finish_removes_all_but_the_newest() {
        let gone = r#"{"error":{"code":"SECRET_NOT_FOUND","message":"There is none."}}"#;
        let server = Server::start(&[
            (200, &view(&["aa", "bb", "cc"])),
            (204, ""),
            (404, gone),
            (200, &view(&["cc"])),
        ]);
        finish(&service(&server), &app(), Duration::ZERO).unwrap();
        let lines: Vec<String> = server.requests().into_iter().map(|r| r.line).collect();
        let expected = [
            "GET /v1/app/config HTTP/1.1",
            "DELETE /v1/app/config/secrets/aa HTTP/1.1",
            "DELETE /v1/app/config/secrets/bb HTTP/1.1",
            "GET /v1/app/config HTTP/1.1",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn finish_tells_when_the_registry_lags() {
        let server =
            Server::start(&[(200, &view(&["aa", "bb"])), (204, ""), (200, &view(&["aa", "bb"]))]);
        let error = finish(&service(&server), &app(), Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("aa, bb: run this again"), "{error}");
    }

    #[test]
    fn one_secret_is_left_alone() {
        let server = Server::start(&[(200, &view(&["aa"]))]);
        finish(&service(&server), &app(), Duration::ZERO).unwrap();
        assert_eq!(server.requests().len(), 1);
    }

    #[test]
    fn secrets_differ() {
        let (one, other) = (random_secret().unwrap(), random_secret().unwrap());
        assert!(one != other && one.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }

    #[test]
    fn other_answers_are_no_views() {
        for view in [json!({}), json!([]), json!({"secrets": 1}), json!({"secrets": [{"id": 1}]})] {
            assert!(secret_ids(&view).is_err(), "{view}");
        }
    }
}
