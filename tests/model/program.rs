//! Random programs of one client. Each touches only what is its own, so that what it should see does not depend on the others.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use crate::common::Random;
use crate::common::raw::{bind, close, copy_data, copy_done, describe, execute, parse, query, sync};

/// Clients at a time.
pub const CLIENTS: usize = 7;
/// Steps of a program.
pub const STEPS: usize = 40;

/// One exchange.
#[derive(Clone)]
pub struct Step {
    /// For people.
    pub words: String,
    /// What is sent.
    pub bytes: Vec<u8>,
    /// How many ReadyForQuery answer it.
    pub readies: usize,
}

/// A parameter that nobody has declared is empty, not null, on a connection where it was ever set: nothing undoes that.
const MARK: &str = "SELECT coalesce(current_setting('app.mark', true), ''), current_setting('work_mem')";

/// Roles that programs change to.
pub const SETUP_ROLES: &str =
    "DO $$ BEGIN CREATE ROLE model_role; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$;
    GRANT pg_read_all_data TO model_role;";

/// What every client finds.
pub fn setup() -> String {
    let mut text = String::from("CREATE TABLE shared (v text); INSERT INTO shared VALUES ('public');");
    for client in 0..CLIENTS {
        text.push_str(&format!(
            "CREATE TABLE t{client} (id serial PRIMARY KEY, v text, n int DEFAULT 0);
             CREATE TABLE log{client} (v text);
             CREATE SEQUENCE s{client};
             CREATE SCHEMA own{client};
             CREATE TABLE own{client}.shared (v text);
             INSERT INTO own{client}.shared VALUES ('own{client}');
             CREATE FUNCTION note{client}() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN INSERT INTO log{client} VALUES (new.v); RETURN new; END $$;
             CREATE TABLE watched{client} (v text);
             CREATE TRIGGER note AFTER INSERT ON watched{client} FOR EACH ROW EXECUTE FUNCTION note{client}();
             CREATE FUNCTION tenant{client}(v text) RETURNS text LANGUAGE sql AS
                 $$ SELECT set_config('app.tenant', v, true) $$;
             CREATE FUNCTION hidden{client}() RETURNS int LANGUAGE plpgsql AS
                 $$ BEGIN CREATE TEMP TABLE IF NOT EXISTS hidden (n int); INSERT INTO hidden VALUES (1);
                    RETURN (SELECT count(*) FROM hidden); END $$;
             CREATE FUNCTION twice{client}(n int) RETURNS int IMMUTABLE LANGUAGE sql AS $$ SELECT n * 2 $$;"
        ));
    }
    text
}

fn simple(sql: impl Into<String>) -> Step {
    let words = sql.into();
    Step { bytes: query(&words), words, readies: 1 }
}

fn series(words: impl Into<String>, messages: &[Vec<u8>]) -> Step {
    let bytes = messages.concat();
    let words = words.into();
    let readies = messages.iter().filter(|message| message[0] == b'S').count();
    Step { words, bytes, readies }
}

/// Makes programs.
pub struct Writer {
    random: Random,
    client: usize,
    pinning: bool,
    /// Makes marks differ.
    count: usize,
}

impl Writer {
    /// A program of client number `client`.
    pub fn program(seed: u64, client: usize, pinning: bool) -> Vec<Step> {
        let random = Random::new(seed.wrapping_mul(1_000) + client as u64);
        let mut writer = Self { random, client, pinning, count: 0 };
        let mut steps = Vec::new();
        while steps.len() < STEPS {
            writer.add(&mut steps);
        }
        // Whatever it has left open: what it can still see of itself.
        steps.push(simple("ROLLBACK"));
        steps.extend(writer.looks().map(simple));
        steps
    }

