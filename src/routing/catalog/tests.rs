//! Rows in, knowledge out. Must not need a server; `tests/sql_catalog.rs` runs the queries on one.

use super::*;

fn function(name: &str, volatility: &str, language: &str, body: &str) -> Row {
    [Some("public"), Some(name), Some(volatility), Some(language), Some("f"), Some(body), None, Some("t"), None]
        .map(|column| column.map(str::to_owned))
        .to_vec()
}

fn relation(name: &str, kind: &str, definition: Option<&str>) -> Row {
    [Some("public"), Some(name), Some(kind), Some("f"), Some("p"), Some("f"), definition]
        .map(|column| column.map(str::to_owned))
        .to_vec()
}

#[test]
fn r01_sql_functions_are_reads_only_if_all_that_they_name_is() {
    let functions = [
        function("plain", "s", "sql", "select a from t"),
        function("calls_plain", "s", "sql", "select plain(); select 2"),
        function("mutual", "s", "sql", "select lautum()"),
        function("lautum", "s", "sql", "select mutual()"),
        function("volatile_read", "v", "sql", "select 1"),
        function("writes", "s", "sql", "insert into t values (1)"),
        function("calls_bad", "s", "sql", "select calls_worse()"),
        function("calls_worse", "s", "sql", "select pl()"),
        function("calls_unknown", "s", "sql", "select nobody()"),
        function("session", "s", "sql", "select current_setting('a')"),
        function("sets", "s", "sql", "select set_config('a', $1, false)"),
        function("reads_view", "s", "sql", "select * from good_view"),
        function("reads_bad_view", "s", "sql", "select * from bad_view"),
        function("by_attribute", "s", "sql", "select t.pl from t"),
        function("pl", "i", "plpgsql", "begin end"),
        function("c", "i", "c", "c"),
        function("two", "i", "sql", "select 1"),
        function("two", "v", "sql", "select 1"),
    ];
    let relations = [
        relation("t", "r", None),
        relation("good_view", "v", Some("SELECT plain() FROM t")),
        relation("bad_view", "v", Some("SELECT pl() FROM t")),
        relation("worse_view", "v", Some("SELECT * FROM bad_view")),
        relation("catalog_view", "v", Some("SELECT * FROM pg_class")),
    ];
    let catalog = Catalog::build(7, &functions, &relations);
    assert_eq!(catalog.generation(), 7);
    let expected = [
        ("plain", Function::Reads),
        ("calls_plain", Function::Reads),
        ("mutual", Function::Reads),
        ("volatile_read", Function::Writes),
        ("writes", Function::Unsure),
        ("calls_bad", Function::Unsure),
        ("calls_worse", Function::Unsure),
        ("calls_unknown", Function::Unsure),
        ("session", Function::Unsure),
        ("sets", Function::Unsure),
        ("reads_view", Function::Reads),
        ("reads_bad_view", Function::Unsure),
        ("by_attribute", Function::Unsure),
        ("pl", Function::Unsure),
        ("c", Function::Compiled),
        ("two", Function::Writes),
    ];
    for (name, function) in expected {
        assert_eq!(catalog.function(name), Some(function), "{name}");
    }
    let reading = |name: &str| catalog.relation(name).map(|relation| relation.reading);
    assert_eq!(reading("t"), Some(Reading::Anywhere));
    assert_eq!(reading("good_view"), Some(Reading::Anywhere));
    for name in ["bad_view", "worse_view", "catalog_view"] {
        assert_eq!(reading(name), Some(Reading::View), "{name}");
    }
    assert_eq!(reading("nobody"), None);
    assert!(catalog.calls_by_attribute(&[1, crate::sql::name_hash("pl")]));
    assert!(!catalog.calls_by_attribute(&[crate::sql::name_hash("plain")]));
}

#[test]
fn standard_bodies_are_unwrapped() {
    let with_body = |name: &str, body: &str| {
        let mut row = function(name, "i", "sql", "");
        row[6] = Some(body.to_owned());
        row
    };
    let functions = [
        with_body("returns", "RETURN (1 + 2)"),
        with_body("atomic", "BEGIN ATOMIC\n SELECT 1;\n SELECT 2;\nEND"),
        with_body("writes", "BEGIN ATOMIC\n INSERT INTO t VALUES (1);\nEND"),
    ];
    let catalog = Catalog::build(1, &functions, &[]);
    assert_eq!(catalog.function("returns"), Some(Function::Reads));
    assert_eq!(catalog.function("atomic"), Some(Function::Reads));
    assert_eq!(catalog.function("writes"), Some(Function::Unsure));
}

#[test]
fn rows_that_cannot_be_read_leave_their_names_unknown() {
    let catalog = Catalog::build(1, &[vec![], vec![None; 9]], &[vec![Some("public".to_owned())]]);
    assert_eq!(catalog.size(), (0, 0));
}

#[test]
fn r12_what_asks_for_the_time_of_its_block_is_known_through_all_that_names_it() {
    let functions = [
        function("clock", "s", "sql", "select now()"),
        function("reads_clock", "s", "sql", "select clock()"),
        function("reads_view", "s", "sql", "select * from v_on_v"),
        function("plain", "s", "sql", "select 1"),
        function("lower", "s", "sql", "select now()"),
    ];
    let relations = [
        relation("t", "r", None),
        relation("v", "v", Some("SELECT CURRENT_TIMESTAMP AS at FROM t")),
        relation("v_on_v", "v", Some("SELECT at FROM v")),
        relation("plain_v", "v", Some("SELECT plain() FROM t")),
    ];
    let catalog = Catalog::build(1, &functions, &relations);
    let tells = |text: &str| catalog.tells_time(&crate::sql::analyze(text.as_bytes(), crate::sql::LexMode::default()));
    for text in [
        "select clock()",
        "select reads_clock()",
        "select reads_view()",
        "table v",
        "table v_on_v",
        "select lower('a')",
    ] {
        assert!(tells(text), "{text}");
    }
    for text in ["select plain()", "table t", "table plain_v", "select upper('a')"] {
        assert!(!tells(text), "{text}");
    }
}
