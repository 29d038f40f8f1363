//! Asks hosts outside the cluster whether this one is cut off: an ICMP echo (needs CAP_NET_RAW), a TCP connection to `host:port`, or a program
//! of the operator's. What answers here proves nothing about a partner (HA H20). Must not judge.

use std::io::{self, ErrorKind, Read};
use std::net::{IpAddr, SocketAddr};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Watchdog, WatchdogCommands, asking};
use crate::net::program::{Program, Ran};
use crate::support::clock::{Duration, now};

/// A look-up that hangs is not waited for.
const LOOKUP: Duration = Duration::from_millis(500);
/// Bytes behind the header of an echo by which ours is known.
const MARK: usize = 16;
/// Longer than any answer that is looked at: an IPv4 header with all its options, the echo.
const PACKET: usize = 60 + 8 + MARK;

/// Does one of the section's servers answer within `within`? By `trusted_server_command` if there is one.
///
/// # Errors
/// As [`any_answers`], or the program cannot be run.
pub async fn one_answers(watchdog: &Watchdog, within: Duration) -> Result<bool, String> {
    let WatchdogCommands { trusted: Some(command), folder, .. } = &watchdog.commands else {
        return any_answers(&watchdog.trusted_servers, within).await;
    };
    let mut asked = JoinSet::new();
    for server in &watchdog.trusted_servers {
        let (words, folder, server) = (asking(command, server)?, folder.clone(), server.clone());
        asked.spawn(async move {
            let surroundings = [("PGHERD_HOOK", "trusted_server_command".to_owned())];
            let program = Program { words: &words, folder: &folder, surroundings: &surroundings, limit: within };
            // What may not be killed is no answer either, and is not waited for.
            let ran = timeout(within + LOOKUP, program.run_silently()).await;
            (server, ran.unwrap_or_else(|_| Ran::Failed("it may not be killed".to_owned())))
        });
    }
    let mut failure = None;
    while let Some(Ok((server, ran))) = asked.join_next().await {
        match ran {
            Ran::Well(_) => return Ok(true),
            Ran::NotStarted(why) => failure = Some(why),
            Ran::Failed(why) => tracing::debug!(server, why, "trusted_server_command"),
        }
    }
    failure.map_or(Ok(false), |why| Err(format!("trusted_server_command: {why}")))
}

/// Does one of `servers` answer within `within`?
///
/// # Errors
/// No echo could be sent by any of them for want of the right to; the text says so.
pub async fn any_answers(servers: &[String], within: Duration) -> Result<bool, String> {
    let mut asked = JoinSet::new();
    for server in servers {
        let server = server.clone();
        asked.spawn(async move { timeout(LOOKUP + within, answers(&server, within)).await.unwrap_or(Ok(false)) });
    }
    let (mut tried, mut denied) = (false, None);
    while let Some(answer) = asked.join_next().await {
        match answer {
            Ok(Ok(true)) => return Ok(true),
            Ok(Err(error)) if error.kind() == ErrorKind::PermissionDenied => denied = Some(error),
            _ => tried = true,
        }
    }
    match denied {
        Some(error) if !tried => {
            Err(format!("trusted servers cannot be pinged: {error}; the process needs CAP_NET_RAW"))
        }
        _ => Ok(false),
    }
}

async fn answers(server: &str, within: Duration) -> io::Result<bool> {
    if let Some((host, port)) = host_and_port(server) {
        // A refusal may come from anything on the way.
        return Ok(matches!(timeout(within, TcpStream::connect((host, port))).await, Ok(Ok(_))));
    }
    let host = server.trim_start_matches('[').trim_end_matches(']');
    let found = timeout(LOOKUP, lookup_host((host, 0))).await.map_err(|_| ErrorKind::TimedOut)??.next();
    let address = found.ok_or(ErrorKind::NotFound)?.ip();
    tokio::task::spawn_blocking(move || echo(address, within)).await.map_err(io::Error::other)?
}

/// `host:port` or `[address]:port`; none for a mere host, IPv6 addresses without brackets included.
fn host_and_port(server: &str) -> Option<(&str, u16)> {
    let (host, port) = server.rsplit_once(':')?;
    let bracketed = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    if bracketed.is_none() && host.contains(':') {
        return None;
    }
    Some((bracketed.unwrap_or(host), port.parse().ok()?))
}

/// Sends one echo request and waits for its answer. Blocks its thread.
fn echo(address: IpAddr, within: Duration) -> io::Result<bool> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    // Where the system lets everybody ping (ping_group_range), without the capability.
    let raw = Socket::new(domain, Type::RAW, Some(protocol));
    let mut socket = raw.or_else(|error| Socket::new(domain, Type::DGRAM, Some(protocol)).map_err(|_| error))?;
    let mut mark = [0; MARK];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut mark).map_err(|_| ErrorKind::Other)?;
    let until = now() + within;
    socket.set_write_timeout(Some(within))?;
    socket.send_to(&request(address, &mark), &SocketAddr::new(address, 0).into())?;
    let mut packet = [0; PACKET];
    loop {
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return Ok(false);
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut packet) {
            Ok(count) if is_answer(&packet[..count], address, &mark) => return Ok(true),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error),
        }
    }
}

