//! What the lexer cannot trust is opaque and goes to the primary (SESSIONS R10): encodings whose characters hold ASCII bytes, texts longer
//! than any buffer, texts behind an unanswered change of how texts are read.

use pgherd::app::demo::cluster::Cluster;

use crate::common::raw::{Frame, RawClient, bind, execute, message, query, sync, values};
use crate::common::{self, SOON, eventually};
use crate::tools::{
    code, counter, extended, is_standby, named, ran_on_standby, run, shown, value, wait_for_catalog, with_here,
};

/// Client encodings whose trail bytes may be ASCII, each with a way to write such a character whatever its lead byte is.
const ENCODINGS: &[&str] = &["SJIS", "SHIFT_JIS_2004", "BIG5", "GBK", "GB18030", "UHC", "JOHAB"];

/// A character of that encoding, ending with a backslash if it has one.
fn character(straight: &mut RawClient, encoding: &str) -> Vec<u8> {
    let server = if encoding == "SHIFT_JIS_2004" { "SHIFT_JIS_2004" } else { encoding };
    for trail in [0x5C_u8, 0x41, 0x61, 0x81, 0xA1] {
        for lead in 0x81..=0xFE_u8 {
            let ask = format!("SELECT length(convert_from('\\x{lead:02x}{trail:02x}', '{server}'))");
            let frames = straight.query(&ask);
            if code(&frames).is_none() && values(&frames) == ["1"] {
                return vec![lead, trail];
            }
        }
    }
    panic!("no character of two bytes in {encoding}");
}

/// A query of bytes.
fn raw_query(text: &[u8]) -> Vec<u8> {
    message(b'Q', &[text, b"\0"].concat())
}

fn raw_parse(text: &[u8]) -> Vec<u8> {
    message(b'P', &[b"\0", text, b"\0\0\0"].concat())
}

fn ask(client: &mut RawClient, messages: &[u8]) -> Vec<Frame> {
    client.send(messages).expect("sent");
    client.until_ready().expect("an answer")
}

/// The port of the first row.
fn place(cluster: &Cluster, frames: &[Frame]) -> bool {
    let ports = values(frames);
    assert!(!ports.is_empty(), "{frames:?}");
    is_standby(cluster, &ports[0])
}

fn with_table(purpose: &str) -> Option<(common::proxy::Proxy, String)> {
    let (proxy, db) = with_here(purpose, "consistency = \"eventual\"")?;
    let mut setup = RawClient::login(proxy.port(), &db);
    run(&mut setup, "CREATE TABLE t (n int)");
    common::cluster()?.wait_replayed(SOON).expect("standbys follow");
    wait_for_catalog(&mut setup);
    Some((proxy, db))
}

#[test]
fn r10_a_trail_byte_that_is_a_backslash_hides_nothing() {
    let Some((proxy, db)) = with_table("r10") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut straight = RawClient::login(cluster.primary().port(), &db);
    let mut observer = RawClient::login(proxy.port(), &db);
    let (mut hidden, retries) = (0, counter(&mut observer, "retries"));
    for encoding in ENCODINGS {
        let character = character(&mut straight, encoding);
        hidden += u32::from(character[1] == 0x5C);
        // To a reader of bytes one statement, whose literal goes on behind the quote; to PostgreSQL three.
        let text = [b"SELECT here(), E'", &character[..], b"'; INSERT INTO t VALUES (1); --'"].concat();
        // By a startup option, by SET, by SET NAMES.
        for way in 0..3 {
            let parameters = [("user", "postgres"), ("database", &*db), ("client_encoding", *encoding)];
            let mut client = match way {
                0 => RawClient::try_login_with(proxy.port(), &parameters).expect("a login"),
                _ => RawClient::login(proxy.port(), &db),
            };
            match way {
                0 => {}
                1 => drop(run(&mut client, &format!("SET client_encoding TO '{encoding}'"))),
                _ => drop(extended(&mut client, &format!("SET NAMES '{encoding}'"))),
            }
            run(&mut straight, "TRUNCATE t");
            assert!(ran_on_standby(cluster, &mut client, "SELECT here(), 'ASCII is read'"), "{encoding}");
            let opaque = counter(&mut observer, "opaque");
            let frames = ask(&mut client, &raw_query(&text));
            assert_eq!(code(&frames), None, "{encoding}: {frames:?}");
            assert!(!place(cluster, &frames), "{encoding}: it came to a standby first");
            assert_eq!(value(&mut straight, "SELECT count(*) FROM t"), "1", "{encoding}, way {way}");
            // Counted when its transaction has been dealt with, of which the client hears a little earlier.
            eventually("it is counted as opaque", || counter(&mut observer, "opaque") > opaque);
            // A plain literal of the same character, which holds no second statement, is not trusted either.
            let text = [b"SELECT here(), '", &character[..], b"'"].concat();
            let series = [raw_parse(&text), bind("", "", &[]), execute("", 0), sync()].concat();
            let frames = ask(&mut client, &series);
            assert_eq!(code(&frames), None, "{encoding}: {frames:?}");
            assert!(!place(cluster, &frames), "{encoding}");
        }
    }
    assert!(hidden >= 5, "only {hidden} of the encodings have a character that ends with a backslash");
    assert_eq!(counter(&mut observer, "retries"), retries, "no standby had to refuse anything");
}