    /// Everything that a session should find as it has left it.
    fn looks(&self) -> impl Iterator<Item = String> + use<> {
        let client = self.client;
        let settings = ["DateStyle", "TimeZone", "search_path", "work_mem", "application_name", "role"];
        let asks = settings.map(|name| format!("SELECT current_setting('{name}', true)"));
        asks.into_iter().chain([
            MARK.to_owned(),
            "SELECT v FROM shared".to_owned(),
            "SELECT current_user, '03/04/2025'::date::text".to_owned(),
            format!("SELECT count(*), sum(n), max(v) FROM t{client}"),
            format!("SELECT count(*) FROM log{client}"),
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()".to_owned(),
            "SELECT name, is_holdable FROM pg_cursors ORDER BY 1".to_owned(),
        ])
    }

    fn one_of(&mut self, all: &[String]) -> Step {
        let at = self.random.below(all.len());
        simple(all[at].clone())
    }

    /// One to three of them, in any order and as often as it comes.
    fn some_of(&mut self, all: &[String], steps: &mut Vec<Step>) {
        for _ in 0..1 + self.random.below(3) {
            let step = self.one_of(all);
            steps.push(step);
        }
    }

    fn mark(&mut self) -> String {
        self.count += 1;
        format!("c{}m{}", self.client, self.count)
    }

    fn add(&mut self, steps: &mut Vec<Step>) {
        match self.random.below(if self.pinning { 12 } else { 9 }) {
            0 | 1 => steps.push(self.setting()),
            2 => self.block(steps),
            3 | 4 => steps.push(self.plain()),
            5 => self.prepared(steps),
            6 => steps.push(self.pipeline()),
            7 => steps.push(self.read()),
            8 => steps.push(self.oddity()),
            9 => self.temporary(steps),
            10 => self.held(steps),
            _ => self.heard(steps),
        }
    }

    fn setting(&mut self) -> Step {
        let (client, mark) = (self.client, self.mark());
        let all = [
            format!("SET app.mark = '{mark}'"),
            format!("SELECT set_config('app.mark', '{mark}', false)"),
            "SET DateStyle = 'ISO, DMY'".to_owned(),
            "SET DateStyle = 'German, MDY'".to_owned(),
            "SET TimeZone = 'Asia/Tokyo'".to_owned(),
            "SET TIME ZONE INTERVAL '+03:30' HOUR TO MINUTE".to_owned(),
            format!("SET search_path = own{client}, public"),
            "RESET search_path".to_owned(),
            "SET DateStyle TO DEFAULT".to_owned(),
            "RESET ALL".to_owned(),
            format!("SET application_name = '{mark}'"),
            format!("SET work_mem = '{}kB'", 64 + self.random.below(1000)),
            "SET work_mem = 'nonsense'".to_owned(),
            format!("SET app.mark = '{mark}'; SET work_mem = 'nonsense'"),
            "SET ROLE model_role".to_owned(),
            "RESET ROLE".to_owned(),
            "SET LOCAL work_mem = '77kB'".to_owned(),
            "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ".to_owned(),
            "SET default_transaction_isolation = 'read committed'".to_owned(),
            "SET standard_conforming_strings = off".to_owned(),
            "SET standard_conforming_strings = on".to_owned(),
        ];
        self.one_of(&all)
    }

    fn read(&mut self) -> Step {
        let client = self.client;
        let all = [
            format!("SELECT count(*), max(id) FROM t{client}"),
            format!("SELECT id, v FROM t{client} ORDER BY id"),
            "SELECT v FROM shared".to_owned(),
            "SELECT '01/02/2024'::date, now() > '2020-01-01', '{\"a\\'\"}'".to_owned(),
            MARK.to_owned(),
            "SHOW DateStyle".to_owned(),
            "SELECT current_user, session_user".to_owned(),
            format!("SELECT twice{client}(21)"),
            format!("SELECT count(*) FROM log{client}"),
            "SELECT 1; SELECT 2; SELECT 'x'".to_owned(),
            "SELECT 1 / 0".to_owned(),
            "SELECT * FROM nowhere".to_owned(),
            String::new(),
            " ; -- nothing".to_owned(),
        ];
        self.one_of(&all)
    }

