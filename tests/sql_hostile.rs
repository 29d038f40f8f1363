//! Texts made to confuse: nothing panics, nothing that writes is called a read, and what PostgreSQL reads alike we read alike.

use pgherd::sql::lexer::{Lexer, Token};
use pgherd::sql::{Facts, Flags, Kind, LexMode, analyze, analyze_lexer_only, fingerprint};
use proptest::prelude::*;

/// Every text of the golden files.
fn golden() -> Vec<String> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sql");
    let mut texts = Vec::new();
    for entry in std::fs::read_dir(folder).expect("the golden files are there") {
        let path = entry.expect("the folder can be read").path();
        if path.extension().is_some_and(|ending| ending == "txt") {
            let golden = std::fs::read_to_string(path).expect("it can be read");
            texts.extend(
                golden.split("\n\n").skip(1).map(|case| case.split("\n----").next().unwrap_or_default().to_owned()),
            );
        }
    }
    texts
}

fn read(text: &str) -> Facts {
    analyze(text.as_bytes(), LexMode::default())
}

/// The words that no read may hold outside of literals and quotes.
fn has_writing_word(text: &str) -> bool {
    let words: Vec<String> = Lexer::new(text.as_bytes(), LexMode::default())
        .filter(|lexeme| lexeme.token == Token::Word)
        .map(|lexeme| String::from_utf8_lossy(lexeme.bytes(text.as_bytes())).to_ascii_lowercase())
        .collect();
    let writes = ["insert", "update", "delete", "merge", "into"];
    words.iter().any(|word| writes.contains(&word.as_str()))
}

#[test]
fn texts_cut_at_every_byte_never_panic_and_never_become_reads_of_writes() {
    for text in golden() {
        for end in 0..=text.len() {
            let cut = &text.as_bytes()[..end];
            for scs in [true, false] {
                let mode = LexMode { standard_conforming_strings: scs, client_only_encoding: false };
                let facts = analyze(cut, mode);
                assert_eq!(fingerprint(cut, mode).whole, facts.fingerprint.0 != 0, "{text} cut at {end}");
            }
            if let Ok(cut) = std::str::from_utf8(cut) {
                assert!(!read(cut).may_read() || !has_writing_word(cut), "{cut}");
            }
        }
    }
}

#[test]
fn comments_blanks_and_case_change_nothing() {
    for text in golden() {
        let mode = LexMode::default();
        let before = read(&text);
        if before.fingerprint.0 == 0 || before.flags.has(Flags::NO_LOAD_BALANCE) {
            continue;
        }
        let mut dressed = String::from("-- insert into x\n");
        for (n, lexeme) in Lexer::new(text.as_bytes(), mode).enumerate() {
            let piece = std::str::from_utf8(lexeme.bytes(text.as_bytes())).expect("tokens end between characters");
            // A line break between two literals would join them.
            dressed.push_str([" /* ; delete from x */ ", "\t/* /* nested */ */", " "][n % 3]);
            if lexeme.token == Token::Word { dressed.push_str(&swap_case(piece)) } else { dressed.push_str(piece) }
        }
        let after = read(&dressed);
        assert_eq!(before, after, "{text}\n{dressed}");
        assert_eq!(fingerprint(text.as_bytes(), mode), fingerprint(dressed.as_bytes(), mode), "{text}\n{dressed}");
    }
}

fn swap_case(word: &str) -> String {
    let swap = |c: char| if c.is_ascii_lowercase() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
    word.chars().map(swap).collect()
}

#[test]
fn the_lexer_alone_agrees_on_everything_but_reads() {
    // A function whose name is a key word that the grammar has before parentheses: only the parser can tell it from the word.
    let told_by_parser = |text: &String| text == "select join(1)";
    for text in golden().into_iter().filter(|text| !told_by_parser(text)) {
        let (full, alone) = (read(&text), analyze_lexer_only(text.as_bytes(), LexMode::default()));
        assert!(!alone.may_read(), "{text}");
        assert_eq!(
            (full.kind, &full.effects, full.statements),
            (alone.kind, &alone.effects, alone.statements),
            "{text}"
        );
        let kept = full.flags.without(Flags::READ.with(Flags::OPAQUE).with(Flags::OPAQUE_BY_NAME));
        assert!(alone.flags.has(kept), "{text}: {:?} {:?}", full.flags, alone.flags);
        // What the full reading found opaque, the quick one must not take for harmless.
        assert!(!full.flags.has(Flags::OPAQUE) || alone.flags.has(Flags::OPAQUE), "{text}");
        assert!(full.functions.iter().all(|name| alone.functions.contains(name)), "{text}");
    }
}

