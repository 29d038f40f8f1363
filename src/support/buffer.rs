//! Byte buffers for relays, lent from a per-thread pool so that an idle session holds none.
//!
//! A buffer never grows by itself: its size is one of three, and what does not fit is streamed by its owner.

use std::cell::RefCell;
use std::rc::Rc;

/// Bytes of an ordinary buffer: a request and its answer of an ordinary statement.
pub const SMALL: usize = 8 * 1024;
/// Bytes of a large buffer: long texts (SESSIONS R14, R19) and bulk data.
pub const LARGE: usize = 64 * 1024;
/// Bytes of a buffer for a short request that waits: thousands may.
pub const TINY: usize = 512;
/// Unused buffers of each size that a thread keeps.
const KEEP: usize = 256;
/// The same for tiny ones: half a megabyte.
const KEEP_TINY: usize = 1024;

/// A window of bytes that is filled at its end and consumed at its front.
#[derive(Debug, Default)]
pub struct Buffer {
    store: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// A buffer without memory.
    pub fn none() -> Self {
        Self::default()
    }

    /// What is in it.
    pub fn filled(&self) -> &[u8] {
        &self.store[self.start..self.end]
    }

    /// Nothing in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Bytes that it can hold.
    pub fn capacity(&self) -> usize {
        self.store.len()
    }

    /// Where new bytes go. Moves what is there to the front when the end is reached.
    pub fn spare(&mut self) -> &mut [u8] {
        if self.start > 0 && (self.start == self.end || self.end == self.store.len()) {
            self.store.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.store[self.end..]
    }

    /// It has memory, and no byte can be added.
    pub fn is_full(&self) -> bool {
        !self.store.is_empty() && self.len() == self.store.len()
    }

    /// The first `count` bytes of [`spare`](Self::spare) have been written.
    pub fn commit(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.store.len(), "more was committed than there was room for");
    }

    /// What is in it, for changing a byte.
    pub fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.store[self.start..self.end]
    }

    /// Takes `count` bytes out, `at` bytes behind the front.
    pub fn remove(&mut self, at: usize, count: usize) {
        let from = self.start + at;
        self.store.copy_within(from + count..self.end, from);
        self.end -= count;
    }

    /// Puts bytes in front of what is in it. False, and nothing has changed: they do not fit.
    pub fn put_back(&mut self, bytes: &[u8]) -> bool {
        let length = self.len();
        if bytes.len() + length > self.store.len() {
            return false;
        }
        self.store.copy_within(self.start..self.end, bytes.len());
        self.store[..bytes.len()].copy_from_slice(bytes);
        (self.start, self.end) = (0, bytes.len() + length);
        true
    }

    /// The first `count` bytes are done with.
    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end, "more was consumed than there was");
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
        }
    }
}

/// A thread's unused buffers.
#[derive(Debug, Clone, Default)]
pub struct BufferPool {
    shelves: Rc<RefCell<Shelves>>,
}

#[derive(Debug, Default)]
struct Shelves {
    tiny: Vec<Box<[u8]>>,
    small: Vec<Box<[u8]>>,
    large: Vec<Box<[u8]>>,
}

impl BufferPool {
    /// Gives `buffer` memory if it has none.
    pub fn lend(&self, buffer: &mut Buffer) {
        if buffer.store.is_empty() {
            let kept = self.shelves.borrow_mut().small.pop();
            buffer.store = kept.unwrap_or_else(|| vec![0; SMALL].into_boxed_slice());
        }
    }

    /// Makes `buffer` one of the next size, keeping its bytes. Returns whether it grew.
    pub fn enlarge(&self, buffer: &mut Buffer) -> bool {
        let size = match buffer.store.len() {
            TINY => SMALL,
            size if size < LARGE => LARGE,
            _ => return false,
        };
        self.change(buffer, size);
        true
    }

