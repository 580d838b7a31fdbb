//! `staffetta doctor`: what is missing on this machine, and what is published about a domain.

mod domain;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use runtime::Bootstrap;
use runtime::bootstrap::{ListenerTls, Redis};
use serde_json::json;

use crate::cli::Global;
use crate::commands::check::certificate_problems;
use crate::local::{LEAST_NATS_R1, LEAST_NATS_R3, Program, find_nats_server, find_redis_server};
use crate::output::{self, OutputFormat};
use crate::stores;

/// Clocks that differ by more make retries and expiries wrong, and leases suspect.
const CLOCK_TOLERANCE_MS: u64 = 1_000;
/// An fsync that takes longer makes every 250 slow.
const SLOW_SYNC: Duration = Duration::from_millis(50);
const STORES: Duration = Duration::from_secs(15);
const REDIS_ANSWER: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Folder whose volume is looked at
    #[arg(long, default_value = "data", value_name = "FOLDER")]
    data: PathBuf,
    /// How it is written: as JSON, one object for each finding
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Say what must stand in the DNS about a domain and the addresses of a pool, and what of it is wrong
    Domain(Box<domain::Arguments>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Fine,
    /// Works, and somebody should know.
    Note,
    Missing,
}

#[derive(Debug)]
struct Finding {
    verdict: Verdict,
    subject: &'static str,
    what: String,
}

/// Findings, printed as they come.
#[derive(Debug)]
struct Report {
    format: OutputFormat,
    missing: usize,
}

impl Report {
    fn add(&mut self, findings: Vec<Finding>) -> anyhow::Result<()> {
        for finding in findings {
            let mark = match finding.verdict {
                Verdict::Fine => "ok",
                Verdict::Note => "note",
                Verdict::Missing => "MISSING",
            };
            self.missing += usize::from(finding.verdict == Verdict::Missing);
            let Finding { subject, what, .. } = finding;
            output::print(&match self.format {
                OutputFormat::Text => format!("{mark:<7}  {subject:<12}  {what}\n"),
                OutputFormat::Json => {
                    let verdict = mark.to_ascii_lowercase();
                    let line = json!({ "verdict": verdict, "subject": subject, "what": what });
                    format!("{line}\n")
                }
            })?;
        }
        Ok(())
    }
}

/// Ends with 1 when something is missing.
pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if let Some(Command::Domain(arguments)) = &arguments.command {
        return domain::run(global, arguments).await;
    }
    let mut report = Report {
        format: arguments.output,
        missing: 0,
    };
    report.add(programs())?;
    report.add(vec![volume(&arguments.data)])?;
    let path = bootstrap_path(global, &arguments.data);
    match Bootstrap::load(&path) {
        Ok(bootstrap) => {
            report.add(vec![fine("staffetta.yaml", path.display().to_string())])?;
            report.add(certificates(&bootstrap))?;
            report.add(ports(&bootstrap))?;
            report.add(nats(&bootstrap).await)?;
            report.add(redis(&bootstrap).await)?;
            report.add(vec![schedulers(&bootstrap).await])?;
        }
        Err(error) => {
            let what = format!(
                "{} (`staffetta up` makes one in its data folder)",
                first_line(&error.to_string())
            );
            report.add(vec![missing("staffetta.yaml", what)])?;
        }
    }
    Ok(match report.missing {
        0 => ExitCode::SUCCESS,
        count => {
            if arguments.output == OutputFormat::Text {
                output::print(&format!("{count} of these must be seen to\n"))?;
            }
            ExitCode::FAILURE
        }
    })
}

/// That of local mode when no other is there.
fn bootstrap_path(global: &Global, data: &Path) -> PathBuf {
    let local = data.join("staffetta.yaml");
    if global.given_config().is_none() && !global.config_path().exists() && local.exists() {
        local
    } else {
        global.config_path()
    }
}

fn programs() -> Vec<Finding> {
    let described =
        |program: &Program| format!("{} at {}", program.version_text(), program.path.display());
    let nats = match find_nats_server() {
        Some(program) if program.version >= LEAST_NATS_R3 => {
            fine("nats-server", described(&program))
        }
        Some(program) if program.version >= LEAST_NATS_R1 => note(
            "nats-server",
            format!(
                "{}; with 3 replicas 2.15 or newer is needed",
                described(&program)
            ),
        ),
        Some(program) => missing(
            "nats-server",
            format!("{}; 2.15 or newer is needed", described(&program)),
        ),
        None => note(
            "nats-server",
            "not on this machine; `staffetta up` needs it (`make servers`)".to_owned(),
        ),
    };
    let redis = match find_redis_server() {
        Some(program) => fine("redis-server", described(&program)),
        None => note(
            "redis-server",
            "not on this machine; `staffetta up` needs it (`make servers`)".to_owned(),
        ),
    };
    vec![nats, redis]
}

