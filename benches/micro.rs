//! What each statement passes through, one thing at a time: `make bench`. As a test (`cargo test`) each runs once.
//!
//! Owned by nobody else; must not need a server. How to read it: benches/README.md.

use std::collections::VecDeque;
use std::hint::black_box;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use criterion::{BenchmarkId, Criterion, Throughput};
use pgherd::backend::{
    Carried, Expect, Expected, Hub, Identity, Interner, Mail, OpenError, Opening, Permit, Pool, PoolKey, Registry,
    Server, SharedPool, Ticket, Times,
};
use pgherd::cluster::{ClusterView, Epoch, NodeId, NodeView, Role, Status};
use pgherd::net::Stream;
use pgherd::routing::{Allowed, Block, Class, Policy, Reason, SessionView, Verdict, choose, pick_standby, verdict};
use pgherd::sql::lexer::Lexer;
use pgherd::sql::{Cache, Isolation, LexMode, VerdictKey, analyze, fingerprint};
use pgherd::support::clock::{Duration, now};
use pgherd::wire::{CancelKey, Side, back, peek, write};

/// pgbench's, and a longer one as an application's library would write it.
const SHORT: &str = "SELECT abalance FROM pgbench_accounts WHERE aid = 71234;";
const LONG: &str = "SELECT \"o\".\"id\", \"o\".\"created_at\", \"o\".\"state\", \"c\".\"name\" AS \"customer_name\", count(\"i\".\"id\") AS \"items\", \
                    sum(\"i\".\"price\" * \"i\".\"quantity\") AS \"total\" FROM \"orders\" AS \"o\" INNER JOIN \"customers\" AS \"c\" ON \
                    \"c\".\"id\" = \"o\".\"customer_id\" LEFT OUTER JOIN \"order_items\" AS \"i\" ON \"i\".\"order_id\" = \"o\".\"id\" WHERE \
                    \"o\".\"state\" IN ('open', 'paid', 'sent') AND \"o\".\"created_at\" >= '2026-01-01 00:00:00' AND \"c\".\"country\" = \
                    'NL' GROUP BY \"o\".\"id\", \"c\".\"name\" HAVING count(\"i\".\"id\") > 3 ORDER BY \"o\".\"created_at\" DESC LIMIT 50";
const TEXTS: [(&str, &str); 2] = [("short", SHORT), ("long", LONG)];

/// Lexer, fingerprint, and the long look at a text that is new.
fn texts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("sql");
    for (name, text) in TEXTS {
        let bytes = text.as_bytes();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(BenchmarkId::new("lexer", name), |bencher| {
            bencher.iter(|| Lexer::new(black_box(bytes), LexMode::default()).count());
        });
        group.bench_function(BenchmarkId::new("fingerprint", name), |bencher| {
            bencher.iter(|| fingerprint(black_box(bytes), LexMode::default()));
        });
        group.bench_function(BenchmarkId::new("analyze (not seen before)", name), |bencher| {
            bencher.iter(|| analyze(black_box(bytes), LexMode::default()));
        });
    }
    group.finish();
}

const KEY: VerdictKey = VerdictKey { database: 1, catalog: 1, policy: 1 };

/// A verdict that is kept, among few and among many: the cost must not grow with their number.
fn verdicts(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("verdict");
    let policy = policy();
    for kept in [10, 1_000, 30_000] {
        let mut cache = Cache::<Verdict>::new(kept, 256 << 20);
        let facts = Rc::new(analyze(SHORT.as_bytes(), LexMode::default()));
        let given = verdict(&facts, None, &policy);
        let print = |number| fingerprint(format!("SELECT c{number} FROM t").as_bytes(), LexMode::default()).fingerprint;
        let prints: Vec<_> = (0..kept).map(print).collect();
        for print in &prints {
            cache.insert(*print, facts.clone());
            cache.get(*print).expect("just put in").set_verdict(KEY, given);
        }
        let mut turn = 0;
        group.bench_function(BenchmarkId::new("hit among", kept), |bencher| {
            bencher.iter(|| {
                turn = (turn + 7919) % kept;
                cache.get(black_box(prints[turn])).and_then(|entry| entry.verdict(KEY))
            });
        });
    }
    let facts = analyze(SHORT.as_bytes(), LexMode::default());
    group
        .bench_function("given anew, no catalog", |bencher| bencher.iter(|| verdict(black_box(&facts), None, &policy)));
    group.finish();
}

