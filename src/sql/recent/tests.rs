//! Texts that came before, against the full pass over each. Must not test what a fingerprint is.

use proptest::prelude::*;

use super::*;

/// Values, some nearly alike, and what looks like one.
const VALUES: &[&str] = &[
    "1",
    "0",
    "12",
    "007",
    "1.5",
    "1e5",
    "0x1f",
    "1_0",
    "1x",
    "1.",
    ".5",
    "$1",
    "",
    "'a'",
    "'b c'",
    "''",
    "'now'",
    "' now'",
    "'tuesday'",
    "'$a'",
    "'a''b'",
    "'a\\'",
    "e'a'",
    "n'a'",
    "x'1'",
    "b'0'",
    "$$a$$",
    "$n$now$n$",
    "'\u{e9}'",
    "'\0'",
    "'a\nb'",
    "'",
    "1'a'",
    "'a'\n'b'",
    "a",
    "a1",
    "--",
];
/// What stands between them.
const PIECES: &[&str] = &[
    " ",
    ",",
    "(",
    ")",
    ";",
    "a",
    "x",
    "x1f",
    "e5",
    "_1",
    "..2",
    ".",
    "1",
    "+",
    "-",
    "--",
    "\n",
    "'b'",
    "\n'b'",
    "$a$",
    "::",
    "\"a\"",
    "\u{e9}",
    "/*",
    "*/",
    "/*no load balance*/",
    "set ",
    "select ",
    "insert into ",
    "set_config(",
    " from t where a = ",
];

fn known(recent: &Recent) -> usize {
    recent.groups.iter().flat_map(|group| &group.samples).flatten().count()
}

#[test]
fn r09_a_text_with_other_values_is_known_again() {
    let mut recent = Recent::default();
    let text =
        |number: u32, name: &str| format!("select a from a_long_table_name where b = {number} and c = '{name}';");
    for (number, name) in [(1, "x"), (2, "y z"), (345_678, ""), (0, "\"a long one\"")] {
        let text = text(number, name);
        assert_eq!(
            recent.fingerprint(text.as_bytes(), LexMode::default()),
            fingerprint(text.as_bytes(), LexMode::default())
        );
    }
    assert_eq!(known(&recent), 1);
    let group = recent.groups.iter().find(|group| group.samples[0].is_some()).expect("one is known");
    let sample = group.samples[0].as_ref().expect("it is the first");
    for (number, name) in [(1, "x"), (99, "anything else"), (5, "2026-01-01"), (7, "yes"), (8, " x"), (9, "no")] {
        assert!(sample.is_like(text(number, name).as_bytes()), "{number} {name}");
    }
    for name in ["now", "Today", " now", "a''b", "a\\b", "caf\u{e9}", "yesterday", "a\0", "$x"] {
        assert!(!sample.is_like(text(1, name).as_bytes()), "{name}");
    }
    for other in ["1.0", "1e1", "0x1", "1a", "$1", "", "-1", "1 "] {
        let text = text(1, "x").replace("= 1 ", &format!("= {other} "));
        assert!(!sample.is_like(text.as_bytes()), "{text}");
    }
}

#[test]
fn r09_what_only_looks_like_another_value_is_cut_anew() {
    for (known, other) in
        [("1x1f", "0x1f"), ("1_1", "2_1"), ("1e5", "2e5"), ("'a\\'", "'b\\'"), ("1 -- '", "1 -- '"), ("'a'", "'a' 'b'")]
    {
        let mut recent = Recent::default();
        let text = |value: &str| format!("select a_column, another_column from t where b = {value}");
        for value in [known, known, other] {
            let text = text(value);
            let told = recent.fingerprint(text.as_bytes(), LexMode::default());
            assert_eq!(told, fingerprint(text.as_bytes(), LexMode::default()), "{text}");
        }
    }
}

#[test]
fn r09_settings_are_no_values() {
    let mut recent = Recent::default();
    for value in ["1", "2", "1", "2", "3"] {
        for text in [
            format!("set a.setting_with_a_very_long_name to {value}"),
            format!("select set_config('a_long_name.setting', '{value}', false)"),
            format!("explain (costs off) select a, b from t where c = {value}"),
        ] {
            assert_eq!(
                recent.fingerprint(text.as_bytes(), LexMode::default()),
                fingerprint(text.as_bytes(), LexMode::default()),
                "{text}"
            );
        }
    }
}

#[test]
fn a_group_takes_up_what_comes_often_and_not_what_comes_once() {
    let mut recent = Recent::default();
    let text = |column: u32| format!("select a_column, another_column, column_{column} from t");
    for column in 0..100 {
        recent.fingerprint(text(column).as_bytes(), LexMode::default());
    }
    assert_eq!(known(&recent), 0, "each came once");
    for round in 0..100 {
        for column in 0..100 {
            let text = text(column);
            let mut twice = || recent.fingerprint(text.as_bytes(), LexMode::default());
            assert_eq!(twice(), twice(), "{round}");
        }
    }
    assert_eq!(known(&recent), EACH);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    /// Whatever came before, a text is told as if nothing had.
    #[test]
    fn r09_nothing_is_told_otherwise(
        head in proptest::sample::select(vec!["select a_column, another_column from t where b = ", "set a_very_long_name_of_a_setting to ", ""]),
        // Pieces, and places of values.
        parts in proptest::collection::vec(proptest::option::of(proptest::sample::select(PIECES)), 1..5),
        values in proptest::collection::vec(proptest::collection::vec(proptest::sample::select(VALUES), 5), 2..12),
        scs: bool,
        hidden: bool,
    ) {
        let mode = LexMode { standard_conforming_strings: scs, client_only_encoding: hidden };
        let mut recent = Recent::default();
        for values in values.iter().flat_map(|values| [values; 2]) {
            let mut values = values.iter();
            let filled = parts.iter().map(|part| part.unwrap_or_else(|| values.next().expect("as many as parts")));
            let text = [head].into_iter().chain(filled).collect::<String>();
            prop_assert_eq!(recent.fingerprint(text.as_bytes(), mode), fingerprint(text.as_bytes(), mode), "{}", text);
        }
    }
}
