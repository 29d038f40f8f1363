//! Bytes for many sockets, sent by one system call (io_uring). Owned by `batch`. The one file with unsafe code: the kernel reads memory
//! that a ring's entries point at. Must not know streams.

#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use io_uring::{IoUring, Probe, opcode, types};
use nix::libc::{EINTR, MSG_DONTWAIT, MSG_NOSIGNAL};

/// What a socket made of its bytes: how many it took, or the number of an error.
pub(super) type Outcome = Result<usize, i32>;

/// Bytes of the memory that belong to a socket.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    pub(super) fd: RawFd,
    start: usize,
    len: usize,
}

/// A ring and the memory that is sent from.
pub(super) struct Ring {
    ring: IoUring,
    memory: Vec<u8>,
    pieces: Vec<Piece>,
    outcomes: Vec<Option<Outcome>>,
    /// The kernel has refused it.
    spent: bool,
}

impl Ring {
    /// A ring for `most` sockets at a time, and `memory` bytes for them together.
    ///
    /// # Errors
    /// The kernel has no io_uring (before 5.6), or does not let this process use it (seccomp, `kernel.io_uring_disabled`, limits).
    pub(super) fn new(most: usize, memory: usize) -> io::Result<Self> {
        let entries = u32::try_from(most).map_err(io::Error::other)?;
        let (mut wanted, plain) = (IoUring::builder(), IoUring::builder());
        wanted.setup_submit_all().setup_single_issuer().setup_defer_taskrun();
        let ring = wanted.build(entries).or_else(|_| plain.build(entries))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Send::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let (pieces, outcomes) = (Vec::with_capacity(most), Vec::with_capacity(most));
        Ok(Self { ring, memory: Vec::with_capacity(memory), pieces, outcomes, spent: false })
    }

    /// There is room for `bytes` of one more socket.
    #[inline]
    pub(super) fn has_room(&self, bytes: &[u8]) -> bool {
        self.pieces.len() < self.pieces.capacity() && bytes.len() <= self.memory.capacity() - self.memory.len()
    }

    /// It is of no use any more.
    #[inline]
    pub(super) fn is_spent(&self) -> bool {
        self.spent
    }

    /// Nothing is to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Takes bytes for a socket, for which it must have room. It must have none of the same socket.
    #[inline]
    pub(super) fn add(&mut self, fd: RawFd, bytes: &[u8]) {
        self.pieces.push(Piece { fd, start: self.memory.len(), len: bytes.len() });
        self.memory.extend_from_slice(bytes);
    }

    /// The pieces that it has.
    pub(super) fn pieces(&self) -> &[Piece] {
        &self.pieces
    }

    /// The bytes of a piece.
    pub(super) fn bytes(&self, piece: Piece) -> &[u8] {
        &self.memory[piece.start..piece.start + piece.len]
    }

    /// Forgets all pieces.
    pub(super) fn clear(&mut self) {
        self.pieces.clear();
        self.memory.clear();
        self.outcomes.clear();
    }

    /// Offers each socket its bytes, in the order in which they came, and waits for none.
    ///
    /// # Errors
    /// The kernel takes nothing from this ring any more: some pieces may not have been offered.
    pub(super) fn send(&mut self) -> io::Result<()> {
        self.outcomes.resize(self.pieces.len(), None);
        let mut offered = 0;
        for (number, piece) in self.pieces.iter().enumerate() {
            let bytes = &self.memory[piece.start..piece.start + piece.len];
            // At most the capacity of the memory.
            let length = bytes.len() as u32;
            let entry = opcode::Send::new(types::Fd(piece.fd), bytes.as_ptr(), length)
                .flags(MSG_DONTWAIT | MSG_NOSIGNAL)
                .build()
                .user_data(number as u64);
            // SAFETY: the entry points into `memory`, which is neither changed nor freed before the kernel has reported the entry: this
            // function returns when all are, or else gives the memory away for good.
            if unsafe { self.ring.submission().push(&entry) }.is_err() {
                break;
            }
            offered += 1;
        }
        let done = self.complete(offered);
        if done.is_err() {
            self.spent = true;
            // An entry that was not reported may be looked at as long as the ring exists, and for a moment after.
            let copy = Vec::clone(&self.memory);
            std::mem::forget(std::mem::replace(&mut self.memory, copy));
        }
        done
    }

    /// What became of a piece; `None`: it was not offered.
    pub(super) fn outcome(&self, piece: usize) -> Option<Outcome> {
        self.outcomes.get(piece).copied().flatten()
    }

    /// From here on its calls fail.
    #[cfg(test)]
    pub(super) fn spoil(&mut self) {
        use std::os::fd::AsRawFd;
        let nothing = std::fs::File::open("/dev/null").expect("there");
        // SAFETY: a number of ours becomes another file; the memory of the old one stays mapped.
        assert!(unsafe { nix::libc::dup2(nothing.as_raw_fd(), self.ring.as_raw_fd()) } >= 0);
    }

    /// Waits until so many entries are reported. None of them waits for its socket, so that takes no longer than to work them off.
    fn complete(&mut self, mut left: usize) -> io::Result<()> {
        while left > 0 {
            match self.ring.submit_and_wait(left) {
                Err(error) if error.raw_os_error() != Some(EINTR) => return Err(error),
                _ => {}
            }
            for done in self.ring.completion() {
                let outcome = usize::try_from(done.result()).map_err(|_| -done.result());
                if let Some(kept) = self.outcomes.get_mut(done.user_data() as usize) {
                    *kept = Some(outcome);
                }
                left -= 1;
            }
        }
        Ok(())
    }
}

/// Another descriptor of the same open socket.
///
/// # Errors
/// There are no more descriptors.
pub(super) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the stream whose socket it is has its bytes sent before it closes it, and this is a part of that.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}
