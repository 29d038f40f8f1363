//! The startup phase: requests for encryption, direct TLS, CancelRequest, and the startup packet with its parameters
//! and version. PostgreSQL's rules: each request once, and no byte in plain text behind one.

use super::door::Door;
use super::options::settings;
use super::{LoginPolicy, Replication, Turned};
use crate::net::{PeerAddr, tls};
use crate::wire::{CancelKey, PROTOCOL_3_2, Startup, back, parse_startup, write};

/// The newest minor version of protocol 3 that is spoken here.
const NEWEST_MINOR: u16 = 2;
/// First byte of a TLS handshake record.
const TLS_HANDSHAKE: u8 = 0x16;

/// How a conversation opened.
pub(super) enum Opening {
    Cancel(CancelKey),
    Start(Request),
}

/// Who wants in, to what, and how.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) user: String,
    pub(super) database: String,
    pub(super) options: Vec<(String, String)>,
    pub(super) replication: Replication,
    pub(super) protocol_minor: u16,
}

/// What may still be asked for.
struct Allowed {
    tls: bool,
    gss: bool,
}

/// Receives everything up to the startup packet or a CancelRequest.
pub(super) async fn receive(door: &mut Door, policy: &LoginPolicy) -> Result<Opening, Turned> {
    door.read().await?;
    let mut allowed = Allowed { tls: true, gss: true };
    if door.buffer[0] == TLS_HANDSHAKE {
        start_tls(door, policy, Start::Direct).await?;
        allowed = Allowed { tls: false, gss: false };
    }
    loop {
        match packet(door).await? {
            Startup::Ssl if allowed.tls => {
                allowed.tls = false;
                no_more_bytes(door, "SSL").await?;
                if policy.tls.is_some() && door.peer() != PeerAddr::Unix {
                    door.send(b"S").await?;
                    start_tls(door, policy, Start::Asked).await?;
                    allowed.gss = false;
                } else {
                    door.send(b"N").await?;
                }
            }
            Startup::GssEnc if allowed.gss => {
                allowed.gss = false;
                no_more_bytes(door, "GSSAPI encryption").await?;
                door.send(b"N").await?;
            }
            Startup::Ssl | Startup::GssEnc => {
                return Err(door.violation("0A000", "unsupported frontend protocol 1234.5679").await);
            }
            Startup::Cancel(key) => return Ok(Opening::Cancel(key)),
            Startup::Start { minor, params } => {
                door.speaks = true;
                return request(door, minor, params).await.map(Opening::Start);
            }
        }
    }
}

/// The next packet of the startup phase, whole, its bytes taken off the buffer.
async fn packet(door: &mut Door) -> Result<Startup, Turned> {
    loop {
        match parse_startup(&door.buffer) {
            Ok(Some((startup, used))) => {
                door.buffer.drain(..used);
                return Ok(startup);
            }
            Ok(None) => door.read().await?,
            Err(text) if text.starts_with("unsupported frontend protocol") => {
                return Err(door.violation("0A000", &text).await);
            }
            Err(text) if text.starts_with("invalid length") => return Err(door.garbage(&text)),
            Err(text) => return Err(door.violation("08P01", &text).await),
        }
    }
}

/// What was sent in plain text behind the request would otherwise count as sent under encryption (CVE-2021-23214).
async fn no_more_bytes(door: &mut Door, what: &str) -> Result<(), Turned> {
    if door.buffer.is_empty() {
        return Ok(());
    }
    Err(door.violation("08P01", &format!("received unencrypted data after {what} request")).await)
}

#[derive(PartialEq, Eq)]
enum Start {
    /// After an SSLRequest.
    Asked,
    /// Without one.
    Direct,
}

async fn start_tls(door: &mut Door, policy: &LoginPolicy, start: Start) -> Result<(), Turned> {
    let Some(server) = policy.tls.as_ref().filter(|_| door.peer() != PeerAddr::Unix) else {
        return Err(door.garbage("direct TLS without an SSLRequest, and there is no TLS here"));
    };
    let early = door.take_rest();
    match door.take_stream()?.accept_tls(server, &early).await {
        Err(error) => Err(door.garbage(&format!("TLS: {error}"))),
        Ok(stream) if start == Start::Direct && stream.alpn() != Some(tls::ALPN) => {
            Err(door.garbage("direct TLS without the application protocol \"postgresql\""))
        }
        Ok(stream) => {
            door.put_stream(stream);
            Ok(())
        }
    }
}

async fn request(door: &mut Door, minor: u16, params: Vec<(String, String)>) -> Result<Request, Turned> {
    let unknown: Vec<&str> =
        params.iter().map(|(name, _)| name.as_str()).filter(|name| name.starts_with("_pq_.")).collect();
    let negotiation = (minor > NEWEST_MINOR || !unknown.is_empty()).then(|| negotiate(&unknown));
    let read = read_params(params);
    let (user, database) = match &read {
        Ok(request) => (request.user.as_str(), request.database.as_str()),
        Err(_) => ("", ""),
    };
    door.who = format!("user={user} database={database}");
    match read {
        Err((sqlstate, message)) => Err(door.violation(sqlstate, &message).await),
        Ok(mut request) => {
            request.protocol_minor = minor.min(NEWEST_MINOR);
            if let Some(bytes) = negotiation {
                door.send(&bytes).await?;
            }
            Ok(request)
        }
    }
}

/// NegotiateProtocolVersion: the newest version (whole, as PostgreSQL sends it), and the options that are unknown.
fn negotiate(unknown: &[&str]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write::frame(&mut bytes, back::NEGOTIATE, |out| {
        out.extend_from_slice(&PROTOCOL_3_2.to_be_bytes());
        // Bounded by the size of a startup packet.
        out.extend_from_slice(&u32::try_from(unknown.len()).unwrap_or(0).to_be_bytes());
        for name in unknown {
            write::cstr(out, name.as_bytes());
        }
    });
    bytes
}

fn read_params(params: Vec<(String, String)>) -> Result<Request, (&'static str, String)> {
    let mut request = Request {
        user: String::new(),
        database: String::new(),
        options: Vec::new(),
        replication: Replication::No,
        protocol_minor: 0,
    };
    let mut others = Vec::new();
    for (name, value) in params {
        match name.as_str() {
            "user" => request.user = value,
            "database" => request.database = value,
            "options" => request.options = settings(&value).map_err(|text| ("42601", text))?,
            "replication" => {
                let text = format!("invalid value for parameter \"replication\": \"{value}\"");
                request.replication = replication(&value).ok_or(("22023", text))?;
            }
            _ if name.starts_with("_pq_.") => {}
            _ => others.push((name, value)),
        }
    }
    request.options.append(&mut others);
    if request.user.is_empty() {
        return Err(("28000", "no PostgreSQL user name specified in startup packet".to_owned()));
    }
    if request.replication == Replication::Physical {
        request.database.clear();
    } else if request.database.is_empty() {
        request.database.clone_from(&request.user);
    }
    Ok(request)
}

/// `database`, or a boolean as PostgreSQL reads them: any beginning of a word that can mean only one.
fn replication(value: &str) -> Option<Replication> {
    let value = value.to_ascii_lowercase();
    let begins = |word: &str, least: usize| value.len() >= least && word.starts_with(&value);
    if value == "database" {
        Some(Replication::Logical)
    } else if begins("true", 1) || begins("yes", 1) || value == "on" || value == "1" {
        Some(Replication::Physical)
    } else if begins("false", 1) || begins("no", 1) || begins("off", 2) || value == "0" {
        Some(Replication::No)
    } else {
        None
    }
}
