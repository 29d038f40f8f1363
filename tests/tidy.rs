//! Keeps the house in order: the limits of style, the import table, and what may stand where.
//!
//! Reads the sources, runs nothing. A breach that must stay is named in `EXCEPTIONS` with its reason; the list may only
//! shrink, for an exception that is no longer needed fails the test too.

#[path = "tidy/code.rs"]
mod code;
#[path = "tidy/layers.rs"]
mod layers;
#[path = "tidy/tree.rs"]
mod tree;

use std::path::Path;
use std::sync::OnceLock;

/// Rule, place, reason. A place is a path, or a path and an item: `src/a.rs::Struct`.
#[rustfmt::skip]
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    ("file length", "src/config/settings.rs", "a table: one field per parameter, with its doc"),
    ("bools", "src/session/survey.rs::Survey", "independent facts of one buffer, not states"),
    ("unsafe", "src/net/ring.rs", "the kernel reads memory of ours: the one file"),
    ("head", "src/cache/mod.rs", "not built yet"),
];

/// A breach of a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Breach {
    rule: &'static str,
    place: String,
    what: String,
}

impl Breach {
    fn new(rule: &'static str, place: impl Into<String>, what: impl Into<String>) -> Self {
        Self { rule, place: place.into(), what: what.into() }
    }

    fn excused(&self) -> bool {
        EXCEPTIONS.iter().any(|(rule, place, _)| *rule == self.rule && *place == self.place)
    }
}

/// A source file of ours.
struct Source {
    /// From the root, with slashes.
    path: String,
    text: String,
    /// Compiled for tests only.
    test: bool,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All of them, found once for all tests.
fn breaches() -> &'static [Breach] {
    static FOUND: OnceLock<Vec<Breach>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut found = tree::check(root());
        for source in tree::sources(root()) {
            found.extend(code::check(&source));
            found.extend(layers::check(&source));
        }
        found.sort();
        found
    })
}

#[test]
fn the_house_is_tidy() {
    let found: Vec<_> = breaches().iter().filter(|breach| !breach.excused()).collect();
    let list: String = found.iter().map(|b| format!("\n  {}: {}: {}", b.place, b.rule, b.what)).collect();
    assert!(found.is_empty(), "{} breaches:{list}", found.len());
}

#[test]
fn every_exception_is_still_needed() {
    let found = breaches();
    for (rule, place, _) in EXCEPTIONS {
        let needed = found.iter().any(|breach| breach.rule == *rule && breach.place == *place);
        assert!(needed, "`{place}` keeps the rule \"{rule}\" by now: remove the exception");
    }
}

/// Rules that a piece of code at `path` breaks.
fn rules(path: &str, text: &str) -> Vec<&'static str> {
    let source = Source { path: path.to_owned(), text: text.to_owned(), test: false };
    let mut rules: Vec<_> =
        code::check(&source).into_iter().chain(layers::check(&source)).map(|breach| breach.rule).collect();
    rules.dedup();
    rules
}

#[test]
fn each_rule_finds_its_breach() {
    let head = "//! What it is for, who owns it.\n";
    let code = |body: &str| rules("src/backend/x.rs", &format!("{head}{body}"));
    assert_eq!(code("fn f() {}"), [""; 0]);
    assert_eq!(rules("src/backend/x.rs", "fn f() {}"), ["head"]);
    assert_eq!(code(&format!("fn f() {{\n{}}}", "let _ = 1;\n".repeat(70))), ["function length"]);
    assert_eq!(code(&"const A: u8 = 1;\n".repeat(500)), ["file length"]);
    assert_eq!(code("fn f(a: u8, b: u8, c: u8, d: u8, e: u8, f: u8, g: u8) {}"), ["parameters"]);
    assert_eq!(code("struct S { a: bool, b: bool, c: bool }"), ["bools"]);
    assert_eq!(code("fn f() { x.unwrap(); }"), ["unwrap"]);
    assert_eq!(code("fn f() { x.expect(\"\"); }"), ["expect"]);
    assert_eq!(code("fn f() { assert!(x.unwrap()); }"), ["unwrap"]);
    assert_eq!(code("#[cfg(test)]\nmod tests { fn f() { x.unwrap(); } }"), [""; 0]);
    assert_eq!(code(&format!("#[cfg(test)]\nmod tests {{\n{}}}", "\n".repeat(151))), ["tests beside"]);
    assert_eq!(code("fn f() { unsafe { g() } }"), ["unsafe"]);
    assert_eq!(code("#[allow(unsafe_code)]\nfn f() {}"), ["unsafe"]);
    assert_eq!(code("fn f() { tokio::sync::mpsc::unbounded_channel(); }"), ["unbounded"]);
    assert_eq!(code("fn f() { std::sync::mpsc::channel(); }"), ["unbounded"]);
    assert_eq!(code("fn f() { std::time::Instant::now(); }"), ["clock"]);
    assert_eq!(code("fn f() { select! { a = Instant::now() => {} } }"), ["clock"]);
    assert_eq!(code("#[serde(flatten)]\nstruct S;"), ["flatten"]);
}

#[test]
fn the_import_table_is_enforced() {
    let code = |path: &str, body: &str| rules(path, &format!("//! What it is for, who owns it.\n{body}"));
    assert_eq!(code("src/session/x.rs", "use crate::health::Engine;"), ["layers"]);
    assert_eq!(code("src/health/x.rs", "use crate::{session::Session, support::clock};"), ["layers"]);
    assert_eq!(code("src/health/x.rs", "fn f() { crate::session::run(); }"), ["layers"]);
    assert_eq!(code("src/failover/x.rs", "use crate::watchdog::Vote;"), ["layers"]);
    assert_eq!(code("src/health/deep/x.rs", "use super::super::super::session::Session;"), ["layers"]);
    assert_eq!(code("src/health/deep/x.rs", "use super::super::engine::Event;"), [""; 0]);
    assert_eq!(code("src/session/x.rs", "use crate::backend::Pool;\nuse crate::net::Stream;"), [""; 0]);
    assert_eq!(code("src/backend/x.rs", "use crate::net::Stream;"), [""; 0]);
    assert_eq!(code("src/net/x.rs", "use crate::backend::Pool;"), ["layers"]);
    assert_eq!(code("src/routing/x.rs", "use tokio::sync::mpsc;"), ["pure"]);
    assert_eq!(code("src/health/engine.rs", "fn f() { std::net::TcpStream::connect(a); }"), ["pure"]);
    assert_eq!(code("src/health/engine/x.rs", "fn f() { crate::support::clock::now(); }"), ["pure"]);
    assert_eq!(code("src/health/runner.rs", "use tokio::sync::mpsc;"), [""; 0]);
    assert_eq!(code("src/health/engine.rs", "use std::net::IpAddr;"), [""; 0]);
}
