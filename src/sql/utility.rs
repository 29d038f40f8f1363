//! Everything that is neither query, DML, transaction nor session command: CREATE, ALTER, DROP and the rest, read by
//! their first words. Must not call anything a read.

use super::draft::Draft;
use super::statement::Statement;
use super::{Flags, Kind, calls};

/// Objects whose change no knowledge of a database's catalog depends on.
const OUTSIDE: &[&str] = &[
    "database",
    "role",
    "user",
    "group",
    "tablespace",
    "subscription",
    "publication",
    "index",
    "statistics",
    "system",
    "default",
    "access",
    "server",
    "event",
    "conversion",
    "unique",
    "text",
    "large",
];

/// Reads a statement whose first word is `first` (lower case).
pub(super) fn read(st: Statement<'_>, first: &str) -> Draft {
    let utility = Draft::new(Kind::Utility, Flags::WRITES);
    match first {
        "create" => create(st, utility),
        "alter" => alter(st, utility),
        "drop" => {
            let outside = st.any(1, OUTSIDE);
            let alone = st.any(1, &["database", "tablespace", "subscription"]) || st.all(1, &["index", "concurrently"]);
            utility.with(Flags::MAY_UNPIN).with(flag(!outside, Flags::DDL)).with(flag(alone, Flags::NO_BLOCK))
        }
        "do" | "call" => utility.with(Flags::OPAQUE),
        "load" => utility.with(Flags::OPAQUE),
        "import" | "grant" | "revoke" | "reassign" => utility.with(Flags::DDL),
        "security" | "comment" | "notify" | "checkpoint" | "analyze" | "analyse" => utility,
        "refresh" => utility,
        "truncate" => truncate(st, utility),
        "vacuum" => utility.with(Flags::NO_BLOCK),
        "cluster" => utility.with(flag(st.len() == 1 || (st.len() == 2 && st.is(1, "verbose")), Flags::NO_BLOCK)),
        "reindex" => {
            let alone = st.has_any(&["concurrently", "database", "system", "schema"]);
            utility.with(flag(alone, Flags::NO_BLOCK))
        }
        _ => Draft::opaque(),
    }
}

fn flag(yes: bool, flag: Flags) -> Flags {
    if yes { flag } else { Flags::NONE }
}

fn create(st: Statement<'_>, utility: Draft) -> Draft {
    let at = if st.all(1, &["or", "replace"]) { 3 } else { 1 };
    let at = at + usize::from(st.any(at, &["local", "global"]));
    let temporary = st.any(at, &["temp", "temporary"]) || created_in_temporary(st);
    let concurrently = st.any(at, &["index", "unique"]) && st.to(at + 3).has("concurrently");
    let alone = st.any(at, &["database", "tablespace", "subscription"]) || concurrently;
    let outside = st.any(at, OUTSIDE);
    let mut draft = utility
        .with(flag(temporary, Flags::TEMP))
        .with(flag(!temporary && !outside, Flags::DDL))
        .with(flag(alone, Flags::NO_BLOCK))
        // Runs the extension's script; a schema may bring its objects along.
        .with(flag(st.any(at, &["extension", "schema"]), Flags::OPAQUE));
    if st.has("execute") && !st.any(at, &["trigger", "constraint", "event", "function", "procedure"]) {
        draft = draft.with(Flags::OPAQUE);
    }
    // CREATE TABLE … AS and CREATE MATERIALIZED VIEW run their query; CREATE VIEW does not.
    let fills = st.any(at, &["table", "temp", "temporary", "unlogged", "materialized"]);
    match (at..st.len()).find(|&at| st.is(at, "as") && starts_query(st.from(at + 1))) {
        Some(query) if fills => draft.parse(query + 1, st.len()),
        _ => draft,
    }
}

fn starts_query(st: Statement<'_>) -> bool {
    let at = (0..st.len()).find(|&at| !st.mark(at, b'(')).unwrap_or(0);
    st.any(at, &["select", "with", "values", "table"])
}

/// Is the schema of any name `pg_temp`, or one of its numbered forms?
fn created_in_temporary(st: Statement<'_>) -> bool {
    (0..st.len()).any(|at| st.mark(at + 1, b'.') && st.name(at).is_some_and(|name| name.starts_with("pg_temp")))
}

fn alter(st: Statement<'_>, utility: Draft) -> Draft {
    let login = st.any(1, &["role", "user", "group", "database", "system"]);
    let database_moves = st.is(1, "database") && st.has("tablespace");
    let detaches = st.has("detach") && st.has("concurrently");
    let alone = st.is(1, "system") || database_moves || detaches;
    // A rewrite runs defaults, USING expressions and checks.
    let runs = st.any(1, &["table", "extension", "materialized", "foreign"]) || st.is(1, "domain");
    utility
        .with(flag(login, Flags::LOGIN_DEFAULTS))
        .with(flag(!st.any(1, OUTSIDE), Flags::DDL))
        .with(flag(alone, Flags::NO_BLOCK))
        .with(flag(runs, Flags::OPAQUE))
}

/// `TRUNCATE [TABLE] [ONLY] name [*], …`: its triggers run.
fn truncate(st: Statement<'_>, mut draft: Draft) -> Draft {
    let mut at = 1 + usize::from(st.is(1, "table"));
    loop {
        at = calls::relation(st, at, &mut draft);
        at += usize::from(st.mark(at, b'*'));
        if !st.mark(at, b',') {
            return draft;
        }
        at += 1;
    }
}
