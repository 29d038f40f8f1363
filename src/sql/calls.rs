//! Finds what a statement calls and touches, by tokens: every name before a parenthesis is a call unless it is known not to
//! be one. The parser's view is taken in, never trusted alone. Must not decide where a statement goes.

use super::builtins::{self, Builtin};
use super::draft::Draft;
use super::facts::name_hash;
use super::fingerprint::is_now;
use super::lexer::Token;
use super::parse::Parsed;
use super::statement::Statement;
use super::{Effect, Flags, Name, settings};

/// PostgreSQL's reserved and column-name key words: without quotes they are never a function's name. What they call is built
/// in and harmless, but for those of [`special_word`]. Sorted.
#[rustfmt::skip]
const NEVER: &[&str] = &[
    "all", "analyse", "analyze", "and", "any", "array", "as", "asc", "asymmetric", "between", "bigint", "bit",
    "boolean", "both", "case", "cast", "char", "character", "check", "coalesce", "collate", "column", "constraint",
    "create", "current_catalog", "current_date", "current_role", "current_time", "current_timestamp", "current_user",
    "dec", "decimal", "default", "deferrable", "desc", "distinct", "do", "else", "end", "except", "exists", "extract",
    "false", "fetch", "float", "for", "foreign", "from", "grant", "greatest", "group", "grouping", "having", "in",
    "initially", "inout", "int", "integer", "intersect", "interval", "into", "lateral", "leading", "least", "limit",
    "localtime", "localtimestamp", "national", "nchar", "none", "normalize", "not", "null", "nullif", "numeric",
    "offset", "on", "only", "or", "order", "out", "overlay", "placing", "position", "precision", "primary", "real",
    "references", "returning", "row", "select", "session_user", "setof", "smallint", "some", "substring", "symmetric",
    "table", "then", "time", "timestamp", "to", "trailing", "treat", "trim", "true", "union", "unique", "user",
    "using", "values", "varchar", "variadic", "when", "where", "window", "with", "xmlattributes", "xmlconcat",
    "xmlelement", "xmlexists", "xmlforest", "xmlnamespaces", "xmlparse", "xmlpi", "xmlroot", "xmlserialize",
    "xmltable",
];

/// Other key words that the grammar has before a parenthesis. Functions may have these names too; then it is the parser who
/// sees them. Sorted.
#[rustfmt::skip]
const BESIDES: &[&str] = &[
    "by", "columns", "conflict", "cross", "cube", "escape", "filter", "freeze", "full", "groups", "ilike", "inner",
    "insert", "is", "isnull", "join", "key", "materialized", "merge_action", "natural", "notnull", "operator",
    "outer", "over", "passing", "range", "recursive", "rollup", "rows", "second", "set", "sets", "similar", "varying",
    "within", "zone",
];

/// Adds calls, attributes and special words of `st` to `draft`; `parsed` explains names that are no calls.
pub(super) fn collect(st: Statement<'_>, parsed: Option<&Parsed>, draft: &mut Draft) {
    for at in 0..st.len() {
        match st.token(at) {
            Some(Token::Word | Token::Quoted) => name(st, at, parsed, draft),
            Some(Token::UnicodeQuoted) => draft.flags = draft.flags.with(Flags::OPAQUE),
            Some(Token::Text | Token::EscapeText | Token::DollarText) if is_now(st.bytes(at)) => {
                draft.flags = draft.flags.with(Flags::NOW_LIKE);
            }
            _ => {}
        }
    }
    for called in parsed.iter().flat_map(|parsed| &parsed.functions) {
        call(called.clone(), draft);
    }
    if !draft.functions.is_empty() {
        let already = draft.flags.has(Flags::OPAQUE) && !draft.flags.has(Flags::OPAQUE_BY_NAME);
        draft.flags = draft.flags.with(Flags::OPAQUE);
        if !already {
            draft.flags = draft.flags.with(Flags::OPAQUE_BY_NAME);
        }
    }
}

/// Can the word, without quotes, not be the name of a function?
pub(super) fn is_never_function(word: &str) -> bool {
    NEVER.binary_search(&word).is_ok()
}