/// RFC 792 and RFC 4443; the kernel adds the checksum of the latter.
fn request(address: IpAddr, mark: &[u8; MARK]) -> Vec<u8> {
    let kind = if address.is_ipv4() { 8 } else { 128 };
    let mut packet = vec![kind, 0, 0, 0, mark[0], mark[1], 0, 1];
    packet.extend_from_slice(mark);
    if address.is_ipv4() {
        let sum = packet.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum::<u32>();
        let folded = (sum & 0xFFFF) + (sum >> 16);
        let folded = (folded & 0xFFFF) + (folded >> 16);
        let sum = !u16::try_from(folded).expect("folded to 16 bits");
        packet[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    packet
}

/// The mark is random, so that no other echo of this host is taken for ours, nor what a stranger sends.
fn is_answer(packet: &[u8], address: IpAddr, mark: &[u8; MARK]) -> bool {
    let (echo, kind) = match address {
        // A raw socket gives the IPv4 header, too.
        IpAddr::V4(_) if packet.first().is_some_and(|first| first >> 4 == 4) => {
            let head = usize::from(packet[0] & 0x0F) * 4;
            (packet.get(head..).unwrap_or_default(), 0)
        }
        IpAddr::V4(_) => (packet, 0),
        IpAddr::V6(_) => (packet, 129),
    };
    echo.first() == Some(&kind) && echo.get(8..8 + MARK) == Some(&mark[..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(5);

    #[test]
    fn a_server_is_a_host_or_a_host_with_a_port() {
        for (server, expected) in [
            ("gateway", None),
            ("192.0.2.1", None),
            ("2001:db8::1", None),
            ("[2001:db8::1]", None),
            ("gateway:22", Some(("gateway", 22))),
            ("[2001:db8::1]:22", Some(("2001:db8::1", 22))),
            ("gateway:99999", None),
        ] {
            assert_eq!(host_and_port(server), expected, "{server}");
        }
    }

    #[tokio::test]
    async fn s01_this_host_answers_by_ping_and_by_port() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("known").port();
        let ask = async |servers: &[&str], within| {
            let servers: Vec<_> = servers.iter().map(|server| (*server).to_owned()).collect();
            any_answers(&servers, within).await
        };
        assert_eq!(ask(&[&format!("127.0.0.1:{port}")], SOON).await, Ok(true));
        drop(listener);
        assert_eq!(ask(&[&format!("127.0.0.1:{port}")], SOON).await, Ok(false), "whoever refuses may be in between");
        match ask(&["127.0.0.1"], SOON).await {
            Ok(answered) => assert!(answered),
            Err(why) => assert!(why.contains("CAP_NET_RAW"), "{why}"),
        }
        assert_eq!(ask(&["no.such.host.invalid"], Duration::from_millis(200)).await, Ok(false));
        assert_eq!(ask(&[], SOON).await, Ok(false));
    }

    /// Asked by a script, which has a folder of its own.
    async fn scripted(command: &str, servers: &[&str], within: Duration) -> Result<bool, String> {
        let folder = std::env::temp_dir().join(format!("pgherd-trusted-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let script =
            "#!/bin/sh\necho asked for $1\ncase \"$1\" in good) exit 0 ;; hangs) exec sleep 60 ;; esac\nexit 1\n";
        std::fs::write(folder.join("ask.sh"), script).expect("written");
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(folder.join("ask.sh"), own).expect("set");
        std::fs::write(folder.join("key"), "0123456789abcdef").expect("written");
        let own = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(folder.join("key"), own).expect("set");
        let text = format!(
            "[watchdog]\nname = \"a\"\naddress = \"127.0.0.1\"\nkey_file = \"key\"\nstate_directory = \"state\"\n\
             trusted_servers = {servers:?}\ntrusted_server_command = {command:?}\n\
             [[watchdog.peer]]\nname = \"b\"\nhost = \"127.0.0.2\"\n[[node]]\nid = 0\nhost = \"a\"\n"
        );
        let settings = crate::config::Settings::parse(&text, &folder.join("pgherd.toml")).expect("good");
        one_answers(settings.watchdog.as_ref().expect("it is there"), within).await
    }

    #[tokio::test]
    async fn a_program_asks_each_server_and_has_its_time() {
        let command = "./ask.sh %h";
        assert_eq!(scripted(command, &["bad", "good"], SOON).await, Ok(true));
        let begun = now();
        // One good answer is enough, whoever is still being asked.
        assert_eq!(scripted(command, &["hangs", "good"], SOON).await, Ok(true));
        assert_eq!(scripted(command, &["hangs", "bad"], Duration::from_millis(300)).await, Ok(false));
        assert!(begun.elapsed() < SOON, "nobody waits for the one that hangs");
        let missing = scripted("./nowhere.sh %h", &["good"], SOON).await;
        assert!(missing.as_ref().is_err_and(|why| why.contains("./nowhere.sh")), "{missing:?}");
        std::fs::remove_dir_all(std::env::temp_dir().join(format!("pgherd-trusted-{}", std::process::id())))
            .expect("removed");
    }

    #[test]
    fn only_the_echo_of_our_mark_is_an_answer() {
        let (address, mark) = (IpAddr::from([127, 0, 0, 1]), [9; MARK]);
        let mut echo = request(address, &mark);
        assert!(!is_answer(&echo, address, &mark), "our own request");
        echo[0] = 0;
        assert!(is_answer(&echo, address, &mark));
        let mut header = vec![0x46; 24];
        header.extend_from_slice(&echo);
        assert!(is_answer(&header, address, &mark), "behind a header with options");
        assert!(!is_answer(&echo, address, &[8; MARK]));
        for cut in 0..header.len() {
            assert!(!is_answer(&header[..cut], address, &mark));
        }
        for first in 0..=u8::MAX {
            let _ = is_answer(&[first; 7], address, &mark);
        }
    }
}
