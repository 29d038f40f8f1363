//! Who has just given the address up passes on what clients begin meanwhile: a SYN that reaches this host once the address is gone from it
//! would be dropped, and asked for again by its client a second later. Here it is held until the new holder announces itself, and is sent
//! there, unchanged, as a switch would. Answers nothing, and claims nothing: the address is the other one's. Must not decide.

use std::io::{self, Read, Write};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use socket2::{SockFilter, Socket};

use super::frames::{self, Mac};
use super::interfaces::Interface;
use super::wire::open;
use crate::support::clock::{Duration, Instant, now};

/// Frames that are held; a client asks again for what is beyond.
const MOST_HELD: usize = 1_024;
/// Longer than any SYN: Ethernet, IPv6 and TCP headers with all options.
const FRAME: usize = 160;
/// Between two looks at whether it is over, in milliseconds.
const LOOK: u16 = 10;
/// Each goes once more after that: a kernel takes nothing for an IPv6 address in its first moment. TCP takes a SYN that it knows as what it is.
const AGAIN: Duration = Duration::from_millis(20);
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// How far a relay is, for who began it.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// It is to end.
    pub(super) over: AtomicBool,
    /// The new holder has spoken.
    pub(super) heard: AtomicBool,
}

/// On one interface: opened before the address goes, so that nothing is missed.
#[derive(Debug)]
pub(super) struct Relay {
    address: IpAddr,
    mac: Mac,
    begun: Socket,
    announced: Socket,
}

impl Relay {
    /// # Errors
    /// No right to (CAP_NET_RAW), or the interface is gone.
    pub(super) fn open(interface: &Interface, address: IpAddr) -> io::Result<Self> {
        let protocol = if address.is_ipv4() { frames::ETHERTYPE_IPV4 } else { frames::ETHERTYPE_IPV6 };
        let begun = open(interface, protocol)?;
        begun.attach_filter(&only_begun(address))?;
        let announced = open(interface, frames::ethertype(address))?;
        if address.is_ipv6() {
            announced.attach_filter(&only_neighbours())?;
        }
        begun.set_nonblocking(true)?;
        announced.set_nonblocking(true)?;
        Ok(Self { address, mac: interface.mac, begun, announced })
    }

    /// Passes on what has come since it was opened, and what comes, for `time` at the most. Blocks its thread. What was answered by this host
    /// in its last moment is refused by its client when it is answered once more.
    pub(super) fn run(mut self, time: Duration, course: &Arc<Course>) -> io::Result<()> {
        let until = now() + time;
        let mut frame = [0; FRAME];
        let (mut held, mut holder): (Vec<Vec<u8>>, Option<Mac>) = (Vec::new(), None);
        let mut again: Vec<(Instant, Vec<u8>)> = Vec::new();
        while now() < until && !course.over.load(Ordering::Relaxed) {
            {
                let of = |socket| PollFd::new(socket, PollFlags::POLLIN);
                poll(&mut [of(self.begun.as_fd()), of(self.announced.as_fd())], PollTimeout::from(LOOK))?;
            }
            while let Ok(count) = self.announced.read(&mut frame) {
                let claimed = frames::claims(&frame[..count], self.address).filter(|mac| *mac != self.mac);
                holder = claimed.or(holder);
            }
            while let Ok(count) = self.begun.read(&mut frame) {
                if held.len() < MOST_HELD && begins(&frame[..count], self.address) {
                    held.push(frame[..count].to_vec());
                }
            }
            let Some(holder) = holder else { continue };
            for mut frame in held.drain(..) {
                pass_on(&mut frame, (self.mac, holder));
                self.begun.write_all(&frame)?;
                again.push((now() + AGAIN, frame));
            }
            for (_, frame) in again.extract_if(.., |(at, _)| *at <= now()) {
                self.begun.write_all(&frame)?;
            }
            if again.is_empty() {
                course.heard.store(true, Ordering::Release);
            }
        }
        Ok(())
    }
}

/// Where the TCP header begins, if the frame carries one to `address`.
fn tcp_at(frame: &[u8], address: IpAddr) -> Option<usize> {
    let ethertype = u16::from_be_bytes([*frame.get(12)?, *frame.get(13)?]);
    let ip = frame.get(ETHERNET..)?;
    match address {
        IpAddr::V4(address) => {
            // Not a later part of a packet: it has no header.
            let whole = u16::from_be_bytes([*ip.get(6)?, *ip.get(7)?]) & 0x1FFF == 0;
            let fits =
                ethertype == frames::ETHERTYPE_IPV4 && ip.get(16..20)? == address.octets() && ip[9] == TCP && whole;
            fits.then(|| ETHERNET + usize::from(ip[0] & 0x0F) * 4)
        }
        IpAddr::V6(address) => {
            let fits = ethertype == frames::ETHERTYPE_IPV6 && ip.get(24..40)? == address.octets() && ip[6] == TCP;
            fits.then_some(ETHERNET + 40)
        }
    }
}

/// A client's first packet of a connection to `address`.
fn begins(frame: &[u8], address: IpAddr) -> bool {
    let flags = tcp_at(frame, address).and_then(|at| frame.get(at + 13)).copied();
    flags.is_some_and(|flags| flags & (SYN | ACK) == SYN)
}

