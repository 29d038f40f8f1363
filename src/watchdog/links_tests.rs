//! Links on real sockets of this host.

use std::collections::HashSet;

use tokio::task::LocalSet;

use super::*;

const STEP: Duration = Duration::from_secs(20);

fn here(port: u16) -> Place {
    ("127.0.0.1".to_owned(), port)
}

async fn alone() -> (Links, mpsc::Receiver<Came>) {
    Links::open(&here(0), 0, Vec::new()).await.expect("opened")
}

/// Links to one other member.
async fn to(far: &Links) -> (Links, mpsc::Receiver<Came>) {
    let heartbeat = vec![here(far.heartbeat_port().expect("known"))];
    Links::open(&here(0), 0, vec![Far { host: here(far.port()), heartbeat }]).await.expect("opened")
}

async fn next(inbox: &mut mpsc::Receiver<Came>) -> Came {
    timeout(STEP, inbox.recv()).await.expect("in time").expect("the links live")
}

#[tokio::test]
async fn frames_come_by_every_link_each_sealed_on_its_own() {
    let work = async {
        let (far, mut inbox) = alone().await;
        let (near, _unused) = to(&far).await;
        let mut seen = HashSet::new();
        let mut number = 0_u8;
        // Until both links are up, frames are lost.
        while seen.len() < 2 {
            near.send(0, || {
                number = number.wrapping_add(1);
                Some(vec![number; 100])
            });
            while let Ok(Some(came)) = timeout(Duration::from_millis(100), inbox.recv()).await {
                let Came::Frame(via, bytes) = came else { panic!("{came:?}") };
                assert!(bytes.len() == 100 && bytes.iter().all(|byte| *byte == bytes[0]));
                seen.insert(matches!(via, Via::Connection(_)));
            }
        }
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_long_frame_goes_by_tcp_alone_and_one_that_is_too_long_ends_the_connection() {
    let work = async {
        let (far, mut inbox) = alone().await;
        let (near, _unused) = to(&far).await;
        let first = loop {
            near.send(0, || Some(vec![7; MAX_FRAME]));
            if let Ok(Some(came)) = timeout(AGAIN, inbox.recv()).await {
                break came;
            }
        };
        assert!(matches!(first, Came::Frame(Via::Connection(_), bytes) if bytes.len() == MAX_FRAME));
        near.send(0, || Some(vec![7; MAX_FRAME + 1]));
        let mut came = next(&mut inbox).await;
        while matches!(came, Came::Frame(..)) {
            came = next(&mut inbox).await;
        }
        assert!(matches!(came, Came::Ended { orderly: false, .. }), "{came:?}");
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn h19_an_end_in_order_is_told_from_a_reset_and_from_a_frame_cut_short() {
    let work = async {
        let (far, mut inbox) = alone().await;
        let connect = async || TcpStream::connect(("127.0.0.1", far.port())).await.expect("connected");
        let mut orderly = connect().await;
        orderly.write_all(b"\0\0\0\x02ok").await.expect("sent");
        assert!(matches!(next(&mut inbox).await, Came::Frame(Via::Connection(1), bytes) if bytes == b"ok"));
        drop(orderly);
        assert!(matches!(next(&mut inbox).await, Came::Ended { connection: 1, orderly: true }));
        let mut short = connect().await;
        short.write_all(b"\0\0\0\x02o").await.expect("sent");
        drop(short);
        assert!(matches!(next(&mut inbox).await, Came::Ended { connection: 2, orderly: false }));
        let reset = connect().await;
        reset.set_zero_linger().expect("set");
        drop(reset);
        assert!(matches!(next(&mut inbox).await, Came::Ended { connection: 3, orderly: false }));
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn h20_refused_is_said_by_the_host_alone_and_only_when_nobody_listens() {
    let work = async {
        let (far, _inbox) = alone().await;
        let (near, _unused) = to(&far).await;
        assert!(!near.refuses(0).await, "it listens");
        drop(far);
        let until = crate::support::clock::now() + STEP;
        while !near.refuses(0).await {
            assert!(crate::support::clock::now() < until, "nobody listens there any more");
        }
        assert!(!near.refuses(1).await, "nobody of that place");
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn what_must_come_once_comes_by_the_connection_alone_and_not_at_all_without_one() {
    let work = async {
        let (far, mut inbox) = alone().await;
        let (near, _unused) = to(&far).await;
        assert!(!near.carry(1, vec![1]), "nobody of that place");
        let until = now() + STEP;
        while !near.carry(0, vec![1; 9]) {
            assert!(now() < until, "it connects");
            sleep(AGAIN / 10).await;
        }
        assert!(near.connected(0).is_some());
        assert!(matches!(next(&mut inbox).await, Came::Frame(Via::Connection(_), bytes) if bytes == [1; 9]));
        assert!(timeout(AGAIN, inbox.recv()).await.is_err(), "once");
        drop((far, inbox));
        while near.connected(0).is_some() {
            assert!(now() < until, "it notices the end");
            sleep(AGAIN / 10).await;
        }
        assert!(!near.carry(0, vec![1]));
    };
    LocalSet::new().run_until(work).await;
}

/// Connections that show nothing.
async fn strangers(far: &Links, count: usize) -> Vec<TcpStream> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(TcpStream::connect(("127.0.0.1", far.port())).await.expect("connected"));
    }
    all
}

/// How long it takes until the other side ends a connection.
async fn ended(mut stream: TcpStream, since: Instant) -> Duration {
    let read = timeout(STEP, stream.read(&mut [0; 1])).await.expect("it is ended");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
    now().saturating_duration_since(since)
}

#[tokio::test]
async fn who_shows_no_key_is_there_for_a_moment_whatever_it_sends() {
    let work = async {
        let (far, mut inbox) = alone().await;
        let begun = now();
        let mut all = strangers(&far, 3).await;
        let (silent, empty, mut slow) = (all.remove(0), all.remove(0), all.remove(0));
        // A frame of nobody, again and again, and a byte now and then.
        let (mut read, mut write) = empty.into_split();
        let sending = async {
            while write.write_all(&[0, 0, 0, 0]).await.is_ok() && slow.write_all(&[0]).await.is_ok() {
                while inbox.try_recv().is_ok() {}
                sleep(AGAIN).await;
            }
        };
        let reading = async { while !matches!(read.read(&mut [0; 1]).await, Ok(0) | Err(_)) {} };
        let both = async { tokio::join!(sending, reading) };
        timeout(STEP, both).await.expect("it is ended");
        assert!(now().saturating_duration_since(begun) >= GREETING);
        let took = ended(silent, begun).await;
        assert!(took >= GREETING && took < SILENCE, "{took:?}");
    };
    LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn a_crowd_of_strangers_keeps_no_member_out() {
    let work = async {
        let (far, mut inbox) = alone().await;
        let before = strangers(&far, 100).await;
        let (near, _unused) = to(&far).await;
        let until = now() + STEP;
        while !near.carry(0, vec![1; 9]) {
            assert!(now() < until, "it connects");
            sleep(AGAIN / 10).await;
        }
        let Came::Frame(Via::Connection(number), _) = frame_of(&mut inbox).await else { panic!("a frame") };
        far.vouch(number, 0);
        let after = strangers(&far, 100).await;
        sleep(GREETING + AGAIN * 2).await;
        assert!(near.carry(0, vec![2; 9]), "its connection has stayed");
        let came = frame_of(&mut inbox).await;
        assert!(matches!(came, Came::Frame(Via::Connection(same), bytes) if same == number && bytes == [2; 9]));
        // What shows to be of nobody ends it at once.
        let begun = now();
        far.end(number);
        while near.connected(0).is_some() {
            assert!(now() < begun + STEP, "it is ended");
            sleep(AGAIN / 10).await;
        }
        drop((before, after));
    };
    LocalSet::new().run_until(work).await;
}

/// The next frame; ends of other connections do not matter.
async fn frame_of(inbox: &mut mpsc::Receiver<Came>) -> Came {
    loop {
        let came = next(inbox).await;
        if matches!(came, Came::Frame(..)) {
            return came;
        }
    }
}
