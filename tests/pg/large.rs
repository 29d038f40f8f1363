//! Large values and long COPYs stream through in constant memory.

use crate::common::proxy::{Options, Proxy};
use crate::common::raw::{self, RawClient, message, tags};
use crate::common::{self, database};

/// What the proxy may grow by while gigabytes pass.
const GROWTH: u64 = 24 << 20;
/// Almost the largest value that PostgreSQL can build.
const VALUE: u64 = 1000 << 20;

/// Bytes to copy: 10 GB with `BIG=1`, else 1 GB.
fn copied() -> u64 {
    if std::env::var_os("BIG").is_some() { 10 << 30 } else { 1 << 30 }
}

/// Runs `work` and demands that the proxy's memory stays flat meanwhile.
fn flat(proxy: &Proxy, what: &str, work: impl FnOnce() + Send) {
    let before = proxy.resident();
    let mut most = before;
    std::thread::scope(|scope| {
        let run = scope.spawn(work);
        while !run.is_finished() {
            most = most.max(proxy.resident());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        run.join().expect("the work succeeds");
    });
    if let (Some(before), Some(most)) = (before, most) {
        println!("{what}: {} kB before, {} kB at most", before >> 10, most >> 10);
        assert!(most < before + GROWTH, "{what}: it grew from {before} to {most}");
    }
}

#[test]
fn a_gigabyte_in_one_value_comes_out() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "large");
    let mut client = RawClient::login(proxy.port(), &db);
    // The server makes the value before it says a word.
    client.patience(std::time::Duration::from_secs(120));
    flat(&proxy, "1000 MiB in one row", || {
        client.send(&raw::query(&format!("SELECT repeat('x', {VALUE})"))).expect("sent");
        let mut seen = Vec::new();
        loop {
            let (tag, length) = client.skim().expect("a message");
            seen.push((tag, length));
            if tag == b'Z' {
                break;
            }
        }
        assert_eq!(seen.iter().map(|(tag, _)| *tag).collect::<Vec<u8>>(), b"TDCZ", "{seen:?}");
        assert_eq!(seen[1].1, VALUE + 6);
    });
}

#[test]
fn half_a_gigabyte_in_one_parameter_goes_in() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "large");
    let mut client = RawClient::login(proxy.port(), &db);
    client.query("CREATE TABLE t (length int)");
    let size = 500_u32 << 20;
    flat(&proxy, "500 MiB in one parameter", || {
        client.send(&raw::parse("", "INSERT INTO t VALUES (length($1::text)) RETURNING length", &[])).expect("sent");
        let head = [&b"\0\0\0\0\0\x01"[..], &size.to_be_bytes()].concat();
        let length = u32::try_from(head.len()).expect("short") + size + 2 + 4;
        client.send(&[&b"B"[..], &length.to_be_bytes(), &head].concat()).expect("sent");
        let block = vec![b'y'; 1 << 20];
        (0..size >> 20).for_each(|_| client.send(&block).expect("sent"));
        client.send(&[&b"\0\0"[..], &raw::execute("", 0), &raw::sync()].concat()).expect("sent");
        let frames = client.until_ready().expect("an answer");
        assert_eq!(tags(&frames), "12DCZ", "{frames:?}");
        assert_eq!(raw::values(&frames), [size.to_string()]);
    });
}

#[test]
fn a_long_statement_text_goes_in() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "large");
    let mut client = RawClient::login(proxy.port(), &db);
    flat(&proxy, "64 MiB of statement", || {
        let text = format!("SELECT length('{}')\0", "z".repeat(64 << 20));
        client.send(&message(b'Q', text.as_bytes())).expect("sent");
        assert_eq!(raw::values(&client.until_ready().expect("an answer")), [(64 << 20).to_string()]);
    });
}

#[test]
fn a_long_copy_comes_out() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "large");
    let mut client = RawClient::login(proxy.port(), &db);
    let rows = copied() / 1024;
    flat(&proxy, "COPY out", || {
        let sql = format!("COPY (SELECT repeat('x', 1023) FROM generate_series(1, {rows})) TO STDOUT");
        client.send(&raw::query(&sql)).expect("sent");
        let (mut bytes, mut end) = (0, Vec::new());
        while end.last() != Some(&b'Z') {
            let (tag, length) = client.skim().expect("a message");
            if tag == b'd' {
                bytes += length;
            } else {
                end.push(tag);
            }
        }
        assert_eq!((end.as_slice(), bytes), (&b"HcCZ"[..], rows * 1024));
    });
}

#[test]
fn a_long_copy_goes_in() {
    let Some(cluster) = common::cluster() else { return };
    let proxy = Proxy::start(cluster, &Options::default());
    let db = database(cluster, "large");
    let mut client = RawClient::login(proxy.port(), &db);
    client.query("CREATE TABLE t (v text)");
    flat(&proxy, "COPY in", || {
        client.send(&raw::query("COPY t FROM STDIN WHERE length(v) = 0")).expect("sent");
        assert_eq!(client.frame().expect("an answer").tag, b'G');
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        let block = raw::copy_data(&line.repeat(64));
        for _ in 0..copied() / (64 * 1024) {
            client.send(&block).expect("sent");
        }
        client.send(&raw::copy_done()).expect("sent");
        let frames = client.until_ready().expect("an answer");
        assert_eq!(frames[0].body, b"COPY 0\0", "{frames:?}");
    });
}
