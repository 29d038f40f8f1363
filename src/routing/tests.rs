//! Decisions by table: verdicts, choices, weights, redirects, memory, and pgpool-II's own table with our differences.

mod late;

use std::time::{Duration, Instant};

use super::catalog::Row;
use super::*;
use crate::cluster::{ClusterView, Epoch, NodeId, NodeView, Role, Status};
use crate::config::{Consistency, Redirect, RedirectTarget, Routing, TooLate};
use crate::sql::{Fingerprint, Isolation, LexMode, analyze};

fn routing() -> Routing {
    Routing {
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
    }
}

fn policy(change: impl FnOnce(&mut Routing)) -> Policy {
    let mut routing = routing();
    change(&mut routing);
    Policy::new(&routing, 1).expect("the test's expressions are right")
}

fn row(columns: &[&str]) -> Row {
    columns.iter().map(|column| (!column.is_empty()).then(|| (*column).to_owned())).collect()
}

/// A database with one of everything.
fn catalog() -> Catalog {
    let functions = [
        row(&["public", "reads", "s", "sql", "f", "select a from t", "", "t", ""]),
        row(&["public", "imm", "i", "plpgsql", "f", "", "", "t", ""]),
        row(&["public", "vol", "v", "plpgsql", "f", "", "", "t", ""]),
        row(&["public", "comp", "i", "c", "f", "", "", "t", ""]),
        row(&["public", "abs", "i", "plpgsql", "f", "", "", "t", ""]),
        row(&["public", "max", "i", "c", "f", "", "", "t", ""]),
    ];
    let relations = [
        row(&["public", "t", "r", "f", "p", "f", ""]),
        row(&["public", "triggered", "r", "f", "p", "t", ""]),
        row(&["public", "secure", "r", "t", "p", "f", ""]),
        row(&["public", "unlogged", "r", "f", "u", "f", ""]),
        row(&["public", "far", "f", "f", "f", "f", ""]),
        row(&["public", "s", "S", "f", "p", "f", ""]),
        row(&["public", "serial", "r", "f", "p", "f", "", "t"]),
        row(&["public", "v", "v", "f", "p", "t", "select * from t", "t"]),
        row(&["public", "v_vol", "v", "f", "p", "t", "select vol()"]),
    ];
    Catalog::build(1, &functions, &relations)
}

fn judge(text: &str, catalog: Option<&Catalog>, policy: &Policy) -> Verdict {
    verdict(&analyze(text.as_bytes(), LexMode::default()), catalog, policy)
}

fn node(id: u16, role: Role, weight: f64, lag: Option<u64>) -> NodeView {
    NodeView {
        life: crate::cluster::Life::Well,
        id: NodeId(id),
        name: format!("node{id}"),
        role,
        status: Status::Up,
        weight,
        position: None,
        version: 150_000,
        lag,
        delay: None,
        replication: crate::cluster::Replication::default(),
        reason: "",
    }
}

/// Primary 0 with weight 0, standbys 1 and 2 with weights 1 and 3.
fn view() -> ClusterView {
    ClusterView {
        epoch: Epoch(1),
        generation: 1,
        nodes: vec![
            node(0, Role::Primary, 0.0, None),
            node(1, Role::Standby, 1.0, Some(100)),
            node(2, Role::Standby, 3.0, Some(10)),
        ],
        primary: Some(NodeId(0)),
        writes: crate::cluster::Writes::Open,
        synchronous: std::sync::Arc::default(),
        succession: None,
    }
}

const SESSION: SessionView<'static> =
    SessionView { block: Block::Outside, pinned: false, allowed: Allowed::Any, preferred: Some(NodeId(1)) };

const READ: Verdict =
    Verdict { class: Class::Anywhere, reason: Reason::Read, traces: Traces::None, needs_catalog: false };

