//! Rows to knowledge. A function or view is safe if all that it names is; whatever names something unsafe is found out round
//! by round, until a round changes nothing. Must not fail: what it does not understand is unsafe.

use rustc_hash::FxHashMap;

use super::{Catalog, Function, Reading, Relation, Row};
use crate::sql::{Facts, Flags, LexMode, analyze_each, name_hash};

/// A body that reads, if all that it names does.
struct Pending {
    name: Box<str>,
    bodies: Vec<Facts>,
}

pub(super) fn build(generation: u64, functions: &[Row], relations: &[Row]) -> Catalog {
    let mut catalog = Catalog { generation, ..Catalog::default() };
    let mut pending_functions = Vec::new();
    let mut pending_views = Vec::new();
    for row in functions {
        add_function(row, &mut catalog, &mut pending_functions);
    }
    for row in relations {
        add_relation(row, &mut catalog, &mut pending_views);
    }
    settle(&mut catalog, pending_functions, pending_views);
    let attribute = |row: &&Row| flag(row, 7);
    for row in functions.iter().filter(attribute) {
        if let Some(name) = text(row, 1)
            && catalog.function(name) > Some(Function::Compiled)
        {
            catalog.attributes.insert(name_hash(name));
        }
    }
    catalog
}

fn text(row: &Row, column: usize) -> Option<&str> {
    row.get(column)?.as_deref()
}

fn flag(row: &Row, column: usize) -> bool {
    text(row, column) == Some("t")
}

/// Enters a function with the worst of its name.
fn add_function(row: &Row, catalog: &mut Catalog, pending: &mut Vec<Pending>) {
    let (Some(name), Some(volatility), Some(language), Some(kind)) =
        (text(row, 1), text(row, 2), text(row, 3), text(row, 4))
    else {
        return;
    };
    let aggregate = kind == "a";
    let function = if kind == "p" || volatility == "v" {
        Function::Writes
    } else if aggregate {
        if flag(row, 8) { Function::Reads } else { Function::Unsure }
    } else if language == "sql" {
        match reads(&body(row)) {
            Some(bodies) => {
                pending.push(Pending { name: name.into(), bodies });
                Function::Reads
            }
            None => Function::Unsure,
        }
    } else if matches!(language, "c" | "internal") {
        Function::Compiled
    } else {
        Function::Unsure
    };
    let entry = catalog.functions.entry(name.into()).or_insert(function);
    *entry = function.max(*entry);
}

/// The statements of an SQL function, from either of its two forms.
fn body(row: &Row) -> String {
    let standard = text(row, 6).filter(|body| !body.trim().is_empty());
    let Some(body) = standard else { return text(row, 5).unwrap_or_default().to_owned() };
    let body = body.trim();
    if let Some(expression) = body.strip_prefix("RETURN ") {
        return format!("SELECT {expression}");
    }
    let inside = body.strip_prefix("BEGIN ATOMIC").and_then(|rest| rest.strip_suffix("END"));
    inside.unwrap_or(body).to_owned()
}

/// The facts of a body's statements, if every one of them is a read.
fn reads(body: &str) -> Option<Vec<Facts>> {
    const FORBIDDEN: Flags = Flags::PRIMARY_ONLY.with(Flags::WRITES);
    let all = analyze_each(body.as_bytes(), LexMode::default())?;
    let opaque = |facts: &Facts| facts.flags.has(Flags::OPAQUE) && !facts.flags.has(Flags::OPAQUE_BY_NAME);
    let read = |facts: &Facts| facts.may_read() && !facts.flags.any(FORBIDDEN) && !opaque(facts);
    all.iter().all(read).then_some(all)
}

/// Enters a relation with the worst of its name.
fn add_relation(row: &Row, catalog: &mut Catalog, pending: &mut Vec<Pending>) {
    let (Some(name), Some(kind)) = (text(row, 1), text(row, 2)) else { return };
    let reading = match (kind, text(row, 4)) {
        ("S", _) => Reading::Sequence,
        ("v", _) => match text(row, 6).and_then(reads) {
            Some(bodies) => {
                pending.push(Pending { name: name.into(), bodies });
                Reading::Anywhere
            }
            None => Reading::View,
        },
        (_, Some("u")) => Reading::Unlogged,
        (_, Some("f")) => Reading::Foreign,
        _ if flag(row, 3) => Reading::RowSecurity,
        _ => Reading::Anywhere,
    };
    let relation = Relation { reading, active: flag(row, 5), serial: flag(row, 7) };
    let entry = catalog.relations.entry(name.into()).or_insert(relation);
    entry.reading = entry.reading.max(relation.reading);
    entry.active |= relation.active;
    entry.serial |= relation.serial;
}

/// Takes back what rests on something unsafe. Each round but the last settles at least one body, so it ends.
fn settle(catalog: &mut Catalog, mut functions: Vec<Pending>, mut views: Vec<Pending>) {
    loop {
        let before = functions.len() + views.len();
        let attributes = unsafe_attributes(catalog);
        let (good, bad): (Vec<_>, Vec<_>) = functions.into_iter().partition(|body| safe(body, catalog, &attributes));
        functions = good;
        bad.into_iter().for_each(|body| worsen(&mut catalog.functions, body.name, Function::Unsure));
        let (good, bad): (Vec<_>, Vec<_>) = views.into_iter().partition(|body| safe(body, catalog, &attributes));
        views = good;
        for body in bad {
            if let Some(relation) = catalog.relations.get_mut(&body.name) {
                relation.reading = relation.reading.max(Reading::View);
            }
        }
        if functions.len() + views.len() == before {
            return find_clocks(catalog, [functions, views]);
        }
    }
}

/// Enters what asks for the time of the block, by itself or through what it names. Each round but the last enters something.
fn find_clocks(catalog: &mut Catalog, bodies: [Vec<Pending>; 2]) {
    loop {
        let mut found = false;
        for (kind, bodies) in bodies.iter().enumerate() {
            for body in bodies {
                found |= asks_time(body, catalog) && catalog.clocks[kind].insert(body.name.clone());
            }
        }
        if !found {
            return;
        }
    }
}

fn asks_time(body: &Pending, catalog: &Catalog) -> bool {
    body.bodies.iter().any(|facts| facts.flags.has(Flags::NOW_LIKE) || catalog.tells_time(facts))
}

fn worsen(functions: &mut FxHashMap<Box<str>, Function>, name: Box<str>, function: Function) {
    let entry = functions.entry(name).or_insert(function);
    *entry = function.max(*entry);
}

/// Names that behind a point may call a function that does more than read; of any number of arguments, to be sure.
fn unsafe_attributes(catalog: &Catalog) -> Vec<u32> {
    let bad = catalog.functions.iter().filter(|(_, function)| **function > Function::Compiled);
    bad.map(|(name, _)| name_hash(name)).collect()
}

/// Is all that the body names safe, as far as is known?
fn safe(body: &Pending, catalog: &Catalog, attributes: &[u32]) -> bool {
    body.bodies.iter().all(|facts| {
        facts.functions.iter().all(|name| catalog.function(&name.name) == Some(Function::Reads))
            && facts.builtins.iter().all(|name| catalog.function(name).is_none_or(|it| it <= Function::Compiled))
            && facts
                .relations
                .iter()
                .all(|name| catalog.relation(&name.name).is_some_and(|relation| relation.reading == Reading::Anywhere))
            && facts.attributes.iter().all(|hash| !attributes.contains(hash))
    })
}
