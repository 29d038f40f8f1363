//! Cancel requests that reach another proxy of the group than the one whose session they name (SESSIONS R18, HA H25).

use std::net::{TcpListener, TcpStream};
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pgherd::app::demo::programs;

use crate::common::raw::{RawClient, cancel_request, query, startup};
use crate::common::{self, eventually};
use crate::group::Group;

/// Runs something long on `of`, sends its key to `at`, and returns what became of it.
fn cancelled(group: &Group, of: usize, at: usize, sql: &str) -> Option<String> {
    let mut client = RawClient::login(group.port(of), "postgres");
    client.send(&query(sql)).expect("sent");
    std::thread::sleep(Duration::from_millis(300));
    client.cancel(group.port(at));
    let frames = client.until_ready().expect("an answer");
    frames.iter().find_map(common::raw::Frame::sqlstate)
}

/// What the group has counted of cancel requests: passed on, obeyed, refused.
fn counted(group: &Group, of: usize) -> [u64; 3] {
    let told = group.watchdog(of).expect("told");
    ["passed_on", "obeyed", "refused"].map(|name| told["cancels"][name].as_u64().expect("a number"))
}

/// A client of protocol 3.2, whose secret is long.
fn long_key(port: u16) -> RawClient {
    let mut client = RawClient::connect(port).expect("connected");
    client.send(&startup((3 << 16) | 2, &[("user", "postgres"), ("database", "postgres")])).expect("sent");
    let frames = client.until_ready().expect("a login");
    client.key = frames.iter().find(|frame| frame.tag == b'K').expect("a key").body.clone();
    assert_eq!(client.key.len(), 4 + 32);
    client
}

#[test]
fn r18_a_cancel_that_reaches_another_proxy_ends_the_statement_of_its_session_and_nothing_else() {
    let Some(cluster) = common::cluster() else { return };
    let group = Group::start(cluster, "");
    let begun = Instant::now();
    for (of, at) in [(0, 1), (1, 2), (2, 0), (0, 0)] {
        for sql in ["SELECT pg_sleep(15)", "CREATE TEMPORARY TABLE t AS SELECT 1 FROM pg_sleep(15)"] {
            assert_eq!(cancelled(&group, of, at, sql).as_deref(), Some("57014"), "{sql} on {of} by {at}");
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(60), "each at once");
    let mut client = long_key(group.port(1));
    client.send(&query("SELECT pg_sleep(15)")).expect("sent");
    std::thread::sleep(Duration::from_millis(300));
    client.cancel(group.port(2));
    let frames = client.until_ready().expect("an answer");
    assert_eq!(frames.iter().find_map(common::raw::Frame::sqlstate).as_deref(), Some("57014"));
    interrupted(&group, cluster);
    // What is told is a moment old.
    eventually("all of them are counted", || {
        let told = [0, 1, 2].map(|of| counted(&group, of));
        told[0][0] == 2 && told.map(|[_, obeyed, _]| obeyed) == [3, 3, 2]
    });
    forged(&group);
}

/// The real psql behind one address for all proxies, which takes its session to the first one and its cancel request to the third one.
fn interrupted(group: &Group, cluster: &pgherd::app::demo::cluster::Cluster) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let port = listener.local_addr().expect("it has one").port();
    let proxies = [group.port(0), group.port(2)];
    std::thread::spawn(move || {
        for (client, proxy) in listener.incoming().flatten().zip(proxies) {
            let server = TcpStream::connect(("127.0.0.1", proxy)).expect("connected");
            for (mut from, mut to) in [(&client, &server), (&server, &client)]
                .map(|(from, to)| (from.try_clone().expect("a handle"), to.try_clone().expect("a handle")))
            {
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Both);
                });
            }
        }
    });
    let mut command = programs::psql(cluster.programs(), port, "postgres");
    command.args(["-c", "SELECT pg_sleep(15)"]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    let child = command.spawn().expect("psql starts");
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    eventually("psql waits for its answer", || {
        let told = group.own(0, &["proc_info"]).expect("told");
        told["sessions"].as_array().is_some_and(|all| all.iter().any(|one| one["state"] == "active"))
    });
    kill(pid, Signal::SIGINT).expect("it runs");
    let done = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(said.contains("canceling statement due to user request"), "{said}");
}

/// Wrong secrets hit nobody, are counted, and tell a client nothing.
fn forged(group: &Group) {
    let mut client = RawClient::login(group.port(0), "postgres");
    let before = [counted(group, 0), counted(group, 1)];
    client.send(&query("SELECT pg_sleep(2), 'mine'")).expect("sent");
    let mut key = client.key.clone();
    key[7] ^= 1;
    // A part of the right one, too much, the right secret of another number, a number of no session.
    let (mut short, mut long, mut other, mut none) = (key.clone(), key.clone(), client.key.clone(), key.clone());
    short.truncate(5);
    long.extend([0; 28]);
    other[3] ^= 4;
    none[..4].copy_from_slice(&7_i32.to_be_bytes());
    for bad in [key, short, long, other, none] {
        for at in 0..2 {
            let mut stranger = RawClient::connect(group.port(at)).expect("connected");
            stranger.send(&cancel_request(&bad)).expect("sent");
            assert!(stranger.ended(), "closed without an answer");
        }
    }
    let frames = client.until_ready().expect("an answer");
    assert!(frames.iter().all(|frame| frame.tag != b'E'), "{frames:?}");
    eventually("the owner has refused what was passed on", || counted(group, 0)[2] >= before[0][2] + 2);
    assert_eq!(counted(group, 0)[1], before[0][1], "none was obeyed");
    assert!(group.log(0).contains("event=\"cancel_refused\""), "{}", group.log(0));
}
