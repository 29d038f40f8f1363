//! Ports that nobody else takes between looking and listening.
//!
//! Owned by whoever starts servers on this machine. Must not listen on the ports that it hands out.

use std::net::{Ipv4Addr, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::sync::atomic::{AtomicU16, Ordering};

use super::Error;

/// Below the range from which Linux takes the local ports of outgoing connections (32768 and up).
const FIRST: u16 = 20_000;
/// One more than the last port handed out.
const END: u16 = 32_000;

/// A free TCP port of 127.0.0.1, reserved among all programs that ask in this way until the value is dropped.
///
/// The reservation is an abstract Unix socket: it lives in the network namespace as the port does, and the kernel
/// ends it with the process.
#[derive(Debug)]
pub struct PortLock {
    port: u16,
    _reservation: UnixListener,
}

impl PortLock {
    /// Reserves a port that is free now.
    ///
    /// # Errors
    /// [`Error::NoPort`] when all of the range is taken.
    pub fn any() -> Result<Self, Error> {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        // Processes start at different places, so that they seldom try the same ones.
        let start = u16::try_from(std::process::id().wrapping_mul(37) % u32::from(END - FIRST)).unwrap_or(0);
        for _ in 0..END - FIRST {
            let step = NEXT.fetch_add(1, Ordering::Relaxed);
            let port = FIRST + (start.wrapping_add(step)) % (END - FIRST);
            if let Some(lock) = Self::exactly(port) {
                return Ok(lock);
            }
        }
        Err(Error::NoPort)
    }

    /// Reserves `port`, unless it is reserved or in use.
    pub fn exactly(port: u16) -> Option<Self> {
        let name = SocketAddr::from_abstract_name(format!("pgherd-port-{port}")).ok()?;
        let reservation = UnixListener::bind_addr(&name).ok()?;
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
        Some(Self { port, _reservation: reservation })
    }

    /// The port's number.
    pub fn port(&self) -> u16 {
        self.port
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_handed_out_once() {
        let held: Vec<PortLock> = (0..50).map(|_| PortLock::any().expect("fifty ports are free")).collect();
        let mut numbers: Vec<u16> = held.iter().map(PortLock::port).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        assert!(PortLock::exactly(numbers[0]).is_none());
    }

    #[test]
    fn a_port_in_use_is_not_handed_out() {
        let lock = PortLock::any().expect("a port is free");
        let port = lock.port();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is ours");
        drop(lock);
        assert!(PortLock::exactly(port).is_none());
        drop(listener);
    }
}
