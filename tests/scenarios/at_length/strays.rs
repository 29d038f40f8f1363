//! Sessions that came by the address, when that goes (HA H22), and cancel requests that come by it when it has moved since the query (SESSIONS
//! R18, HA H24).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::common::raw::{Frame, RawClient, cancel_request, query};
use crate::common::{SOON, eventually};
use crate::pair::{Both, PROXIES, Pair};
use crate::table;

/// A client that waits for something long.
fn busy(both: &Both, at: SocketAddr, sql: &str) -> RawClient {
    let mut client = both.world.upstream().inside(|| RawClient::login_at(at, SOON)).expect("a login");
    client.send(&query(sql)).expect("sent");
    std::thread::sleep(Duration::from_millis(300));
    client
}

/// Nobody is answered, whatever comes of it.
fn cancel(both: &Both, at: SocketAddr, key: &[u8]) {
    let mut stranger = both.world.upstream().inside(|| RawClient::connect_to(at, SOON)).expect("connected");
    stranger.send(&cancel_request(key)).expect("sent");
    assert!(stranger.ended(), "closed without an answer");
}

/// What a proxy has counted of cancel requests.
fn counted(both: &Both, of: usize, what: &str) -> u64 {
    let told = both.pcp(of, env!("CARGO_BIN_EXE_pgherd"), &["pcp", "--json", "watchdog-info"]).expect("it answers");
    let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
    told["cancels"][what].as_u64().expect("a number")
}

fn state(frames: &[Frame]) -> Option<String> {
    frames.iter().find_map(Frame::sqlstate)
}

#[test]
fn r18_a_cancel_request_comes_behind_the_address_to_who_has_the_session_or_hits_nobody() {
    let pair = Pair::default();
    let Some(mut both) = Both::start(&pair) else { return };
    let address = both.world.address();
    let own: SocketAddr = format!("{}:{}", PROXIES[0].1, address.port()).parse().expect("an address");
    let mut moved = busy(&both, address, "SELECT pg_sleep(60)");
    let mut stays = busy(&both, own, "SELECT pg_sleep(60)");
    // In order: the second one is preferred from now on, and the first one lives.
    let text = both.text(&pair, 1).replacen("[[watchdog.peer]]", "priority = 9\n[[watchdog.peer]]", 1);
    std::fs::write(both.proxy(1).folder().join("pgherd.toml"), text).expect("written");
    both.signal(1, Signal::SIGHUP);
    both.wait_holder(1);
    assert_eq!(both.state(1, 0), "STANDBY");
    // Whoever came by the address is cut off. What runs for it may be ended by its request, what others do at the new holder must not.
    assert!(moved.ended(), "HA H22");
    let mut bystander = busy(&both, address, "SELECT pg_sleep(4), 'mine'");
    let passed = counted(&both, 1, "passed_on");
    cancel(&both, address, &moved.key);
    // Whoever came by the first one's own address is still served by it, and asks the new holder of the other address.
    cancel(&both, address, &stays.key);
    assert_eq!(state(&stays.until_ready().expect("an answer")).as_deref(), Some("57014"));
    eventually("both were passed on", || counted(&both, 1, "passed_on") >= passed + 2);
    eventually("the owner has obeyed", || counted(&both, 0, "obeyed") >= 1);
    let running = |node| {
        both.world.told(
            node,
            "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)' AND state = 'active'",
        )
    };
    eventually("nothing of them runs", || (0..3).all(|node| running(node) == "0"));
    assert_eq!(state(&bystander.until_ready().expect("an answer")), None, "nobody else's");
    // A dead proxy's sessions are gone: silence.
    let stays = busy(&both, own, "SELECT pg_sleep(60)");
    let mut bystander = busy(&both, address, "SELECT pg_sleep(2), 'mine'");
    both.proxy(0).kill9();
    cancel(&both, address, &stays.key);
    assert_eq!(state(&bystander.until_ready().expect("an answer")), None, "nobody else's");
    assert_eq!(both.holder(), Some(1));
    both.watch.judge();
}

/// Sessions by the address, half of them in a statement; when each has ended, once all have.
fn sessions(both: &Both) -> Vec<std::thread::JoinHandle<Instant>> {
    let address = both.world.address();
    let begin = |number: usize| {
        let mut client = both.world.upstream().inside(|| RawClient::login_at(address, SOON)).expect("a login");
        if number.is_multiple_of(2) {
            client.send(&query("SELECT pg_sleep(60)")).expect("sent");
        }
        std::thread::spawn(move || {
            assert!(client.ended(), "it ends");
            Instant::now()
        })
    };
    let all = (0..8).map(begin).collect();
    std::thread::sleep(Duration::from_millis(300));
    all
}

#[test]
fn h22_sessions_end_with_the_address() {
    const BOUND: Duration = Duration::from_millis(100);
    let pair = Pair::default();
    let Some(mut both) = Both::start(&pair) else { return };
    let sessions = sessions(&both);
    let text = both.text(&pair, 1).replacen("[[watchdog.peer]]", "priority = 9\n[[watchdog.peer]]", 1);
    std::fs::write(both.proxy(1).folder().join("pgherd.toml"), text).expect("written");
    both.signal(1, Signal::SIGHUP);
    both.wait_holder(1);
    let last = sessions.into_iter().map(|session| session.join().expect("it ends")).max().expect("there are some");
    let gone = both.watch.gone(PROXIES[0].0).expect("it is elsewhere");
    let (behind, before) = (last.saturating_duration_since(gone), gone.saturating_duration_since(last));
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    let measured = match before.is_zero() {
        true => format!("{} behind", ms(behind)),
        false => format!("{} before", ms(before)),
    };
    let measured = format!("the last of 8 sessions ends {measured} the kernel's word that it is gone");
    let fault = "the address is handed over; half of its sessions are in a statement";
    table::line("H22", fault, &measured, "100 ms behind", "–");
    assert!(behind <= BOUND && before <= BOUND, "{measured}");
    both.watch.judge();
}
