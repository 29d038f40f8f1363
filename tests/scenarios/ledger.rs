//! The ledger: clients insert numbered rows through failovers at random moments, and every row is accounted for. `LEDGER_FAILOVERS=50` for
//! more of them, `LEDGER_SEED` for others.
#![allow(unreachable_pub, reason = "shared by the modules of one test binary")]

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::clients::{Clients, Report};
use crate::common::{Random, eventually};
use crate::table;
use crate::world::{Setup, World};

/// What ends a primary's rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill9,
    Immediate,
    Freeze,
    Cut,
    Unplug,
    PowerLost,
    /// On purpose: nothing fails, and nothing has to be rebuilt.
    SwitchOver,
}

const FAULTS: [Fault; 7] =
    [Fault::Freeze, Fault::Kill9, Fault::SwitchOver, Fault::Cut, Fault::Immediate, Fault::Unplug, Fault::PowerLost];

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::Kill9 => "killed (`kill -9`)",
            Self::Immediate => "stopped (`immediate`)",
            Self::Freeze => "frozen (SIGSTOP)",
            Self::Cut => "cut off silently",
            Self::Unplug => "link down",
            Self::PowerLost => "frozen and cut off",
            Self::SwitchOver => "role moved",
        }
    }

    fn strike(self, world: &World, id: usize) {
        match self {
            Self::Kill9 => world.server(id).kill9().expect("killed"),
            Self::Immediate => world.server(id).stop().expect("stopped"),
            Self::Freeze => world.server(id).freeze().expect("frozen"),
            Self::Cut => world.net.cut(world.name(id)),
            Self::Unplug => world.net.unplug(world.name(id)),
            Self::PowerLost => world.power_lost(id),
            Self::SwitchOver => drop(world.order(&["switch_over"]).expect("moved")),
        }
    }

    /// The server is there again, as it was.
    fn undo(self, world: &World, id: usize) {
        match self {
            Self::Kill9 | Self::Immediate => world.start_server(id),
            Self::SwitchOver => world.start_demoted(id),
            Self::Freeze => world.server(id).thaw().expect("goes on"),
            Self::Cut | Self::Unplug => world.net.mend(world.name(id)),
            Self::PowerLost => {
                world.server(id).thaw().expect("goes on");
                world.net.mend(world.name(id));
            }
        }
    }
}

/// Longer than a standby does not hear of what is written, plus a busy machine's hesitation.
const SETTLED: Duration = Duration::from_secs(2);

fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// What the failovers left behind.
#[derive(Default)]
struct Book {
    /// When each fault struck.
    faults: Vec<(Fault, Instant)>,
    /// Rows that an old primary had and the new one has not.
    orphans: BTreeSet<(usize, u64)>,
    asynchronous: bool,
    /// Bytes of write-ahead log that old primaries had and their successors have not, as the events said, at least, and as it was, at most.
    told: u64,
    gone: u64,
    /// Old primaries that were rewound, not copied.
    rewound: usize,
}

impl Book {
    /// How many were no accident.
    fn planned(&self) -> usize {
        self.faults.iter().filter(|(fault, _)| *fault == Fault::SwitchOver).count()
    }
}

/// All rows of a server's ledger.
fn rows(world: &World, id: usize) -> BTreeSet<(usize, u64)> {
    let said = world.told(id, "SELECT client, n FROM ledger");
    let row = |line: &str| line.split_once('|').and_then(|(client, n)| Some((client.parse().ok()?, n.parse().ok()?)));
    said.lines().map(|line| row(line).expect("two numbers")).collect()
}

/// Two servers, by their numbers, that do not hear each other any more.
fn apart(world: &World, old: usize, moment: Duration) -> [usize; 2] {
    let others = [(old + 1) % 3, (old + 2) % 3];
    others.iter().for_each(|other| world.part_servers(old, *other));
    std::thread::sleep(moment);
    others
}

