//! Ethernet frames that ask who has an address and tell where it is now: ARP (RFC 826, RFC 5227) and neighbour discovery (RFC 4861).
//! Pure bytes; must not send.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mac(pub [u8; 6]);

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

const BROADCAST: Mac = Mac([0xFF; 6]);
const NOBODY: Mac = Mac([0; 6]);
const ETHERTYPE_ARP: u16 = 0x0806;
pub(super) const ETHERTYPE_IPV4: u16 = 0x0800;
pub(super) const ETHERTYPE_IPV6: u16 = 0x86DD;
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// The sender's entry replaces what a neighbour believed.
const OVERRIDE: u32 = 0x2000_0000;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
/// Bytes of an IPv6 header.
const IPV6: usize = 40;

/// What tells all neighbours that `address` is at `mac` now. Both forms of gratuitous ARP, since each is ignored by somebody.
pub(super) fn announcements(address: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match address {
        IpAddr::V4(address) => vec![
            arp(ARP_REQUEST, (mac, address), (NOBODY, address)),
            arp(ARP_REPLY, (mac, address), (BROADCAST, address)),
        ],
        IpAddr::V6(address) => vec![advertisement(address, mac)],
    }
}

/// What makes whoever has `address` answer, without saying that we want it.
pub(super) fn question(address: IpAddr, mac: Mac) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => arp(ARP_REQUEST, (mac, Ipv4Addr::UNSPECIFIED), (NOBODY, address)),
        IpAddr::V6(address) => solicitation(address, mac),
    }
}

/// Who says in `frame` to have `address`.
pub(super) fn claims(frame: &[u8], address: IpAddr) -> Option<Mac> {
    match address {
        IpAddr::V4(address) => arp_claims(frame, address),
        IpAddr::V6(address) => advertisement_claims(frame, address),
    }
}

/// The type of the frames by which [`question`] is answered, as a socket wants it.
pub(super) fn ethertype(address: IpAddr) -> u16 {
    if address.is_ipv4() { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 }
}

fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(ETHERNET + IPV6 + 32);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

fn arp(operation: u16, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let mut frame = ethernet(BROADCAST, sender.0, ETHERTYPE_ARP);
    // Ethernet, IPv4, their lengths.
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    for (mac, address) in [sender, target] {
        frame.extend_from_slice(&mac.0);
        frame.extend_from_slice(&address.octets());
    }
    frame
}

fn arp_claims(frame: &[u8], address: Ipv4Addr) -> Option<Mac> {
    let arp = body(frame, ETHERTYPE_ARP)?.first_chunk::<28>()?;
    let known =
        arp[..6] == [0, 1, 8, 0, 6, 4] && matches!(u16::from_be_bytes([arp[6], arp[7]]), ARP_REQUEST | ARP_REPLY);
    (known && arp[14..18] == address.octets()).then(|| mac_of(&arp[8..14])).flatten()
}

fn body(frame: &[u8], ethertype: u16) -> Option<&[u8]> {
    let (head, body) = frame.split_at_checked(ETHERNET)?;
    (head[12..] == ethertype.to_be_bytes()).then_some(body)
}

fn mac_of(bytes: &[u8]) -> Option<Mac> {
    bytes.try_into().ok().map(Mac)
}

/// A multicast group's hardware address.
fn group_mac(group: Ipv6Addr) -> Mac {
    let octets = group.octets();
    Mac([0x33, 0x33, octets[12], octets[13], octets[14], octets[15]])
}

fn advertisement(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1);
    let mut icmp = icmp(ADVERTISEMENT, OVERRIDE, address);
    // Option: target link-layer address, one unit of eight bytes.
    icmp.extend_from_slice(&[2, 1]);
    icmp.extend_from_slice(&mac.0);
    packet(mac, address, all_nodes, icmp)
}

/// As for duplicate address detection: without a source address and without our own hardware address in it.
fn solicitation(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let octets = address.octets();
    let last = u16::from_be_bytes([octets[14], octets[15]]);
    let group = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 1, 0xFF00 | u16::from(octets[13]), last);
    packet(mac, Ipv6Addr::UNSPECIFIED, group, icmp(SOLICITATION, 0, address))
}

