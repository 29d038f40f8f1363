//! The part of a decision that may be kept: what facts, catalog and policy say together. Must not look at sessions or
//! servers.

use super::catalog::{Catalog, Function, Reading};
use super::{Policy, Reason};
use crate::sql::{Effect, Facts, Flags, Kind, Name};

/// Where a statement could run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// On any server.
    Anywhere,
    /// On any server outside of a transaction block; inside on the primary, because the block's start counts (SESSIONS R12).
    AnywhereOutsideBlock,
    /// On the primary.
    Primary,
}

/// What a statement may leave in its session that its text does not show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Traces {
    /// Nothing.
    None,
    /// A value taken from a sequence, which `currval` and `lastval` then answer (SESSIONS R4).
    Sequence,
    /// Anything: probe after its transaction (SESSIONS R1).
    Opaque,
}

/// What may be kept of a decision, for as long as facts, catalog and policy are the same (SESSIONS R9).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Where it could run.
    pub class: Class,
    /// [`Reason::Read`], or why it is for the primary.
    pub reason: Reason,
    /// What it may leave in its session.
    pub traces: Traces,
    /// It names something that is not known: the catalog should be read again soon.
    pub needs_catalog: bool,
}

/// Judges a text. `catalog` is what is known of its database, if anything.
pub fn verdict(facts: &Facts, catalog: Option<&Catalog>, policy: &Policy) -> Verdict {
    let place = place(facts, catalog, policy);
    let unknown = matches!(place, Err(Reason::NoCatalog | Reason::UnknownFunction | Reason::UnknownRelation));
    let class = match place {
        Err(_) => Class::Primary,
        Ok(()) if facts.flags.has(Flags::NOW_LIKE) || catalog.is_some_and(|catalog| catalog.tells_time(facts)) => {
            Class::AnywhereOutsideBlock
        }
        Ok(()) => Class::Anywhere,
    };
    let (opaque, uncertain) = opaque(facts, catalog);
    let traces = match (opaque, takes(facts, catalog)) {
        (true, _) => Traces::Opaque,
        (false, true) => Traces::Sequence,
        (false, false) => Traces::None,
    };
    Verdict { class, reason: place.err().unwrap_or(Reason::Read), traces, needs_catalog: unknown || uncertain }
}

/// May it leave the primary? If not, why.
fn place(facts: &Facts, catalog: Option<&Catalog>, policy: &Policy) -> Result<(), Reason> {
    if facts.kind == Kind::Empty {
        return Ok(());
    }
    by_text(facts)?;
    if !policy.load_balance {
        return Err(Reason::LoadBalanceOff);
    }
    if facts.flags.has(Flags::NO_LOAD_BALANCE) {
        return Err(Reason::Hint);
    }
    if facts.flags.has(Flags::PRIMARY_ONLY) {
        return Err(Reason::PrimaryOnly);
    }
    if facts.flags.has(Flags::OPAQUE) && !facts.flags.has(Flags::OPAQUE_BY_NAME) {
        return Err(Reason::Opaque);
    }
    facts.builtins.iter().try_for_each(|name| builtin(name, catalog, policy))?;
    facts.functions.iter().try_for_each(|name| function(name, catalog, policy))?;
    facts.relations.iter().try_for_each(|name| relation(name, catalog))?;
    if catalog.is_some_and(|catalog| catalog.calls_by_attribute(&facts.attributes)) {
        return Err(Reason::VolatileFunction);
    }
    Ok(())
}

/// What the text alone forbids.
fn by_text(facts: &Facts) -> Result<(), Reason> {
    if facts.may_read() {
        return Ok(());
    }
    Err(match facts.kind {
        Kind::Several => Reason::Several,
        Kind::Admin => Reason::Admin,
        Kind::Opaque => Reason::Opaque,
        Kind::Transaction => Reason::Transaction,
        _ if facts.effects.iter().any(|effect| matches!(effect, Effect::Lock)) => Reason::Lock,
        Kind::Session => Reason::Session,
        Kind::Select if !facts.effects.is_empty() => Reason::Session,
        Kind::Select if facts.flags.has(Flags::LOCKS_OR_WRITES) => Reason::Lock,
        Kind::Utility | Kind::Explain => Reason::Utility,
        Kind::Empty | Kind::Select | Kind::CopyOut | Kind::Dml => Reason::Write,
    })
}

