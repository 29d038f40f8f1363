//! The oracle of the classifier: whatever we would send to a standby is run on a real one. A refusal there, or another answer
//! than the primary's, is a bug of ours. Skips aloud without PostgreSQL.

mod sql_corpus;

use std::time::{Duration, Instant};

use pgherd::app::demo::Error;
use pgherd::app::demo::cluster::{Cluster, Options};
use pgherd::config::{Consistency, Routing, TooLate};
use pgherd::routing::catalog::{Row, queries};
use pgherd::routing::{Catalog, Class, Policy, Reason, Traces, Verdict, verdict};
use pgherd::sql::{Effect, Facts, Flags, Kind, LexMode, analyze};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Words of reads whose answers may differ between a primary and its standby without any fault of the routing: they show
/// the clock, chance, or an order or plan that nobody promised.
const MAY_DIFFER: &[&str] =
    &["clock_timestamp", "gen_random_uuid", "timeofday", "tablesample", "now", "current", "explain"];

/// SQLSTATEs with which a standby refuses.
const REFUSALS: &[&str] = &["25006", "0A000", "55000", "XX000"];

/// One client's connection to each server, and what a proxy would know of it.
struct Session {
    primary: Client,
    standby: Client,
    catalog: Catalog,
    policy: Policy,
    /// The catalog was read before the last change of it.
    stale: bool,
    /// The primary has written since the standby was last waited for.
    behind: bool,
    /// Reads go to the primary: a block, or state that a standby lacks.
    bound: Bound,
}

#[derive(Default)]
struct Bound {
    block: bool,
    pinned: bool,
}

#[derive(Default)]
struct Tally {
    statements: usize,
    reads: usize,
    refused: Vec<String>,
    different: Vec<String>,
}