/// Whether data can be written and how long an fsync takes.
fn volume(folder: &Path) -> Finding {
    // A folder that is yet to be made stands on the volume of what is there.
    let existing = folder
        .ancestors()
        .find(|ancestor| ancestor.is_dir())
        .unwrap_or(Path::new("."));
    let probe = existing.join(format!(".staffetta-doctor-{}", std::process::id()));
    let measured = sync_time(&probe);
    // It is not there when it could not be written.
    drop(std::fs::remove_file(&probe));
    match measured {
        Ok(time) if time > SLOW_SYNC => note(
            "data folder",
            format!(
                "{}: an fsync takes {time:.1?}; every 250 waits for one",
                existing.display()
            ),
        ),
        Ok(time) => fine(
            "data folder",
            format!(
                "{}: writable, an fsync takes {time:.1?}",
                existing.display()
            ),
        ),
        Err(error) => missing(
            "data folder",
            format!("{}: not writable: {error}", existing.display()),
        ),
    }
}

/// The median of five.
fn sync_time(probe: &Path) -> std::io::Result<Duration> {
    let mut file = std::fs::File::create(probe)?;
    let mut times = Vec::new();
    for _ in 0..5 {
        let start = Instant::now();
        file.write_all(&[0; 4096])?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

fn certificates(bootstrap: &Bootstrap) -> Vec<Finding> {
    let problems = certificate_problems(bootstrap);
    let with_tls = bootstrap
        .ingress
        .listeners
        .iter()
        .filter(|listener| listener.tls != ListenerTls::None)
        .count();
    if problems.is_empty() && with_tls > 0 {
        return vec![fine("certificates", format!("of {with_tls} listeners"))];
    }
    problems
        .into_iter()
        .map(|problem| missing("certificates", problem))
        .collect()
}

fn ports(bootstrap: &Bootstrap) -> Vec<Finding> {
    let listeners = bootstrap.ingress.listeners.iter();
    let mut addresses: Vec<(String, SocketAddr)> = listeners
        .map(|listener| (format!("listener {}", listener.name), listener.address))
        .collect();
    if addresses.is_empty() {
        return vec![note(
            "ports",
            "no listener is configured: ingress can't run here".to_owned(),
        )];
    }
    addresses.extend([
        ("signer".to_owned(), bootstrap.signer.listen),
        ("scheduler".to_owned(), bootstrap.scheduler.listen),
        ("metrics".to_owned(), bootstrap.all.metrics),
    ]);
    let mut findings = Vec::new();
    for (what, address) in &addresses {
        match TcpListener::bind(address) {
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                findings.push(note(
                    "ports",
                    format!("{what}: {address} is in use (by a running Staffetta?)"),
                ));
            }
            Err(error) => findings.push(missing(
                "ports",
                format!("{what}: {address} can't be used: {error}"),
            )),
        }
    }
    if findings.is_empty() {
        findings.push(fine("ports", format!("{} are free", addresses.len())));
    }
    findings
}

async fn nats(bootstrap: &Bootstrap) -> Vec<Finding> {
    let looked = tokio::time::timeout(STORES, async {
        let stores = stores::connect(bootstrap, "doctor").await?;
        let opened = stores.open().await;
        anyhow::Ok(opened)
    });
    let opened = match looked.await {
        Err(_) => {
            return vec![missing(
                "NATS",
                format!("{} gives no answer", without_password(&bootstrap.nats.url)),
            )];
        }
        Ok(Err(error)) => return vec![missing("NATS", error.to_string())],
        Ok(Ok(opened)) => opened,
    };
    match opened {
        Ok(opened) => {
            let streams = fine(
                "streams",
                format!(
                    "of {} partitions, {} replica(s)",
                    opened.partitions, opened.replicas
                ),
            );
            let durability = opened.report.to_string();
            let durability = if opened.report.mode == spool::DurabilityMode::Strict {
                fine("durability", durability)
            } else {
                note(
                    "durability",
                    format!("{durability}: a power cut loses acknowledged mail"),
                )
            };
            vec![
                fine("NATS", without_password(&bootstrap.nats.url)),
                durability,
                streams,
            ]
        }
        Err(error) => vec![
            fine("NATS", without_password(&bootstrap.nats.url)),
            missing("streams", error.to_string()),
        ],
    }
}

/// One for each server. Without one that counts, limits fall back to the safe share.
async fn redis(bootstrap: &Bootstrap) -> Vec<Finding> {
    let urls = without_password(&bootstrap.redis.url);
    let looked = async {
        let options = redis_options(&bootstrap.redis)?;
        anyhow::Ok(limits::servers(&options).await?)
    };
    let servers = match looked.await {
        Ok(servers) => servers,
        Err(error) => return vec![missing("Redis", format!("{urls}: {error:#}"))],
    };
    let counts = |seen: &limits::Seen| seen.role != limits::Role::Replica;
    let is_there = servers.iter().flatten().any(counts);
    let without = "limits fall back to the safe share";
    let mut findings: Vec<Finding> = urls
        .split(',')
        .zip(servers)
        .map(|(url, seen)| match seen {
            Ok(seen) => redis_server(url, seen),
            Err(error) if is_there => note("Redis", format!("{url}: {error}")),
            Err(error) => missing("Redis", format!("{url}: {error}; {without}")),
        })
        .collect();
    let is_missing = |finding: &Finding| finding.verdict == Verdict::Missing;
    if !is_there && !findings.iter().any(is_missing) {
        findings.push(missing("Redis", format!("none is the master; {without}")));
    }
    findings
}

fn redis_server(url: &str, seen: limits::Seen) -> Finding {
    let difference = seen.clock_ms.abs_diff(runtime::now_ms());
    if difference > CLOCK_TOLERANCE_MS {
        let what = format!("differs by {difference} ms from that of {url}");
        return note("clock", what);
    }
    let role = match seen.role {
        limits::Role::Master => "",
        limits::Role::Replica => " (a replica)",
        limits::Role::OfCluster => " (of a cluster)",
    };
    let what = format!("{url}{role}, its clock differs by {difference} ms");
    fine("Redis", what)
}

fn redis_options(redis: &Redis) -> anyhow::Result<limits::Options> {
    let read = |path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("redis.authorities {}", path.display()))
    };
    Ok(limits::Options {
        login: redis.login.clone(),
        authorities: redis.authorities.as_ref().map(read).transpose()?,
        response_timeout: REDIS_ANSWER,
        ..limits::Options::new(&redis.url)
    })
}

