//! Raw sockets on an interface: announces an address, and asks the neighbours who has it. Needs CAP_NET_RAW. Must not decide when.

use std::io::{self, ErrorKind, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::socket::bind;
use socket2::{Domain, Protocol, Socket, Type};

use super::frames::{self, Mac};
use super::interfaces::Interface;
use crate::support::clock::{Duration, now};

/// Longer than any frame that is read here.
const FRAME: usize = 128;

/// Tells the neighbours on `interface` that `address` is here.
///
/// # Errors
/// No right to (CAP_NET_RAW), or the interface is gone.
pub(super) fn announce(interface: &Interface, address: IpAddr) -> io::Result<()> {
    // Of no protocol: it receives nothing.
    let mut socket = open(interface, 0)?;
    for frame in frames::announcements(address, interface.mac) {
        socket.write_all(&frame)?;
    }
    Ok(())
}

/// Asks the neighbours on `interface` who has `address` and waits `within` for an answer of somebody else. Blocks its thread.
///
/// # Errors
/// As [`announce`].
pub(super) fn who_has(interface: &Interface, address: IpAddr, within: Duration) -> io::Result<Option<Mac>> {
    let mut socket = open(interface, frames::ethertype(address))?;
    let until = now() + within;
    socket.write_all(&frames::question(address, interface.mac))?;
    let mut frame = [0; FRAME];
    loop {
        let left = until.saturating_duration_since(now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        let count = match socket.read(&mut frame) {
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => continue,
            read => read?,
        };
        let claimed = frames::claims(&frame[..count], address).filter(|mac| *mac != interface.mac);
        if claimed.is_some() {
            return Ok(claimed);
        }
    }
}

/// A socket for frames of one type on that interface; 0: for sending alone.
pub(super) fn open(interface: &Interface, ethertype: u16) -> io::Result<Socket> {
    let socket = Socket::new(Domain::PACKET, Type::RAW.cloexec(), Some(Protocol::from(i32::from(ethertype.to_be()))))?;
    bind(socket.as_raw_fd(), &interface.link)?;
    Ok(socket)
}

/// Says once that the neighbours cannot be told.
#[derive(Debug, Default)]
pub(super) struct Complaint(AtomicBool);

impl Complaint {
    pub(super) fn about(&self, interface: &str, error: &io::Error) {
        if !self.0.swap(true, Ordering::Relaxed) {
            tracing::warn!(
                event = "address_not_announced",
                interface,
                "neighbours cannot be told of the virtual address: {error}"
            );
        }
    }
}
