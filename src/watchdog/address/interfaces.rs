//! Interfaces of this host, as far as an address that moves is concerned. Asks the kernel; must not change anything.

use std::io;
use std::net::IpAddr;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{LinkAddr, SockaddrStorage};

use super::frames::Mac;

/// An interface on which neighbours can be told of an address.
#[derive(Debug, Clone)]
pub(super) struct Interface {
    /// Its name.
    pub(super) name: String,
    /// Its hardware address.
    pub(super) mac: Mac,
    /// What a raw socket is bound to.
    pub(super) link: LinkAddr,
}

/// The interfaces on whose networks `address` lies, with `named` that one alone. If it lies on none, all that have neighbours.
///
/// # Errors
/// The kernel does not tell.
pub(super) fn facing(address: IpAddr, named: Option<&str>) -> io::Result<Vec<Interface>> {
    let mut all = Vec::new();
    let mut near = Vec::new();
    for entry in getifaddrs()? {
        let usable =
            entry.flags.contains(InterfaceFlags::IFF_UP) && !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        if !usable || named.is_some_and(|name| name != entry.interface_name) {
            continue;
        }
        if let Some(link) = entry.address.as_ref().and_then(|address| address.as_link_addr().copied()) {
            if let Some(mac) = ethernet(&link) {
                all.push(Interface { name: entry.interface_name, mac: Mac(mac), link });
            }
        } else if let (Some(own), Some(mask)) =
            (entry.address.as_ref().and_then(ip), entry.netmask.as_ref().and_then(ip))
            && same_network(own, mask, address)
        {
            near.push(entry.interface_name);
        }
    }
    if all.iter().any(|interface| near.contains(&interface.name)) {
        all.retain(|interface| near.contains(&interface.name));
    }
    Ok(all)
}

/// A TUN device has no hardware address.
fn ethernet(link: &LinkAddr) -> Option<[u8; 6]> {
    const ARPHRD_ETHER: u16 = 1;
    link.addr().filter(|_| link.halen() == 6 && link.hatype() == ARPHRD_ETHER)
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
}

fn same_network(one: IpAddr, mask: IpAddr, other: IpAddr) -> bool {
    match (one, mask, other) {
        (IpAddr::V4(one), IpAddr::V4(mask), IpAddr::V4(other)) => {
            (one & mask) == (other & mask) && mask.to_bits() != u32::MAX
        }
        (IpAddr::V6(one), IpAddr::V6(mask), IpAddr::V6(other)) => {
            (one & mask) == (other & mask) && mask.to_bits() != u128::MAX
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_near_by_the_mask_and_a_lone_host_is_no_network() {
        let ip = |text: &str| text.parse::<IpAddr>().expect("an address");
        for (one, mask, other, near) in [
            ("192.0.2.1", "255.255.255.0", "192.0.2.10", true),
            ("192.0.2.1", "255.255.255.0", "192.0.3.10", false),
            ("192.0.2.10", "255.255.255.255", "192.0.2.10", false),
            ("2001:db8::1", "ffff:ffff:ffff:ffff::", "2001:db8::10", true),
            ("2001:db8::1", "ffff:ffff:ffff:ffff::", "192.0.2.10", false),
        ] {
            assert_eq!(same_network(ip(one), ip(mask), ip(other)), near, "{one} {mask} {other}");
        }
    }
}
