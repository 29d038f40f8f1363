//! Commands on transactions, cursors, prepared statements and channels, read by tokens alone. Must not say that anything
//! is a read. A form that PostgreSQL would refuse gets its kind but no effect: it is forwarded and refused there.

use super::draft::Draft;
use super::statement::Statement;
use super::{Effect, Flags, Isolation, Kind, Modes};

/// Reads a command whose first word is `first` (lower case). `None`: not one of these.
pub(super) fn read(st: Statement<'_>, first: &str) -> Option<Draft> {
    Some(match first {
        "begin" => transaction(begin(st, optional(st, 1, &["work", "transaction"]))),
        "start" => transaction(if st.is(1, "transaction") { begin(st, 2) } else { None }),
        "commit" if st.is(1, "prepared") => two_phase(st),
        "rollback" if st.is(1, "prepared") => two_phase(st),
        "prepare" if st.is(1, "transaction") && st.len() == 3 && st.literal(2).is_some() => {
            Draft::command(Kind::Transaction, Some(Effect::TwoPhase))
        }
        "commit" | "end" => transaction(chain(st).map(|chain| Effect::Commit { chain })),
        "rollback" | "abort" => rollback(st),
        "savepoint" => transaction((st.len() == 2 && st.name(1).is_some()).then_some(Effect::Savepoint)),
        "release" => {
            let at = if st.len() == 3 { optional(st, 1, &["savepoint"]) } else { 1 };
            transaction((st.name(at).is_some() && st.ends(at + 1)).then_some(Effect::Savepoint))
        }
        "prepare" => session(st.name(1).map(|name| Effect::Prepare { name })),
        "execute" => session(st.name(1).map(|name| Effect::Execute { name })).with(Flags::OPAQUE.with(Flags::WRITES)),
        "deallocate" => session(deallocate(st)),
        "declare" => declare(st),
        "fetch" | "move" => session(Some(Effect::Fetch)),
        "close" => session((st.len() == 2).then_some(Effect::CloseCursor)).with(Flags::MAY_UNPIN),
        "listen" => session((st.len() == 2).then_some(Effect::Listen)),
        "unlisten" => session((st.len() == 2).then_some(Effect::Unlisten)).with(Flags::MAY_UNPIN),
        "lock" => session(Some(Effect::Lock)).with(Flags::LOCKS_OR_WRITES),
        _ => return None,
    })
}

fn transaction(effect: Option<Effect>) -> Draft {
    Draft::command(Kind::Transaction, effect)
}

fn session(effect: Option<Effect>) -> Draft {
    Draft::command(Kind::Session, effect)
}

/// The position behind one of `words`, or `at` itself.
fn optional(st: Statement<'_>, at: usize, words: &[&str]) -> usize {
    at + usize::from(st.any(at, words))
}

fn begin(st: Statement<'_>, at: usize) -> Option<Effect> {
    modes(st, at).map(Effect::Begin)
}

/// Transaction modes from `at` to the end, separated by commas or nothing; the last of a kind holds.
pub(super) fn modes(st: Statement<'_>, mut at: usize) -> Option<Modes> {
    let mut modes = Modes::default();
    let mut comma = false;
    while !st.ends(at) {
        if st.all(at, &["isolation", "level"]) {
            let (isolation, words) = isolation(st, at + 2)?;
            modes.isolation = Some(isolation);
            at += 2 + words;
        } else if st.is(at, "read") && st.any(at + 1, &["only", "write"]) {
            modes.read_only = Some(st.is(at + 1, "only"));
            at += 2;
        } else if st.is(at, "deferrable") {
            modes.deferrable = Some(true);
            at += 1;
        } else if st.all(at, &["not", "deferrable"]) {
            modes.deferrable = Some(false);
            at += 2;
        } else {
            return None;
        }
        comma = st.mark(at, b',');
        at += usize::from(comma);
    }
    (!comma).then_some(modes)
}

/// An isolation level and the number of its words.
pub(super) fn isolation(st: Statement<'_>, at: usize) -> Option<(Isolation, usize)> {
    if st.is(at, "serializable") {
        Some((Isolation::Serializable, 1))
    } else if st.all(at, &["repeatable", "read"]) {
        Some((Isolation::RepeatableRead, 2))
    } else if st.is(at, "read") && st.any(at + 1, &["committed", "uncommitted"]) {
        Some((Isolation::ReadCommitted, 2))
    } else {
        None
    }
}

/// `[WORK | TRANSACTION] [AND [NO] CHAIN]` to the end: is there to be a next transaction at once?
fn chain(st: Statement<'_>) -> Option<bool> {
    let at = optional(st, 1, &["work", "transaction"]);
    if st.ends(at) {
        return Some(false);
    }
    let no = usize::from(st.is(at + 1, "no"));
    (st.is(at, "and") && st.is(at + 1 + no, "chain") && st.ends(at + 2 + no)).then_some(no == 0)
}

fn rollback(st: Statement<'_>) -> Draft {
    let at = optional(st, 1, &["work", "transaction"]);
    if !st.is(at, "to") {
        return transaction(chain(st).map(|chain| Effect::Rollback { chain }));
    }
    let name = if st.len() == at + 3 { optional(st, at + 1, &["savepoint"]) } else { at + 1 };
    transaction((st.is(0, "rollback") && st.name(name).is_some() && st.ends(name + 1)).then_some(Effect::Savepoint))
}

fn two_phase(st: Statement<'_>) -> Draft {
    let right = st.len() == 3 && st.literal(2).is_some();
    transaction(right.then_some(Effect::TwoPhase)).with(Flags::NO_BLOCK)
}

/// `DEALLOCATE [PREPARE] {name | ALL}`; `prepare` may itself be the name.
fn deallocate(st: Statement<'_>) -> Option<Effect> {
    let at = if st.len() == 3 && st.is(1, "prepare") { 2 } else { 1 };
    if !st.ends(at + 1) {
        return None;
    }
    if st.is(at, "all") {
        return Some(Effect::Deallocate { name: None });
    }
    st.name(at).map(|name| Effect::Deallocate { name: Some(name) })
}

/// `DECLARE name … CURSOR [{WITH | WITHOUT} HOLD] FOR query`. The query's functions run when rows are fetched, so they count
/// as called here.
fn declare(st: Statement<'_>) -> Draft {
    let Some(cursor) = (2..st.len().min(8)).find(|&at| st.is(at, "cursor")) else { return session(None) };
    let hold = st.all(cursor + 1, &["with", "hold"]);
    let from = cursor + if hold || st.all(cursor + 1, &["without", "hold"]) { 3 } else { 1 };
    let effect = (st.is(from, "for") && st.name(1).is_some()).then_some(Effect::Declare { hold });
    session(effect).parse(from + 1, st.len())
}
