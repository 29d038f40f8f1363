//! Batches over real sockets: order, sockets that take nothing, streams that end with bytes on their way.

use std::cell::RefCell;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::runtime::LocalOptions;

use super::*;
use crate::net::Stream;
use crate::net::stream::tests::tcp_pair;

/// Batches so far: writes, and those that were not taken whole.
type Told = Rc<RefCell<Vec<(usize, usize)>>>;

/// Runs `test` on a thread that sends in batches; there are none where the kernel lets nobody use io_uring.
fn batched<F: Future<Output = ()>>(test: impl FnOnce(Told) -> F) {
    if let Err(error) = Ring::new(MOST, MEMORY) {
        return eprintln!("not tested: io_uring cannot be used: {error}");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    runtime.expect("a runtime").block_on(async {
        let told = Told::default();
        let kept = told.clone();
        let tell = Box::new(move |writes, left| kept.borrow_mut().push((writes, left)));
        let sender = tokio::task::spawn_local(run(tell));
        tokio::task::yield_now().await;
        assert!(!sender.is_finished(), "{:?}", sender.await);
        tokio::time::timeout(Duration::from_secs(30), test(told)).await.expect("in time");
    });
}

/// Writes without waiting; false: the stream takes nothing now.
fn write(stream: &mut Stream, bytes: &[u8]) -> bool {
    let mut cx = Context::from_waker(Waker::noop());
    match stream.poll_write(&mut cx, bytes) {
        Poll::Ready(taken) => {
            assert_eq!(taken.expect("written"), bytes.len());
            true
        }
        Poll::Pending => false,
    }
}

async fn read_all(stream: &mut Stream) -> Vec<u8> {
    let (mut all, mut some) = (Vec::new(), vec![0; 64 * 1024]);
    while let Ok(count @ 1..) = stream.read(&mut some).await {
        all.extend_from_slice(&some[..count]);
    }
    all
}

async fn read_some(stream: &mut Stream) -> Vec<u8> {
    let mut some = vec![0; 64 * 1024];
    let count = stream.read(&mut some).await.expect("read");
    some[..count].to_vec()
}

/// A stream whose socket takes little, filled until it takes no more: how many chunks it took.
async fn filled(stream: &mut Stream) -> usize {
    let chunk = |number: usize| [u8::try_from(number % 251).expect("small"); 1000];
    // With another write beside each, so that it goes by a batch.
    let (mut other, mut reader) = tcp_pair().await;
    let mut chunks = 0;
    while write(stream, &chunk(chunks)) {
        chunks += 1;
        assert!(write(&mut other, b"x"));
        read_some(&mut reader).await;
        tokio::task::yield_now().await;
    }
    chunks
}

#[test]
fn what_a_turn_writes_goes_out_together_and_is_cut_off_at_its_limits() {
    batched(|told| async move {
        let mut pairs = Vec::new();
        for _ in 0..MOST + 3 {
            pairs.push(tcp_pair().await);
        }
        for (number, (one, _)) in pairs.iter_mut().enumerate() {
            assert!(write(one, &[u8::try_from(number).expect("small"); 3]));
        }
        for (number, (_, other)) in pairs.iter_mut().enumerate() {
            assert_eq!(read_some(other).await, [u8::try_from(number).expect("small"); 3]);
        }
        assert_eq!(*told.borrow(), [(MOST, 0), (3, 0)]);
        for (one, _) in &mut pairs[..20] {
            assert!(write(one, &[7; LONGEST]));
        }
        tokio::task::yield_now().await;
        // As many as the memory holds, and the rest.
        assert_eq!(told.borrow()[2..], [(MEMORY / LONGEST, 0), (20 - MEMORY / LONGEST, 0)]);
        // One alone has nothing to do with those before it.
        let (one, other) = &mut pairs[MOST];
        assert!(write(one, b"alone"));
        assert_eq!(read_some(other).await, b"alone");
        assert_eq!(told.borrow()[4..], [(1, 0)]);
    });
}

#[test]
fn bytes_of_a_stream_keep_their_order_however_they_are_written() {
    batched(|_| async move {
        let (mut one, mut other) = tcp_pair().await;
        let (mut unix, mut peer) = UnixStream::pair().map(|(a, b)| (Stream::from(a), Stream::from(b))).expect("a pair");
        for stream in [&mut one, &mut unix] {
            assert!(write(stream, b"a") && write(stream, b"bc"));
            assert!(write(stream, &[b'd'; LONGEST + 1]));
            assert!(write(stream, b"e"));
            let mut cx = Context::from_waker(Waker::noop());
            let slices = [io::IoSlice::new(b"f"), io::IoSlice::new(b"g")];
            assert!(matches!(stream.poll_write_vectored(&mut cx, &slices), Poll::Ready(Ok(2))));
            assert!(write(stream, b"h"));
            stream.shutdown().await.expect("shut down");
        }
        let expected = [b"abc".to_vec(), vec![b'd'; LONGEST + 1], b"efgh".to_vec()].concat();
        assert_eq!(read_all(&mut other).await, expected);
        assert_eq!(read_all(&mut peer).await, expected);
    });
}

#[test]
fn a_socket_that_takes_no_more_gets_the_rest_later_and_every_byte_once() {
    batched(|told| async move {
        let (mut one, mut other) = tcp_pair().await;
        let chunks = filled(&mut one).await;
        assert_eq!(told.borrow().iter().map(|(_, left)| left).sum::<usize>(), 1, "{:?}", told.borrow());
        // It waits for the peer alone, however often it is asked.
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(!write(&mut one, b"x") && !write(&mut one, &[0; 2 * LONGEST]));
        let reading = tokio::task::spawn_local(async move { read_all(&mut other).await });
        one.write_all(b"and more").await.expect("written");
        one.shutdown().await.expect("shut down");
        let read = reading.await.expect("read");
        assert_eq!(read.len(), chunks * 1000 + 8);
        let expected = |at: usize| u8::try_from(at / 1000 % 251).expect("small");
        assert!(read[..chunks * 1000].iter().enumerate().all(|(at, byte)| *byte == expected(at)));
        assert_eq!(&read[chunks * 1000..], b"and more");
    });
}

#[test]
fn a_stream_that_is_dropped_has_sent_what_it_took_and_no_other_stream_gets_it() {
    batched(|_| async move {
        for _ in 0..100 {
            let ((mut one, mut other), pair) = (tcp_pair().await, tcp_pair().await);
            assert!(write(&mut one, b"goodbye"));
            drop(one);
            // Most probably by the same number.
            let (mut next, mut peer) = tcp_pair().await;
            assert!(write(&mut next, b"hello"));
            drop(pair);
            assert_eq!(read_all(&mut other).await, b"goodbye");
            assert_eq!(read_some(&mut peer).await, b"hello");
        }
    });
}

#[test]
fn a_stream_whose_socket_takes_no_more_can_be_dropped() {
    batched(|_| async move {
        let (mut one, mut other) = tcp_pair().await;
        let chunks = filled(&mut one).await;
        tokio::task::yield_now().await;
        drop(one);
        // The connection ends, though a task had been waiting with the rest.
        assert!(read_all(&mut other).await.len() < chunks * 1000);
        assert_eq!(with(|batch| batch.left.len()), Some(0));
    });
}

#[test]
fn whoever_reads_finds_out_that_nothing_can_be_written() {
    batched(|_| async move {
        let (mut one, _other) = tcp_pair().await;
        let (mut two, mut peer) = tcp_pair().await;
        let Stream::Tcp(tcp) = &one else { panic!("TCP") };
        shutdown(tcp.as_fd().as_raw_fd(), Shutdown::Write).expect("shut down");
        assert!(write(&mut one, b"in vain") && write(&mut two, b"not in vain"));
        assert_eq!(one.read(&mut [0; 8]).await.expect("the end"), 0);
        assert_eq!(read_some(&mut peer).await, b"not in vain");
        // Whoever only writes finds out as well.
        let error = one.write_all(b"again").await.expect_err("it cannot");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_stream_leaves_its_thread_with_nothing_on_its_way() {
    batched(|_| async move {
        let (mut one, mut other) = tcp_pair().await;
        assert!(write(&mut one, b"before"));
        let mut one = one.detach().expect("detached").attach().expect("attached");
        assert!(write(&mut one, b"after"));
        drop(one);
        assert_eq!(read_all(&mut other).await, b"beforeafter");
        let (mut one, _other) = tcp_pair().await;
        filled(&mut one).await;
        assert_eq!(one.detach().expect_err("it has more to write").kind(), io::ErrorKind::WouldBlock);
    });
}

#[test]
fn the_end_of_batches_sends_the_last() {
    batched(|_| async move {
        let ((mut one, mut other), (mut two, mut peer)) = (tcp_pair().await, tcp_pair().await);
        assert!(write(&mut one, b"last") && write(&mut two, b"words"));
        end();
        assert_eq!(read_some(&mut other).await, b"last");
        assert_eq!(read_some(&mut peer).await, b"words");
        // From here on each writes for itself.
        assert!(write(&mut one, b"more"));
        assert_eq!(read_some(&mut other).await, b"more");
        assert!(with(|_| ()).is_none());
    });
}

#[test]
fn without_the_kernel_each_writes_for_itself_and_nothing_is_lost() {
    batched(|told| async move {
        let ((mut one, mut other), (mut two, mut peer)) = (tcp_pair().await, tcp_pair().await);
        let (mut full, mut reader) = tcp_pair().await;
        let chunks = filled(&mut full).await;
        told.borrow_mut().clear();
        with(|batch| batch.ring.spoil());
        for stream in [&mut one, &mut two] {
            assert!(write(stream, b"before "));
        }
        tokio::task::yield_now().await;
        for stream in [&mut one, &mut two] {
            assert!(write(stream, b"after"));
        }
        assert_eq!(*told.borrow(), [(2, 0)]);
        assert_eq!(read_some(&mut other).await, b"before after");
        assert_eq!(read_some(&mut peer).await, b"before after");
        // What had been left goes before anything new.
        assert!(!write(&mut full, b"x"));
        let reading = tokio::task::spawn_local(async move { read_all(&mut reader).await });
        full.write_all(b"y").await.expect("written");
        drop(full);
        let read = reading.await.expect("read");
        assert_eq!((read.len(), read.last()), (chunks * 1000 + 1, Some(&b'y')));
    });
}

#[test]
fn who_writes_alone_does_so_at_once_until_there_is_company() {
    batched(|told| async move {
        let ((mut one, mut other), (mut two, mut peer)) = (tcp_pair().await, tcp_pair().await);
        let turns = LONELY as usize + 3 * (AGAIN as usize + 2);
        for _ in 0..turns {
            assert!(write(&mut one, b"x"));
            assert_eq!(read_some(&mut other).await, b"x");
        }
        assert_eq!(*told.borrow(), vec![(1, 0); LONELY as usize + 3 * 2]);
        // Those before it tries again go alone; from then on both go together.
        for _ in 0..turns {
            assert!(write(&mut one, b"x") && write(&mut two, b"y"));
            assert_eq!((read_some(&mut other).await, read_some(&mut peer).await), (b"x".to_vec(), b"y".to_vec()));
        }
        let together = told.borrow().iter().filter(|told| **told == (2, 0)).count();
        assert!(together >= turns - AGAIN as usize, "{:?}", told.borrow());
    });
}

#[test]
fn a_peer_that_goes_while_something_is_left_for_it_is_an_error_for_who_writes() {
    batched(|_| async move {
        let (mut one, other) = tcp_pair().await;
        filled(&mut one).await;
        drop(other);
        assert!(one.write_all(b"more").await.is_err());
        drop(one);
        assert_eq!(with(|batch| batch.left.len()), Some(0));
    });
}

#[test]
fn without_a_descriptor_to_wait_with_the_rest_is_sent_all_the_same() {
    batched(|_| async move {
        let (one, mut other) = tcp_pair().await;
        let Stream::Tcp(tcp) = &one else { panic!("TCP") };
        let (fd, bytes) = (tcp.as_fd().as_raw_fd(), vec![7; 20_000_000]);
        let reading = tokio::task::spawn_local(async move { read_all(&mut other).await });
        assert_eq!(drain(fd, None, &bytes).await, Ok(()));
        drop(one);
        assert_eq!(reading.await.expect("read"), bytes);
    });
}