#[test]
fn r10_what_a_hidden_statement_does_is_found_out() {
    let Some((proxy, db)) = with_table("r10") else { return };
    let mut observer = RawClient::login(proxy.port(), &db);
    for (name, does, reason) in [
        ("temporary", &b"CREATE TEMP TABLE mine (n int)"[..], "temporary objects"),
        ("listens", b"LISTEN gossip", "LISTEN"),
        ("prepares", b"PREPARE mine AS SELECT 1", "SQL-level PREPARE"),
    ] {
        let mut client = named(proxy.port(), &db, name);
        run(&mut client, "SET client_encoding TO 'SJIS'");
        let text = [b"SELECT here(), E'\x83\x5c'; ", does, b"; --'"].concat();
        assert_eq!(code(&ask(&mut client, &raw_query(&text))), None, "{name}");
        eventually("it is pinned", || shown(&mut observer, name).get("pinned").is_some_and(|why| why == reason));
    }
    // Its settings are not carried, and nobody else has them (SESSIONS R1).
    let mut client = RawClient::login(proxy.port(), &db);
    run(&mut client, "SET client_encoding TO 'SJIS'");
    let text = b"SELECT here(), E'\x83\x5c'; SET work_mem = 4321; --'";
    assert_eq!(code(&ask(&mut client, &raw_query(text))), None);
    for _ in 0..10 {
        let mut other = RawClient::login(proxy.port(), &db);
        assert_ne!(value(&mut other, "SELECT current_setting('work_mem')"), "4321kB");
    }
}

#[test]
fn r10_other_encodings_are_read() {
    let Some((proxy, db)) = with_table("r10") else { return };
    let cluster = common::cluster().expect("it runs");
    for (encoding, letter) in [
        ("UTF8", &b"\xc3\xa9"[..]),
        ("LATIN1", b"\xe9"),
        ("EUC_JP", b"\xa5\xbd"),
        ("EUC_KR", b"\xb0\xa1"),
        ("WIN1252", b"\x80"),
    ] {
        let mut client = RawClient::login(proxy.port(), &db);
        run(&mut client, &format!("SET client_encoding TO '{encoding}'"));
        let text = [b"SELECT here(), '", letter, b"'"].concat();
        let frames = ask(&mut client, &raw_query(&text));
        assert!(place(cluster, &frames), "{encoding}: {frames:?}");
    }
    // Back from one that is not trusted.
    let mut client = RawClient::login(proxy.port(), &db);
    let text = "SELECT here(), 'é'";
    assert!(ran_on_standby(cluster, &mut client, text));
    run(&mut client, "SET client_encoding TO 'GBK'");
    assert!(!place(cluster, &ask(&mut client, &raw_query(b"SELECT here(), '\xc4\xe3'"))));
    run(&mut client, "RESET client_encoding");
    assert!(ran_on_standby(cluster, &mut client, text));
}

#[test]
fn r10_a_text_longer_than_the_buffer_is_opaque() {
    let Some((proxy, db)) = with_table("r10") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut observer = RawClient::login(proxy.port(), &db);
    for size in [66_000, 200_000, 3_000_000] {
        let long = format!("SELECT here(), length('{}')", "x".repeat(size));
        for by_series in [false, true] {
            let mut client = RawClient::login(proxy.port(), &db);
            let opaque = counter(&mut observer, "opaque");
            let frames = if by_series { extended(&mut client, &long) } else { run(&mut client, &long) };
            assert_eq!(code(&frames), None);
            assert!(!place(cluster, &frames), "{size} bytes");
            eventually("it is counted as opaque", || counter(&mut observer, "opaque") > opaque);
        }
    }
    // What stands at its end is not seen and found out all the same.
    let mut client = named(proxy.port(), &db, "long");
    let long = format!("SELECT here(), length('{}'); CREATE TEMP TABLE mine (n int)", "x".repeat(100_000));
    assert_eq!(code(&client.query(&long)), None);
    eventually("it is pinned", || {
        shown(&mut observer, "long").get("pinned").is_some_and(|why| why == "temporary objects")
    });
    assert_eq!(value(&mut client, "SELECT count(*) FROM mine"), "0");
    let mut client = RawClient::login(proxy.port(), &db);
    let long = format!("SELECT length('{}'); INSERT INTO t VALUES (1)", "x".repeat(100_000));
    assert_eq!(code(&client.query(&long)), None);
    assert_eq!(value(&mut RawClient::login(cluster.primary().port(), &db), "SELECT count(*) FROM t"), "1");
}