    fn plain(&mut self) -> Step {
        let (client, mark) = (self.client, self.mark());
        let all = [
            format!("INSERT INTO t{client} (v) VALUES ('{mark}')"),
            format!("INSERT INTO t{client} (v, n) SELECT '{mark}', g FROM generate_series(1, 3) AS g RETURNING id"),
            format!("UPDATE t{client} SET n = n + 1"),
            format!("DELETE FROM t{client} WHERE n % 3 = 1"),
            format!("INSERT INTO watched{client} VALUES ('{mark}')"),
            format!("SELECT nextval('s{client}')"),
            format!("WITH x AS (INSERT INTO t{client} (v) VALUES ('{mark}') RETURNING v) SELECT v FROM x"),
            format!("SELECT tenant{client}('{mark}'), current_setting('app.tenant')"),
            format!("INSERT INTO t{client} (id, v) VALUES (1, '{mark}')"),
            format!("INSERT INTO t{client} (v) VALUES ('{mark}'); SELECT count(*) FROM t{client}"),
            format!("INSERT INTO t{client} (v) VALUES ('{mark}'); SELECT 1 / 0"),
            format!("ALTER TABLE t{client} ALTER COLUMN v SET DEFAULT '{mark}'"),
            format!("DO $$ BEGIN INSERT INTO t{client} (v) VALUES ('{mark}'); END $$"),
            format!("TRUNCATE log{client}"),
        ];
        self.one_of(&all)
    }

    fn block(&mut self, steps: &mut Vec<Step>) {
        let begins = [
            "BEGIN",
            "START TRANSACTION READ ONLY",
            "BEGIN ISOLATION LEVEL REPEATABLE READ",
            "BEGIN ISOLATION LEVEL SERIALIZABLE READ WRITE",
            "begin transaction read write",
            "BEGIN; SET LOCAL app.mark = 'local'",
        ];
        let begin = self.random.pick(&begins);
        steps.push(simple(begin));
        for _ in 0..self.random.below(6) {
            let step = match self.random.below(9) {
                0 => simple("SAVEPOINT a"),
                1 => simple("ROLLBACK TO a"),
                2 => simple("RELEASE a"),
                3 => simple("SET LOCAL DateStyle = 'SQL, DMY'"),
                4 => self.setting(),
                5 | 6 => self.plain(),
                7 => self.cursor(steps),
                _ => self.read(),
            };
            steps.push(step);
        }
        let ends = ["COMMIT", "ROLLBACK", "END", "COMMIT AND CHAIN", "ABORT"];
        let end = self.random.pick(&ends);
        steps.push(simple(end));
    }

    fn cursor(&mut self, steps: &mut Vec<Step>) -> Step {
        let client = self.client;
        steps.push(simple(format!("DECLARE c CURSOR FOR SELECT v FROM t{client} ORDER BY id")));
        steps.push(simple("FETCH 2 FROM c"));
        let ends = ["CLOSE c", "FETCH ALL FROM c", "MOVE BACKWARD 1 FROM c"];
        simple(self.random.pick(&ends))
    }

    /// Protocol-level statements, named and unnamed, over changes of what their texts mean.
    fn prepared(&mut self, steps: &mut Vec<Step>) {
        let client = self.client;
        let texts = [
            format!("SELECT count(*) FROM t{client} WHERE n >= $1::int"),
            // No literal of a date: PostgreSQL itself reads it anew whenever anything makes it drop its plans.
            "SELECT 1 + $1::int".to_owned(),
            "SELECT v, $1::int FROM shared".to_owned(),
            format!("INSERT INTO t{client} (n) VALUES ($1) RETURNING n"),
        ];
        let text = &texts[self.random.below(texts.len())];
        let name = self.random.pick(&["p", "q", "longer name"]);
        let run = |value: &str| [bind("", name, &[Some(value)]), describe(b'P', ""), execute("", 0)].concat();
        match self.random.below(4) {
            0 => {
                let words = format!("prepare \"{name}\" and run it twice: {text}");
                steps.push(series(words, &[close(b'S', name), parse(name, text, &[]), sync()]));
                if self.random.below(2) == 0 {
                    let between = self.setting();
                    steps.push(between);
                }
                steps.push(series(format!("run \"{name}\""), &[run("1"), run("2"), sync()]));
            }
            1 => steps.push(series(format!("run \"{name}\" if it is there"), &[run("3"), sync()])),
            2 => steps.push(series(format!("describe \"{name}\""), &[describe(b'S', name), sync()])),
            _ => steps.push(series(format!("close \"{name}\""), &[close(b'S', name), sync()])),
        }
    }