#[test]
fn r08_r09_verdicts_by_catalog() {
    let (catalog, policy) = (catalog(), policy(|_| {}));
    for (text, reason) in [
        ("select a from t", Reason::Read),
        ("select a from other.t", Reason::Read),
        ("select reads()", Reason::Read),
        ("select * from v", Reason::Read),
        ("select max(a), lower(b) from t", Reason::Read),
        ("select pg_catalog.abs(a) from t", Reason::Read),
        ("copy t to stdout", Reason::Read),
        ("explain select a from t", Reason::Read),
        ("", Reason::Read),
        ("select abs(a) from t", Reason::ShadowedFunction),
        ("select imm()", Reason::VolatileFunction),
        ("select vol()", Reason::VolatileFunction),
        ("select comp()", Reason::VolatileFunction),
        ("select t.vol from t", Reason::VolatileFunction),
        ("select nobody()", Reason::UnknownFunction),
        ("select * from nobody", Reason::UnknownRelation),
        ("select * from unlogged", Reason::Unlogged),
        ("select * from far", Reason::Foreign),
        ("select * from secure", Reason::RowSecurity),
        ("select last_value from s", Reason::Sequence),
        ("select * from v_vol", Reason::View),
        ("select pg_backend_pid()", Reason::PrimaryOnly),
        ("select * from pg_settings", Reason::PrimaryOnly),
        ("/*NO LOAD BALANCE*/ select 1", Reason::Hint),
        ("select * from t for update", Reason::Lock),
        ("lock t", Reason::Lock),
        ("insert into t values (1)", Reason::Write),
        ("select nextval('s')", Reason::Write),
        ("create table x (a int)", Reason::Utility),
        ("set a = 1", Reason::Session),
        ("show a", Reason::Session),
        ("select set_config('a', 'b', false)", Reason::Session),
        ("begin", Reason::Transaction),
        ("select 1; select 2", Reason::Several),
        ("show pool_nodes", Reason::Admin),
        ("select '", Reason::Opaque),
    ] {
        assert_eq!(judge(text, Some(&catalog), &policy).reason, reason, "{text}");
    }
}

#[test]
fn r09_an_unknown_name_asks_for_the_catalog() {
    let (catalog, policy) = (catalog(), policy(|_| {}));
    for text in ["select nobody()", "select * from nobody", "insert into nobody values (1)"] {
        assert!(judge(text, Some(&catalog), &policy).needs_catalog, "{text}");
    }
    for text in ["select 1", "select * from t", "insert into t values (1)", "select pg_backend_pid()"] {
        assert!(!judge(text, Some(&catalog), &policy).needs_catalog, "{text}");
    }
    let blind = judge("select a from t", None, &policy);
    assert_eq!((blind.class, blind.reason, blind.needs_catalog), (Class::Primary, Reason::NoCatalog, true));
    assert_eq!(judge("select lower('a')", None, &policy).reason, Reason::NoCatalog);
    assert_eq!(judge("select 1", None, &policy).reason, Reason::Read);
}

#[test]
fn r01_what_may_change_the_session_unseen_is_opaque() {
    let (catalog, policy) = (catalog(), policy(|_| {}));
    for (text, opaque) in [
        ("select 1", false),
        ("select a from t", false),
        ("select reads()", false),
        ("insert into t values (1)", false),
        ("update t set a = max(b)", false),
        ("insert into t select * from v", true),
        ("insert into triggered values (1)", true),
        ("truncate triggered", true),
        ("select * from triggered", false),
        ("insert into nobody values (1)", true),
        ("select imm()", true),
        ("select comp()", true),
        ("select abs(1)", true),
        ("select t.vol from t", true),
        ("select * from v_vol", true),
        ("select * from nobody", true),
        ("select * from pg_class", false),
        ("select * from information_schema.tables", false),
        ("with nobody as (select 1) select * from nobody", false),
        ("do $$ $$", true),
        ("call p()", true),
        ("select set_config($1, $2, false)", true),
        ("select '", true),
        ("begin; select reads(); commit", false),
        ("begin; select vol(); commit", true),
        ("set a = 1", false),
    ] {
        assert_eq!(judge(text, Some(&catalog), &policy).traces == Traces::Opaque, opaque, "{text}");
    }
    assert_eq!(
        judge("insert into t values (1)", None, &policy).traces,
        Traces::Opaque,
        "not known yet, so not trusted"
    );
}

