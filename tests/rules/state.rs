//! State that text does not show (SESSIONS R1) and setups that fail (R2): on a pool of one connection, where whatever one session leaves is
//! what the next one finds.

use crate::common::proxy::Proxy;
use crate::common::raw::{RawClient, query};
use crate::common::{self, SOON};
use crate::tools::{breakable, code, on_primary, reading, run, state, value};

const TENANT: &str = "SELECT coalesce(current_setting('app.tenant', true), '')";

const FUNCTIONS: &str = "
    CREATE FUNCTION log_in(tenant text) RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('app.tenant', tenant, false); RETURN 1; END $$;
    CREATE FUNCTION log_in_stable(tenant text) RETURNS int LANGUAGE plpgsql STABLE AS
        $$ BEGIN PERFORM set_config('app.tenant', tenant, false); RETURN 1; END $$;
    CREATE PROCEDURE call_in(tenant text) LANGUAGE plpgsql AS $$ BEGIN PERFORM set_config('app.tenant', tenant, false); END $$;
    CREATE FUNCTION make_temp() RETURNS int LANGUAGE plpgsql AS $$ BEGIN CREATE TEMP TABLE hidden (n int); RETURN 1; END $$;
    CREATE FUNCTION take_lock() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_lock(7); RETURN 1; END $$;
    CREATE FUNCTION free_lock() RETURNS int LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_unlock(7); RETURN 1; END $$;
    CREATE FUNCTION style() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('DateStyle', 'German', false), set_config('statement_timeout', '77s', false); RETURN 1; END $$;
    CREATE TABLE watched (tenant text);
    CREATE FUNCTION on_write() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('app.tenant', NEW.tenant, false); RETURN NEW; END $$;
    CREATE TRIGGER t BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION on_write();
    CREATE VIEW gate AS SELECT log_in('view')";

#[test]
fn r01_the_tenant_set_inside_a_function_is_nobody_elses() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("r01", 1, "max_pinned = 1") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, FUNCTIONS);
    let ways = [
        "SELECT log_in('a')",
        "SELECT log_in_stable('a')",
        "CALL call_in('a')",
        "DO $$ BEGIN PERFORM set_config('app.tenant', 'a', false); END $$",
        "INSERT INTO watched VALUES ('a')",
        "SELECT * FROM gate",
        "SELECT set_config('app.' || 'tenant', 'a', false)",
        "BEGIN; SELECT log_in('a'); COMMIT",
        "WITH w AS (INSERT INTO watched VALUES ('a') RETURNING 1) SELECT * FROM w",
    ];
    for way in ways {
        run(&mut a, way);
        assert_eq!(value(&mut b, TENANT), "", "{way}");
        assert_eq!(tenant_by_series(&mut b), "", "{way}, by the extended protocol");
        assert!(["", "a"].contains(&value(&mut a, TENANT).as_str()), "{way}");
    }
}

fn tenant_by_series(client: &mut RawClient) -> String {
    crate::common::raw::values(&crate::tools::extended(client, TENANT)).concat()
}

#[test]
fn r01_two_tenants_never_mix_under_load() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("r01", 2, "") else { return };
    run(&mut RawClient::login(proxy.port(), &db), FUNCTIONS);
    std::thread::scope(|scope| {
        for name in ["a", "b", "c", "d", "e", "f"] {
            let (port, db) = (proxy.port(), &db);
            scope.spawn(move || {
                let mut client = RawClient::login(port, db);
                for _ in 0..60 {
                    run(&mut client, &format!("SELECT log_in('{name}')"));
                    let seen = value(&mut client, TENANT);
                    assert!(seen.is_empty() || seen == name, "{name} saw the tenant {seen}");
                    run(&mut client, "BEGIN");
                    run(&mut client, &format!("SELECT log_in('{name}')"));
                    assert_eq!(value(&mut client, TENANT), name, "within its transaction");
                    run(&mut client, "COMMIT");
                }
            });
        }
    });
}

#[test]
fn r01_opaque_pin_keeps_what_a_function_set() {
    let Some((proxy, db)) = on_primary("r01", 3, "opaque = \"pin\"\nmax_pinned = 2") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, FUNCTIONS);
    run(&mut a, "SELECT log_in('a')");
    let mut b = RawClient::login(proxy.port(), &db);
    assert_eq!(value(&mut b, TENANT), "");
    assert_eq!(value(&mut a, TENANT), "a");
}

#[test]
fn r01_a_temporary_table_made_in_a_function_pins() {
    let Some((proxy, db)) = on_primary("r01", 2, "max_pinned = 1") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, FUNCTIONS);
    run(&mut a, "SELECT make_temp()");
    run(&mut a, "INSERT INTO hidden VALUES (1)");
    for _ in 0..3 {
        assert_eq!(code(&b.query("SELECT * FROM hidden")).as_deref(), Some("42P01"));
        assert_eq!(value(&mut a, "SELECT n FROM hidden"), "1");
    }
    run(&mut a, "DROP TABLE hidden");
    assert_eq!(code(&b.query("SELECT * FROM hidden")).as_deref(), Some("42P01"));
}

