//! The three ways to stop, by pgpool-II's program and by the signals that it stands for: what becomes of an idle session, of a transaction and of
//! newcomers.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::common::eventually;
use crate::common::raw::{Frame, RawClient};
use crate::world::{World, has_pgpool};

/// By the program, or by the signal.
fn stop(world: &World<'_>, mode: &str, signal: Option<Signal>) {
    if let Some(signal) = signal {
        kill(Pid::from_raw(i32::try_from(world.proxy.pid()).expect("a pid")), signal).expect("it runs");
    } else {
        let ran = world.stock(&format!("pcp_stop_pgpool -m {mode}"));
        assert_eq!((ran.code, ran.out.as_str()), (Some(0), "pcp_stop_pgpool -- Command Successful"), "{ran:?}");
    }
}

/// An idle session, and one in a transaction.
fn sessions(world: &World<'_>) -> (RawClient, RawClient) {
    let (idle, mut busy) =
        (RawClient::login(world.proxy.port(), "postgres"), RawClient::login(world.proxy.port(), "postgres"));
    busy.query("BEGIN; CREATE TEMP TABLE mine (n int) ON COMMIT DROP");
    (idle, busy)
}

/// What ends a session says why.
fn farewell(client: &mut RawClient) -> Option<String> {
    let frames: Vec<Frame> = client.until(|frame| frame.tag == b'E').ok()?;
    let state = frames.last()?.sqlstate();
    assert!(client.ended(), "nothing comes behind it");
    state
}

fn each(of: impl Fn(Option<Signal>), signal: Signal) {
    of(Some(signal));
    if has_pgpool("stopping by the real program") {
        of(None);
    }
}

#[test]
fn a_smart_stop_waits_for_all_clients_and_takes_no_new_ones() {
    let one = |signal| {
        let Some(mut world) = World::start("") else { return };
        let (mut idle, mut busy) = sessions(&world);
        stop(&world, "s", signal);
        eventually("newcomers are refused", || RawClient::connect(world.proxy.port()).is_err());
        assert_eq!(busy.values("SELECT count(*) FROM mine"), ["0"]);
        busy.query("COMMIT");
        assert_eq!(busy.values("SELECT 1"), ["1"], "behind the transaction, too");
        drop(busy);
        assert_eq!(idle.values("SELECT 2"), ["2"], "an idle session has all its time");
        drop(idle);
        assert_eq!(world.proxy.ended(), Some(0));
    };
    each(one, Signal::SIGTERM);
}

#[test]
fn a_fast_stop_lets_transactions_end_and_nothing_else() {
    let one = |signal| {
        let Some(mut world) = World::start("") else { return };
        let (mut idle, mut busy) = sessions(&world);
        stop(&world, "f", signal);
        assert_eq!(farewell(&mut idle).as_deref(), Some("57P01"));
        assert_eq!(busy.values("SELECT count(*) FROM mine"), ["0"]);
        busy.send(&crate::common::raw::query("COMMIT")).expect("sent");
        let committed = busy.until(|frame| frame.tag == b'C').expect("the transaction ends as its client wants it");
        assert!(committed.iter().all(|frame| frame.tag != b'E'), "{committed:?}");
        assert_eq!(farewell(&mut busy).as_deref(), Some("57P01"));
        assert_eq!(world.proxy.ended(), Some(0));
    };
    each(one, Signal::SIGINT);
}

#[test]
fn an_immediate_stop_waits_for_nobody() {
    let one = |signal| {
        let Some(mut world) = World::start("") else { return };
        let (mut idle, mut busy) = sessions(&world);
        let begun = Instant::now();
        stop(&world, "i", signal);
        assert!(idle.ended() && busy.ended());
        assert_eq!(world.proxy.ended(), Some(0));
        assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    };
    each(one, Signal::SIGQUIT);
}