#[test]
fn r04_what_may_take_a_value_from_a_sequence() {
    let (catalog, policy) = (catalog(), policy(|_| {}));
    for (text, takes) in [
        ("select a from t", false),
        ("select currval('s')", false),
        ("insert into t values (1)", false),
        ("update serial set a = 1", false),
        ("delete from serial", false),
        ("copy serial to stdout", false),
        ("begin", false),
        ("insert into serial values (1)", true),
        ("insert into v values (1)", true),
        ("update serial set a = default", true),
        ("with x as (insert into serial values (1) returning a) select * from x", true),
        ("copy serial from stdin", true),
        ("select nextval('s')", true),
        ("insert into t values (nextval('s'))", true),
        ("alter table t add column b serial", true),
        ("create table x as select * from t", true),
        ("execute x", true),
        ("select vol()", true),
        ("insert into nobody values (1)", true),
        ("select 1; insert into serial values (1)", true),
        ("explain analyze insert into serial values (1)", true),
    ] {
        assert_eq!(judge(text, Some(&catalog), &policy).traces != Traces::None, takes, "{text}");
    }
}

#[test]
fn lists_of_functions_go_before_the_catalog() {
    let catalog = catalog();
    let policy = policy(|routing| {
        routing.read_only_functions = vec!["imm".into(), "public\\.comp".into(), "no.*".into()];
        routing.write_functions = vec!["reads".into(), "lower".into()];
    });
    for (text, reason) in [
        ("select imm()", Reason::Read),
        ("select public.comp()", Reason::Read),
        ("select comp()", Reason::VolatileFunction),
        ("select nobody()", Reason::Read),
        ("select reads()", Reason::WriteFunction),
        ("select lower('a')", Reason::WriteFunction),
        ("select lower_not()", Reason::UnknownFunction),
        ("select upper('a')", Reason::Read),
    ] {
        assert_eq!(judge(text, Some(&catalog), &policy).reason, reason, "{text}");
    }
}

#[test]
fn patterns_are_for_texts_and_errors_name_the_entry() {
    let with = policy(|routing| routing.primary_routing_query_pattern_list = vec!["from secret".into()]);
    assert!(
        with.has_patterns() && with.wants_primary(b"select 1 from secret_table") && !with.wants_primary(b"select 1")
    );
    assert!(!policy(|_| {}).wants_primary(b"select 1 from secret_table"));
    for bad in ["a(", "a)|(b"] {
        let mut routing = routing();
        routing.write_functions = vec!["fine".into(), bad.into()];
        let error = Policy::new(&routing, 1).expect_err("it is no expression").to_string();
        assert!(error.contains("write_functions") && error.contains(bad), "{error}");
    }
}

#[test]
fn off_means_the_primary_for_everything() {
    let policy = policy(|routing| routing.load_balance = false);
    assert_eq!(judge("select 1", Some(&catalog()), &policy).reason, Reason::LoadBalanceOff);
    assert_eq!(pick_standby(&view(), &policy, None, 5), Some(NodeId(0)));
}

#[test]
fn r12_blocks() {
    let (view, policy) = (view(), policy(|_| {}));
    let now = judge("select now()", Some(&catalog()), &policy);
    assert_eq!(now.class, Class::AnywhereOutsideBlock);
    for (verdict, block, reason) in [
        (READ, Block::Outside, Reason::Read),
        (now, Block::Outside, Reason::Read),
        (READ, Block::Open(Isolation::ReadCommitted), Reason::Read),
        (now, Block::Open(Isolation::ReadCommitted), Reason::NowInBlock),
        (READ, Block::Open(Isolation::RepeatableRead), Reason::Isolation),
        (READ, Block::Open(Isolation::Serializable), Reason::Isolation),
        (READ, Block::Bound, Reason::BlockBound),
    ] {
        let decision = choose(verdict, &SessionView { block, ..SESSION }, &view, &policy);
        let target = if reason == Reason::Read { Target::Standby(NodeId(1)) } else { Target::Primary(NodeId(0)) };
        assert_eq!(decision, Decision { target, reason }, "{block:?}");
    }
    assert_eq!(judge("select 'today'::date", Some(&catalog()), &policy).class, Class::AnywhereOutsideBlock);
}

