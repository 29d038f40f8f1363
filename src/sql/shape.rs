//! A text as people may see it: without its literals, which may be anything, passwords included. Pure.

use super::LexMode;
use super::lexer::{Lexer, Token};

/// The text with each literal as `?`, comments left out, white space as one blank; at most `most` bytes. What cannot be cut into tokens
/// with certainty is left out to its end.
pub fn without_literals(text: &[u8], mode: LexMode, most: usize) -> String {
    let mut out = String::new();
    let mut behind = 0;
    for lexeme in Lexer::new(text, mode) {
        if lexeme.token == Token::Bad {
            out.push_str(if out.is_empty() { "(not readable)" } else { " …" });
            break;
        }
        if behind != 0 && lexeme.start > behind {
            out.push(' ');
        }
        behind = lexeme.end;
        match lexeme.token.is_literal() {
            true => out.push('?'),
            false => out.push_str(&String::from_utf8_lossy(lexeme.bytes(text))),
        }
        if out.len() > most {
            let end = (0..=most).rev().find(|&at| out.is_char_boundary(at)).unwrap_or(0);
            out.truncate(end);
            out.push('…');
            break;
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_literal_is_left_whatever_its_notation() {
        let shape = |text: &str| without_literals(text.as_bytes(), LexMode::default(), 200);
        assert_eq!(
            shape("SELECT  a /* 'secret' */ FROM t\n WHERE a=17 AND b = 'secret' -- secret\n AND c = $1"),
            "SELECT a FROM t WHERE a=? AND b = ? AND c = $1"
        );
        assert_eq!(shape("ALTER ROLE x PASSWORD $q$secret$q$"), "ALTER ROLE x PASSWORD ?");
        assert_eq!(shape("SELECT E'a\\'secret', U&'secret', B'01', 1.5e3"), "SELECT ?, ?, ?, ?");
        assert!(!shape("SELECT 'secret").contains("secret"), "an unterminated one neither");
        assert_eq!(without_literals("SELECT ääää".as_bytes(), LexMode::default(), 10), "SELECT ä…");
    }
}
