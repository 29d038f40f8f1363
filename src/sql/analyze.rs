//! Text to [`Facts`]: tokens, statements, one draft each, and the parser's agreement. Must not know any server or catalog.

use super::draft::Draft;
use super::statement::{self, Statement};
use super::{Effect, Facts, Flags, Kind, LexMode, Name, Verb, calls, control, fingerprint, parse, settings, utility};

/// Longest text, in bytes, that a data thread may give to [`analyze`] (SESSIONS R14).
pub const INLINE_TEXT: usize = 2 * 1024;

/// Longest text that [`analyze`] parses at all; longer ones have the lexer's word alone.
pub const HELPER_TEXT: usize = 32 * 1024;

/// Stack that a thread needs to [`analyze`] texts up to [`HELPER_TEXT`]: flat chains of operators are as deep as they are long.
pub const HELPER_STACK: usize = 16 * 1024 * 1024;

/// All that the text says. [`Flags::READ`] only if lexer and parser agree. Takes up to some milliseconds and, for texts over
/// [`INLINE_TEXT`], a stack of [`HELPER_STACK`].
pub fn analyze(text: &[u8], mode: LexMode) -> Facts {
    facts(text, mode, text.len() <= HELPER_TEXT)
}

/// What the lexer alone can tell: never [`Flags::READ`], everything else as [`analyze`], with names that only might
/// be functions among the functions.
pub fn analyze_lexer_only(text: &[u8], mode: LexMode) -> Facts {
    facts(text, mode, false)
}

/// The facts of each statement of a text by itself; empty if it cannot be read whole. For bodies of functions.
pub fn analyze_each(text: &[u8], mode: LexMode) -> Option<Vec<Facts>> {
    let (tokens, _) = statement::tokens(text, mode)?;
    let deep = text.len() <= HELPER_TEXT;
    Some(statement::split(text, &tokens).into_iter().map(|st| finish(draft(st, deep), Flags::NONE, 1)).collect())
}

fn facts(text: &[u8], mode: LexMode, deep: bool) -> Facts {
    let Some((tokens, hint)) = statement::tokens(text, mode) else { return Facts::opaque() };
    let hint = if hint { Flags::NO_LOAD_BALANCE } else { Flags::NONE };
    let statements = statement::split(text, &tokens);
    let count = u16::try_from(statements.len()).unwrap_or(u16::MAX);
    let first = statements.first().and_then(|st| st.name(0)).unwrap_or_default();
    let mut drafts = statements.into_iter().map(|st| draft(st, deep));
    let mut whole = drafts.next().unwrap_or_else(|| Draft::new(Kind::Empty, Flags::NONE));
    drafts.for_each(|next| whole.append(next));
    if !deep {
        whole.flags = whole.flags.without(Flags::READ);
    }
    let mut facts = finish(whole, hint, count);
    facts.verb = Verb::of(facts.kind, &first);
    facts.fingerprint = fingerprint(text, mode).fingerprint;
    facts
}

fn finish(mut draft: Draft, more: Flags, statements: u16) -> Facts {
    draft.attributes.sort_unstable();
    draft.attributes.dedup();
    draft.builtins.sort_unstable();
    draft.builtins.dedup();
    Facts {
        fingerprint: super::Fingerprint(0),
        kind: draft.kind,
        verb: Verb::Other,
        flags: draft.flags.with(more),
        statements,
        effects: draft.effects.into(),
        functions: draft.functions.into(),
        relations: draft.relations.into(),
        builtins: draft.builtins.into(),
        attributes: draft.attributes.into(),
    }
}

