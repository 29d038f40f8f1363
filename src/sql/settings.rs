//! SET, RESET, SHOW, DISCARD and `set_config`, read by tokens alone, and the commands that the proxy answers itself. Must
//! not keep values: who carries settings asks the server for them or keeps the text.

use super::draft::Draft;
use super::lexer::Token;
use super::statement::Statement;
use super::{Effect, Flags, Kind, control};

/// Reads a command whose first word is `first` (lower case). `None`: not one of these.
pub(super) fn read(st: Statement<'_>, first: &str) -> Option<Draft> {
    Some(match first {
        "set" => set(st),
        "reset" => reset(st),
        "show" if is_admin(st) => admin(st),
        "pgpool" => admin(st),
        "show" => Draft::command(Kind::Session, show(st)),
        "discard" => discard(st),
        _ => return None,
    })
}

/// Parameters whose change alters how the next text is to be read.
fn changes_lexing(name: &str) -> Flags {
    match name {
        "client_encoding" | "standard_conforming_strings" => Flags::CHANGES_LEXING,
        // A parameter in name only: it calls setseed().
        "seed" => Flags::SETSEED,
        _ => Flags::NONE,
    }
}

/// Parameters that belong to the transaction, not to the session.
fn of_transaction(name: &str) -> bool {
    matches!(name, "transaction_isolation" | "transaction_read_only" | "transaction_deferrable")
}

/// What a SET does, once its form is known.
fn set_effect(name: Box<str>, local: bool, default: bool) -> Effect {
    if of_transaction(&name) || (local && !default) {
        Effect::SetLocal
    } else if local {
        Effect::ResetLocal { name }
    } else if default {
        Effect::Reset { name }
    } else {
        Effect::Set { name }
    }
}

fn set(st: Statement<'_>) -> Draft {
    let session = Draft::command(Kind::Session, None);
    let local = st.is(1, "local");
    // SESSION is a qualifier unless it begins SESSION AUTHORIZATION or SESSION CHARACTERISTICS.
    let qualified =
        local || (st.is(1, "session") && !st.any(2, &["authorization", "characteristics", "to"]) && !st.mark(2, b'='));
    let at = 1 + usize::from(qualified);
    if st.all(at, &["session", "characteristics", "as", "transaction"]) {
        return session.effect(characteristics(st, at + 4).unwrap_or_default());
    }
    if st.is(at, "transaction") && !st.is(at + 1, "to") && !st.mark(at + 1, b'=') {
        let snapshot = st.is(at + 1, "snapshot") && st.len() == at + 3;
        let valid = snapshot || (!st.ends(at + 1) && control::modes(st, at + 1).is_some());
        return Draft::command(Kind::Transaction, valid.then_some(Effect::SetLocal));
    }
    if st.is(at, "constraints") && !st.is(at + 1, "to") && !st.mark(at + 1, b'=') {
        return Draft::command(Kind::Transaction, Some(Effect::SetLocal));
    }
    let Some((name, default)) = assignment(st, at) else { return session };
    let mut flags = changes_lexing(&name);
    if flags.has(Flags::SETSEED) {
        // Its value can be neither asked for nor set again.
        return session.with(flags);
    }
    if &*name == "search_path" && st.from(at).names_temporary() {
        flags = flags.with(Flags::OPAQUE);
    }
    session.effect([set_effect(name, local, default)]).with(flags)
}

/// The parameter that `SET …` from `at` on assigns, and whether to its default. `None`: not a form that PostgreSQL accepts.
fn assignment(st: Statement<'_>, at: usize) -> Option<(Box<str>, bool)> {
    let last = |at: usize| !st.ends(at) && st.ends(at + 1);
    if st.all(at, &["time", "zone"]) && !st.ends(at + 2) {
        return Some(("timezone".into(), last(at + 2) && st.any(at + 2, &["local", "default"])));
    }
    if st.is(at, "names") && !st.is(at + 1, "to") && !st.mark(at + 1, b'=') {
        let default = st.ends(at + 1) || st.is(at + 1, "default");
        return (default || last(at + 1)).then(|| ("client_encoding".into(), default));
    }
    if st.is(at, "role") && last(at + 1) {
        return Some(("role".into(), false));
    }
    if st.all(at, &["session", "authorization"]) && last(at + 2) {
        return Some(("session_authorization".into(), st.is(at + 2, "default")));
    }
    if st.is(at, "schema") && last(at + 1) && st.token(at + 1).is_some_and(Token::is_literal) {
        return Some(("search_path".into(), false));
    }
    if st.all(at, &["xml", "option"]) && last(at + 2) && st.any(at + 2, &["document", "content"]) {
        return Some(("xmloption".into(), false));
    }
    let (name, behind) = parameter(st, at)?;
    let assigns = st.is(behind, "to") || st.mark(behind, b'=');
    (assigns && !st.ends(behind + 1)).then(|| (name, last(behind + 1) && st.is(behind + 1, "default")))
}

