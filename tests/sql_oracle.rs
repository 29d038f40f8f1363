//! The classifier against PostgreSQL's own grammar, over the regression scripts and our golden files. Needs the feature
//! `oracle` (and libclang with its headers to build it: `libclang-dev`).
#![cfg(feature = "oracle")]

mod sql_corpus;

use std::path::PathBuf;

use pg_query::NodeEnum;
use pg_query::protobuf::{TransactionStmtKind as Transaction, VariableSetKind};
use pgherd::sql::{Effect, Facts, Kind, LexMode, Name, analyze};

/// Statement types that a read may consist of.
const READS: &[&str] = &["SelectStmt", "CopyStmt", "ExplainStmt"];

fn texts() -> Vec<String> {
    let mut texts: Vec<String> = sql_corpus::scripts().into_iter().flat_map(|script| script.statements).collect();
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/sql");
    for entry in std::fs::read_dir(folder).expect("the golden files are there") {
        let path = entry.expect("the folder can be read").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.ends_with(".txt") && !name.contains("escapes") && !name.contains("client_only") {
            let golden = std::fs::read_to_string(path).expect("it can be read");
            let cases = golden.split("\n\n").skip(1);
            texts.extend(cases.map(|case| case.split("\n----").next().unwrap_or_default().to_owned()));
        }
    }
    texts
}

fn known(facts: &Facts, name: &str) -> bool {
    facts.functions.iter().any(|function| &*function.name == name) || facts.builtins.contains(&name)
}

/// What is wrong with calling this text a read, if anything.
fn wrong_read(text: &str, facts: &Facts) -> Option<String> {
    let summary = pg_query::summary(text, 0, -1).ok()?;
    if let Some(bad) = summary.statement_types.iter().find(|kind| !READS.contains(&kind.as_str())) {
        return Some(format!("holds a {bad}"));
    }
    if !summary.dml_tables().is_empty() || !summary.ddl_tables().is_empty() {
        return Some("writes a table".to_owned());
    }
    for function in &summary.functions {
        // The grammar's own calls (EXTRACT, OVERLAY, …) come qualified; they are in the allow list's reach or harmless.
        let schema = function.schema_name.as_deref().unwrap_or_default();
        if schema.is_empty() && !known(facts, &function.function_name) {
            return Some(format!("calls {}", function.function_name));
        }
        if !schema.is_empty() && schema != "pg_catalog" && !known(facts, &function.function_name) {
            return Some(format!("calls {schema}.{}", function.function_name));
        }
    }
    for table in &summary.tables {
        let system = table.schema_name == "pg_catalog"
            || table.schema_name == "information_schema"
            || table.table_name.starts_with("pg_");
        let named = |name: &Name| *name.name == *table.table_name && *name.schema == *table.schema_name;
        if !system && !facts.relations.iter().any(named) {
            return Some(format!("reads {}", table.name));
        }
    }
    None
}

fn locks_or_creates(text: &str) -> bool {
    let Ok(parsed) = pg_query::parse(text, 0) else { return false };
    let tree = format!("{:?}", parsed.protobuf);
    tree.contains("LockingClause") || tree.contains("into_clause: Some")
}

#[test]
fn r08_no_read_of_ours_writes_locks_or_calls_what_we_did_not_see() {
    let (mut reads, mut selects, mut wrong) = (0, 0, Vec::new());
    for text in texts() {
        let facts = analyze(text.as_bytes(), LexMode::default());
        let simple = pg_query::summary(&text, 0, -1).is_ok_and(|summary| summary.statement_types == ["SelectStmt"]);
        selects += usize::from(simple);
        if !facts.may_read() {
            continue;
        }
        reads += 1;
        if let Some(why) = wrong_read(&text, &facts) {
            wrong.push(format!("{why}: {text}"));
        } else if locks_or_creates(&text) {
            wrong.push(format!("locks or creates: {text}"));
        }
    }
    eprintln!("{reads} reads of {selects} plain SELECTs");
    assert!(wrong.is_empty(), "{} reads are none:\n{}", wrong.len(), wrong.join("\n"));
    assert!(reads > 8_000, "the corpus holds many reads, we found {reads}");
}

