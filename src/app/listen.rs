//! Sockets that are listened at: for clients, and for HTTP. Must not accept anybody.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::config::Settings;
use crate::net::{Listener, bind_tcp, bind_unix};
use crate::web::{Source, Web};

use super::Error;
use super::data::Common;

/// Mode of the Unix sockets: who may come in is a matter of `hba_file`.
const SOCKET_MODE: u32 = 0o777;

/// The HTTP server, if there is to be one.
pub(super) fn web(settings: &Settings, common: &Arc<Common>) -> Result<Option<Web>, Error> {
    let Some(web) = &settings.web else { return Ok(None) };
    let (clients, stopping) = (common.clone(), common.clone());
    let source = Source {
        global: common.global.clone(),
        clients: Box::new(move || {
            (clients.clients.load(Ordering::Relaxed), clients.max_clients.load(Ordering::Relaxed))
        }),
        stopping: Box::new(move || stopping.stopping.load(Ordering::Relaxed)),
    };
    let failed = |source| Error::Listen { address: format!("{}:{}", web.address, web.port), source };
    let nobody = || failed(std::io::Error::from(std::io::ErrorKind::AddrNotAvailable));
    let address = resolve(&web.address, web.port)?.into_iter().next().ok_or_else(nobody)?;
    Web::bind(address, source).map(Some).map_err(failed)
}

/// The listening sockets, and the TCP port.
pub(super) fn clients(settings: &Settings) -> Result<(Vec<Listener>, u16), Error> {
    let listen = &settings.listen;
    let backlog = i32::try_from(listen.backlog).unwrap_or(i32::MAX);
    let mut listeners = Vec::new();
    let mut port = 0;
    for address in &listen.addresses {
        for address in resolve(address, listen.port)? {
            let failed = |source| Error::Listen { address: address.to_string(), source };
            listeners.push(bind_tcp(address, backlog).map_err(failed)?);
            port = listen.port;
        }
    }
    for directory in &listen.unix_socket_directories {
        let failed = |source| Error::Listen { address: directory.display().to_string(), source };
        listeners.push(bind_unix(directory, listen.port, SOCKET_MODE, backlog).map_err(failed)?);
    }
    Ok((listeners, port))
}

pub(super) fn resolve(address: &str, port: u16) -> Result<Vec<std::net::SocketAddr>, Error> {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
    if address == "*" {
        let both: [SocketAddr; 2] = [(Ipv4Addr::UNSPECIFIED, port).into(), (Ipv6Addr::UNSPECIFIED, port).into()];
        return Ok(both.to_vec());
    }
    let failed = |source| Error::Listen { address: address.to_owned(), source };
    let mut found: Vec<_> = (address, port).to_socket_addrs().map_err(failed)?.collect();
    found.dedup();
    Ok(found)
}