/// A parameter's name, dotted or not, lower case, and the position behind it.
fn parameter(st: Statement<'_>, at: usize) -> Option<(Box<str>, usize)> {
    let mut name = st.name(at)?.to_ascii_lowercase();
    let mut behind = at + 1;
    while st.mark(behind, b'.') {
        name.push('.');
        name.push_str(&st.name(behind + 1)?.to_ascii_lowercase());
        behind += 2;
    }
    Some((name.into_boxed_str(), behind))
}

/// `SET SESSION CHARACTERISTICS AS TRANSACTION modes`: one parameter for each mode.
fn characteristics(st: Statement<'_>, at: usize) -> Option<Vec<Effect>> {
    let modes = control::modes(st, at)?;
    let named = [
        (modes.isolation.is_some(), "default_transaction_isolation"),
        (modes.read_only.is_some(), "default_transaction_read_only"),
        (modes.deferrable.is_some(), "default_transaction_deferrable"),
    ];
    Some(named.into_iter().filter(|(is, _)| *is).map(|(_, name)| Effect::Set { name: name.into() }).collect())
}

fn reset(st: Statement<'_>) -> Draft {
    let session = Draft::command(Kind::Session, None);
    if st.is(1, "all") && st.len() == 2 {
        return session.effect([Effect::ResetAll]).with(Flags::CHANGES_LEXING);
    }
    match special_name(st).or_else(|| parameter(st, 1)) {
        Some((name, behind)) if st.ends(behind) => {
            let flags = changes_lexing(&name);
            session.effect([set_effect(name, false, true)]).with(flags)
        }
        _ => session,
    }
}

/// The names of several words that RESET and SHOW know.
fn special_name(st: Statement<'_>) -> Option<(Box<str>, usize)> {
    if st.all(1, &["time", "zone"]) {
        Some(("timezone".into(), 3))
    } else if st.all(1, &["transaction", "isolation", "level"]) {
        Some(("transaction_isolation".into(), 4))
    } else if st.all(1, &["session", "authorization"]) {
        Some(("session_authorization".into(), 3))
    } else {
        None
    }
}

fn show(st: Statement<'_>) -> Option<Effect> {
    let (name, behind) = special_name(st).or_else(|| parameter(st, 1))?;
    st.ends(behind).then_some(Effect::Show { name })
}

/// `SHOW POOL_…`, a single word without quotes.
fn is_admin(st: Statement<'_>) -> bool {
    let name = st.bytes(1);
    st.token(1) == Some(Token::Word) && name.len() > 5 && name[..5].eq_ignore_ascii_case(b"pool_") && !st.mark(2, b'.')
}

/// The words of a command for the proxy: identifiers folded, literals without their quotes, the rest as it is.
fn admin(st: Statement<'_>) -> Draft {
    let word = |at: usize| {
        st.name(at)
            .or_else(|| st.literal(at).map(String::into_boxed_str))
            .unwrap_or_else(|| String::from_utf8_lossy(st.bytes(at)).into())
    };
    let words = (0..st.len()).map(word).collect();
    Draft::command(Kind::Admin, Some(Effect::Admin { words }))
}

fn discard(st: Statement<'_>) -> Draft {
    let session = Draft::command(Kind::Session, None).with(Flags::MAY_UNPIN);
    if st.len() != 2 {
        return session;
    }
    if st.is(1, "all") {
        return session.effect([Effect::DiscardAll]).with(Flags::NO_BLOCK.with(Flags::CHANGES_LEXING));
    }
    let known = st.any(1, &["plans", "sequences", "temp", "temporary"]);
    session.effect(known.then_some(Effect::Discard))
}

/// What one call of `set_config` does, its opening parenthesis at `open`. `None`: not with literal arguments alone, so that the
/// text does not show it.
pub(super) fn set_config(st: Statement<'_>, open: usize) -> Option<(Effect, Flags)> {
    let close = st.partner(open)?;
    let local = [("true", true), ("false", false)].into_iter().find(|(word, _)| st.is(close - 1, word))?.1;
    if !st.mark(close - 2, b',') {
        return None;
    }
    if local {
        let name = st.literal(open + 1).filter(|_| st.mark(open + 2, b','));
        let flags = name.map_or(Flags::CHANGES_LEXING, |name| changes_lexing(&name.to_ascii_lowercase()));
        return Some((Effect::SetLocal, flags));
    }
    let literal = close == open + 6 && st.mark(open + 2, b',');
    st.literal(open + 3).filter(|_| literal)?;
    let name = st.literal(open + 1)?.to_ascii_lowercase().into_boxed_str();
    let flags = changes_lexing(&name);
    Some((set_effect(name, false, false), flags))
}

impl Statement<'_> {
    /// Does any name or literal begin with `pg_temp`?
    pub(super) fn names_temporary(self) -> bool {
        (0..self.len()).any(|at| {
            let value = self.name_or_literal(at);
            value.is_some_and(|name| name.to_ascii_lowercase().contains("pg_temp"))
        })
    }
}