/// Looks at the identifier or word at `at`.
fn name(st: Statement<'_>, at: usize, parsed: Option<&Parsed>, draft: &mut Draft) {
    let Some(name) = st.name(at) else { return };
    let dotted = at > 0 && st.mark(at - 1, b'.');
    if name.starts_with("pg_") && &*name != "pg_catalog" && !st.mark(at + 1, b'(') || &*name == "information_schema" {
        draft.flags = draft.flags.with(Flags::PRIMARY_ONLY);
    }
    if st.mark(at + 1, b'(') {
        if is_call(st, at, &name, parsed) {
            let schema = if dotted { at.checked_sub(2).and_then(|at| st.name(at)) } else { None };
            if &*name == "set_config" {
                call_set_config(st, at + 1, draft);
            }
            call(Name { schema: schema.unwrap_or_default(), name }, draft);
        } else if !dotted && st.token(at) == Some(Token::Word) {
            // CURRENT_TIMESTAMP(3): a precision.
            draft.flags = draft.flags.with(special_word(&name));
        }
    } else if dotted {
        if let Some(builtin) = builtins::lookup_attribute(&name) {
            draft.flags = draft.flags.with(builtin.flags);
        }
        draft.attributes.push(name_hash(&name));
    } else if st.token(at) == Some(Token::Word) {
        draft.flags = draft.flags.with(special_word(&name));
    }
}

/// Words that are calls without parentheses.
fn special_word(word: &str) -> Flags {
    match word {
        "current_user" | "current_role" | "session_user" | "system_user" | "user" | "current_schema"
        | "current_catalog" => Flags::PRIMARY_ONLY,
        "current_date" | "current_time" | "current_timestamp" | "localtime" | "localtimestamp" => Flags::NOW_LIKE,
        _ => Flags::NONE,
    }
}

/// Is the name at `at`, before a parenthesis, a call?
fn is_call(st: Statement<'_>, at: usize, name: &str, parsed: Option<&Parsed>) -> bool {
    let mut first = at;
    while first >= 2 && st.mark(first - 1, b'.') {
        first -= 2;
    }
    if first == at
        && st.token(at) == Some(Token::Word)
        && (is_never_function(name) || BESIDES.binary_search(&name).is_ok())
    {
        return false;
    }
    if let Some(before) = first.checked_sub(1) {
        // Behind these stand a type, an alias with columns, or the target of an INSERT, never a call.
        if st.bytes(before) == b"::" || st.any(before, &["as", "into", "recursive", "with"]) {
            return false;
        }
    }
    match parsed {
        Some(parsed) => !parsed.explains(name),
        None => true,
    }
}

/// One call of a function.
fn call(name: Name, draft: &mut Draft) {
    let plain = name.schema.is_empty();
    match builtins::lookup(&name.name) {
        Some(Builtin { name, flags }) if plain => {
            draft.flags = draft.flags.with(flags);
            if !draft.builtins.contains(&name) {
                draft.builtins.push(name);
            }
        }
        Some(Builtin { flags, .. }) if &*name.schema == "pg_catalog" => draft.flags = draft.flags.with(flags),
        _ => draft.function(name),
    }
}

/// A call of `set_config`: an effect if the text shows all of it and it is certain to run, else opaque.
fn call_set_config(st: Statement<'_>, open: usize, draft: &mut Draft) {
    const UNSURE: &[&str] =
        &["from", "where", "case", "having", "union", "limit", "offset", "and", "or", "exists", "coalesce"];
    match settings::set_config(st, open) {
        Some((Effect::SetLocal, flags)) => {
            draft.flags = draft.flags.with(flags);
            draft.effects.push(Effect::SetLocal);
        }
        Some((effect, flags)) if st.is(0, "select") && !st.has_any(UNSURE) => {
            draft.flags = draft.flags.with(flags);
            draft.effects.push(effect);
        }
        _ => draft.flags = draft.flags.with(Flags::OPAQUE.with(Flags::CHANGES_LEXING)),
    }
}

/// Adds the relations that DML words name as their targets, wherever they stand.
pub(super) fn targets(st: Statement<'_>, draft: &mut Draft) {
    for at in 0..st.len() {
        let behind = if st.any(at, &["insert", "merge"]) && st.is(at + 1, "into") || st.all(at, &["delete", "from"]) {
            at + 2
        } else if st.is(at, "update") && !st.is(at + 1, "set") && !(at > 0 && st.any(at - 1, &["for", "key", "on"])) {
            at + 1
        } else {
            continue;
        };
        relation(st, behind, draft);
    }
}

/// Adds the relation named at `at` (behind an optional ONLY); returns the position behind the name.
pub(super) fn relation(st: Statement<'_>, at: usize, draft: &mut Draft) -> usize {
    let mut at = at + usize::from(st.is(at, "only"));
    let Some(mut name) = st.name(at) else { return at };
    let mut schema = Box::default();
    while st.mark(at + 1, b'.') {
        let Some(next) = st.name(at + 2) else { break };
        schema = std::mem::replace(&mut name, next);
        at += 2;
    }
    draft.relation(Name { schema, name });
    at + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_are_no_functions_are_sorted() {
        for words in [NEVER, BESIDES] {
            assert!(words.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