/// To the new holder, from us as a station; the sum may have been left to a network card that never saw it.
fn pass_on(frame: &mut [u8], (from, to): (Mac, Mac)) {
    frame[..6].copy_from_slice(&to.0);
    frame[6..12].copy_from_slice(&from.0);
    let four = frame[12..14] == frames::ETHERTYPE_IPV4.to_be_bytes();
    let (at, addresses, end) = if four {
        let length = usize::from(u16::from_be_bytes([frame[16], frame[17]]));
        (ETHERNET + usize::from(frame[ETHERNET] & 0x0F) * 4, ETHERNET + 12..ETHERNET + 20, ETHERNET + length)
    } else {
        let length = usize::from(u16::from_be_bytes([frame[18], frame[19]]));
        (ETHERNET + 40, ETHERNET + 8..ETHERNET + 40, ETHERNET + 40 + length)
    };
    // Cut off or padded otherwise than it says: it goes as it came, and is refused there.
    if end > frame.len() || at + 20 > end {
        return;
    }
    frame[at + 16..at + 18].fill(0);
    let sum = frames::checksum(&frame[addresses], TCP, &frame[at..end]);
    frame[at + 16..at + 18].copy_from_slice(&sum.to_be_bytes());
}

// Classic BPF, `linux/bpf_common.h`.
const LOAD_WORD: u16 = 0x20;
const LOAD_HALF: u16 = 0x28;
const LOAD_BYTE: u16 = 0x30;
const EQUAL: u16 = 0x15;
const RETURN: u16 = 0x06;

/// Takes frames in which these places have these values; each place is loaded by its instruction.
fn where_all(places: &[(u16, u32, u32)]) -> Vec<SockFilter> {
    let mut program = Vec::with_capacity(places.len() * 2 + 2);
    for (index, (load, at, value)) in places.iter().enumerate() {
        // Over all that follows, to the refusal.
        let skip = u8::try_from((places.len() - 1 - index) * 2 + 1).expect("a few places");
        program.push(SockFilter::new(*load, 0, 0, *at));
        program.push(SockFilter::new(EQUAL, 0, skip, *value));
    }
    program.push(SockFilter::new(RETURN, 0, 0, u32::MAX));
    program.push(SockFilter::new(RETURN, 0, 0, 0));
    program
}

/// TCP to the address: on a host that serves much else, nothing else is copied. Which of it begins a connection is seen in [`begins`].
fn only_begun(address: IpAddr) -> Vec<SockFilter> {
    match address {
        IpAddr::V4(address) => where_all(&[(LOAD_BYTE, 23, u32::from(TCP)), (LOAD_WORD, 30, address.to_bits())]),
        IpAddr::V6(address) => {
            let words = address.octets();
            let word = |at: usize| u32::from_be_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
            let place = |at: u32| (LOAD_WORD, 38 + at, word(at as usize));
            where_all(&[(LOAD_BYTE, 20, u32::from(TCP)), place(0), place(4), place(8), place(12)])
        }
    }
}

/// Neighbour advertisements.
fn only_neighbours() -> Vec<SockFilter> {
    where_all(&[(LOAD_HALF, 12, u32::from(frames::ETHERTYPE_IPV6)), (LOAD_BYTE, 20, 58), (LOAD_BYTE, 54, 136)])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN with a wrong sum, from .7 to .10.
    fn syn() -> Vec<u8> {
        let mut frame = [&[2, 0, 0, 0, 0, 1][..], &[2, 0, 0, 0, 0, 2], &[8, 0]].concat();
        frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0, 192, 0, 2, 7, 192, 0, 2, 10]);
        frame.extend([0x9C, 0x40, 0x27, 0x0F, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, SYN, 0xFF, 0xFF, 0xAB, 0xCD, 0, 0]);
        frame
    }

    #[test]
    fn only_the_beginning_of_a_connection_to_the_address_is_passed_on() {
        let (ours, other) = ("192.0.2.10".parse().expect("an address"), "192.0.2.11".parse().expect("an address"));
        assert!(begins(&syn(), ours) && !begins(&syn(), other));
        assert!(!begins(&syn(), "2001:db8::10".parse().expect("an address")));
        for flags in [SYN | ACK, ACK, 0x04] {
            let mut frame = syn();
            frame[47] = flags;
            assert!(!begins(&frame, ours), "{flags:x}");
        }
        let mut part = syn();
        part[21] = 1;
        assert!(!begins(&part, ours), "a later part of a packet has no header");
        for cut in 0..48 {
            assert!(!begins(&syn()[..cut], ours), "{cut}");
        }
    }

    #[test]
    fn it_goes_to_the_new_holder_with_a_right_sum_and_is_otherwise_the_same() {
        let (from, to) = (Mac([2, 0, 0, 0, 0, 8]), Mac([2, 0, 0, 0, 0, 9]));
        let mut frame = syn();
        // Padding of a short frame is no part of the packet.
        frame.extend([0xEE; 6]);
        let before = frame.clone();
        pass_on(&mut frame, (from, to));
        assert_eq!((&frame[..6], &frame[6..12]), (&to.0[..], &from.0[..]));
        assert_eq!((&frame[12..50], &frame[52..]), (&before[12..50], &before[52..]));
        // With its own sum in it, everything adds up to nothing.
        assert_eq!(frames::checksum(&frame[26..34], TCP, &frame[34..54]), 0);
        for cut in 34..54 {
            pass_on(&mut syn()[..cut], (from, to));
        }
    }
}
