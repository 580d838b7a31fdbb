//! Tokens whose keys are fetched from a web server, which changes them, goes away and comes back.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Result, ensure};
use kit::{Documents, Layout, Relay, Session, Setup, WebServer, Zones, free_port_on, until};

use crate::token_issuer::{AUDIENCE, ISSUER, Issuer, key_set, response};

const PATIENCE: Duration = Duration::from_secs(120);

/// Logs in with a token about `app`; gives the last reply.
async fn log_in(listener: SocketAddr, issuer: &Issuer) -> Result<String> {
    let token = issuer.token(&Issuer::claims("app"));
    let mut session = Session::open(listener, PATIENCE).await?;
    let response = response("OAUTHBEARER", None, &token);
    let reply = session
        .command(&format!("AUTH OAUTHBEARER {response}"))
        .await?;
    if reply.starts_with("334") {
        return session.command("AQ==").await;
    }
    Ok(reply)
}

/// Until a login is answered so.
async fn until_answered(listener: SocketAddr, issuer: &Issuer, code: &str) -> Result<()> {
    until(&format!("AUTH answered with {code}"), PATIENCE, || async {
        let reply = log_in(listener, issuer).await.ok()?;
        reply.starts_with(code).then_some(())
    })
    .await
}

#[tokio::test]
async fn tokens_are_taken_while_keys_change_and_their_server_is_away() -> Result<()> {
    let local = IpAddr::from(Ipv4Addr::LOCALHOST);
    let server = WebServer::start(SocketAddr::new(local, 0), &["127.0.0.1"]).await?;
    let (old, new, unknown) = (
        Issuer::new("old"),
        Issuer::new("new"),
        Issuer::new("unknown"),
    );
    server.show("/keys", "ETag: \"old\"\r\n", &key_set(&[&old]));

    let documents = Documents::new(25).yaml();
    let setup = Setup::new("tokens", Zones::new(), documents).layout(Layout::AllInOne);
    let mut relay = Relay::prepare(&setup).await?;
    let listener = SocketAddr::new(local, free_port_on(&[local])?);
    relay.reconfigure(
        "all",
        "  listeners:\n",
        &format!(
            "  failedLogins: 1000/10m\n  listeners:\n    - {{ name: tokens, address: \"{listener}\", tls: none, \
             allowPlaintextAuthFrom: [\"127.0.0.0/8\"] }}\n"
        ),
    )?;
    relay.start_all(&setup).await?;
    let authority = server.write_authority(relay.folder())?;
    relay
        .apply(&format!(
            "apiVersion: staffetta.dev/v1alpha1\nkind: TokenIssuer\nmetadata: {{ name: login }}\n\
             spec: {{ issuer: \"{ISSUER}\", audiences: [ {AUDIENCE} ], jwksUrl: \"{}\", authorities: \"file:{}\" }}\n\
             ---\napiVersion: staffetta.dev/v1alpha1\nkind: Credential\nmetadata: {{ name: app }}\n\
             spec: {{ tenant: acme, tokens: [ {{ issuer: login, subject: app }} ] }}\n",
            server.url("/keys"),
            authority.display()
        ))
        .await?;

    until_answered(listener, &old, "235").await?;
    until_answered(listener, &unknown, "535").await?;
    // The issuer has new keys: the first token of them makes ingress look.
    server.show("/keys", "ETag: \"new\"\r\n", &key_set(&[&new]));
    until_answered(listener, &new, "235").await?;
    let reply = log_in(listener, &old).await?;
    ensure!(reply.starts_with("535"), "{reply}");

    // The server is away: what is known goes on, and of what is not nobody can say that it is wrong.
    server.set_away(true);
    until_answered(listener, &unknown, "454").await?;
    let reply = log_in(listener, &new).await?;
    ensure!(reply.starts_with("235"), "{reply}");
    let failed = relay
        .metric(
            "staffetta_ingress_token_key_fetches_total",
            "outcome=\"failed\"",
        )
        .await;
    ensure!(failed >= 1.0, "{failed}");

    // A process that begins now has no keys, until the server is back.
    relay.kill9("all")?;
    relay.start_process("all")?;
    relay.wait_ready().await?;
    let reply = log_in(listener, &new).await?;
    ensure!(reply.starts_with("454 4.7.0"), "{reply}");
    server.set_away(false);
    until_answered(listener, &new, "235").await?;
    relay.finish()
}
