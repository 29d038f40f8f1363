//! Addresses in the kernel, over rtnetlink: set with a lifetime, deleted, listed. Needs CAP_NET_ADMIN. Must not decide when.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt};
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, AddressScope, CacheInfo};
use tokio::task::JoinHandle;

/// How long the kernel may take over one change; it takes a tenth of a millisecond.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection to the kernel's routing.
#[derive(Debug)]
pub(super) struct Kernel {
    handle: rtnetlink::Handle,
    driver: JoinHandle<()>,
}

impl Drop for Kernel {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Kernel {
    /// Connects. Runs in the runtime that it is called in.
    ///
    /// # Errors
    /// No such socket can be had.
    pub(super) fn connect() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, driver: tokio::spawn(connection) })
    }

    /// Gives the interface `index` the address with that prefix for so many seconds; one that it has gets the new lifetime. The
    /// kernel rounds: it goes up to a second later (HA H19).
    ///
    /// # Errors
    /// No right to (CAP_NET_ADMIN), no such interface, or the kernel does not answer within a second.
    pub(super) async fn set(&self, index: u32, (address, width): (IpAddr, u8), seconds: u32) -> io::Result<()> {
        let mut request = self.handle.address().add(index, address, width).replace();
        let message = request.message_mut();
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = seconds;
        // Never chosen as the source of our own connections (IPv6), which would end with it.
        lifetime.ifa_preferred = if address.is_ipv6() { 0 } else { seconds };
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        if address.is_ipv6() {
            message.attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
        }
        message.header.scope = AddressScope::Universe;
        bounded(request.execute()).await
    }

    /// Takes the address from the interface `index`. That it has none is no error, nor that there is no such interface any more.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub(super) async fn delete(&self, index: u32, (address, width): (IpAddr, u8)) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        message.header.prefix_len = width;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(address));
        message.attributes.push(AddressAttribute::Address(address));
        match bounded(self.handle.address().del(message).execute()).await {
            Err(error) if matches!(error.raw_os_error(), Some(nix::libc::EADDRNOTAVAIL | nix::libc::ENODEV)) => Ok(()),
            done => done,
        }
    }

    /// The interfaces that have the address, each with the prefix under which it has it.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub(super) async fn holders(&self, address: IpAddr) -> io::Result<Vec<(u32, u8)>> {
        let found = self.handle.address().get().set_address_filter(address).execute();
        let place = |message: AddressMessage| (message.header.index, message.header.prefix_len);
        bounded(found.map(|message| message.map(place)).try_collect()).await
    }
}

/// The prefix of an address that is alone.
pub(super) fn alone(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

async fn bounded<T>(work: impl Future<Output = Result<T, rtnetlink::Error>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(rtnetlink::Error::NetlinkError(error))) => Err(error.to_io()),
        Ok(Err(error)) => Err(io::Error::other(error.to_string())),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the kernel does not answer over netlink")),
    }
}