/// One failover, and the old primary's return as a standby.
fn turn(world: &World, random: &mut Random, fault: Fault, book: &mut Book) {
    std::thread::sleep(Duration::from_millis(200 + random.below(1500) as u64));
    let old = world.primary().expect("there is one");
    println!("{fault:?} of node {old}");
    // Without synchronous replication something shall be lost: what is written while no standby hears of it.
    let planned = fault == Fault::SwitchOver;
    let unheard = (book.asynchronous && !planned)
        .then(|| apart(world, old, Duration::from_millis(200 + random.below(600) as u64)));
    book.faults.push((fault, Instant::now()));
    fault.strike(world, old);
    if let Some(others) = unheard {
        others.iter().for_each(|other| world.join_servers(old, *other));
    }
    let new = world.wait_promoted(old);
    let other = 3 - old - new;
    world.wait_follows(other, new);
    std::thread::sleep(Duration::from_millis(random.below(1000) as u64));
    fault.undo(world, old);
    if planned {
        world.wait_follows(old, new);
        return;
    }
    if random.below(2) == 0 {
        eventually("the old primary is refused", || world.nodes()[&old]["status"].starts_with("quarantine"));
    }
    assert_eq!(world.primary(), Some(new), "the old primary is back and disturbs");
    let (behind, ahead) = (rows(world, old), rows(world, new));
    let orphans: Vec<_> = behind.difference(&ahead).copied().collect();
    if book.asynchronous {
        loss(world, (old, new), !orphans.is_empty(), book);
    }
    book.orphans.extend(orphans);
    book.rewound += usize::from(world.rebuild(old, new));
    world.wait_follows(old, new);
}

/// A position in the write-ahead log, as PostgreSQL writes it.
fn position(text: &str) -> u64 {
    let (high, low) = text.trim().split_once('/').expect("two numbers");
    let number = |text: &str| u64::from_str_radix(text, 16).expect("hexadecimal");
    (number(high) << 32) + number(low)
}

/// What the event says of the loss is true of both servers.
fn loss(world: &World, (old, new): (usize, usize), lost: bool, book: &mut Book) {
    let log = world.proxy.log();
    let line = log.lines().rfind(|line| line.contains("candidate_chosen")).expect("it was told");
    let (_, rest) = line.split_once("the candidate has ").expect("its position");
    let (candidate, rest) = rest.split_once(", at least ").expect("the loss");
    let (told, _) = rest.split_once(" bytes behind").expect("bytes");
    let (candidate, told) = (position(candidate), told.parse::<u64>().expect("a number"));
    // The old one has written a little more since it was started again.
    let end = position(&world.told(old, "SELECT pg_current_wal_lsn()"));
    let history = "SELECT pg_read_file('pg_wal/' || left(pg_walfile_name(pg_current_wal_lsn()), 8) || '.history')";
    let history = world.told(new, history);
    let fork = history.lines().rfind(|line| !line.trim().is_empty()).and_then(|line| line.split('\t').nth(1));
    let fork = position(fork.expect("where it left the old timeline"));
    // What it had received may end in the middle of a record.
    assert!(fork <= candidate, "it had {candidate:x} and left at {fork:x}");
    let gone = end.saturating_sub(fork);
    assert!(
        candidate + told <= end,
        "{told} bytes behind {candidate:x} are said to be missing; the old one has {end:x}"
    );
    assert!(gone > 0 || !lost, "rows are lost, and {end:x} is not behind {fork:x}");
    book.told += told;
    book.gone += gone;
}

/// Failovers under load; with `synchronous` nothing may be lost.
fn failovers(synchronous: &str, failover: &str, count: u64) -> Option<(Report, Book, World)> {
    let settings = &[("synchronous_standby_names", synchronous)];
    let world = World::start(&Setup { failover, settings, ..Setup::default() })?;
    let mut random = Random::new(setting("LEDGER_SEED", 5));
    let clients = Clients::start(&world);
    let mut book = Book { asynchronous: synchronous.is_empty(), ..Book::default() };
    let mut left = Vec::new();
    for _ in 0..count {
        if left.is_empty() {
            left.extend(FAULTS);
        }
        let fault = left.remove(random.below(left.len()));
        turn(&world, &mut random, fault, &mut book);
    }
    let report = clients.stop(&world);
    let planned = book.planned();
    let done = (world.events("failover_done"), world.events("switchover_done"));
    assert_eq!(done, (count as usize - planned, planned), "each failover once");
    Some((report, book, world))
}