#[test]
fn r05_a_pinned_session_reads_on_the_primary() {
    let decision = choose(READ, &SessionView { pinned: true, ..SESSION }, &view(), &policy(|_| {}));
    assert_eq!(decision, Decision { target: Target::Primary(NodeId(0)), reason: Reason::Pinned });
}

#[test]
fn r07_only_standbys_that_have_what_the_session_must_see() {
    let (view, policy) = (view(), policy(|_| {}));
    let to = |nodes: &[NodeId]| choose(READ, &SessionView { allowed: Allowed::Only(nodes), ..SESSION }, &view, &policy);
    assert_eq!(to(&[NodeId(1), NodeId(2)]).target, Target::Standby(NodeId(1)));
    assert_eq!(to(&[NodeId(2)]), Decision { target: Target::Standby(NodeId(2)), reason: Reason::OtherStandby });
    assert_eq!(to(&[]), Decision { target: Target::Primary(NodeId(0)), reason: Reason::Consistency });
}

#[test]
fn weight_and_missing_nodes() {
    let policy = policy(|_| {});
    let mut down = view();
    down.nodes[1].status = Status::Down;
    assert_eq!(choose(READ, &SESSION, &down, &policy).target, Target::Standby(NodeId(2)));
    down.nodes[2].status = Status::Detached;
    assert_eq!(choose(READ, &SESSION, &down, &policy).reason, Reason::NoStandby);
    down.primary = None;
    assert_eq!(choose(READ, &SESSION, &down, &policy), Decision { target: Target::Nowhere, reason: Reason::NoPrimary });
    let mut headless = view();
    headless.primary = None;
    assert_eq!(choose(READ, &SESSION, &headless, &policy).target, Target::Standby(NodeId(1)), "reads go on");
    let mut idle = view();
    idle.nodes[1].weight = 0.0;
    let session = SessionView { preferred: None, ..SESSION };
    assert_eq!(choose(READ, &session, &idle, &policy).target, Target::Standby(NodeId(2)));
    idle.nodes[2].weight = 0.0;
    assert_eq!(choose(READ, &session, &idle, &policy).reason, Reason::NoStandby, "weight 0 takes none");
    assert_eq!(choose(READ, &SESSION, &idle, &policy).reason, Reason::Read, "unless it was picked by name");
    let mine = SessionView { preferred: Some(NodeId(0)), ..SESSION };
    assert_eq!(choose(READ, &mine, &view(), &policy).reason, Reason::PrimaryShare);
    let mut held = view();
    held.writes = crate::cluster::Writes::Refused { why: "for a while" };
    assert_eq!(choose(READ, &mine, &held, &policy).reason, Reason::OtherStandby, "it would wait with the writes");
}

