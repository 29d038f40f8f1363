//! The cheap first look at a text: its fingerprint, and whether it can be read at all. Runs for every statement of every
//! client, so it takes no memory and looks at each byte about once. Must not decide anything.

use std::hash::{BuildHasher, RandomState};
use std::sync::OnceLock;

use super::eight::{load, lower};
use super::lexer::{Lexeme, Lexer, Token, trusted};
use super::siphash::Sip;
use super::{Fingerprint, LexMode};

/// What a first look at a text tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scan {
    /// Key of the text's facts. Meaningless unless `whole`.
    pub fingerprint: Fingerprint,
    /// The lexer could read all of it; otherwise the text is opaque (SESSIONS R10).
    pub whole: bool,
    /// Carries `/*NO LOAD BALANCE*/`.
    pub hint: bool,
    /// Non-empty statements, capped at 65 535. A function body between BEGIN ATOMIC and END counts each of its own.
    pub statements: u16,
}

/// Looks at `text` once and takes no memory. Literals of SELECT and DML count by their type only (SESSIONS R9).
pub fn fingerprint(text: &[u8], mode: LexMode) -> Scan {
    if !trusted(text, mode) {
        return Scan { fingerprint: Fingerprint(0), whole: false, hint: false, statements: 1 };
    }
    let key = process_key();
    match scan(text, mode, key, false, |_| {}) {
        Some(scan) => scan,
        // A literal of set_config is not a value but a setting: every literal of this text counts.
        None => scan(text, mode, key, true, |_| {}).unwrap_or(Scan {
            fingerprint: Fingerprint(0),
            whole: false,
            hint: false,
            statements: 1,
        }),
    }
}

/// The literals of a text that count by their type only, in order. `None`: it cannot be read, or all of its literals count.
pub(super) fn values(text: &[u8], mode: LexMode) -> Option<Vec<Lexeme>> {
    let mut values = Vec::new();
    let scan = scan(text, mode, process_key(), false, |lexeme| values.push(lexeme))?;
    (scan.whole && trusted(text, mode)).then_some(values)
}

/// A secret of this process: fingerprints are compared with each other only, and nobody outside can aim at one.
fn process_key() -> [u64; 2] {
    static KEY: OnceLock<[u64; 2]> = OnceLock::new();
    *KEY.get_or_init(|| {
        let random = RandomState::new();
        [random.hash_one(0x70_67_68_65_72_64_u64), random.hash_one(1_u64)]
    })
}

/// One pass; `left_out` hears of each literal of which only the type counts. `None`: a name was met that forbids leaving out literals; take the
/// pass again with `keep`.
fn scan(text: &[u8], mode: LexMode, key: [u64; 2], keep: bool, mut left_out: impl FnMut(Lexeme)) -> Option<Scan> {
    let mut lexer = Lexer::new(text, mode);
    let mut hash = Sip::new(key);
    let mut statements = 0_u16;
    let mut whole = true;
    let mut fresh = true;
    let mut strip = false;
    let mut depth = 0_i32;
    for lexeme in lexer.by_ref() {
        let first = std::mem::take(&mut fresh);
        strip &= !first;
        match lexeme.token {
            Token::Word => {
                let start = add_word(&mut hash, text, lexeme);
                if first {
                    strip = !keep && begins_data(start, lexeme.len());
                } else if strip && lexeme.len() == 10 && is_set_config(lexeme.bytes(text)) {
                    return None;
                }
            }
            Token::Punctuation => {
                let byte = text[lexeme.start as usize];
                hash.word(PUNCTUATION | u64::from(byte));
                match byte {
                    b'(' if first => strip = !keep,
                    b';' if depth <= 0 => fresh = true,
                    _ => {}
                }
                depth += i32::from(byte == b'(') - i32::from(byte == b')');
            }
            Token::Bad => {
                whole = false;
                break;
            }
            token if strip && token.is_literal() => {
                left_out(lexeme);
                hash.word(literal_type(lexeme, text));
            }
            Token::UnicodeQuoted if strip => return None,
            Token::Quoted if strip && lexeme.len() >= 12 && is_set_config(&text[lexeme.start as usize + 1..]) => {
                return None;
            }
            _ => add_bytes(&mut hash, text, lexeme),
        }
        statements = statements.saturating_add(u16::from(first && !fresh));
    }
    let hint = lexer.hint();
    let last =
        u64::from(mode.standard_conforming_strings) | u64::from(mode.client_only_encoding) << 1 | u64::from(hint) << 2;
    Some(Scan { fingerprint: Fingerprint(hash.finish(last)), whole, hint, statements })
}

