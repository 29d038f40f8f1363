//! The catalog queries and the table of built-in functions against a real server. Skips aloud without PostgreSQL.

use std::collections::BTreeMap;

use pgherd::app::demo::Error;
use pgherd::app::demo::cluster::{Cluster, Options};
use pgherd::config::{Consistency, Routing};
use pgherd::routing::catalog::{Row, queries};
use pgherd::routing::{Catalog, Class, Policy, Reason, verdict};
use pgherd::sql::{Flags, LexMode, analyze};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A primary alone, or `None` with a word on standard error where there is no PostgreSQL.
fn primary() -> Option<Cluster> {
    match Cluster::start(&Options { standbys: 0, ..Options::default() }) {
        Ok(cluster) => Some(cluster),
        Err(Error::NoPostgres | Error::NoOwner) if std::env::var_os("STRICT").is_none() => {
            eprintln!("SKIPPED: no PostgreSQL on this machine");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

async fn connect(port: u16) -> Client {
    let text = format!("host=127.0.0.1 port={port} user=postgres dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&text, NoTls).await.expect("the server was started for this");
    tokio::spawn(connection);
    client
}

async fn rows(client: &Client, query: &str) -> Vec<Row> {
    let messages = client.simple_query(query).await.expect("the catalog query is right");
    let row = |message| match message {
        SimpleQueryMessage::Row(row) => Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect()),
        _ => None,
    };
    messages.into_iter().filter_map(row).collect()
}

const OBJECTS: &str = r"
create table t (a int primary key, b text);
create table child_of_t (a int references t on delete cascade);
create function pl() returns int language plpgsql stable as 'begin return 1; end';
create function vol() returns int language sql as 'select 1';
create function sqlf(int) returns int language sql stable as 'select a from t where a = $1';
create function sql_calls_pl() returns int language sql stable as 'select pl()';
create function row_function(t) returns int language plpgsql immutable as 'begin return 1; end';
create aggregate agg_ok(int) (sfunc = int4pl, stype = int);
create function own_plus(int, int) returns int language plpgsql immutable as 'begin return $1 + $2; end';
create aggregate agg_bad(int) (sfunc = own_plus, stype = int);
create function lower(t) returns text language plpgsql volatile as 'begin return null; end';
create view v as select a, b from t where a > 0;
create view v_pl as select pl() from t;
create view v_on_v as select * from v;
create view v_catalog as select relname from pg_class;
create materialized view mv as select a from t;
create unlogged table unlogged (a int);
create table parent (a int) partition by list (a);
create unlogged table part partition of parent for values in (1);
create sequence s;
create table secure (a int);
alter table secure enable row level security;
create function trigger_function() returns trigger language plpgsql as 'begin return new; end';
create table triggered (a int);
create trigger x before insert on triggered for each row execute function trigger_function();
create table grandparent (a int primary key);
create table cascades (a int references grandparent on delete cascade);
create trigger x before delete on cascades for each row execute function trigger_function();
create table ruled (a int);
create rule r as on insert to ruled do also notify x;
create table defaulted (a int default pl());
create table checked (a int check (own_plus(a, 1) > 0));
create table indexed (a int);
create index on indexed (own_plus(a, 1));
create domain dom as int check (own_plus(value, 1) > 0);
create table of_domain (a dom);
create table plain_default (a int default 7, b timestamptz default now(), c serial);
create temporary table temporary (a int);
";

fn policy() -> Policy {
    let routing = Routing {
        load_balance: true,
        statement_level: false,
        consistency: Consistency::Session,
        delay_threshold: 0,
        primary_routing_query_pattern_list: Vec::new(),
        app_name_redirect_list: Vec::new(),
        database_redirect_list: Vec::new(),
        user_redirect_list: Vec::new(),
        read_only_functions: Vec::new(),
        write_functions: Vec::new(),
    };
    Policy::new(&routing, 1).expect("there is no expression in it")
}

#[tokio::test]
async fn r01_r08_the_catalog_of_a_real_database() {
    let Some(cluster) = primary() else { return };
    let client = connect(cluster.primary().port()).await;
    client.batch_execute(OBJECTS).await.expect("the objects can be made");
    let version = rows(&client, "show server_version_num").await[0][0].clone().expect("it has a version");
    let version: u32 = version.parse().expect("it is a number");
    let functions = rows(&client, queries::functions(version)).await;
    // The form for 13 must stay valid on every server.
    assert_eq!(rows(&client, queries::functions(130_000)).await.len(), functions.len());
    let relations = rows(&client, queries::RELATIONS).await;
    let catalog = Catalog::build(1, &functions, &relations);
    let policy = policy();
    let judge = |text: &str| verdict(&analyze(text.as_bytes(), LexMode::default()), Some(&catalog), &policy);
    for (text, reason) in [
        ("select * from t", Reason::Read),
        ("select sqlf(1)", Reason::Read),
        ("select agg_ok(a) from t", Reason::Read),
        ("select * from v", Reason::Read),
        ("select * from v_on_v", Reason::Read),
        ("select * from mv", Reason::Read),
        ("select * from triggered", Reason::Read),
        ("select agg_bad(a) from t", Reason::VolatileFunction),
        ("select pl()", Reason::VolatileFunction),
        ("select vol()", Reason::VolatileFunction),
        ("select sql_calls_pl()", Reason::VolatileFunction),
        ("select t.row_function from t", Reason::VolatileFunction),
        ("select lower(b) from t", Reason::ShadowedFunction),
        ("select * from v_pl", Reason::View),
        ("select * from v_catalog", Reason::View),
        ("select * from unlogged", Reason::Unlogged),
        ("select * from parent", Reason::Unlogged),
        ("select * from s", Reason::Sequence),
        ("select * from secure", Reason::RowSecurity),
        ("select * from temporary", Reason::UnknownRelation),
    ] {
        assert_eq!(judge(text).reason, reason, "{text}");
    }
    for (relation, opaque) in [
        ("t", false),
        ("child_of_t", false),
        ("plain_default", false),
        ("triggered", true),
        ("cascades", true),
        ("grandparent", true),
        ("ruled", true),
        ("defaulted", true),
        ("checked", true),
        ("indexed", true),
        ("of_domain", true),
        ("v", true),
    ] {
        assert_eq!(judge(&format!("delete from {relation}")).opaque, opaque, "{relation}");
    }
}

/// Volatile functions that the table allows, each for a reason given where the table is made.
const SAFE_VOLATILE: &[&str] = &[
    "clock_timestamp",
    "gen_random_uuid",
    "pg_sleep",
    "pg_sleep_for",
    "pg_sleep_until",
    "timeofday",
    "bernoulli",
    "system",
];

#[tokio::test]
async fn r08_no_volatile_function_of_a_real_server_is_allowed_and_none_is_unknown() {
    let Some(cluster) = primary() else { return };
    let client = connect(cluster.primary().port()).await;
    let query = "select proname, bool_or(provolatile = 'v'), \
         bool_and('internal'::regtype = any(proargtypes::oid[]) or prorettype in ('trigger'::regtype, \
         'event_trigger'::regtype, 'language_handler'::regtype, 'index_am_handler'::regtype, 'table_am_handler'::regtype)) \
         from pg_proc where oid < 16384 and pronamespace = 'pg_catalog'::regnamespace group by 1";
    let mut unknown = BTreeMap::new();
    for row in rows(&client, query).await {
        let [Some(name), Some(volatile), Some(hidden)] = row.as_slice() else { panic!("three columns were asked for") };
        let facts = analyze(format!("select \"{name}\"(1)").as_bytes(), LexMode::default());
        let known = facts.functions.is_empty();
        let allowed = known && facts.may_read() && !facts.flags.any(Flags::PRIMARY_ONLY.with(Flags::OPAQUE));
        if volatile == "t" {
            assert!(!allowed || SAFE_VOLATILE.contains(&name.as_str()), "{name} is volatile and allowed");
        }
        if !known && hidden == "f" {
            unknown.insert(name.clone(), facts.functions.clone());
        }
    }
    let version = &rows(&client, "show server_version_num").await[0][0];
    if version.as_deref().is_some_and(|version| version.starts_with("15")) {
        assert!(unknown.is_empty(), "not in the table made from this version: {:?}", unknown.keys());
    } else {
        eprintln!("functions of this version that the table does not know: {:?}", unknown.keys());
    }
    let verdict =
        verdict(&analyze(b"select clock_timestamp()", LexMode::default()), Some(&Catalog::default()), &policy());
    assert_eq!(verdict.class, Class::Anywhere);
}
