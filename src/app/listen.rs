//! Sockets that are listened at, for clients, administrators and HTTP: those that a service manager has passed, else those of the
//! configuration. Must not accept anybody.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::Settings;
use crate::net::{Inherited, Keepalive, Listener, PeerAddr, SocketOptions, bind_tcp_group, bind_unix};
use crate::support::clock::Duration;
use crate::web::{Source, Web};

use super::Error;
use super::data::Common;

/// Mode of the Unix sockets: who may come in is a matter of `hba_file` and `pcp.users_file`.
const SOCKET_MODE: u32 = 0o777;
/// A client whose host has vanished is noticed within two minutes, also while it is idle.
const CLIENT_SOCKET: SocketOptions = SocketOptions {
    keepalive: Some(Keepalive { idle: Duration::from_secs(60), interval: Duration::from_secs(10), count: 6 }),
    user_timeout: None,
};
/// Administrators that may wait to be accepted.
const PCP_BACKLOG: i32 = 16;

/// Sockets that a service manager has passed. Where there are any for a purpose, no others are opened for it.
#[derive(Debug, Default)]
pub(super) struct Passed {
    clients: Vec<Inherited>,
    pcp: Vec<Inherited>,
    web: Vec<Inherited>,
}

impl Passed {
    /// By their names: `pcp`, `web`, and for clients `client` or, as systemd has it without a name, that of the unit.
    ///
    /// # Errors
    /// One has another name, or cannot be used.
    pub(super) fn take() -> Result<Self, Error> {
        let failed = |source| Error::Listen { address: "a socket of the service manager".to_owned(), source };
        let mut passed = Self::default();
        for socket in Inherited::take().map_err(failed)? {
            match socket.name.as_str() {
                "pcp" => passed.pcp.push(socket),
                "web" => passed.web.push(socket),
                "client" | "unknown" => passed.clients.push(socket),
                name if name.ends_with(".socket") => passed.clients.push(socket),
                name => {
                    let text = format!("the name {name:?} (FileDescriptorName) is none of client, pcp and web");
                    return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, text)));
                }
            }
        }
        Ok(passed)
    }

    /// The HTTP server, if there is to be one.
    pub(super) fn web(&mut self, settings: &Settings, common: &Arc<Common>) -> Result<Option<Web>, Error> {
        let (clients, stopping) = (common.clone(), common.clone());
        let source = Source {
            global: common.global.clone(),
            clients: Box::new(move || {
                (clients.clients.load(Ordering::Relaxed), clients.max_clients.load(Ordering::Relaxed))
            }),
            stopping: Box::new(move || stopping.stopping.load(Ordering::Relaxed)),
        };
        let passed = std::mem::take(&mut self.web);
        if !passed.is_empty() {
            let sockets: Option<Vec<_>> = passed.into_iter().map(Inherited::into_tcp).collect();
            let kind = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "HTTP is for TCP sockets");
            let failed = |source| Error::Listen { address: "web".to_owned(), source };
            return Web::on(sockets.ok_or_else(kind).map_err(failed)?, source).map(Some).map_err(failed);
        }
        let Some(web) = &settings.web else { return Ok(None) };
        let failed = |source| Error::Listen { address: format!("{}:{}", web.address, web.port), source };
        let nobody = || failed(std::io::Error::from(std::io::ErrorKind::AddrNotAvailable));
        let address = resolve(&web.address, web.port)?.into_iter().next().ok_or_else(nobody)?;
        Web::bind(address, source).map(Some).map_err(failed)
    }

    /// The sockets for clients, for each of so many threads, and the TCP port; 0 if there is none. At an address each thread has one of its
    /// own; those that cannot be shared, Unix sockets and what was passed, go to the threads in turn.
    ///
    /// # Errors
    /// One cannot be had.
    pub(super) fn clients(&mut self, settings: &Settings, threads: usize) -> Result<(Vec<Vec<Listener>>, u16), Error> {
        let listen = &settings.listen;
        let backlog = i32::try_from(listen.backlog).unwrap_or(i32::MAX);
        let places = (listen.addresses.as_slice(), listen.unix_socket_directories.as_slice());
        let queues = Queues { backlog, count: threads };
        let listeners = open(std::mem::take(&mut self.clients), places, listen.port, queues)?;
        for listener in &listeners {
            let failed = |source| Error::Listen { address: listener.address().to_string(), source };
            listener.set_options(&CLIENT_SOCKET).map_err(failed)?;
        }
        let port = listeners.iter().find_map(|listener| match listener.address() {
            PeerAddr::Ip(address) => Some(address.port()),
            PeerAddr::Unix => None,
        });
        let mut shares: Vec<Vec<Listener>> = (0..threads).map(|_| Vec::new()).collect();
        for (at, listener) in listeners.into_iter().enumerate() {
            shares[at % threads].push(listener);
        }
        Ok((shares, port.unwrap_or(0)))
    }

    /// The sockets for administrators: none without a file of them.
    ///
    /// # Errors
    /// One cannot be had, or was passed although nobody could come in by it.
    pub(super) fn pcp(&mut self, settings: &Settings) -> Result<Vec<Listener>, Error> {
        let (pcp, passed) = (&settings.pcp, std::mem::take(&mut self.pcp));
        if pcp.users_file.is_none() {
            let nobody = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "pcp.users_file is not set");
            let failed =
                |_| Error::Listen { address: "pcp, a socket of the service manager".to_owned(), source: nobody() };
            return passed.first().map_or(Ok(Vec::new()), |socket| Err(failed(socket)));
        }
        open(
            passed,
            (&pcp.addresses, &pcp.unix_socket_directories),
            pcp.port,
            Queues { backlog: PCP_BACKLOG, count: 1 },
        )
    }
}

/// Who has connected waits in these.
#[derive(Clone, Copy)]
struct Queues {
    /// Places in each.
    backlog: i32,
    /// At each TCP address.
    count: usize,
}

/// What was passed, or else sockets at these addresses and in these folders.
fn open(
    passed: Vec<Inherited>,
    (addresses, folders): (&[String], &[PathBuf]),
    port: u16,
    queues: Queues,
) -> Result<Vec<Listener>, Error> {
    if !passed.is_empty() {
        let failed = |source| Error::Listen { address: "a socket of the service manager".to_owned(), source };
        return passed.into_iter().map(|socket| socket.listen().map_err(failed)).collect();
    }
    let mut listeners = Vec::new();
    for address in addresses {
        for address in resolve(address, port)? {
            let failed = |source| Error::Listen { address: address.to_string(), source };
            listeners.extend(bind_tcp_group(address, queues.backlog, queues.count).map_err(failed)?);
        }
    }
    for folder in folders {
        let failed = |source| Error::Listen { address: format!("{} (port {port})", folder.display()), source };
        listeners.push(bind_unix(folder, port, SOCKET_MODE, queues.backlog).map_err(failed)?);
    }
    Ok(listeners)
}

fn resolve(address: &str, port: u16) -> Result<Vec<SocketAddr>, Error> {
    use std::net::{Ipv4Addr, Ipv6Addr, ToSocketAddrs};
    if address == "*" {
        let both: [SocketAddr; 2] = [(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()];
        return Ok(both.to_vec());
    }
    let failed = |source| Error::Listen { address: address.to_owned(), source };
    let mut found: Vec<_> = (address, port).to_socket_addrs().map_err(failed)?.collect();
    found.dedup();
    Ok(found)
}
