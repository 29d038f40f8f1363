//! The proxy itself is killed, or its host vanishes (SCENARIOS S30, S37, S40).

use std::process::Command;
use std::time::{Duration, Instant};

use pgherd::app::demo::programs;

use crate::clients::Clients;
use crate::common::raw::{copy_data, copy_done, query};
use crate::common::{SOON, eventually};
use crate::table;
use crate::world::{Setup, World};

#[test]
fn s30_a_killed_proxy_starts_again_by_itself() {
    let Some(mut world) = World::usual() else { return };
    let clients = Clients::start(&world);
    world.proxy.kill9();
    let folder = world.proxy.folder();
    let port = world.proxy.port();
    assert!(folder.join("pgherd.pid").exists() && folder.join(format!(".s.PGSQL.{port}")).exists(), "nothing is left");
    let begun = Instant::now();
    world.restart_proxy();
    let took = begun.elapsed();
    let second = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pgherd"));
        command.args(["run", "--config"]).arg(folder.join("pgherd.toml"));
        programs::run(&mut command, &[], SOON).expect("it ends")
    };
    let refused = world.net.host("proxy1").inside(second);
    assert!(!refused.status.success() && refused.complaint().contains("running already"), "{}", refused.complaint());
    clients.go_on(Duration::from_secs(2));
    let report = clients.stop(&world);
    assert!(report.lost.is_empty() && report.doubled.is_empty(), "{report}");
    table::line(
        "S30",
        "proxy killed (`kill -9`), its pid file and socket left behind",
        &format!("serves again {} after its start; a second one is refused", table::seconds(took)),
        "starts by itself",
        &report.to_string(),
    );
}

#[test]
fn s37_what_a_killed_proxy_has_begun_the_next_one_ends_or_undoes() {
    let failover = "promote = \"builtin\"\n[log]\nlevel = \"debug\"";
    let settings = &[("synchronous_standby_names", "ANY 1 (*)")];
    let Some(mut world) = World::start(&Setup { failover, settings, ..Setup::default() }) else { return };
    for step in ["Recruit", "Fence", "Promote", "Follow"] {
        let old = world.primary().expect("there is one");
        let clients = Clients::start(&world);
        let wanted = format!("job={step}");
        let before = world.proxy.log().matches(&wanted).count();
        let begun = Instant::now();
        world.server(old).kill9().expect("killed");
        while world.proxy.log().matches(&wanted).count() == before {
            assert!(begun.elapsed() < SOON, "{step} is never reached");
            std::thread::sleep(Duration::from_millis(1));
        }
        world.proxy.kill9();
        world.restart_proxy();
        let primary = world.wait_promoted(old);
        let other = 3 - old - primary;
        world.wait_follows(other, primary);
        eventually("writes go on", || {
            world.client().query("UPDATE shared SET n = n").iter().all(|frame| frame.tag != b'E')
        });
        let took = begun.elapsed();
        assert_eq!(world.told(other, "SELECT pg_is_in_recovery()"), "t", "{step}: two primaries");
        clients.go_on(Duration::from_secs(1));
        let report = clients.stop(&world);
        assert!(report.lost.is_empty() && report.doubled.is_empty(), "{step}: {:?} {report}", report.lost);
        report.one_writer();
        table::line(
            "S37",
            &format!("primary killed, then the proxy when it begins to {}", step.to_lowercase()),
            &format!("another primary, and its standby behind it, {} after the first fault", table::seconds(took)),
            "ended or undone by the next process",
            &report.to_string(),
        );
        world.rebuild(old, primary);
        world.wait_follows(old, primary);
    }
}

#[test]
fn h15_who_does_not_read_for_long_is_not_lost() {
    let Some(world) = World::usual() else { return };
    world.told(
        0,
        "CREATE TABLE slow (t text); CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS \
         $$BEGIN IF NEW.t = 'wait' THEN PERFORM pg_sleep(8); END IF; RETURN NEW; END$$; \
         CREATE TRIGGER pause BEFORE INSERT ON slow FOR EACH ROW EXECUTE FUNCTION pause()",
    );
    let mut client = world.client();
    client.send(&query("COPY slow FROM STDIN")).expect("sent");
    client.until(|frame| frame.tag == b'G').expect("the server waits for rows");
    client.send(&copy_data(b"wait\n")).expect("sent");
    let row = [&[b'x'; 1000][..], b"\n"].concat();
    for _ in 0..20_000 {
        client.send(&copy_data(&row)).expect("sent, at last");
    }
    client.send(&copy_done()).expect("sent");
    let frames = client.until_ready().expect("an answer");
    assert!(frames.iter().all(|frame| frame.tag != b'E'), "the server was lost while it did not read: {frames:?}");
    // And a client that does not read: nothing may be in a hurry for it.
    client.send(&query("SELECT repeat('x', 1000000) FROM generate_series(1, 40)")).expect("sent");
    std::thread::sleep(Duration::from_secs(8));
    let frames = client.until_ready().expect("an answer");
    assert_eq!(frames.iter().filter(|frame| frame.tag == b'D').count(), 40, "{:?}", frames.last());
}

#[test]
fn s40_a_row_that_a_vanished_proxy_has_locked_is_free_soon() {
    let Some(world) = World::usual() else { return };
    let clients = Clients::start(&world);
    let report = clients.stop(&world);
    let mut client = world.client();
    client.query("BEGIN");
    client.query("UPDATE shared SET n = n");
    // A server whose last packet is not acknowledged repeats it for as long as its host says (`tcp_retries2`), and does nothing else.
    std::thread::sleep(Duration::from_millis(300));
    world.net.cut("proxy1");
    let begun = Instant::now();
    world.told(0, "UPDATE shared SET n = n");
    let took = begun.elapsed();
    world.net.mend("proxy1");
    drop(client);
    table::line(
        "S40",
        "the proxy's host vanishes with a row locked",
        &format!("free after {}", table::seconds(took)),
        "3 s",
        &format!("until then: {report}"),
    );
    assert!(took <= Duration::from_secs(3), "{took:?}");
}