    /// Several statements ahead of their answers, some of which fail.
    fn pipeline(&mut self) -> Step {
        let (client, mark) = (self.client, self.mark());
        let mut messages = Vec::new();
        let mut words = String::from("pipeline:");
        for _ in 0..2 + self.random.below(5) {
            let all = [
                format!("INSERT INTO t{client} (v) VALUES ('{mark}')"),
                format!("SELECT count(*) FROM t{client}"),
                "SELECT 1".to_owned(),
                "SELECT 1 / 0".to_owned(),
                format!("SET app.mark = '{mark}'"),
                "BEGIN".to_owned(),
                "COMMIT".to_owned(),
                "SHOW work_mem".to_owned(),
            ];
            let text = &all[self.random.below(all.len())];
            words.push_str(&format!(" {text};"));
            messages.extend([parse("", text, &[]), bind("", "", &[]), describe(b'P', ""), execute("", 0)]);
            if self.random.below(3) == 0 {
                words.push_str(" <sync>");
                messages.push(sync());
            }
        }
        messages.push(sync());
        series(words, &messages)
    }

    fn oddity(&mut self) -> Step {
        let (client, mark) = (self.client, self.mark());
        match self.random.below(6) {
            0 => {
                let sql = format!("COPY t{client} (v) FROM STDIN");
                let data = [copy_data(format!("{mark}\n").as_bytes()), copy_done()].concat();
                Step { bytes: [query(&sql), data].concat(), words: sql, readies: 1 }
            }
            1 => simple(format!("COPY (SELECT v FROM t{client} ORDER BY id) TO STDOUT")),
            2 => simple("DISCARD ALL"),
            3 => simple(format!("EXPLAIN (COSTS off) SELECT * FROM t{client}")),
            4 => simple("DISCARD PLANS"),
            _ => series("a sync alone", &[sync()]),
        }
    }

    fn temporary(&mut self, steps: &mut Vec<Step>) {
        let (client, mark) = (self.client, self.mark());
        let all = [
            format!("CREATE TEMP TABLE shared AS SELECT '{mark}' AS v"),
            "CREATE TEMP TABLE drops (n int) ON COMMIT DROP".to_owned(),
            format!("SELECT hidden{client}()"),
            "SELECT count(*) FROM hidden".to_owned(),
            "DISCARD TEMP".to_owned(),
            "SELECT v FROM shared".to_owned(),
        ];
        self.some_of(&all, steps);
    }

    fn held(&mut self, steps: &mut Vec<Step>) {
        let client = self.client;
        let all = [
            format!("SELECT nextval('s{client}'), currval('s{client}')"),
            format!("SELECT pg_advisory_lock({client})"),
            format!("SELECT pg_advisory_unlock({client})"),
            format!("SELECT pg_try_advisory_lock({client}, 1)"),
            "SELECT pg_advisory_unlock_all()".to_owned(),
            format!("DECLARE held CURSOR WITH HOLD FOR SELECT v FROM t{client} ORDER BY id"),
            "FETCH 1 FROM held".to_owned(),
            "CLOSE held".to_owned(),
            "CLOSE ALL".to_owned(),
            "PREPARE sqlp (int) AS SELECT '07/08/2024'::date + $1".to_owned(),
            "EXECUTE sqlp (1)".to_owned(),
            "DEALLOCATE sqlp".to_owned(),
            "DEALLOCATE ALL".to_owned(),
        ];
        self.some_of(&all, steps);
    }

    fn heard(&mut self, steps: &mut Vec<Step>) {
        let (client, mark) = (self.client, self.mark());
        let all = [
            format!("LISTEN ch{client}"),
            format!("NOTIFY ch{client}, '{mark}'"),
            "UNLISTEN *".to_owned(),
            "SELECT * FROM pg_listening_channels()".to_owned(),
        ];
        self.some_of(&all, steps);
    }
}
