//! Standbys that are late: `delay_threshold` in bytes and in time, and where their reads go then.

use std::time::Duration;

use pgherd::cluster::Status;

use crate::common::eventually;
use crate::common::raw::RawClient;
use crate::herd::Herd;

/// Where new sessions would read, each once.
fn readers(herd: &Herd) -> Vec<String> {
    let mut found: Vec<String> = (0..12)
        .map(|_| {
            let mut client = RawClient::login(herd.port(), "postgres");
            let frames = client.query("PGPOOL SHOW ROUTE 'SELECT count(*) FROM t'");
            let row = frames.iter().find(|frame| frame.tag == b'D').expect("a row");
            row.columns().into_iter().flatten().next().expect("a column")
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[test]
fn a_standby_beyond_a_threshold_of_bytes_or_time_gets_no_reads_until_it_has_caught_up() {
    let failover = "promote = \"never\"\n[routing]\nconsistency = \"eventual\"";
    let Some(mut herd) = Herd::start(failover, &[]) else { return };
    let quiet = |config: &str| config.replace("id = 0\n", "id = 0\nweight = 0\n");
    herd.reload(quiet);
    herd.write_again(1);
    eventually("both standbys are read from", || readers(&herd) == ["standby 1", "standby 2"]);
    herd.server(1).psql("postgres", "SELECT pg_wal_replay_pause()").expect("paused");
    herd.server(0).psql("postgres", "INSERT INTO t SELECT generate_series(100, 30000)").expect("written");
    eventually("it is behind", || herd.node(1).lag.is_some_and(|lag| lag > 1 << 20));
    assert_eq!(readers(&herd).len(), 2, "without a threshold any lag will do");
    assert_eq!(herd.node(1).status, Status::Up);
    for threshold in ["delay_threshold = \"1MB\"", "delay_threshold_by_time = \"1s\""] {
        herd.reload(|config| quiet(config).replace("[routing]\n", &format!("[routing]\n{threshold}\n")));
        eventually(&format!("only the other one is read from with {threshold}"), || {
            std::thread::sleep(Duration::from_millis(100));
            readers(&herd) == ["standby 2"]
        });
    }
    herd.reload(|config| {
        quiet(config)
            .replace("[routing]\n", "[routing]\ndelay_threshold = \"1MB\"\nprefer_lower_delay_standby = false\n")
    });
    eventually("its sessions read on the primary, the others where they did", || {
        readers(&herd) == ["primary", "standby 2"]
    });
    herd.server(1).psql("postgres", "SELECT pg_wal_replay_resume()").expect("resumed");
    eventually("it is read from again", || readers(&herd) == ["standby 1", "standby 2"]);
}