const PUNCTUATION: u64 = (Token::Punctuation as u64) << 60;

/// The head of a token: four bits of kind, twelve of length, six bytes of content.
#[inline]
fn head(token: Token, len: usize, content: u64) -> u64 {
    (token as u64) << 60 | (len.min(0xFFF) as u64) << 48 | (content & 0x0000_FFFF_FFFF_FFFF)
}

/// Adds an identifier as PostgreSQL folds it; returns its first eight bytes, folded.
#[inline]
fn add_word(hash: &mut Sip, text: &[u8], lexeme: Lexeme) -> u64 {
    let (start, end) = (lexeme.start as usize, lexeme.end as usize);
    let first = lower(load(text, start, end));
    hash.word(head(Token::Word, lexeme.len(), first));
    let mut at = start + 6;
    while at < end {
        hash.word(lower(load(text, at, end)));
        at += 8;
    }
    long(hash, lexeme.len());
    first
}

/// Adds a token byte by byte.
#[inline]
fn add_bytes(hash: &mut Sip, text: &[u8], lexeme: Lexeme) {
    let (start, end) = (lexeme.start as usize, lexeme.end as usize);
    hash.word(head(lexeme.token, lexeme.len(), load(text, start, end)));
    let mut at = start + 6;
    while at < end {
        hash.word(load(text, at, end));
        at += 8;
    }
    long(hash, lexeme.len());
}

/// Lengths that do not fit the head follow the token, so that no two token streams hash the same words.
#[inline]
fn long(hash: &mut Sip, len: usize) {
    if len >= 0xFFF {
        hash.word(len as u64);
    }
}

/// What stands for a literal that is left out. Texts that a date type reads as the present are a type of their own, since
/// their meaning hangs on the start of the block (SESSIONS R12).
#[inline]
fn literal_type(lexeme: Lexeme, text: &[u8]) -> u64 {
    let now = !matches!(lexeme.token, Token::Integer | Token::Decimal | Token::Bits) && is_now(lexeme.bytes(text));
    (lexeme.token as u64) << 60 | 1 << 47 | u64::from(now)
}

/// Does a text literal begin with a word that date and time types take from the clock?
#[inline]
pub(super) fn is_now(literal: &[u8]) -> bool {
    let Some(from) = literal.iter().position(|&b| b == b'\'' || b == b'$') else { return false };
    let inside = literal[from..].trim_ascii_start();
    let inside = inside.strip_prefix(b"'").unwrap_or(inside).trim_ascii_start();
    let Some(first) = inside.first() else { return false };
    if !matches!(first | 0x20, b'n' | b't' | b'y' | b'$') {
        return false;
    }
    let inside = match inside.strip_prefix(b"$") {
        Some(tagged) => match tagged.iter().position(|&b| b == b'$') {
            Some(end) => tagged[end + 1..].trim_ascii_start(),
            None => return false,
        },
        None => inside,
    };
    begins_now(inside)
}

/// Does a value begin with a word that date and time types take from the clock?
pub fn begins_now(value: &[u8]) -> bool {
    let value = value.trim_ascii_start();
    [&b"now"[..], b"today", b"tomorrow", b"yesterday"]
        .iter()
        .any(|word| value.len() >= word.len() && value[..word.len()].eq_ignore_ascii_case(word))
}

const fn packed(word: &[u8]) -> u64 {
    let mut packed = 0;
    let mut at = 0;
    while at < word.len() {
        packed |= (word[at] as u64) << (at * 8);
        at += 1;
    }
    packed
}

/// Do the first eight folded bytes and the length make a word that begins SELECT or DML?
#[inline]
fn begins_data(first: u64, len: usize) -> bool {
    const SELECT: u64 = packed(b"select");
    const INSERT: u64 = packed(b"insert");
    const UPDATE: u64 = packed(b"update");
    const DELETE: u64 = packed(b"delete");
    const WITH: u64 = packed(b"with");
    const VALUES: u64 = packed(b"values");
    const MERGE: u64 = packed(b"merge");
    const TABLE: u64 = packed(b"table");
    len <= 6 && matches!(first, SELECT | INSERT | UPDATE | DELETE | WITH | VALUES | MERGE | TABLE)
}

