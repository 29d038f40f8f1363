//! Whether the client is who it says: the rule that is about it, its certificate, the exchange. The deciding itself is
//! in [`crate::auth`]; this carries messages.

use std::net::IpAddr;
use std::time::Duration;

use tokio::time::sleep;

use super::door::Door;
use super::startup::Request;
use super::{LoginPolicy, Replication, Turned};
use crate::auth::Credentials;
use crate::auth::client::{Question, Refusal, Step, begin};
use crate::auth::hba::{Client, ClientCert, Method, Rule, Wanted};
use crate::net::PeerAddr;
use crate::wire::{Fault, Side, back, front, peek, write};

/// A wrong password is answered this late, so that guessing over one connection after another is slow.
const SECOND_THOUGHT: Duration = Duration::from_millis(100);

/// What someone is let in with: AuthenticationOk and what else it is still to be sent, and what its login taught.
pub(super) type Proof = (Vec<u8>, Option<Credentials>);

/// Makes the client prove itself.
pub(super) async fn prove(door: &mut Door, policy: &LoginPolicy, request: &Request) -> Result<Proof, Turned> {
    let ip = match door.peer() {
        PeerAddr::Ip(address) => Some(address.ip().to_canonical()),
        PeerAddr::Unix => None,
    };
    let wanted = match request.replication {
        Replication::Physical => Wanted::Wal,
        Replication::No | Replication::Logical => Wanted::Database(&request.database),
    };
    let stream = door.stream()?;
    let tls = stream.is_tls();
    let same_host = ip.is_some_and(|ip| is_ours(ip, || stream.local_ip()));
    let client = Client { ip, tls, same_host, user: &request.user, wanted };
    let rule = match policy.hba.decide(&client) {
        Some(rule) if rule.method != Method::Reject => rule,
        other => {
            let message = turned_away(&client, other);
            let detail = other.map_or_else(|| message.clone(), |rule| format!("{message} (line {})", rule.line));
            return Err(door.unauthorized("28000", &message, &detail).await);
        }
    };
    check_certificate(door, rule, &request.user).await?;
    exchange(door, policy, request, rule).await
}

/// Does `ip` belong to this host, which was reached as `local`? A connection from this host to itself has the same address at
/// both ends, or comes from a loopback address; the kernel drops strangers that claim either. Trying to bind the address
/// would say yes to everyone where `ip_nonlocal_bind` is set, which is usual on hosts that share a virtual address.
fn is_ours(ip: IpAddr, local: impl FnOnce() -> Option<IpAddr>) -> bool {
    ip.is_loopback() || local().is_some_and(|local| local.to_canonical() == ip)
}

/// PostgreSQL's words for a client that no rule lets in, or that one turns away.
fn turned_away(client: &Client<'_>, rule: Option<&Rule>) -> String {
    let host = client.ip.map_or_else(|| "[local]".to_owned(), |ip| ip.to_string());
    let encryption = if client.tls { "SSL encryption" } else { "no encryption" };
    let what = match client.wanted {
        Wanted::Database(database) => format!("host \"{host}\", user \"{}\", database \"{database}\"", client.user),
        Wanted::Wal => format!("replication connection from host \"{host}\", user \"{}\"", client.user),
    };
    match (rule, client.wanted) {
        (None, _) => format!("no pg_hba.conf entry for {what}, {encryption}"),
        (Some(_), Wanted::Database(_)) => format!("pg_hba.conf rejects connection for {what}, {encryption}"),
        (Some(_), Wanted::Wal) => format!("pg_hba.conf rejects {what}, {encryption}"),
    }
}

async fn check_certificate(door: &mut Door, rule: &Rule, user: &str) -> Result<(), Turned> {
    let stream = door.stream()?;
    let shown = stream.peer_certificate().is_some();
    let name = stream.peer_common_name();
    let detail = match rule.client_cert {
        ClientCert::Any => return Ok(()),
        _ if !shown => {
            const MESSAGE: &str = "connection requires a valid client certificate";
            return Err(door.unauthorized("28000", MESSAGE, MESSAGE).await);
        }
        ClientCert::VerifyCa => return Ok(()),
        ClientCert::VerifyFull => match name {
            Some(name) if name == user => return Ok(()),
            Some(name) => format!("the certificate's common name is \"{name}\""),
            None => "the certificate has no common name".to_owned(),
        },
    };
    let message = format!("certificate authentication failed for user \"{user}\"");
    Err(door.unauthorized("28000", &message, &detail).await)
}

async fn exchange(door: &mut Door, policy: &LoginPolicy, request: &Request, rule: &Rule) -> Result<Proof, Turned> {
    let channel: Option<Box<[u8]>> = door.stream()?.channel_binding().map(Into::into);
    let mut step = begin(&Question {
        user: &request.user,
        method: rule.method,
        stored: policy.users.get(&request.user),
        typical: policy.users.typical(),
        salts: &policy.salts,
        channel: channel.as_deref(),
    });
    loop {
        let outcome = match step {
            Step::Accepted { bodies, learned } => {
                let mut bytes = Vec::new();
                for body in bodies {
                    write::frame(&mut bytes, back::AUTHENTICATION, |out| out.extend_from_slice(&body));
                }
                return Ok((bytes, learned));
            }
            Step::Derive { order, next } => next.with_keys(&policy.keys.keys(&order).await),
            Step::Send { body, next } => {
                let mut bytes = Vec::new();
                write::frame(&mut bytes, back::AUTHENTICATION, |out| out.extend_from_slice(&body));
                door.send(&bytes).await?;
                let message = password_message(door).await?;
                next.answer(&message)
            }
        };
        step = match outcome {
            Ok(step) => step,
            Err(refusal) => return Err(refused(door, rule, refusal).await),
        };
    }
}

async fn refused(door: &mut Door, rule: &Rule, refusal: Refusal) -> Turned {
    let Refusal { sqlstate, message, detail } = refusal;
    if sqlstate == "28P01" {
        sleep(SECOND_THOUGHT).await;
    }
    let detail = match rule.line {
        0 => format!("{message}: {detail}"),
        line => format!("{message}: {detail} (line {line} of the hba file)"),
    };
    door.unauthorized(sqlstate, &message, &detail).await
}

/// The body of the client's next message, which must be a `p`.
async fn password_message(door: &mut Door) -> Result<Vec<u8>, Turned> {
    loop {
        let bad = match peek(&door.buffer, Side::Client) {
            Ok(Some(header)) if header.tag == front::PASSWORD => {
                if door.buffer.len() >= header.size {
                    let body = door.buffer[5..header.size].to_vec();
                    door.buffer.drain(..header.size);
                    return Ok(body);
                }
                None
            }
            Ok(Some(header)) => Some(header.tag),
            Ok(None) => door.buffer.first().copied().filter(|&tag| tag != front::PASSWORD),
            Err(Fault::Tag(tag)) => Some(tag),
            Err(fault) => return Err(door.violation("08P01", &fault.to_string()).await),
        };
        if let Some(tag) = bad {
            let message = format!("expected password response, got message type {tag}");
            return Err(door.violation("08P01", &message).await);
        }
        door.read().await?;
    }
}
