//! What the streams of a thread have to send, put together and sent at the end of a turn of its tasks. A send of its own costs a system
//! call, and on its way out of each the kernel may give the processor to whoever it has just woken; a batch costs one. Owned by the data
//! threads; without one, each stream writes for itself. Must not know what is sent.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::task::{Context, Poll, Waker};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, Shutdown, send, shutdown};
use rustc_hash::FxHashMap;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;

use super::ring::{Outcome, Piece, Ring, duplicate};
use crate::support::clock::Duration;

/// Sockets in a batch at the most; one more ends it.
const MOST: usize = 64;
/// What is longer is written at once: a copy would cost more than it saves.
const LONGEST: usize = 4096;
/// Bytes in a batch at the most.
const MEMORY: usize = 64 * 1024;

/// After so many batches of one write a thread has little to do, and writes at once: nothing would go out together.
const LONELY: u32 = 32;
/// After so many such writes it tries two batches again: the second has a whole turn.
const AGAIN: u32 = 32;

/// Between two offers to a socket that could not be waited for.
const PAUSE: Duration = Duration::from_millis(10);

thread_local! {
    static BATCH: RefCell<Option<Batch>> = const { RefCell::new(None) };
}

/// Is told of each batch: the writes in it, and how many of them a socket did not take whole.
pub(super) type Tell = Box<dyn Fn(usize, usize)>;

/// The batch in which a stream's last bytes are. A stream is dropped after its mark, which has them sent first: a number of a socket that
/// is closed may be another's at once.
#[derive(Debug, Default)]
pub(super) struct Mark {
    batch: u32,
    fd: RawFd,
}

/// What became of bytes.
pub(super) enum Taken {
    /// They are on their way.
    All,
    /// None: the socket has not taken what was sent before.
    Wait,
    /// None: the stream is to write them itself.
    No,
}

struct Batch {
    ring: Ring,
    /// Of the batch that is being put together; never 0.
    number: u32,
    /// Whoever sends it.
    sender: Option<Waker>,
    left: FxHashMap<RawFd, Left>,
    /// Sockets with something left that no task sees to yet.
    fresh: Vec<RawFd>,
    /// Batches of one write in a row.
    lonely: u32,
    /// Writes that came while it was lonely.
    passed: u32,
    tell: Tell,
}

/// What a socket has not taken.
struct Left {
    state: LeftState,
    /// The stream's, which has more to write.
    waiting: Option<Waker>,
}

enum LeftState {
    /// No task sees to it yet.
    New(Vec<u8>),
    Draining(AbortHandle),
    /// The socket takes nothing any more: its stream's own writes will say why.
    Failed,
}

/// Sends in batches what streams write on this thread, as long as it is polled. Within a local runtime.
///
/// # Errors
/// The kernel has no io_uring, or does not let this process use it: each stream writes for itself.
pub async fn run(tell: Tell) -> io::Result<Infallible> {
    let ring = Ring::new(MOST, MEMORY)?;
    let (left, fresh) = (FxHashMap::default(), Vec::new());
    BATCH.set(Some(Batch { ring, number: 1, sender: None, left, fresh, lonely: 0, passed: 0, tell }));
    let _end = End;
    poll_fn(|cx| {
        with(|batch| {
            if !batch.sender.as_ref().is_some_and(|sender| sender.will_wake(cx.waker())) {
                batch.sender = Some(cx.waker().clone());
            }
            batch.send();
        });
        adopt();
        Poll::Pending
    })
    .await
}

/// However the batches end, what was taken is sent.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        end();
    }
}

fn end() {
    send_all();
    // Not within the borrow: what waits may be dropped with it.
    let batch = BATCH.try_with(|batch| batch.take()).ok().flatten();
    // Their streams know nothing of the bytes that are missing.
    for (fd, _) in batch.iter().flat_map(|batch| &batch.left) {
        let _ = shutdown(*fd, Shutdown::Both);
    }
}

/// Sends now what this thread has put together.
pub fn send_all() {
    with(Batch::send);
}

fn with<T>(act: impl FnOnce(&mut Batch) -> T) -> Option<T> {
    // No thread local is left while a thread ends; nobody writes then.
    BATCH.try_with(|batch| batch.borrow_mut().as_mut().map(act)).ok().flatten()
}

/// Bytes for the socket of the stream that has `mark`.
#[inline]
pub(super) fn take(mark: &mut Mark, socket: &impl AsRawFd, bytes: &[u8], cx: &mut Context<'_>) -> Taken {
    BATCH.with_borrow_mut(|batch| {
        batch.as_mut().map_or(Taken::No, |batch| batch.take(mark, socket.as_raw_fd(), bytes, cx))
    })
}

impl Mark {
    /// Ready when the socket has taken what was offered to it.
    #[inline]
    pub(super) fn poll_left(&self, cx: &mut Context<'_>) -> Poll<()> {
        if self.batch == 0 {
            return Poll::Ready(());
        }
        match with(|batch| batch.left_of(self.fd, cx)).flatten() {
            Some(Taken::Wait) => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// Has the stream's bytes sent, so that others may follow by another way. Ready when the socket has taken them.
    pub(super) fn poll_settled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.settle();
        self.poll_left(cx)
    }

    fn settle(&self) {
        with(|batch| {
            if batch.number == self.batch {
                batch.send();
            }
        });
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if self.batch == 0 {
            return;
        }
        self.settle();
        // What its socket has not taken is lost, as it would be with a stream that had kept it.
        if let Some(Left { state: LeftState::Draining(task), .. }) = with(|batch| batch.left.remove(&self.fd)).flatten()
        {
            task.abort();
        }
    }
}

impl Batch {
    #[inline]
    fn take(&mut self, mark: &mut Mark, fd: RawFd, bytes: &[u8], cx: &mut Context<'_>) -> Taken {
        if mark.batch == self.number {
            self.send();
        }
        if let Some(taken) = self.left_of(fd, cx) {
            return taken;
        }
        if bytes.len() > LONGEST || self.ring.is_spent() || self.is_lonely() {
            return Taken::No;
        }
        if !self.ring.has_room(bytes) {
            self.send();
        }
        if self.ring.is_empty()
            && let Some(sender) = &self.sender
        {
            sender.wake_by_ref();
        }
        self.ring.add(fd, bytes);
        (mark.batch, mark.fd) = (self.number, fd);
        Taken::All
    }