/// URLs, separated by commas, without names and passwords.
fn without_password(urls: &str) -> String {
    let mut whole: Vec<String> = Vec::new();
    for part in urls.split(',') {
        match whole.last_mut() {
            // A comma in a password.
            Some(before) if !part.contains("://") => *before = format!("{before},{part}"),
            _ => whole.push(part.to_owned()),
        }
    }
    let shown = whole.iter().map(|url| match url.split_once("://") {
        Some((scheme, rest)) => {
            let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
            format!("{scheme}://{host}")
        }
        None => url.clone(),
    });
    shown.collect::<Vec<_>>().join(",")
}

async fn schedulers(bootstrap: &Bootstrap) -> Finding {
    let url = format!("http://{}", bootstrap.scheduler.advertise);
    let asked = async {
        let mut admin = crate::admin::connect(&url).await?;
        crate::admin::partitions(&mut admin).await
    };
    match asked.await {
        Ok(partitions) => {
            let owned = partitions
                .iter()
                .filter(|partition| !partition.owner.is_empty())
                .count();
            let what = format!("{owned} of {} partitions have an owner", partitions.len());
            if owned == partitions.len() {
                fine("scheduler", what)
            } else {
                note("scheduler", what)
            }
        }
        Err(_) => note(
            "scheduler",
            format!("none answers at {url}: Staffetta does not run there"),
        ),
    }
}

fn fine(subject: &'static str, what: String) -> Finding {
    Finding {
        verdict: Verdict::Fine,
        subject,
        what,
    }
}

fn note(subject: &'static str, what: String) -> Finding {
    Finding {
        verdict: Verdict::Note,
        subject,
        what,
    }
}

fn missing(subject: &'static str, what: String) -> Finding {
    Finding {
        verdict: Verdict::Missing,
        subject,
        what,
    }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_is_shown() {
        for (url, shown) in [
            ("redis://127.0.0.1:6379", "redis://127.0.0.1:6379"),
            (
                "redis://:p@s,/w@redis.example:6379/0",
                "redis://redis.example:6379/0",
            ),
            (
                "nats://me:secret@a:4222,tls://b:4222",
                "nats://a:4222,tls://b:4222",
            ),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
