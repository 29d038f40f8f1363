//! Every program of pgpool-II in every option, against pgherd and against a real pgpool-II in front of the same servers: the same layout,
//! the same way to end.

use crate::common::eventually;
use crate::common::raw::RawClient;
use crate::world::{Pgpool, Ran, World, has_pgpool, stock};

/// What a word is, so that values may differ and layouts may not.
fn kind(word: &str) -> &str {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let parts = |split: char| word.split(split).all(digits) && word.contains(split);
    match word {
        _ if digits(word) => "number",
        _ if parts('-') => "date",
        _ if parts(':') => "time",
        _ if parts('.') && word.matches('.').count() == 1 => "fraction",
        word => word,
    }
}

/// A line's layout: the label of a verbose one, the kinds of the words of any other.
fn layout(line: &str) -> String {
    match line.split_once(" : ").filter(|(label, _)| label.len() > 3) {
        Some((label, _)) => label.trim().to_owned(),
        None => line.split_whitespace().map(kind).collect::<Vec<_>>().join(" "),
    }
}

/// The same after what may differ is taken out: which role or state a node has is no matter of layout.
fn layouts(ran: &Ran) -> (Option<i32>, Vec<String>, bool) {
    (ran.code, ran.out.lines().map(layout).collect(), ran.err.is_empty())
}

/// Programs whose whole output has the same layout.
const ALIKE: &[&str] = &[
    "pcp_node_count",
    "pcp_node_count -v",
    "pcp_node_info -n 0",
    "pcp_node_info 0",
    "pcp_node_info -n 1",
    "pcp_node_info -n 2 -v",
    "pcp_node_info -v",
    "pcp_node_info -a -v",
    "pcp_node_info -n abc",
    "pcp_health_check_stats -n 0 -v",
    "pcp_health_check_stats 1 -v",
    "pcp_reload_config",
    "pcp_reload_config -s l",
    "pcp_attach_node -n 1",
];

/// Programs whose complaints are the same word by word.
const COMPLAIN: &[&str] = &[
    "pcp_node_info -n 9",
    "pcp_health_check_stats -n 9",
    "pcp_proc_info -P 1",
    "pcp_watchdog_info",
    "pcp_watchdog_info -n 0",
    "pcp_watchdog_info -v",
];

/// Programs that are refused, each in its own words.
const REFUSED: &[&str] = &["pcp_detach_node -n 9", "pcp_recovery_node -n 1", "pcp_promote_node -n 0"];

#[test]
fn h25_the_real_programs_speak_to_pgherd_as_to_pgpool() {
    if !has_pgpool("the real pcp programs") {
        return;
    }
    let Some(mut world) = World::start("") else { return };
    let mut pgpool = Pgpool::start(world.cluster);
    // A session in each, so that there is a process with a connection.
    let mut ours = RawClient::login(world.proxy.port(), "template1");
    let mut theirs = RawClient::login(pgpool.port(), "template1");
    ours.query("BEGIN; SELECT 1");
    theirs.query("BEGIN; SELECT 1");
    let mut other = Vec::new();
    for program in ALIKE {
        let (ours, theirs) = (world.stock(program), pgpool.stock(program));
        if layouts(&ours) != layouts(&theirs) || ours.out.is_empty() {
            other.push((program, ours, theirs));
        }
    }
    assert!(other.is_empty(), "{other:#?}");
    let complaints = |program: &&&str| world.stock(program) != pgpool.stock(program);
    let other: Vec<_> =
        COMPLAIN.iter().filter(complaints).map(|name| (name, world.stock(name), pgpool.stock(name))).collect();
    assert!(other.is_empty(), "{other:#?}");
    for program in REFUSED {
        let (ours, theirs) = (world.stock(program), pgpool.stock(program));
        assert_eq!((ours.code, &ours.out, theirs.err.is_empty()), (theirs.code, &theirs.out, false), "{program}");
        assert!(ours.err.starts_with("ERROR:  ") || ours.err.starts_with("FATAL:  "), "{program}: {ours:?}");
    }
    processes(&world, &pgpool);
    settings(&world, &pgpool);
    logins(&world, &pgpool);
    theirs.query("ROLLBACK");
    drop((ours, theirs));
    for mode in ["pcp_stop_pgpool -m x", "pcp_stop_pgpool -m f"] {
        let (ours, theirs) = (world.stock(mode), pgpool.stock(mode));
        assert_eq!((ours.code, &ours.out), (theirs.code, &theirs.out), "{mode}\n{ours:?}\n{theirs:?}");
    }
    assert_eq!(world.proxy.ended(), Some(0));
    assert_eq!(world.stock("pcp_node_count").code, Some(1), "nobody is there");
    eventually("it has ended, too", || pgpool.has_ended());
}