#[test]
fn r01_an_advisory_lock_taken_in_a_function_pins_until_it_is_given_up() {
    let Some((proxy, db)) = on_primary("r01", 3, "max_pinned = 2") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, FUNCTIONS);
    run(&mut a, "SELECT take_lock()");
    for _ in 0..3 {
        assert_eq!(value(&mut b, "SELECT pg_try_advisory_lock(7)"), "f");
        assert_eq!(value(&mut a, "SELECT pg_try_advisory_lock_shared(7)"), "t", "it is its own lock");
        assert_eq!(value(&mut a, "SELECT pg_advisory_unlock_shared(7)"), "t");
    }
    run(&mut a, "SELECT free_lock()");
    // The pin ends a moment after the answer.
    common::eventually("b has the lock", || {
        crate::common::raw::values(&b.query("SELECT pg_try_advisory_lock(7)")) == ["t"]
    });
    assert_eq!(value(&mut b, "SELECT pg_advisory_unlock(7)"), "t");
}

#[test]
fn r01_what_a_function_did_to_output_is_undone_and_told() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("r01", 1, "max_pinned = 1") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut a, FUNCTIONS);
    run(&mut a, "SELECT style()");
    for _ in 0..2 {
        let frames = run(&mut b, "SELECT date '2024-02-01', current_setting('statement_timeout')");
        let row = frames.iter().find(|frame| frame.tag == b'D').expect("a row").columns();
        assert_eq!(row, [Some("2024-02-01".to_owned()), Some("0".to_owned())]);
        let told: Vec<_> = frames.iter().filter(|frame| frame.tag == b'S').collect();
        assert!(told.is_empty(), "b was told of what is a's: {told:?}");
    }
}

#[test]
fn r02_a_role_dropped_meanwhile_lets_nothing_run() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("r02", 1, "max_pinned = 1") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut b, "CREATE TABLE log (who text); GRANT ALL ON log TO PUBLIC; CREATE ROLE r02_worker");
    run(&mut a, "SET ROLE r02_worker");
    run(&mut a, "INSERT INTO log VALUES (current_user)");
    run(&mut b, "DROP ROLE r02_worker");
    // Two at once: the second must not run as the login user either.
    let insert = query("INSERT INTO log VALUES (current_user)");
    a.send(&[insert.clone(), insert].concat()).expect("sent");
    for _ in 0..2 {
        let frames = a.until_ready().expect("an answer");
        assert_eq!(code(&frames).as_deref(), Some("22023"), "{frames:?}");
        assert_eq!(state(&frames), 'I');
    }
    assert_eq!(b.values("SELECT who FROM log"), ["r02_worker"]);
    run(&mut a, "RESET ROLE");
    assert_eq!(value(&mut a, "SELECT current_user"), "postgres");
}

#[test]
fn r02_a_setting_that_has_become_impossible_lets_nothing_run() {
    if common::direct() {
        return;
    }
    let Some((proxy, db)) = on_primary("r02", 1, "max_pinned = 1") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let mut b = RawClient::login(proxy.port(), &db);
    run(&mut b, "CREATE TEXT SEARCH CONFIGURATION own (COPY = simple); CREATE TABLE log (n int)");
    run(&mut a, "SET default_text_search_config = 'public.own'; SET app.x = '1'");
    run(&mut b, "DROP TEXT SEARCH CONFIGURATION own");
    let frames = a.query("INSERT INTO log VALUES (1)");
    if code(&frames).is_none() {
        // PostgreSQL accepts it with a notice: then the other setting must be there.
        assert_eq!(value(&mut a, "SHOW app.x"), "1");
        return;
    }
    assert_eq!(value(&mut b, "SELECT count(*) FROM log"), "0");
    run(&mut a, "RESET default_text_search_config");
    assert_eq!(value(&mut a, "SHOW app.x"), "1");
}

#[test]
fn r02_a_pipelined_set_role_that_fails_stops_its_series() {
    let Some((proxy, db)) = on_primary("r02", 1, "") else { return };
    let mut a = RawClient::login(proxy.port(), &db);
    let parts = ["SET ROLE nosuch_role", "SELECT current_user"];
    let messages: Vec<Vec<u8>> = parts
        .iter()
        .flat_map(|sql| {
            use crate::common::raw::{bind, execute, parse};
            [parse("", sql, &[]), bind("", "", &[]), execute("", 0)]
        })
        .collect();
    let frames = crate::tools::series(&mut a, &messages);
    assert_eq!(code(&frames).as_deref(), Some("22023"));
    assert!(frames.iter().all(|frame| frame.tag != b'D'), "{frames:?}");
}

#[test]
fn r02_a_standby_without_the_role_is_given_up_for_the_primary() {
    if common::direct() {
        return;
    }
    let Some(guard) = breakable() else { return };
    let cluster = guard.as_ref().expect("it runs");
    let proxy = Proxy::start(cluster, &reading(2, "consistency = \"eventual\""));
    let db = common::database(cluster, "r02");
    let mut a = RawClient::login(proxy.port(), &db);
    run(&mut a, "CREATE TABLE t (n int); GRANT ALL ON t TO PUBLIC; INSERT INTO t VALUES (1)");
    cluster.wait_replayed(SOON).expect("standbys follow");
    for number in 0..2 {
        cluster.standby(number).psql("postgres", "SELECT pg_wal_replay_pause()").expect("paused");
    }
    run(&mut a, "CREATE ROLE r02_young; INSERT INTO t VALUES (2); SET ROLE r02_young");
    for _ in 0..5 {
        assert_eq!(value(&mut a, "SELECT count(*) FROM t"), "2");
        assert_eq!(value(&mut a, "SELECT current_user"), "r02_young");
    }
    for number in 0..2 {
        cluster.standby(number).psql("postgres", "SELECT pg_wal_replay_resume()").expect("resumed");
    }
    run(&mut a, "RESET ROLE; DROP ROLE r02_young");
}