/// Reads one statement: by its first word, then by its tokens, then by sqlparser where that can tell more.
fn draft(st: Statement<'_>, deep: bool) -> Draft {
    let first = st.name(0).filter(|_| st.token(0) == Some(super::lexer::Token::Word)).unwrap_or_default();
    let known = control::read(st, &first).or_else(|| settings::read(st, &first));
    let mut draft = match known {
        Some(draft) => draft,
        None if st.mark(0, b'(') || matches!(&*first, "select" | "with" | "values" | "table") => query(st),
        None => match &*first {
            "insert" | "update" | "delete" | "merge" => {
                Draft::new(Kind::Dml, Flags::WRITES.with(Flags::LOCKS_OR_WRITES)).parse(0, st.len())
            }
            "copy" => copy(st),
            "explain" => explain(st),
            _ => utility::read(st, &first),
        },
    };
    look_inside(st, deep, &mut draft);
    draft
}

/// Functions, relations and the parser's agreement for the part of the statement that is a query or DML.
fn look_inside(st: Statement<'_>, deep: bool, draft: &mut Draft) {
    let Some((from, to)) = draft.query else { return };
    let inner = st.to(to).from(from);
    let parsed = if deep { parse::parse(inner) } else { None };
    calls::collect(inner, parsed.as_ref(), draft);
    calls::targets(inner, draft);
    if draft.flags.has(Flags::WRITES) && inner.has_any(&["insert", "default"]) {
        draft.flags = draft.flags.with(Flags::DEFAULTS);
    }
    let agreed = parsed.as_ref().is_some_and(|parsed| parsed.read);
    for relation in parsed.into_iter().flat_map(|parsed| parsed.relations) {
        if is_system(&relation) {
            draft.flags = draft.flags.with(Flags::PRIMARY_ONLY);
        } else {
            draft.relation(relation);
        }
    }
    let sets = draft.effects.iter().any(|effect| matches!(effect, Effect::Set { .. } | Effect::SetLocal));
    let writes = draft.flags.any(Flags::WRITES.with(Flags::SETSEED)) || sets;
    if draft.flags.has(Flags::READ) && (!agreed || writes) {
        draft.flags = draft.flags.without(Flags::READ);
        // A query that only sets parameters is the session's business, as SET is.
        if !(sets && agreed && draft.functions.is_empty()) {
            draft.flags = draft.flags.with(Flags::WRITES);
        }
    }
}

/// Relations that PostgreSQL brings along; those that nobody qualified are told by their prefix.
fn is_system(relation: &Name) -> bool {
    matches!(&*relation.schema, "pg_catalog" | "information_schema" | "pg_toast")
        || (relation.schema.is_empty() && relation.name.starts_with("pg_"))
}

/// Does a word that writes stand anywhere? The UPDATE of a row lock is not one.
fn writes(st: Statement<'_>) -> bool {
    let locks = |at: usize| at > 0 && st.any(at - 1, &["for", "key"]);
    (0..st.len()).any(|at| st.any(at, &["insert", "delete", "merge", "into"]) || (st.is(at, "update") && !locks(at)))
}

/// Does the statement lock rows: FOR followed by a lock's strength?
fn locks(st: Statement<'_>) -> bool {
    (0..st.len()).any(|at| st.is(at, "for") && st.any(at + 1, &["update", "no", "share", "key"]))
}

/// SELECT, WITH, VALUES, TABLE, and their parenthesized forms.
fn query(st: Statement<'_>) -> Draft {
    let draft = if writes(st) {
        let into = (0..st.len()).find(|&at| st.is(at, "into") && !(at > 0 && st.any(at - 1, &["insert", "merge"])));
        let created = match into {
            Some(at) if st.any(at + 1, &["temp", "temporary", "local", "global"]) || st.names_temporary() => {
                Flags::TEMP
            }
            Some(_) => Flags::DDL,
            None => Flags::NONE,
        };
        Draft::new(Kind::Dml, Flags::WRITES.with(Flags::LOCKS_OR_WRITES).with(created))
    } else if locks(st) {
        Draft::new(Kind::Select, Flags::LOCKS_OR_WRITES.with(Flags::WRITES))
    } else {
        Draft::new(Kind::Select, Flags::READ)
    };
    draft.parse(0, st.len())
}

