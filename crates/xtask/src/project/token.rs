//! Tokens for clients of a project, as its backend would sign them.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use protocol::limits::{SECRET_BYTES_MAX, SECRET_BYTES_MIN};
use protocol::name::Project;
use protocol::time::{UnixMillis, format_rfc3339};
use protocol::token::{self, Claims, StreamPattern};

const SIGNING_SECRET: &str = "SIGNING_SECRET";
/// A year: a token cannot be taken back, only its secret can.
const TTL_SECONDS_MAX: u64 = 365 * 24 * 3600;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The project
    #[arg(value_parser = super::project)]
    name: Project,
    /// What the token allows; each scope includes the ones before it
    #[arg(long)]
    scope: Scope,
    /// Only streams of this path; `*` and `?` match within a segment, `**` across segments
    #[arg(long, value_name = "PATTERN", value_parser = StreamPattern::parse)]
    stream: Option<StreamPattern>,
    /// How long it is valid
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 3600,
        value_parser = clap::value_parser!(u64).range(1..=TTL_SECONDS_MAX)
    )]
    ttl: u64,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Scope {
    Read,
    Write,
    Manage,
}

/// A token signed with the secret in `SIGNING_SECRET`.
pub(super) fn mint(args: &Args) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    let claims = claims(args, now.as_secs());
    let token = sign(&claims, &super::variable(SIGNING_SECRET)?)?;
    eprintln!("valid until {}", format_rfc3339(claims.expires));
    Ok(token)
}

fn claims(args: &Args, now_seconds: u64) -> Claims {
    Claims {
        project: args.name.clone(),
        scope: match args.scope {
            Scope::Read => token::Scope::Read,
            Scope::Write => token::Scope::Write,
            Scope::Manage => token::Scope::Manage,
        },
        // Claims count whole seconds.
        expires: UnixMillis(now_seconds.saturating_add(args.ttl).saturating_mul(1000)),
        not_before: None,
        streams: args.stream.clone(),
    }
}

/// # Errors
/// A secret that no project has, without showing it.
fn sign(claims: &Claims, secret: &str) -> Result<String> {
    ensure!(
        (SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&secret.len())
            && secret.bytes().all(|byte| byte.is_ascii_graphic()),
        "{SIGNING_SECRET} is not {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} visible ASCII characters"
    );
    Ok(token::sign(claims, secret.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef0123456789abcdef";
    const NOW: u64 = 1_800_000_000;

    fn args(stream: Option<&str>) -> Args {
        Args {
            name: Project::parse("app").unwrap(),
            scope: Scope::Write,
            stream: stream.map(|pattern| StreamPattern::parse(pattern).unwrap()),
            ttl: 60,
        }
    }

    #[test]
    fn the_service_takes_what_is_minted() {
        for stream in [None, Some("events/*")] {
            let claims = claims(&args(stream), NOW);
            let minted = sign(&claims, SECRET).unwrap();
            let verified = token::verify(&minted, &[SECRET], UnixMillis(NOW * 1000)).unwrap();
            assert_eq!(verified, claims);
            assert_eq!(verified.expires, UnixMillis((NOW + 60) * 1000));
        }
    }

    #[test]
    fn secrets_that_no_project_has() {
        for secret in ["", "short", &"x".repeat(257), &format!("{SECRET} "), &"é".repeat(20)] {
            let error = sign(&claims(&args(None), NOW), secret).unwrap_err().to_string();
            assert_eq!(error, "SIGNING_SECRET is not 32 to 256 visible ASCII characters");
        }
    }
}