/// The default policy.
fn policy() -> Policy {
    use pgherd::config::{Consistency, Routing};
    let routing = Routing {
        load_balance: true,
        statement_level: false,
        consistency: Consistency::Session,
        delay_threshold: 0,
        delay_threshold_by_time: std::time::Duration::ZERO,
        too_late: pgherd::config::TooLate::OtherStandby,
        primary_routing_query_pattern_list: Vec::new(),
        app_name_redirect_list: Vec::new(),
        database_redirect_list: Vec::new(),
        user_redirect_list: Vec::new(),
        read_only_functions: Vec::new(),
        write_functions: Vec::new(),
    };
    Policy::new(&routing, 1).expect("no expressions to compile")
}

/// A primary and two standbys.
fn view() -> ClusterView {
    let node = |id: u16, role, weight, lag| NodeView {
        id: NodeId(id),
        name: format!("node{id}"),
        role,
        status: Status::Up,
        life: pgherd::cluster::Life::Well,
        weight,
        position: None,
        version: 150_000,
        lag,
        delay: None,
        replication: Default::default(),
        reason: "",
    };
    ClusterView {
        epoch: Epoch(1),
        generation: 1,
        nodes: vec![
            node(0, Role::Primary, 1.0, None),
            node(1, Role::Standby, 1.0, Some(100)),
            node(2, Role::Standby, 1.0, Some(10)),
        ],
        primary: Some(NodeId(0)),
        ..ClusterView::empty()
    }
}

/// From a verdict to a node.
fn decisions(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("routing");
    let (policy, view) = (policy(), view());
    let facts = analyze(b"SELECT 1", LexMode::default());
    let read = Verdict { class: Class::Anywhere, reason: Reason::Read, ..verdict(&facts, None, &policy) };
    let write = Verdict { class: Class::Primary, reason: Reason::Write, ..read };
    let session =
        SessionView { block: Block::Outside, pinned: false, allowed: Allowed::Any, preferred: Some(NodeId(2)) };
    let block = SessionView { block: Block::Open(Isolation::ReadCommitted), ..session };
    let behind = SessionView { allowed: Allowed::Only(&[NodeId(1)]), ..session };
    for (name, verdict, session) in [
        ("a read", read, session),
        ("a read in a block", read, block),
        ("a read that may use one standby", read, behind),
        ("a write", write, session),
    ] {
        group.bench_function(name, |bencher| bencher.iter(|| choose(verdict, black_box(&session), &view, &policy)));
    }
    let mut random = 1_u64;
    group.bench_function("the node of a session", |bencher| {
        bencher.iter(|| {
            random = random.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1);
            pick_standby(&view, &policy, None, black_box(random))
        });
    });
    group.finish();
}

/// The answer to a short SELECT: RowDescription, DataRow, CommandComplete, ReadyForQuery.
fn answer(rows: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    write::frame(&mut bytes, back::ROW_DESCRIPTION, |out| {
        out.extend_from_slice(b"\0\x01abalance\0\0\0\x40\x01\0\x03\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0")
    });
    for _ in 0..rows {
        write::frame(&mut bytes, back::DATA_ROW, |out| out.extend_from_slice(b"\0\x01\0\0\0\x0512345"));
    }
    write::frame(&mut bytes, back::COMPLETE, |out| out.extend_from_slice(b"SELECT 1\0"));
    write::frame(&mut bytes, back::READY, |out| out.push(b'I'));
    bytes
}

/// Headers of frames, and the queue of expected replies.
fn frames(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("frames");
    for rows in [1, 400] {
        let bytes = answer(rows);
        group.throughput(Throughput::Elements(rows as u64 + 3));
        group.bench_function(BenchmarkId::new("scan, rows", rows), |bencher| {
            bencher.iter(|| {
                let (mut at, mut count) = (0, 0);
                while let Ok(Some(header)) = peek(black_box(&bytes[at..]), Side::Server) {
                    at += header.size;
                    count += 1;
                }
                count
            });
        });
    }
    group.throughput(Throughput::Elements(1));
    let mut undone = Vec::new();
    let mut expected = Expected::default();
    group.bench_function("expected replies, simple", |bencher| {
        bencher.iter(|| {
            expected.push(Expect::Query { hide: false });
            for tag in [back::ROW_DESCRIPTION, back::DATA_ROW, back::COMPLETE, back::READY] {
                expected.on(black_box(tag), &mut undone).expect("it answers the query");
            }
        });
    });
    let mut expected = Expected::default();
    group.bench_function("expected replies, bind and execute", |bencher| {
        bencher.iter(|| {
            for expect in [Expect::Bind, Expect::Execute, Expect::Sync] {
                expected.push(expect);
            }
            for tag in [back::BIND_COMPLETE, back::DATA_ROW, back::COMPLETE, back::READY] {
                expected.on(black_box(tag), &mut undone).expect("it answers the series");
            }
        });
    });
    group.finish();
}