    /// Bytes that wait for a while move to a tiny buffer, if they fit and leave room for a read: so the memory that is at hand serves others.
    pub fn tuck(&self, buffer: &mut Buffer) {
        if buffer.store.len() == SMALL && buffer.len() < TINY {
            self.change(buffer, TINY);
        }
    }

    fn change(&self, buffer: &mut Buffer, size: usize) {
        let kept = self.shelves.borrow_mut().of(size).and_then(|(shelf, _)| shelf.pop());
        let mut store = kept.unwrap_or_else(|| vec![0; size].into_boxed_slice());
        let length = buffer.len();
        store[..length].copy_from_slice(buffer.filled());
        let old = std::mem::replace(buffer, Buffer { store, start: 0, end: length });
        self.shelve(old.store);
    }

    /// Takes the memory of an empty buffer back.
    pub fn take_back(&self, buffer: &mut Buffer) {
        debug_assert!(buffer.is_empty(), "bytes would be lost");
        self.shelve(std::mem::take(buffer).store);
    }

    fn shelve(&self, store: Box<[u8]>) {
        let mut shelves = self.shelves.borrow_mut();
        if let Some((shelf, most)) = shelves.of(store.len())
            && shelf.len() < most
        {
            shelf.push(store);
        }
    }
}

impl Shelves {
    /// Where buffers of that size lie, and how many at most.
    fn of(&mut self, size: usize) -> Option<(&mut Vec<Box<[u8]>>, usize)> {
        match size {
            TINY => Some((&mut self.tiny, KEEP_TINY)),
            SMALL => Some((&mut self.small, KEEP)),
            LARGE => Some((&mut self.large, KEEP)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_wrapping_and_growing() {
        let pool = BufferPool::default();
        let mut buffer = Buffer::none();
        pool.lend(&mut buffer);
        buffer.spare().fill(7);
        buffer.commit(SMALL);
        assert!(buffer.is_full());
        buffer.consume(SMALL - 2);
        buffer.spare()[0] = 9;
        buffer.commit(1);
        assert_eq!(buffer.filled(), [7, 7, 9]);
        assert!(pool.enlarge(&mut buffer));
        assert!(!pool.enlarge(&mut buffer));
        assert_eq!((buffer.filled(), buffer.capacity()), (&[7, 7, 9][..], LARGE));
        assert!(buffer.put_back(&[1, 2]));
        assert_eq!(buffer.filled(), [1, 2, 7, 7, 9]);
        assert!(!buffer.put_back(&[0; LARGE - 4]));
        buffer.consume(1);
        assert!(buffer.put_back(&[0; LARGE - 4]));
        assert!(buffer.is_full() && buffer.filled().ends_with(&[0, 2, 7, 7, 9]));
        buffer.consume(LARGE);
        pool.take_back(&mut buffer);
        assert_eq!(buffer.capacity(), 0);
    }

    #[test]
    fn a_short_request_waits_in_a_tiny_buffer_and_grows_again() {
        let pool = BufferPool::default();
        let mut buffer = Buffer::none();
        pool.lend(&mut buffer);
        buffer.spare()[..TINY].fill(7);
        buffer.commit(TINY);
        pool.tuck(&mut buffer);
        assert_eq!(buffer.capacity(), SMALL, "there would be no room for a read");
        buffer.consume(1);
        pool.tuck(&mut buffer);
        assert_eq!((buffer.len(), buffer.capacity(), buffer.is_full()), (TINY - 1, TINY, false));
        assert!(pool.enlarge(&mut buffer));
        assert_eq!((buffer.filled(), buffer.capacity()), (&[7; TINY - 1][..], SMALL));
        assert!(pool.enlarge(&mut buffer));
        assert_eq!(buffer.capacity(), LARGE);
        let shelves = pool.shelves.borrow();
        assert_eq!((shelves.tiny.len(), shelves.small.len(), shelves.large.len()), (1, 1, 0));
    }
}
