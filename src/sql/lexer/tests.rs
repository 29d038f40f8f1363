//! How the lexer cuts, against what `scan.l` does. Must not test classification.

use proptest::prelude::*;

use super::{Lexer, Token, trusted};
use crate::sql::LexMode;

fn cut(text: &str, mode: LexMode) -> String {
    let lexer = Lexer::new(text.as_bytes(), mode);
    let tokens: Vec<String> = lexer
        .map(|lexeme| format!("{:?}<{}>", lexeme.token, String::from_utf8_lossy(lexeme.bytes(text.as_bytes()))))
        .collect();
    tokens.join(" ")
}

#[test]
fn tokens_are_cut_as_postgresql_cuts_them() {
    for (text, expected) in [
        ("select/**/1", "Word<select> Integer<1>"),
        ("a--b\rc", "Word<a> Word<c>"),
        ("/* a /* b */ c */ d", "Word<d>"),
        ("a$b$c", "Word<a$b$c>"),
        ("1$a$b$a$", "Integer<1> DollarText<$a$b$a$>"),
        ("$1$a$;$a$", "Param<$1> DollarText<$a$;$a$>"),
        ("$$a$b$$", "DollarText<$$a$b$$>"),
        ("xe'a\\'", "Word<xe> Text<'a\\'>"),
        ("e'a\\'b'", "EscapeText<e'a\\'b'>"),
        ("e'a' -- x\n'b\\'c'", "EscapeText<e'a' -- x\n'b\\'c'>"),
        ("'a' 'b'", "Text<'a'> Text<'b'>"),
        ("'a'\n\n -- c\n'b'", "Text<'a'\n\n -- c\n'b'>"),
        ("'a' /*\n*/ 'b'", "Text<'a'> Text<'b'>"),
        ("'a' -- x", "Text<'a'>"),
        ("u&'a' u&\"b\" u & 'c'", "UnicodeText<u&'a'> UnicodeQuoted<u&\"b\"> Word<u> Operator<&> Text<'c'>"),
        ("n'a' b'01' X'1F'", "Text<n'a'> Bits<b'01'> Bits<X'1F'>"),
        ("\"a\"\"b\"", "Quoted<\"a\"\"b\">"),
        ("1..2", "Integer<1> Operator<..> Integer<2>"),
        ("1.5e-3 .5 1. 1e", "Decimal<1.5e-3> Decimal<.5> Decimal<1.> Integer<1> Word<e>"),
        ("0xfe 1_000 0o7", "Integer<0xfe> Integer<1_000> Integer<0> Word<o7>"),
        ("a=-1", "Word<a> Operator<=> Operator<-> Integer<1>"),
        ("a@-1", "Word<a> Operator<@-> Integer<1>"),
        ("a<@/*x*/b", "Word<a> Operator<<@> Word<b>"),
        ("a+--x\nb", "Word<a> Operator<+> Word<b>"),
        ("a::b:=c", "Word<a> Operator<::> Word<b> Operator<:=> Word<c>"),
        ("'a", "Bad<'a>"),
        ("/* a", "Bad</* a>"),
        ("$a$ $b$", "Bad<$a$ $b$>"),
        ("a \\ b", "Word<a> Bad<\\ b>"),
        ("a\u{a0}b", "Word<a\u{a0}b>"),
    ] {
        assert_eq!(cut(text, LexMode::default()), expected, "{text}");
    }
}

#[test]
fn backslashes_escape_when_strings_do_not_conform() {
    let off = LexMode { standard_conforming_strings: false, ..LexMode::default() };
    assert_eq!(cut(r"'a\' ; c'", off), r"Text<'a\' ; c'>");
    assert_eq!(cut(r"'a\' ; c'", LexMode::default()), r"Text<'a\'> Punctuation<;> Word<c> Bad<'>");
    assert_eq!(cut("u&'a'", off), "Bad<u&'a'>");
}

#[test]
fn the_hint_is_found_in_comments_only() {
    for (text, expected) in [
        ("/*NO LOAD BALANCE*/ select 1", true),
        ("select /* no load balance */ 1", true),
        ("select '/*NO LOAD BALANCE*/'", false),
        ("select 1 -- NO LOAD BALANCE", false),
        ("/* NO LOAD */ select 1", false),
    ] {
        let mut lexer = Lexer::new(text.as_bytes(), LexMode::default());
        lexer.by_ref().for_each(drop);
        assert_eq!(lexer.hint(), expected, "{text}");
    }
}

#[test]
fn r10_only_ascii_is_trusted_under_a_client_only_encoding() {
    let mode = LexMode { client_only_encoding: true, ..LexMode::default() };
    assert!(trusted(b"select 1", mode));
    assert!(!trusted(b"select '\x83\x5c'", mode));
    assert!(trusted(b"select '\xc3\xa9'", LexMode::default()));
}

/// Pieces that meet each other's edges.
const PIECES: &[&str] = &[
    "'", "\"", "$", "$$", "$a$", "/*", "*/", "--", "\n", "\\", "e'", "u&'", "u&\"", "n'", "x'", "1", ".", "a", " ",
    ";", "(", ")", ":", "=", "-", "\u{e9}", "\0", "select", "[", "]", "0x", "e", "_",
];

proptest! {
    #[test]
    fn any_bytes_are_cut_in_order_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), scs: bool) {
        in_order(&bytes, scs)?;
    }

    #[test]
    fn hostile_pieces_cut_at_every_byte(pieces in proptest::collection::vec(proptest::sample::select(PIECES), 0..24), scs: bool) {
        let text = pieces.concat();
        for end in 0..=text.len() {
            in_order(&text.as_bytes()[..end], scs)?;
        }
    }
}

fn in_order(bytes: &[u8], scs: bool) -> Result<(), TestCaseError> {
    let mode = LexMode { standard_conforming_strings: scs, client_only_encoding: false };
    let mut behind = 0;
    let mut bad = false;
    for lexeme in Lexer::new(bytes, mode) {
        prop_assert!(!bad, "something follows a bad token");
        prop_assert!(lexeme.start >= behind && lexeme.end > lexeme.start && lexeme.end as usize <= bytes.len());
        behind = lexeme.end;
        bad = lexeme.token == Token::Bad;
    }
    prop_assert_eq!(crate::sql::fingerprint(bytes, mode).whole, !bad);
    Ok(())
}