/// How long each kind of fault kept the sessions from their work.
fn gaps(report: &Report, book: &Book) -> String {
    let mut kinds: BTreeMap<Fault, Vec<Duration>> = BTreeMap::new();
    let next = book.faults.iter().skip(1).map(|(_, at)| Some(*at)).chain([None]);
    for ((fault, at), next) in book.faults.iter().zip(next) {
        kinds.entry(*fault).or_default().push(report.gap_at(*at, next));
    }
    let one = |(fault, gaps): (&Fault, &Vec<Duration>)| {
        let longest = gaps.iter().max().copied().unwrap_or_default();
        format!("{} {} × up to {}", fault.name(), gaps.len(), table::seconds(longest))
    };
    kinds.iter().map(one).collect::<Vec<_>>().join(", ")
}

/// What only an old primary has is lost: written in the moment before the fault, and told by the event.
pub fn asynchronous() {
    let count = setting("LEDGER_FAILOVERS", 6);
    let Some((report, book, world)) = failovers("", "promote = \"builtin\"", count) else { return };
    for failure in report.failures() {
        let known = ["08007", "40001"].iter().any(|code| failure.what.starts_with(code));
        assert!(known, "{failure:?}\n{report}");
    }
    assert!(report.dropped() == 0 && report.doubled.is_empty(), "{report}");
    report.one_writer();
    for row in &report.lost {
        assert!(book.orphans.contains(&(row.client, row.number)), "nobody has {row:?}");
        let before = |fault: &Instant| row.answered < *fault + SETTLED && *fault < row.answered + SETTLED;
        assert!(book.faults.iter().any(|(_, fault)| before(fault)), "lost long before or after a fault: {row:?}");
    }
    let told = world
        .proxy
        .log()
        .lines()
        .filter(|line| line.contains("candidate_chosen") && line.contains("bytes behind"))
        .count();
    assert_eq!(told, count as usize - book.planned(), "each loss is told");
    let rows = world.told(world.primary().expect("there is one"), "SELECT count(*) FROM ledger");
    table::line(
        &format!("Ledger, asynchronous, {count} failovers"),
        "primary, at random moments, after up to 0.8 s in which no standby heard it",
        &format!(
            "{rows} rows, {} lost, all from that moment, 0 doubled; the events say at least {} bytes, of {} at most; {}",
            report.lost.len(),
            book.told,
            book.gone,
            gaps(&report, &book)
        ),
        "lost: what no standby had; told by the event",
        &report.to_string(),
    );
}

#[test]
fn ledger_with_synchronous_replication_loses_and_doubles_nothing() {
    let count = setting("LEDGER_FAILOVERS", 3);
    let Some((report, book, world)) = failovers("ANY 1 (*)", "promote = \"builtin\"", count) else { return };
    println!("{report}");
    for failure in report.failures() {
        let known = ["08007", "40001"].iter().any(|code| failure.what.starts_with(code));
        assert!(known, "{failure:?}\n{report}");
    }
    report.whole();
    let orphans = book.orphans.len();
    let rows = world.told(world.primary().expect("there is one"), "SELECT count(*) FROM ledger");
    table::line(
        &format!("Ledger, synchronous, {count} failovers"),
        "primary, at random moments; brought back each time",
        &format!(
            "{rows} rows, 0 lost, 0 doubled; {}; {} rewound; {orphans} rows on old primaries, never acknowledged",
            gaps(&report, &book),
            book.rewound
        ),
        "0 lost, 0 doubled, one writer per timeline",
        &report.to_string(),
    );
}