/// Is it `set_config`, whatever follows in `name`? Quoted names come with what stands behind them.
#[inline]
fn is_set_config(name: &[u8]) -> bool {
    name.len() >= 10 && name[..10].eq_ignore_ascii_case(b"set_config")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(text: &str) -> Fingerprint {
        let scan = fingerprint(text.as_bytes(), LexMode::default());
        assert!(scan.whole, "{text}");
        scan.fingerprint
    }

    #[test]
    fn r09_literals_of_data_statements_share_a_fingerprint() {
        for (one, two) in [
            ("select a from t where b = 1", "SELECT a\nFROM t -- c\n WHERE b = 2"),
            ("insert into t values ('a', 1.5)", "insert into T values ('bcd''e', 2e7)"),
            ("select 'a' 'b', $1", "select 'a' 'c' /* x */, $1"),
            ("select $$a$$", "select $x$;drop$x$"),
            ("(select 1)", "(select 2)"),
            ("with a as (select 1) select 2", "with a as (select 2) select 3"),
        ] {
            assert_eq!(print(one), print(two), "{one} | {two}");
        }
    }

    #[test]
    fn r09_what_must_differ_does() {
        for (one, two) in [
            ("select 1", "select '1'"),
            ("select 1", "select 1.0"),
            ("select a", "select \"a\""),
            ("select \"a\"", "select \"A\""),
            ("select $1", "select $2"),
            ("set x = 1", "set x = 2"),
            ("set x = 'a'", "set x = 'b'"),
            ("select 1; set x = 1", "select 1; set x = 2"),
            ("select set_config('a', 'b', false)", "select set_config('a', 'c', false)"),
            ("select \"set_config\"('a', 'b', false)", "select \"set_config\"('a', 'c', false)"),
            ("explain (costs off) select 1", "explain (costs off) select 2"),
            ("copy t to 'a'", "copy t to 'b'"),
            ("pgpool show route 'a'", "pgpool show route 'b'"),
            ("select 1", "select 1 /*no load balance*/"),
            ("select now('a')", "select now('today')"),
            ("select abcdefg h", "select abcdef gh"),
            ("select 'a' 'b'", "select 'a'\n'b'"),
            ("select a.b", "select a b"),
            ("select 1", "select 1;"),
        ] {
            assert_ne!(print(one), print(two), "{one} | {two}");
        }
    }

    #[test]
    fn r09_the_lex_mode_is_part_of_the_fingerprint() {
        let text = b"select 'a'";
        let off = LexMode { standard_conforming_strings: false, ..LexMode::default() };
        let client = LexMode { client_only_encoding: true, ..LexMode::default() };
        let all = [LexMode::default(), off, client].map(|mode| fingerprint(text, mode).fingerprint);
        assert!(all[0] != all[1] && all[1] != all[2] && all[0] != all[2]);
    }

    #[test]
    fn r10_a_high_byte_under_a_client_only_encoding_is_opaque() {
        let mode = LexMode { client_only_encoding: true, ..LexMode::default() };
        // SJIS: the second byte of the character is a backslash.
        assert!(!fingerprint(b"select '\x83\x5c'; drop table t; --'", mode).whole);
        assert!(fingerprint(b"select 'a'", mode).whole);
    }

    #[test]
    fn r10_a_zero_byte_is_opaque_wherever_it_stands() {
        for text in [
            "\0",
            "select 1\0",
            "select '\0'",
            "select \"\0\"",
            "/*\0*/ select 1",
            "select 1 -- \0\n",
            "select $$\0$$",
            "select $1\0",
        ] {
            assert!(!fingerprint(text.as_bytes(), LexMode::default()).whole, "{text:?}");
        }
    }

    #[test]
    fn long_words_do_not_run_into_each_other() {
        let long = "a".repeat(5000);
        assert_ne!(print(&format!("select {long}")), print(&format!("select {long}a")));
        assert_ne!(print(&format!("set a to '{long}'")), print(&format!("set a to '{}'", "a".repeat(4999))));
    }

    #[test]
    fn statements_are_counted() {
        for (text, count) in [
            ("", 0),
            (" ; ;; -- x", 0),
            ("select 1", 1),
            ("select 1;", 1),
            ("select 1; select 2", 2),
            ("create rule r as on insert to t do also (select 1; select 2)", 1),
            (";(select 1);", 1),
        ] {
            assert_eq!(fingerprint(text.as_bytes(), LexMode::default()).statements, count, "{text}");
        }
    }

    #[test]
    fn the_present_is_seen_in_literals() {
        for yes in ["'now'", "' Today 12:00'", "E'yesterday'", "$$tomorrow$$", "$x$ now$x$", "N'now'"] {
            assert!(is_now(yes.as_bytes()), "{yes}");
        }
        for no in ["''", "'no'", "'2020-01-01'", "$$$$", "' '", "$now$x$now$"] {
            assert!(!is_now(no.as_bytes()), "{no}");
        }
    }
}