#[test]
fn r10_a_text_behind_an_unanswered_change_of_reading() {
    let Some((proxy, db)) = with_table("r10") else { return };
    let cluster = common::cluster().expect("it runs");
    let mut straight = RawClient::login(cluster.primary().port(), &db);
    let mut observer = RawClient::login(proxy.port(), &db);
    let in_sjis = b"SELECT here(), E'\x83\x5c'; INSERT INTO t VALUES (1); CREATE TEMP TABLE mine (n int); --'";
    let in_off = b"SELECT here(), 'a\\'' ; INSERT INTO t VALUES (1); CREATE TEMP TABLE mine (n int); --'";
    for (change, text) in [
        ("SET client_encoding TO 'SJIS'", &in_sjis[..]),
        ("SET NAMES 'SJIS'", in_sjis),
        ("SELECT set_config('client_encoding', 'SJIS', false)", in_sjis),
        ("SET standard_conforming_strings = off", in_off),
        ("SET standard_conforming_strings TO 'off'", in_off),
        ("SELECT set_config('standard_conforming_strings', 'off', false)", in_off),
        ("BEGIN; SET LOCAL standard_conforming_strings = off", in_off),
        ("DO $$ BEGIN PERFORM set_config('standard_conforming_strings', 'off', false); END $$", in_off),
    ] {
        run(&mut straight, "TRUNCATE t");
        let mut client = named(proxy.port(), &db, "pipelines");
        assert!(ran_on_standby(cluster, &mut client, "SELECT here()"));
        client.send(&[query(change), raw_query(text)].concat()).expect("sent");
        assert_eq!(code(&client.until_ready().expect("an answer")), None, "{change}");
        let frames = client.until_ready().expect("an answer");
        assert_eq!(code(&frames), None, "{change}: {frames:?}");
        assert!(!place(cluster, &frames), "{change}");
        if change.starts_with("BEGIN") {
            run(&mut client, "COMMIT");
        }
        assert_eq!(value(&mut straight, "SELECT count(*) FROM t"), "1", "{change}");
        eventually("what it made is found", || {
            shown(&mut observer, "pipelines").get("pinned").is_some_and(|why| why == "temporary objects")
        });
        assert_eq!(value(&mut client, "SELECT count(*) FROM mine"), "0", "{change}");
        drop(client);
        eventually("it has left", || {
            let all = crate::tools::table(&run(&mut observer, "PGPOOL SHOW SESSIONS"));
            !all.iter().any(|row| row["application_name"] == "pipelines")
        });
    }
}

#[test]
fn r10_a_series_behind_an_unanswered_change_of_reading() {
    let Some((proxy, db)) = with_table("r10") else { return };
    let cluster = common::cluster().expect("it runs");
    let one = |text: &[u8]| [raw_parse(text), bind("", "", &[]), execute("", 0)].concat();
    // The quote of the second literal is inside the character: its number is the text's, not the value of a sequence.
    let text = b"SELECT here(), E'\x83\x5c', 'x'";
    for (first, second) in [
        (one(b"SET client_encoding TO 'SJIS'"), [one(text), sync()].concat()),
        ([one(b"SET client_encoding TO 'SJIS'"), sync()].concat(), [one(text), sync()].concat()),
        (query("SET client_encoding TO 'SJIS'"), [one(text), sync()].concat()),
    ] {
        let mut client = RawClient::login(proxy.port(), &db);
        assert!(ran_on_standby(cluster, &mut client, "SELECT here()"));
        client.send(&[first, second].concat()).expect("sent");
        let mut frames = client.until_ready().expect("an answer");
        while values(&frames).is_empty() {
            assert_eq!(code(&frames), None, "{frames:?}");
            frames = client.until_ready().expect("an answer");
        }
        assert_eq!(code(&frames), None, "{frames:?}");
        assert!(!place(cluster, &frames));
        assert_eq!(value(&mut client, "SHOW client_encoding"), "SJIS");
    }
}