fn icmp(kind: u8, flags: u32, target: Ipv6Addr) -> Vec<u8> {
    let mut icmp = vec![kind, 0, 0, 0];
    icmp.extend_from_slice(&flags.to_be_bytes());
    icmp.extend_from_slice(&target.octets());
    icmp
}

fn packet(mac: Mac, from: Ipv6Addr, to: Ipv6Addr, mut icmp: Vec<u8>) -> Vec<u8> {
    let length = u16::try_from(icmp.len()).expect("made here, and short");
    let sum = checksum(&[from.octets(), to.octets()].concat(), ICMPV6, &icmp);
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = ethernet(group_mac(to), mac, ETHERTYPE_IPV6);
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    // The hop limit of 255 proves to neighbours that it comes from this network.
    frame.extend_from_slice(&[ICMPV6, 255]);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&to.octets());
    frame.extend_from_slice(&icmp);
    frame
}

/// RFC 4443, 2.3, and RFC 9293, 3.1: over a pseudo header (both addresses, one behind the other, of either family) and the message, whose own
/// sum is zero meanwhile.
pub(super) fn checksum(addresses: &[u8], protocol: u8, message: &[u8]) -> u16 {
    let length = u32::try_from(message.len()).expect("a frame's length");
    let mut sum = (length >> 16) + (length & 0xFFFF) + u32::from(protocol);
    for bytes in [addresses, message] {
        for pair in bytes.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xFFFF {
        sum = (sum >> 16) + (sum & 0xFFFF);
    }
    !u16::try_from(sum).expect("folded to 16 bits")
}

fn advertisement_claims(frame: &[u8], address: Ipv6Addr) -> Option<Mac> {
    let packet = body(frame, ETHERTYPE_IPV6)?;
    let (head, icmp) = packet.split_at_checked(IPV6)?;
    let neighbour = head[6] == ICMPV6 && head[7] == 255 && icmp.first() == Some(&ADVERTISEMENT);
    let target = icmp.get(8..24)?;
    (neighbour && target == address.octets()).then(|| mac_of(&frame[6..12])).flatten()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAC: Mac = Mac([2, 0, 0, 0, 0, 7]);

    fn addresses() -> [IpAddr; 2] {
        ["192.0.2.10".parse().expect("an address"), "2001:db8::10".parse().expect("an address")]
    }

    #[test]
    fn h21_an_announcement_claims_the_address_for_its_sender_in_every_form() {
        for address in addresses() {
            let all = announcements(address, MAC);
            assert_eq!(all.len(), if address.is_ipv4() { 2 } else { 1 });
            for frame in all {
                assert_eq!(claims(&frame, address), Some(MAC), "{frame:02x?}");
                assert_eq!(claims(&frame, if address.is_ipv4() { addresses()[1] } else { addresses()[0] }), None);
            }
        }
    }

    #[test]
    fn h20_a_question_claims_nothing() {
        for address in addresses() {
            assert_eq!(claims(&question(address, MAC), address), None);
        }
    }

    #[test]
    fn a_gratuitous_arp_request_is_as_rfc_5227_has_it() {
        let frame = &announcements(addresses()[0], MAC)[0];
        let expected = [
            &[0xFF; 6][..],
            &MAC.0,
            &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
            &MAC.0,
            &[192, 0, 2, 10, 0, 0, 0, 0, 0, 0, 192, 0, 2, 10],
        ]
        .concat();
        assert_eq!(*frame, expected);
    }

    #[test]
    fn the_checksum_of_icmpv6_adds_up() {
        for frame in [question(addresses()[1], MAC), announcements(addresses()[1], MAC).remove(0)] {
            let packet = &frame[ETHERNET..];
            // With the sum in its place the whole is all ones, whose complement is zero.
            assert_eq!(checksum(&packet[8..40], ICMPV6, &packet[IPV6..]), 0);
        }
    }

    proptest! {
        #[test]
        fn hostile_frames_claim_nothing_and_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..120), cut in 0_usize..90) {
            for address in addresses() {
                let _ = claims(&bytes, address);
                for frame in announcements(address, MAC) {
                    let whole = frame.len().min(if address.is_ipv4() { 42 } else { ETHERNET + IPV6 + 24 });
                    let cut = cut.min(frame.len());
                    prop_assert_eq!(claims(&frame[..cut], address), (cut >= whole).then_some(MAC));
                }
            }
        }
    }
}