    /// A write would be the only one of its batch, by all that is known.
    fn is_lonely(&mut self) -> bool {
        if self.lonely < LONELY || !self.ring.is_empty() {
            return false;
        }
        self.passed += 1;
        let alone = self.passed <= AGAIN;
        if !alone {
            (self.passed, self.lonely) = (0, LONELY - 2);
        }
        alone
    }

    /// What a socket that has not taken everything means for its stream, which is told when that changes.
    #[inline]
    fn left_of(&mut self, fd: RawFd, cx: &mut Context<'_>) -> Option<Taken> {
        if self.left.is_empty() {
            return None;
        }
        let left = self.left.get_mut(&fd)?;
        if let LeftState::Failed = left.state {
            return Some(Taken::No);
        }
        left.waiting = Some(cx.waker().clone());
        Some(Taken::Wait)
    }

    /// Sends the batch and begins the next one.
    fn send(&mut self) {
        let count = self.ring.pieces().len();
        if count == 0 {
            return;
        }
        self.lonely = if count == 1 { self.lonely.saturating_add(1) } else { 0 };
        if count > 1
            && let Err(error) = self.ring.send()
        {
            tracing::warn!(%error, "io_uring takes no more: each connection is written to by itself from now on");
        }
        let mut left = 0;
        for number in 0..count {
            let (piece, outcome) = (self.ring.pieces()[number], self.ring.outcome(number));
            left += usize::from(!self.done(piece, outcome));
        }
        self.ring.clear();
        self.number = self.number.checked_add(1).unwrap_or(1);
        (self.tell)(count, left);
    }

    /// Sees to what a socket has not taken. True: it has taken everything.
    fn done(&mut self, piece: Piece, outcome: Option<Outcome>) -> bool {
        let bytes = self.ring.bytes(piece);
        // An error may be the ring's own.
        let outcome = match outcome {
            Some(Ok(taken)) => Ok(taken),
            Some(Err(error)) if is_full(error) => Err(error),
            _ => offer(piece.fd, bytes),
        };
        let state = match outcome {
            Ok(taken) if taken == bytes.len() => return true,
            Ok(taken) => LeftState::New(bytes[taken..].to_vec()),
            Err(error) if is_full(error) => LeftState::New(bytes.to_vec()),
            // Whoever reads from it finds its end, and whoever writes an error.
            Err(_) => {
                let _ = shutdown(piece.fd, Shutdown::Both);
                LeftState::Failed
            }
        };
        self.left.insert(piece.fd, Left { state, waiting: None });
        self.fresh.push(piece.fd);
        if let Some(sender) = &self.sender {
            sender.wake_by_ref();
        }
        false
    }
}

fn is_full(error: i32) -> bool {
    [Errno::EAGAIN, Errno::EINTR].contains(&Errno::from_raw(error))
}

fn offer(fd: RawFd, bytes: &[u8]) -> Outcome {
    send(fd, bytes, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL).map_err(|error| error as i32)
}

/// A task for each socket that has not taken all.
fn adopt() {
    with(|batch| {
        for fd in batch.fresh.drain(..) {
            let Some(left) = batch.left.get_mut(&fd) else { continue };
            let LeftState::New(bytes) = &mut left.state else { continue };
            let bytes = std::mem::take(bytes);
            left.state = LeftState::Draining(
                tokio::task::spawn_local(async move {
                    // Written to like any other, whatever its family.
                    let again = duplicate(fd).and_then(|again| TcpStream::from_std(std::net::TcpStream::from(again)));
                    drained(fd, drain(fd, again.ok(), &bytes).await);
                })
                .abort_handle(),
            );
        }
    });
}

/// Writes what is left as the socket takes it. Without a descriptor to wait with it asks again and again; `fd` is the stream's as long as
/// this is polled.
async fn drain(fd: RawFd, socket: Option<TcpStream>, mut bytes: &[u8]) -> Result<(), i32> {
    while !bytes.is_empty() {
        match offer(fd, bytes) {
            Ok(taken) => bytes = &bytes[taken..],
            Err(error) if is_full(error) => match &socket {
                Some(socket) => wait(socket).await,
                None => tokio::time::sleep(PAUSE).await,
            },
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Until the socket takes something, or fails.
async fn wait(socket: &TcpStream) {
    // The runtime forgets that it was writable once it is told that it is not.
    let _ = socket.try_io(Interest::WRITABLE, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
    let _ = socket.writable().await;
}

/// The stream may go on.
fn drained(fd: RawFd, done: Result<(), i32>) {
    let waiting = with(|batch| match done {
        Ok(()) => batch.left.remove(&fd)?.waiting,
        Err(_) => {
            let _ = shutdown(fd, Shutdown::Both);
            let left = batch.left.get_mut(&fd)?;
            left.state = LeftState::Failed;
            left.waiting.take()
        }
    });
    if let Some(Some(waiting)) = waiting {
        waiting.wake();
    }
}

#[cfg(test)]
#[path = "batch_tests.rs"]
mod tests;