/// The effect that a statement's tree asks for; `None` for statements that are not looked at here.
fn expected(node: &NodeEnum) -> Option<Vec<String>> {
    Some(match node {
        NodeEnum::TransactionStmt(it) => match it.kind() {
            Transaction::TransStmtBegin | Transaction::TransStmtStart => vec!["begin".to_owned()],
            Transaction::TransStmtCommit => vec![format!("commit {}", it.chain)],
            Transaction::TransStmtRollback => vec![format!("rollback {}", it.chain)],
            Transaction::TransStmtSavepoint | Transaction::TransStmtRelease | Transaction::TransStmtRollbackTo => {
                vec!["savepoint".to_owned()]
            }
            _ => vec!["two-phase".to_owned()],
        },
        NodeEnum::VariableSetStmt(it) => match it.kind() {
            VariableSetKind::VarResetAll => vec!["reset all".to_owned()],
            VariableSetKind::VarSetMulti if it.name == "SESSION CHARACTERISTICS" => return None,
            VariableSetKind::VarSetMulti => vec!["local".to_owned()],
            VariableSetKind::VarSetCurrent => Vec::new(),
            _ if it.name == "seed" => Vec::new(),
            _ if it.is_local || it.name.starts_with("transaction_") => vec!["local".to_owned()],
            VariableSetKind::VarSetValue => vec![format!("set {}", it.name.to_lowercase())],
            _ => vec![format!("reset {}", it.name.to_lowercase())],
        },
        NodeEnum::ConstraintsSetStmt(_) => vec!["local".to_owned()],
        NodeEnum::VariableShowStmt(it) => vec![format!("show {}", it.name.to_lowercase())],
        NodeEnum::PrepareStmt(it) => vec![format!("prepare {}", it.name)],
        NodeEnum::ExecuteStmt(it) => vec![format!("execute {}", it.name)],
        NodeEnum::DeallocateStmt(it) => vec![format!("deallocate {}", it.name)],
        NodeEnum::DeclareCursorStmt(it) => vec![format!("declare {}", it.options & 0x20 != 0)],
        NodeEnum::FetchStmt(_) => vec!["fetch".to_owned()],
        NodeEnum::ClosePortalStmt(_) => vec!["close".to_owned()],
        NodeEnum::ListenStmt(_) => vec!["listen".to_owned()],
        NodeEnum::UnlistenStmt(_) => vec!["unlisten".to_owned()],
        NodeEnum::LockStmt(_) => vec!["lock".to_owned()],
        NodeEnum::SelectStmt(_) | NodeEnum::DiscardStmt(_) => return None,
        _ => Vec::new(),
    })
}

fn told(effect: &Effect) -> String {
    match effect {
        Effect::Begin(_) => "begin".to_owned(),
        Effect::Commit { chain } => format!("commit {chain}"),
        Effect::Rollback { chain } => format!("rollback {chain}"),
        Effect::Savepoint => "savepoint".to_owned(),
        Effect::TwoPhase => "two-phase".to_owned(),
        Effect::Set { name } => format!("set {name}"),
        Effect::SetLocal | Effect::ResetLocal { .. } => "local".to_owned(),
        Effect::Reset { name } => format!("reset {name}"),
        Effect::ResetAll => "reset all".to_owned(),
        Effect::DiscardAll | Effect::Discard => "discard".to_owned(),
        Effect::Prepare { name } => format!("prepare {name}"),
        Effect::Execute { name } => format!("execute {name}"),
        Effect::Deallocate { name } => format!("deallocate {}", name.as_deref().unwrap_or_default()),
        Effect::Declare { hold } => format!("declare {hold}"),
        Effect::Fetch => "fetch".to_owned(),
        Effect::CloseCursor => "close".to_owned(),
        Effect::Listen => "listen".to_owned(),
        Effect::Unlisten => "unlisten".to_owned(),
        Effect::Lock => "lock".to_owned(),
        Effect::Show { name } => format!("show {name}"),
        Effect::Admin { .. } => "admin".to_owned(),
    }
}

#[test]
fn statements_and_effects_are_those_of_the_grammar() {
    let (mut seen, mut wrong) = (0, Vec::new());
    for text in texts() {
        let Ok(parsed) = pg_query::parse(&text, 0) else { continue };
        let facts = analyze(text.as_bytes(), LexMode::default());
        if facts.kind == Kind::Admin {
            continue;
        }
        let nodes: Vec<&NodeEnum> =
            parsed.protobuf.stmts.iter().filter_map(|raw| raw.stmt.as_ref()?.node.as_ref()).collect();
        if usize::from(facts.statements) != nodes.len() {
            wrong.push(format!("{} statements, not {}: {text}", nodes.len(), facts.statements));
            continue;
        }
        let Some(expected) = nodes.iter().map(|node| expected(node)).collect::<Option<Vec<_>>>() else { continue };
        let told: Vec<String> = facts.effects.iter().map(told).collect();
        // DML may hold a set_config, which the tree shows as a call.
        let calls = facts.builtins.contains(&"set_config");
        seen += told.len();
        if told != expected.concat() && !calls {
            wrong.push(format!("{:?}, not {told:?}: {text}", expected.concat()));
        }
    }
    assert!(wrong.is_empty(), "{} texts are read wrongly:\n{}", wrong.len(), wrong.join("\n"));
    assert!(seen > 1_000, "the corpus holds many commands, we found {seen}");
}