async fn connect(port: u16, database: &str) -> Client {
    let text = format!("host=127.0.0.1 port={port} user=postgres dbname={database}");
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match tokio_postgres::connect(&text, NoTls).await {
            Ok((client, connection)) => {
                tokio::spawn(connection);
                let settings = "set statement_timeout = '10s'; set datestyle to 'Postgres, MDY'; \
                     set max_parallel_workers_per_gather = 0";
                client.batch_execute(settings).await.expect("these parameters exist");
                return client;
            }
            // The standby has not replayed CREATE DATABASE yet.
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Rows as text, sorted, or SQLSTATE and message.
async fn run(client: &Client, text: &str) -> Result<Vec<String>, String> {
    let state = |error: tokio_postgres::Error| match error.as_db_error() {
        Some(told) => format!("{} {}", told.code().code(), told.message()),
        None => format!("lost {error}"),
    };
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some(format!("{:?}", (0..row.len()).map(|at| row.get(at)).collect::<Vec<_>>())),
        _ => None,
    };
    let mut rows: Vec<String> = client.simple_query(text).await.map_err(state)?.into_iter().filter_map(row).collect();
    rows.sort();
    Ok(rows)
}

async fn rows(client: &Client, query: &str) -> Vec<Row> {
    let messages = client.simple_query(query).await.expect("the query of the test is right");
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

impl Session {
    async fn open(cluster: &Cluster, database: &str) -> Self {
        let routing = Routing {
            load_balance: true,
            statement_level: false,
            consistency: Consistency::Session,
            delay_threshold: 0,
            delay_threshold_by_time: Duration::ZERO,
            too_late: TooLate::OtherStandby,
            primary_routing_query_pattern_list: Vec::new(),
            app_name_redirect_list: Vec::new(),
            database_redirect_list: Vec::new(),
            user_redirect_list: Vec::new(),
            read_only_functions: Vec::new(),
            write_functions: Vec::new(),
        };
        Self {
            primary: connect(cluster.primary().port(), database).await,
            standby: connect(cluster.standby(0).port(), database).await,
            catalog: Catalog::default(),
            policy: Policy::new(&routing, 1).expect("there is no expression in it"),
            stale: true,
            behind: true,
            bound: Bound::default(),
        }
    }

    /// Reads the catalog over a connection that is in no failed block: the standby's, once it has everything.
    async fn refresh(&mut self, cluster: &Cluster) {
        self.catch_up(cluster).await;
        let _ = self.standby.batch_execute("set role none").await;
        let functions = rows(&self.standby, queries::functions(150_000)).await;
        let relations = rows(&self.standby, queries::RELATIONS).await;
        self.catalog = Catalog::build(1, &functions, &relations);
        self.stale = false;
    }

    async fn catch_up(&mut self, cluster: &Cluster) {
        if std::mem::take(&mut self.behind) {
            let watch = connect(cluster.primary().port(), "postgres").await;
            let end = rows(&watch, "select pg_current_wal_insert_lsn()").await[0][0].clone().unwrap_or_default();
            let asked = format!("select pg_last_wal_replay_lsn() >= '{end}'");
            let watch = connect(cluster.standby(0).port(), "postgres").await;
            let deadline = Instant::now() + Duration::from_secs(30);
            while rows(&watch, &asked).await[0][0].as_deref() != Some("t") {
                assert!(Instant::now() < deadline, "the standby does not replay");
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
    }

    async fn judge(&mut self, facts: &Facts, cluster: &Cluster) -> Verdict {
        let first = verdict(facts, Some(&self.catalog), &self.policy);
        let depends =
            first.class != Class::Primary || matches!(first.reason, Reason::UnknownFunction | Reason::UnknownRelation);
        if self.stale && depends && !self.bound.block && !self.bound.pinned {
            self.refresh(cluster).await;
            return verdict(facts, Some(&self.catalog), &self.policy);
        }
        first
    }

    async fn statement(&mut self, text: &str, cluster: &Cluster, tally: &mut Tally) {
        let facts = analyze(text.as_bytes(), LexMode::default());
        tally.statements += 1;
        // Copies need the protocol's other half; they are run by psql in a test of their own.
        if facts.kind == Kind::CopyOut || facts.flags.has(Flags::COPY_IN) || facts.kind == Kind::Admin {
            return;
        }
        let judged = self.judge(&facts, cluster).await;
        if judged.class == Class::Primary || self.bound.block || self.bound.pinned {
            return self.on_primary(text, &facts, judged).await;
        }
        self.catch_up(cluster).await;
        tally.reads += 1;
        let here = run(&self.standby, text).await;
        let there = run(&self.primary, text).await;
        match (&here, &there) {
            (Err(refusal), Ok(_)) if REFUSALS.iter().any(|state| refusal.starts_with(state)) => {
                tally.refused.push(format!("{text}\n   {refusal}"));
            }
            (Err(one), Err(other)) if one[..5] == other[..5] => {}
            (Ok(one), Ok(other)) if one == other => {}
            _ if MAY_DIFFER.iter().any(|word| text.to_ascii_lowercase().contains(word)) => {}
            _ => tally.different.push(format!("{text}\n   standby {here:?}\n   primary {there:?}")),
        }
    }

    async fn on_primary(&mut self, text: &str, facts: &Facts, judged: Verdict) {
        let ran = run(&self.primary, text).await;
        self.behind = true;
        self.stale |= facts.flags.any(Flags::DDL.with(Flags::OPAQUE)) || judged.traces == Traces::Opaque;
        self.bound.pinned |= facts.flags.any(Flags::TEMP.with(Flags::SETSEED))
            || (judged.traces == Traces::Opaque && self.has_temporary().await);
        for effect in &facts.effects {
            match effect {
                Effect::Begin(_) => self.bound.block = true,
                Effect::Commit { chain } | Effect::Rollback { chain } => self.bound.block = *chain,
                // What a proxy carries to the next server. Inside a block a ROLLBACK may take it back: no more reads.
                Effect::Set { .. } | Effect::Reset { .. } | Effect::ResetAll if ran.is_ok() => {
                    self.bound.pinned |= self.bound.block || run(&self.standby, text).await.is_err();
                }
                Effect::DiscardAll => {
                    let _ = run(&self.standby, "discard all").await;
                }
                _ => {}
            }
        }
        // A setting made where the text does not show it: R1's cleaning would undo it, here it pins.
        self.bound.pinned |= facts.flags.has(Flags::OPAQUE) && facts.builtins.contains(&"set_config");
    }

    async fn has_temporary(&self) -> bool {
        run(&self.primary, "select 1 where pg_my_temp_schema() <> 0").await.is_ok_and(|rows| !rows.is_empty())
    }
}

fn cluster() -> Option<Cluster> {
    let settings = vec![("max_prepared_transactions".to_owned(), "5".to_owned())];
    match Cluster::start(&Options { standbys: 1, settings, ..Options::default() }) {
        Ok(cluster) => Some(cluster),
        Err(Error::NoPostgres | Error::NoOwner) if std::env::var_os("STRICT").is_none() => {
            eprintln!("SKIPPED: no PostgreSQL on this machine");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn r08_whatever_goes_to_a_standby_is_answered_there_as_by_the_primary() {
    let Some(cluster) = cluster() else { return };
    let admin = connect(cluster.primary().port(), "postgres").await;
    let mut tally = Tally::default();
    let only = std::env::var("SCRIPT").ok();
    let all = std::env::var_os("STRICT").is_some();
    if !all {
        eprintln!("a quarter of the scripts only; STRICT=1 runs all, in some minutes");
    }
    for (number, script) in sql_corpus::scripts().into_iter().enumerate() {
        let set_up = script.name == "test_setup";
        let wanted = only.as_ref().map_or(all || number.is_multiple_of(4), |only| *only == script.name);
        if !set_up && !wanted {
            continue;
        }
        let database = if set_up { "regression".to_owned() } else { format!("r_{}", script.name.replace('.', "_")) };
        let template = if set_up { "template0" } else { "regression" };
        let create = format!("create database \"{database}\" template {template}");
        admin.batch_execute(&create).await.expect("nobody is connected to the template");
        let before = (tally.reads, Instant::now());
        let mut session = Session::open(&cluster, &database).await;
        for statement in &script.statements {
            session.statement(statement, &cluster, &mut tally).await;
            if session.primary.is_closed() || session.standby.is_closed() {
                break;
            }
        }
        let reads = tally.reads - before.0;
        eprintln!(
            "{}: {} statements, {reads} on the standby, {:?}",
            script.name,
            script.statements.len(),
            before.1.elapsed()
        );
        drop(session);
        let others = format!("select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'");
        while !rows(&admin, &others).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        if !set_up {
            let _ = admin.batch_execute(&format!("drop database \"{database}\" with (force)")).await;
        }
    }
    eprintln!("{} statements, {} of them on the standby", tally.statements, tally.reads);
    assert!(tally.refused.is_empty(), "the standby refused {}:\n{}", tally.refused.len(), tally.refused.join("\n"));
    let different = tally.different.join("\n");
    assert!(tally.different.is_empty(), "{} answers differ:\n{different}", tally.different.len());
    assert!(only.is_some() || tally.reads > 500, "the test must see many reads: {}", tally.reads);
}

#[tokio::test]
async fn r08_copies_to_the_client_run_on_a_standby() {
    let Some(cluster) = cluster() else { return };
    let setup = "create table t (a int); insert into t select generate_series(1, 3)";
    cluster.primary().psql("postgres", setup).expect("the table can be made");
    cluster.wait_replayed(Duration::from_secs(30)).expect("the standby replays");
    for text in ["copy t to stdout", "copy t (a) to stdout with csv", "copy (select a from t order by a) to stdout"] {
        assert!(analyze(text.as_bytes(), LexMode::default()).may_read(), "{text}");
        let lines = cluster.standby(0).psql("postgres", text).expect("the standby copies out");
        assert_eq!(lines.lines().collect::<Vec<_>>(), ["1", "2", "3"], "{text}");
    }
}