/// How often each of nodes 0, 1, 2 is picked in `n` evenly spread draws.
fn shares(view: &ClusterView, redirect: Option<&Redirect>) -> [f64; 3] {
    const DRAWS: u64 = 40_000;
    let policy = policy(|_| {});
    let mut counts = [0.0; 3];
    for n in 0..DRAWS {
        let random = (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ (n << 7)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        if let Some(node) = pick_standby(view, &policy, redirect, random) {
            counts[usize::from(node.0)] += 1.0 / DRAWS as f64;
        }
    }
    counts
}

fn near(found: [f64; 3], expected: [f64; 3]) {
    assert!(
        found.iter().zip(expected).all(|(found, expected)| (found - expected).abs() < 0.02),
        "{found:?} {expected:?}"
    );
}

#[test]
fn picks_follow_weights_and_redirects_as_in_pgpool() {
    let to = |target, ratio| Redirect { pattern: ".*".into(), target, ratio };
    let mut shared = view();
    shared.nodes[0].weight = 4.0;
    near(shares(&view(), None), [0.0, 0.25, 0.75]);
    near(shares(&shared, None), [0.5, 0.125, 0.375]);
    near(shares(&view(), Some(&to(RedirectTarget::Primary, 1.0))), [1.0, 0.0, 0.0]);
    near(shares(&shared, Some(&to(RedirectTarget::Primary, 0.2))), [0.2, 0.2, 0.6]);
    near(shares(&view(), Some(&to(RedirectTarget::Node(NodeId(1)), 1.0))), [0.0, 1.0, 0.0]);
    near(shares(&shared, Some(&to(RedirectTarget::Node(NodeId(1)), 0.3))), [0.4, 0.3, 0.3]);
    near(shares(&shared, Some(&to(RedirectTarget::Standby, 1.0))), [0.0, 0.25, 0.75]);
    near(shares(&shared, Some(&to(RedirectTarget::Standby, 0.6))), [0.4, 0.15, 0.45]);
    let mut down = shared.clone();
    down.nodes[1].status = Status::Down;
    near(shares(&down, Some(&to(RedirectTarget::Node(NodeId(1)), 1.0))), [4.0 / 7.0, 0.0, 3.0 / 7.0]);
    let mut idle = view();
    idle.nodes.iter_mut().for_each(|node| node.weight = 0.0);
    near(shares(&idle, None), [0.0, 0.0, 0.0]);
    near(shares(&idle, Some(&to(RedirectTarget::Standby, 1.0))), [0.0, 0.5, 0.5]);
}

#[test]
fn redirect_lists_go_by_application_then_database_then_user() {
    let entry = |pattern: &str, node| Redirect {
        pattern: pattern.into(),
        target: RedirectTarget::Node(NodeId(node)),
        ratio: 1.0,
    };
    let policy = policy(|routing| {
        routing.app_name_redirect_list = vec![entry("psql", 1), entry("ps.*", 2)];
        routing.database_redirect_list = vec![entry("post.*", 3)];
        routing.user_redirect_list = vec![entry("a|b", 4)];
    });
    for (names, node) in [
        (["psql", "postgres", "a"], Some(1)),
        (["psx", "postgres", "a"], Some(2)),
        (["xpsql", "postgres", "a"], Some(3)),
        (["", "x", "b"], Some(4)),
        (["", "x", "bb"], None),
    ] {
        let target = policy.redirect(names[0], names[1], names[2]).map(|redirect| redirect.target);
        assert_eq!(target, node.map(|node| RedirectTarget::Node(NodeId(node))), "{names:?}");
    }
}

#[test]
fn r11_refusals_are_remembered_per_database_bounded_and_for_a_while() {
    let start = Instant::now();
    let mut memory = Memory::new(2, Duration::from_secs(60));
    memory.remember(1, Fingerprint(1), start);
    assert!(memory.refuses(1, Fingerprint(1), start + Duration::from_secs(59)));
    assert!(!memory.refuses(1, Fingerprint(1), start + Duration::from_secs(60)), "it expires");
    assert!(!memory.refuses(2, Fingerprint(1), start) && !memory.refuses(1, Fingerprint(2), start));
    memory.remember(1, Fingerprint(2), start + Duration::from_secs(1));
    memory.remember(1, Fingerprint(3), start + Duration::from_secs(2));
    assert_eq!(memory.len(), 2);
    assert!(!memory.refuses(1, Fingerprint(1), start + Duration::from_secs(2)), "the oldest made room");
    assert!(memory.refuses(1, Fingerprint(2), start + Duration::from_secs(2)));
    for (sqlstate, worth) in
        [("25006", true), ("0A000", true), ("55000", true), ("XX000", true), ("40001", false), ("42P01", false)]
    {
        assert_eq!(Memory::is_worth(sqlstate), worth, "{sqlstate}");
    }
}

/// pgpool-II's executed table (4.3.5, primary weight 0): where it sends a statement, and where we do. `true` is the standby.
/// Where the two differ, the third column says why.
#[test]
fn pgpools_truth_table() {
    const SAME: &str = "";
    let (catalog, policy) = (catalog(), policy(|_| {}));
    for (text, pgpool, ours, why) in [
        ("select 1", true, true, SAME),
        ("select * from t", true, true, SAME),
        ("(select 1) union (select 2)", true, true, SAME),
        ("table t", true, true, SAME),
        ("with a as (select 1) select * from a", true, true, SAME),
        ("select now()", true, true, SAME),
        ("select version()", true, false, "servers may run different minor versions"),
        ("select current_user", true, false, "R8: about the session"),
        ("select pg_backend_pid()", true, false, "R8: a standby's pid means a stranger on the primary"),
        ("select imm()", true, false, "R1: a declaration binds nobody"),
        ("select reads()", true, true, SAME),
        ("select * from v", true, true, SAME),
        ("select * from v_vol", true, false, "the view's functions are known from the catalog"),
        ("select * from information_schema.tables", true, false, "catalogs belong to the primary"),
        ("select * from generate_series(1, 3)", true, true, SAME),
        ("select /*c*/ 1", true, true, SAME),
        ("/*c*/ select 1", false, true, "only the hint is a hint"),
        ("/*NO LOAD BALANCE*/ select 1", false, false, SAME),
        ("values (1)", false, true, "it is a read"),
        ("select vol()", false, false, SAME),
        ("select (select vol())", false, false, SAME),
        ("select random()", false, false, SAME),
        ("select nextval('s')", false, false, SAME),
        ("select pg_sleep(1)", false, true, "it does nothing to anyone"),
        ("select pg_advisory_lock(1)", false, false, SAME),
        ("select pg_is_in_recovery()", false, false, SAME),
        ("select lo_creat(-1)", false, false, SAME),
        ("select set_config('a', 'b', false)", false, false, SAME),
        ("select txid_current()", true, false, "a standby refuses it"),
        ("select * from t for update", false, false, SAME),
        ("select * from (select * from t for share) x", false, false, SAME),
        ("select a into x from t", false, false, SAME),
        ("with a as (insert into t values (1) returning *) select * from a", false, false, SAME),
        ("select * from pg_class", false, false, SAME),
        ("select * from pg_catalog.pg_type", false, false, SAME),
        ("select * from unlogged", false, false, SAME),
        ("select * from nobody", true, false, "R9: an unknown name goes to the primary and the catalog is read again"),
        ("select nobody()", true, false, "R9, as above"),
        ("explain select 1", false, true, "it runs nothing"),
        ("explain analyze select 1", false, false, SAME),
        ("show timezone", true, false, "R8: drivers ask for transaction_read_only"),
        ("copy t to stdout", true, true, SAME),
        ("copy (select 1) to stdout", true, true, SAME),
        ("do $$ $$", false, false, SAME),
        ("call p()", false, false, SAME),
        ("vacuum", false, false, SAME),
        ("checkpoint", false, false, SAME),
        ("listen a", false, false, SAME),
        ("notify a", false, false, SAME),
        ("select 1; select 2", false, false, SAME),
        ("set timezone to 'UTC'", false, false, "both there; here settings are carried to whoever needs them (R2)"),
        ("begin", false, false, "both there; here it waits for the first statement that needs a server (R12)"),
        ("merge into t using t u on t.a = u.a when matched then delete", false, false, SAME),
        ("truncate t", false, false, SAME),
    ] {
        let verdict = judge(text, Some(&catalog), &policy);
        assert_eq!(verdict.class != Class::Primary, ours, "{text}: {:?}", verdict.reason);
        assert!(pgpool == ours || !why.is_empty(), "{text}: a difference needs a reason");
    }
}