/// A function that PostgreSQL brings along and that is safe by itself; the database may have one of the same name.
fn builtin(name: &str, catalog: Option<&Catalog>, policy: &Policy) -> Result<(), Reason> {
    if policy.writes("", name) {
        return Err(Reason::WriteFunction);
    }
    match catalog.ok_or(Reason::NoCatalog)?.function(name) {
        None | Some(Function::Reads | Function::Compiled) => Ok(()),
        Some(_) if policy.reads("", name) => Ok(()),
        Some(_) => Err(Reason::ShadowedFunction),
    }
}

/// A function of the database. The lists go before the catalog.
fn function(name: &Name, catalog: Option<&Catalog>, policy: &Policy) -> Result<(), Reason> {
    if policy.writes(&name.schema, &name.name) {
        return Err(Reason::WriteFunction);
    }
    if policy.reads(&name.schema, &name.name) {
        return Ok(());
    }
    match catalog.ok_or(Reason::NoCatalog)?.function(&name.name) {
        Some(Function::Reads) => Ok(()),
        Some(Function::Compiled | Function::Unsure | Function::Writes) => Err(Reason::VolatileFunction),
        None => Err(Reason::UnknownFunction),
    }
}

fn relation(name: &Name, catalog: Option<&Catalog>) -> Result<(), Reason> {
    let relation = catalog.ok_or(Reason::NoCatalog)?.relation(&name.name).ok_or(Reason::UnknownRelation)?;
    match relation.reading {
        Reading::Anywhere => Ok(()),
        Reading::Unlogged => Err(Reason::Unlogged),
        Reading::Foreign => Err(Reason::Foreign),
        Reading::Sequence => Err(Reason::Sequence),
        Reading::RowSecurity => Err(Reason::RowSecurity),
        Reading::View => Err(Reason::View),
    }
}

/// May it change the session unseen (SESSIONS R1), and is that only for want of knowledge?
fn opaque(facts: &Facts, catalog: Option<&Catalog>) -> (bool, bool) {
    if facts.flags.has(Flags::OPAQUE) && !facts.flags.has(Flags::OPAQUE_BY_NAME) {
        return (true, false);
    }
    let writes_rows = facts.flags.has(Flags::WRITES) && !facts.relations.is_empty();
    let Some(catalog) = catalog else {
        let needed = !facts.functions.is_empty() || writes_rows || facts.relations.iter().any(of_users);
        return (needed, needed);
    };
    let unread = |name: &Name| catalog.function(&name.name) != Some(Function::Reads);
    let shadow = |name: &&str| matches!(catalog.function(name), Some(Function::Unsure | Function::Writes));
    let calls = facts.functions.iter().any(unread) || facts.builtins.iter().any(shadow);
    let hidden = |name: &Name| catalog.relation(&name.name).is_none_or(|relation| relation.active);
    let fires = writes_rows && facts.relations.iter().any(hidden);
    // A read through a view runs the view's functions, and through row security its policies'; what is not known yet may be a view.
    let looks = |name: &Name| match catalog.relation(&name.name) {
        None => of_users(name),
        Some(relation) => match relation.reading {
            Reading::View => true,
            Reading::RowSecurity => relation.active,
            _ => false,
        },
    };
    let opens = facts.relations.iter().any(looks);
    let unknown = facts.functions.iter().any(|name| catalog.function(&name.name).is_none())
        || facts.relations.iter().any(|name| (writes_rows || of_users(name)) && catalog.relation(&name.name).is_none());
    (calls || fires || opens || catalog.calls_by_attribute(&facts.attributes), unknown)
}

/// May it take a value from a sequence, by what its text and the defaults of its relations say?
fn takes(facts: &Facts, catalog: Option<&Catalog>) -> bool {
    let elsewhere = |effect: &Effect| matches!(effect, Effect::Execute { .. });
    let serial = |name: &Name| catalog.and_then(|known| known.relation(&name.name)).is_none_or(|it| it.serial);
    facts.flags.any(Flags::SEQUENCE_WRITE.with(Flags::DDL))
        || (facts.kind == Kind::Utility && facts.flags.has(Flags::WRITES))
        || facts.effects.iter().any(elsewhere)
        || (facts.flags.has(Flags::DEFAULTS) && facts.relations.iter().any(serial))
}

/// Not one of the relations that PostgreSQL brings along, which no catalog lists and whose views are harmless.
fn of_users(name: &Name) -> bool {
    !name.name.starts_with("pg_") && &*name.schema != "information_schema"
}