/// `COPY {table [(columns)] | (query)} {FROM | TO} {STDIN | STDOUT | 'file' | PROGRAM 'command'} …`.
fn copy(st: Statement<'_>) -> Draft {
    let writes = Flags::WRITES.with(Flags::LOCKS_OR_WRITES);
    let start = 1 + usize::from(st.is(1, "binary"));
    let is_query = st.mark(start, b'(');
    let mut relation = Draft::opaque();
    let mut behind = if is_query { start } else { calls::relation(st, start, &mut relation) };
    if st.mark(behind, b'(') {
        match st.partner(behind) {
            Some(close) => behind = close + 1,
            None => return Draft::opaque(),
        }
    }
    // PostgreSQL takes STDIN and STDOUT for each other.
    let client = st.any(behind + 1, &["stdin", "stdout"]);
    let mut draft = if st.is(behind, "from") {
        let writes = writes.with(Flags::DEFAULTS);
        Draft::new(Kind::Dml, if client { writes.with(Flags::COPY_IN) } else { writes })
    } else if st.is(behind, "to") && !client {
        Draft::new(Kind::Utility, writes)
    } else if st.is(behind, "to") && is_query {
        let inner = st.to(behind - 1).from(start + 1);
        let inner = if st.name(start + 1).is_some_and(|word| is_query_word(&word)) || st.mark(start + 1, b'(') {
            query(inner).flags
        } else {
            writes
        };
        Draft::new(Kind::CopyOut, inner).parse(start + 1, behind - 1)
    } else if st.is(behind, "to") {
        Draft::new(Kind::CopyOut, Flags::READ)
    } else {
        return Draft::opaque();
    };
    for name in relation.relations {
        if is_system(&name) {
            draft.flags = draft.flags.with(Flags::PRIMARY_ONLY);
        }
        draft.relation(name);
    }
    draft
}

fn is_query_word(word: &str) -> bool {
    matches!(word, "select" | "with" | "values" | "table")
}

/// EXPLAIN runs nothing unless it has ANALYZE; then it is what it explains, on the primary.
fn explain(st: Statement<'_>) -> Draft {
    const ANALYZE: &[&str] = &["analyze", "analyse"];
    let (from, run) = match st.partner(1).filter(|_| st.mark(1, b'(') && !explains_query_in_parentheses(st)) {
        Some(close) => (close + 1, st.to(close).has_any(ANALYZE)),
        None => {
            let run = st.any(1, ANALYZE);
            let at = 1 + usize::from(run);
            (at + usize::from(st.is(at, "verbose")), run)
        }
    };
    let inner = st.from(from);
    let word = inner.name(0).unwrap_or_default();
    if is_query_word(&word) || inner.mark(0, b'(') {
        let asked = query(inner);
        let flags = if run { asked.flags.with(Flags::PRIMARY_ONLY) } else { asked.flags };
        let kind = if run { asked.kind } else { Kind::Explain };
        return Draft::new(kind, flags).parse(from, st.len());
    }
    match &*word {
        "insert" | "update" | "delete" | "merge" if run => {
            Draft::new(Kind::Dml, Flags::WRITES.with(Flags::LOCKS_OR_WRITES)).parse(from, st.len())
        }
        // EXECUTE, DECLARE, CREATE TABLE AS, REFRESH: rare, and their text is elsewhere or creates something.
        _ if run => Draft::new(Kind::Utility, Flags::WRITES.with(Flags::OPAQUE)),
        _ => Draft::new(Kind::Explain, Flags::PRIMARY_ONLY).parse(from, st.len()),
    }
}

/// `EXPLAIN (SELECT …)`: the parenthesis holds a query, not options.
fn explains_query_in_parentheses(st: Statement<'_>) -> bool {
    st.mark(2, b'(') || st.any(2, &["select", "with", "values", "table"])
}