#[test]
fn r14_long_flat_and_deep_texts_are_read_without_harm() {
    let on_a_helper = |text: String| {
        let helper = std::thread::Builder::new().stack_size(pgherd::sql::HELPER_STACK);
        let thread = helper.spawn(move || analyze(text.as_bytes(), LexMode::default())).expect("a thread can be made");
        thread.join().expect("reading does not panic")
    };
    let sum = format!("select 1{}", "+1".repeat(16_000));
    assert_eq!(sum.len(), 32_008);
    assert!(on_a_helper(sum).may_read());
    assert!(!on_a_helper(format!("select 1{}", "+1".repeat(1_000_000))).may_read(), "too long to be parsed");
    let deep = |n: usize| format!("select {}1{}", "(".repeat(n), ")".repeat(n));
    assert!(on_a_helper(deep(10)).may_read());
    assert!(!on_a_helper(deep(10_000)).may_read());
    assert_eq!(on_a_helper(format!("select {}", "f(".repeat(10_000))).kind, Kind::Select);
    let all = on_a_helper("/*".repeat(16_000));
    assert_eq!(all.kind, Kind::Opaque);
    assert_eq!(on_a_helper("begin;".repeat(5_000)).statements, 5_000);
    // What a data thread reads on its own, smaller stack.
    let small = std::thread::Builder::new().stack_size(512 * 1024);
    let inline = format!("select 1{}", "+1".repeat((pgherd::sql::INLINE_TEXT - 8) / 2));
    let thread = small.spawn(move || analyze(inline.as_bytes(), LexMode::default())).expect("a thread can be made");
    assert!(thread.join().expect("reading does not panic").may_read());
}

const PIECES: &[&str] = &[
    "select",
    "insert",
    "into",
    "from",
    "with",
    "a",
    "as",
    "(",
    ")",
    ",",
    "1",
    "'x'",
    "e'\\''",
    "$$;$$",
    ";",
    "update",
    "for",
    "share",
    "set_config",
    "f",
    ".",
    "*",
    "begin",
    "atomic",
    "end",
    "case",
    "copy",
    "to",
    "stdout",
    "stdin",
    "explain",
    "analyze",
    "--\n",
    "/*",
    "*/",
    "\"q\"",
    "u&\"q\"",
    "u&'x'",
    "uescape",
    "values",
    "table",
    "create",
    "function",
    "or",
    "replace",
    "rule",
    "do",
    "set",
    "local",
    "role",
    "=",
    "::",
    "[",
    "]",
    "nextval",
    "union",
    "execute",
    "prepare",
    "declare",
    "cursor",
    "pgpool",
    "show",
    "not",
    "only",
    "key",
    "no",
    "between",
    "symmetric",
    "'now'",
    "$1",
    "pg_class",
    "temp",
    "null",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn shuffled_pieces_never_panic_and_no_read_holds_a_writing_word(
        pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..30),
        glue in proptest::sample::select(vec![" ", "\n", ""]),
    ) {
        let text = pieces.join(glue);
        let facts = read(&text);
        prop_assert!(!facts.may_read() || (!has_writing_word(&text) && facts.statements == 1), "{}", text);
        prop_assert_eq!(&facts, &read(&text));
        let alone = analyze_lexer_only(text.as_bytes(), LexMode::default());
        prop_assert!(!facts.flags.has(Flags::OPAQUE) || alone.flags.has(Flags::OPAQUE), "{}", text);
    }

    #[test]
    fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        analyze(&bytes, LexMode::default());
    }
}