/// A session of ours is a process of theirs.
fn processes(world: &World<'_>, pgpool: &Pgpool) {
    let (ours, theirs) = (world.stock("pcp_proc_count"), pgpool.stock("pcp_proc_count"));
    assert_eq!((ours.code, theirs.code), (Some(0), Some(0)));
    let numbers: Vec<i64> = ours.out.split_whitespace().map(|word| word.parse().expect("a number")).collect();
    assert!(!numbers.is_empty() && numbers.iter().all(|number| *number > 4_194_304), "{ours:?}");
    let one = format!("pcp_proc_info -P {}", numbers[0]);
    assert_eq!(world.stock(&one).out.lines().count(), 1, "{one}");
    // Verbose: the labels, for a slot with a connection; plain: as many words, but for the time in which a process of theirs would end.
    let labels = |ran: &Ran| ran.out.lines().take_while(|line| !line.is_empty()).map(layout).collect::<Vec<_>>();
    let (ours, theirs) = (world.stock("pcp_proc_info -v"), pgpool.stock("pcp_proc_info -v"));
    assert_eq!(labels(&ours), labels(&theirs));
    assert!(labels(&ours).len() > 10, "{ours:?}");
    assert!(ours.out.contains("Idle in transaction") && theirs.out.contains("Idle in transaction"), "{}", ours.out);
    let total = |ran: &Ran| ran.out.lines().any(|line| line.starts_with("Total Processes"));
    assert!(total(&world.stock("pcp_proc_count -v")) && total(&pgpool.stock("pcp_proc_count -v")));
    let (ours, theirs) = (world.stock("pcp_proc_info -a").out, pgpool.stock("pcp_proc_info -a").out);
    let tail = |text: &str| text.lines().next().map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned());
    assert!(!ours.is_empty() && tail(&ours).is_some() && tail(&theirs).is_some());
}

fn settings(world: &World<'_>, pgpool: &Pgpool) {
    let (ours, theirs) = (world.stock("pcp_pool_status"), pgpool.stock("pcp_pool_status"));
    let heads = |ran: &Ran| {
        let lines: Vec<&str> = ran.out.lines().collect();
        let blocks = lines.chunks(4);
        blocks
            .map(|block| block.iter().map(|line| line.split(':').next().unwrap_or_default().to_owned()).collect())
            .collect::<Vec<Vec<_>>>()
    };
    assert_eq!((ours.code, heads(&ours)[0].clone()), (theirs.code, heads(&theirs)[0].clone()));
    let names = |ran: &Ran| {
        let names = ran.out.lines().filter_map(|line| line.strip_prefix("name : ").map(str::to_owned));
        names.collect::<Vec<String>>()
    };
    let (ours, theirs) = (names(&ours), names(&theirs));
    assert!(ours.len() > 100 && theirs.len() > 100, "{} and {}", ours.len(), theirs.len());
    assert_eq!(ours[..5], theirs[..5]);
    for name in ["backend_hostname0", "backend_port2", "health_check_period", "load_balance_mode"] {
        assert!(ours.contains(&name.to_owned()) && theirs.contains(&name.to_owned()), "{name}");
    }
}

/// Who is not let in is told in the same words and with the same status.
fn logins(world: &World<'_>, pgpool: &Pgpool) {
    let wrong = crate::world::write(&world.folder, "wrong", "*:*:*:wrong\n");
    let ours = stock("pcp_node_count", world.pcp.port(), &wrong);
    let theirs = pgpool.stock_with("pcp_node_count", &wrong);
    assert_eq!(ours, theirs);
    assert_eq!(ours.code, Some(1));
    for usage in ["pcp_detach_node", "pcp_node_info -x", "pcp_node_count -V"] {
        assert_eq!(world.stock(usage).code, pgpool.stock(usage).code, "{usage}");
    }
}