/// A pool of one connection, whose other end never says anything.
struct Lending {
    runtime: tokio::runtime::Runtime,
    pool: Rc<Pool>,
    hub: Rc<Hub>,
    _other_end: std::net::TcpListener,
}

impl Lending {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let registry = Arc::new(Registry::new(1));
        let interner = Rc::new(Interner::default());
        let open = move |_: &Arc<SharedPool>, permit: Permit| -> Opening {
            Box::pin(async move {
                let socket = tokio::net::TcpStream::connect(address).await;
                let socket = socket.map_err(|error| OpenError::Unreachable(error.to_string()))?;
                Ok(Box::new(server(socket.into(), permit)))
            })
        };
        let times = Times { idle_timeout: Duration::ZERO, max_lifetime: Duration::ZERO };
        let post = |_: usize, mail: Mail| Err(mail);
        let hub = Hub::new(0, registry.clone(), times, interner, Box::new(open), Box::new(post));
        let key = PoolKey { node: NodeId(0), database: "postgres".into(), user: "postgres".into() };
        let pool = hub.pool(&registry.pool(&key, 1, 100));
        Self { runtime, pool, hub, _other_end: listener }
    }

    /// Opens the connection.
    fn first(&self) -> Box<Server> {
        let local = tokio::task::LocalSet::new();
        local.block_on(&self.runtime, async {
            let mut ticket = self.pool.enqueue(Duration::from_secs(60));
            std::future::poll_fn(|cx| ticket.poll(cx)).await.expect("a connection")
        })
    }
}

fn server(stream: Stream, permit: Permit) -> Server {
    let key = CancelKey { pid: 1, secret: [0; 4].into() };
    let identity = Identity { id: 1, node: NodeId(0), epoch: Epoch(1), key, opened: now(), permit };
    Server::new(stream, identity, Rc::new(Interner::default()), 100)
}

/// Leasing a connection and giving it back, with nobody and with many waiting; and a reply on its way through a connection.
fn leases(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lease");
    let lending = Lending::new();
    let _inside = lending.runtime.enter();
    let mut held = Some(lending.first());
    let wanted = Carried::none();
    group.bench_function("taken and given back", |bencher| {
        lending.pool.put(held.take().expect("nobody else has it"));
        bencher.iter(|| {
            let server = lending.pool.try_lease(&wanted).expect("nobody else has it");
            lending.pool.put(black_box(server));
        });
        held = lending.pool.try_lease(&wanted);
    });
    let mut cx = Context::from_waker(Waker::noop());
    for waiting in [1, 1_000] {
        let mut queue: VecDeque<Ticket> = (0..waiting).map(|_| lending.pool.enqueue(Duration::from_secs(60))).collect();
        group.bench_function(BenchmarkId::new("given to the next of", waiting), |bencher| {
            bencher.iter(|| {
                queue.push_back(lending.pool.enqueue(Duration::from_secs(60)));
                lending.pool.put(held.take().expect("nobody else has it"));
                let mut ticket = queue.pop_front().expect("someone waits");
                match ticket.poll(&mut cx) {
                    Poll::Ready(Ok(next)) => held = Some(next),
                    _ => panic!("the first in the queue was passed over"),
                }
            });
        });
    }
    let mut server = held.take().expect("nobody else has it");
    for rows in [1, 200] {
        let bytes = answer(rows);
        group.bench_function(BenchmarkId::new("an answer accounted for, rows", rows), |bencher| {
            bencher.iter(|| account(&mut server, &lending.hub, &bytes));
        });
    }
    group.finish();
}

/// What a relay does with an answer besides writing it.
fn account(server: &mut Server, hub: &Hub, bytes: &[u8]) {
    let mut undone = Vec::new();
    hub.buffers.lend(&mut server.input);
    server.expected.push(Expect::Query { hide: false });
    server.input.spare()[..bytes.len()].copy_from_slice(bytes);
    server.input.commit(bytes.len());
    while let Some(header) = server.header().expect("a right answer") {
        black_box(server.observe(header, &mut undone).expect("it answers the query"));
        server.input.consume(header.size);
    }
    hub.buffers.take_back(&mut server.input);
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    texts(&mut criterion);
    verdicts(&mut criterion);
    decisions(&mut criterion);
    frames(&mut criterion);
    leases(&mut criterion);
    criterion.final_summary();
}
