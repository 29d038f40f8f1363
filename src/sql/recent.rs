//! Texts seen lately, by which one that differs from them in values alone is known again: to compare it costs a fraction of cutting it into
//! tokens. Owned by one data thread; bounded. Must say nothing that [`fingerprint`] would not say.

use super::fingerprint::{Scan, begins_now, fingerprint, values};
use super::lexer::{Lexeme, Token};
use super::{Fingerprint, LexMode};

/// Bytes by which texts that may be alike are found; shorter texts are cut soon enough.
const HEAD: usize = 32;
/// Longest text that is kept.
const LONGEST: usize = 2048;
/// Most values in a text that is kept.
const MOST_VALUES: usize = 64;
/// Groups of texts by their heads, and texts in each: with the longest texts, half a megabyte.
const GROUPS: usize = 64;
const EACH: usize = 4;
/// Texts that a full group must fail to know before it takes up another one.
const PATIENCE: u32 = 64;

/// What a value may be replaced by without any token changing its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Value {
    /// Decimal digits.
    Digits,
    /// What stands between the quotes of a plain text literal.
    Plain,
}

impl Value {
    /// How many bytes at the front of `text` are such a value; `None` if there is none.
    #[inline]
    fn len(self, text: &[u8]) -> Option<usize> {
        match self {
            Self::Digits => {
                let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
                (len > 0).then_some(len)
            }
            Self::Plain => {
                let len = text.iter().take_while(|&&byte| is_plain(byte)).count();
                is_timeless(&text[..len]).then_some(len)
            }
        }
    }
}

/// No quote, no escape, nothing that an encoding or the lexer may take for something else.
#[inline]
fn is_plain(byte: u8) -> bool {
    byte.is_ascii() && !matches!(byte, 0 | b'\'' | b'\\')
}

/// It is not read from the clock as a date, which would be a type of its own.
#[inline]
fn is_timeless(value: &[u8]) -> bool {
    let Some(first) = value.first() else { return true };
    let suspect = first.is_ascii_whitespace() || matches!(first | 0x20, b'n' | b't' | b'y' | b'$');
    !suspect || !(value.trim_ascii_start().starts_with(b"$") || begins_now(value))
}

/// Where a value lies in a text.
#[derive(Debug, Clone, Copy)]
struct Place {
    start: usize,
    end: usize,
    value: Value,
}

impl Place {
    /// The part of a literal that may be another one; `None` if all of it counts.
    fn of(literal: Lexeme, text: &[u8]) -> Option<Self> {
        let (start, end) = (literal.start as usize, literal.end as usize);
        let found = match (literal.token, text[start]) {
            (Token::Integer, _) => Self { start, end, value: Value::Digits },
            (Token::Text, b'\'') => Self { start: start + 1, end: end - 1, value: Value::Plain },
            _ => return None,
        };
        // With a letter behind it another number might be a hexadecimal one.
        let joined = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || !byte.is_ascii();
        if found.value == Value::Digits && text.get(end).is_some_and(joined) {
            return None;
        }
        (found.value.len(&text[found.start..]) == Some(found.end - found.start)).then_some(found)
    }
}

/// A text, and what its first look told.
#[derive(Debug)]
struct Sample {
    text: Box<[u8]>,
    places: Box<[Place]>,
    mode: LexMode,
    scan: Scan,
}

impl Sample {
    fn new(text: &[u8], mode: LexMode, scan: Scan) -> Option<Self> {
        let places: Box<[Place]> =
            values(text, mode)?.into_iter().filter_map(|literal| Place::of(literal, text)).collect();
        (places.len() <= MOST_VALUES).then(|| Self { text: text.into(), places, mode, scan })
    }

    /// Is `text` this one with other values? Then it has the same tokens, for how a text is cut hangs on nothing but the kinds of bytes that
    /// a value keeps.
    #[inline]
    fn is_like(&self, text: &[u8]) -> bool {
        let (mut seen, mut rest) = (0, text);
        for place in &self.places {
            let Some(behind) = rest.strip_prefix(&self.text[seen..place.start]) else { return false };
            let Some(len) = place.value.len(behind) else { return false };
            rest = &behind[len..];
            seen = place.end;
        }
        *rest == self.text[seen..]
    }
}

/// Texts with the same head, as far as a hash tells.
#[derive(Debug, Default)]
struct Group {
    samples: [Option<Box<Sample>>; EACH],
    /// Met once: taken up when it comes again.
    met: [Option<Fingerprint>; 2],
    next: usize,
    missed: u32,
}

impl Group {
    #[inline]
    fn find(&self, text: &[u8], mode: LexMode) -> Option<Scan> {
        self.samples
            .iter()
            .flatten()
            .find(|sample| sample.mode == mode && sample.is_like(text))
            .map(|sample| sample.scan)
    }

    /// A text that is none of these. It is taken up if it comes often.
    fn miss(&mut self, text: &[u8], mode: LexMode, scan: Scan) {
        self.missed = self.missed.saturating_add(1);
        if !self.met.contains(&Some(scan.fingerprint)) {
            self.met.swap(0, 1);
            self.met[0] = Some(scan.fingerprint);
            return;
        }
        if self.samples[self.next].is_some() && self.missed < PATIENCE {
            return;
        }
        if let Some(sample) = Sample::new(text, mode, scan) {
            self.samples[self.next] = Some(Box::new(sample));
            self.next = (self.next + 1) % EACH;
        }
        self.missed = 0;
    }
}

/// The texts that a thread has seen lately.
#[derive(Debug)]
pub struct Recent {
    groups: Box<[Group]>,
}

impl Default for Recent {
    fn default() -> Self {
        Self { groups: std::iter::repeat_with(Group::default).take(GROUPS).collect() }
    }
}

impl Recent {
    /// As [`fingerprint`], and sooner for a text that came before with other values.
    pub fn fingerprint(&mut self, text: &[u8], mode: LexMode) -> Scan {
        let Some(head) = text.first_chunk::<HEAD>().filter(|_| text.len() <= LONGEST) else {
            return fingerprint(text, mode);
        };
        let group = &mut self.groups[index(head)];
        if let Some(scan) = group.find(text, mode) {
            return scan;
        }
        let scan = fingerprint(text, mode);
        if scan.whole {
            group.miss(text, mode, scan);
        }
        scan
    }
}

/// The group of a head. Whoever makes texts meet in one group makes them as slow as they would be without it, and nothing else.
#[inline]
fn index(head: &[u8; HEAD]) -> usize {
    let (words, _) = head.as_chunks::<8>();
    let mix = |sum: u64, word: &[u8; 8]| {
        (sum.rotate_left(29) ^ u64::from_le_bytes(*word)).wrapping_mul(0x9E37_79B9_7F4A_7C15)
    };
    (words.iter().fold(0, mix) >> 58) as usize % GROUPS
}

#[cfg(test)]
mod tests {
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
        for (known, other) in [
            ("1x1f", "0x1f"),
            ("1_1", "2_1"),
            ("1e5", "2e5"),
            ("'a\\'", "'b\\'"),
            ("1 -- '", "1 -- '"),
            ("'a'", "'a' 'b'"),
        ] {
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
}
