//! One statement as a run of tokens, with questions about single tokens. Borrows text and tokens; must not know what
//! any statement means.

use super::LexMode;
use super::lexer::{Lexeme, Lexer, Token};

/// PostgreSQL cuts identifiers to this many bytes.
const NAME_BYTES: usize = 63;

/// A run of tokens of a text. Positions out of range answer "no".
#[derive(Debug, Clone, Copy)]
pub(super) struct Statement<'a> {
    text: &'a [u8],
    tokens: &'a [Lexeme],
}

/// Cuts a text into tokens. `None`: it cannot be read whole.
pub(super) fn tokens(text: &[u8], mode: LexMode) -> Option<(Vec<Lexeme>, bool)> {
    if !super::lexer::trusted(text, mode) {
        return None;
    }
    let mut lexer = Lexer::new(text, mode);
    let mut all = Vec::with_capacity(text.len() / 5 + 4);
    for lexeme in lexer.by_ref() {
        if lexeme.token == Token::Bad {
            return None;
        }
        all.push(lexeme);
    }
    Some((all, lexer.hint()))
}

/// The non-empty statements of a text: split at semicolons outside of parentheses and of SQL function bodies, as psql does.
pub(super) fn split<'a>(text: &'a [u8], tokens: &'a [Lexeme]) -> Vec<Statement<'a>> {
    let mut statements = Vec::new();
    let (mut start, mut depth, mut body) = (0, 0_i32, 0_u32);
    for at in 0..tokens.len() {
        let whole = Statement { text, tokens: &tokens[start..] };
        let here = at - start;
        match tokens[at].token {
            Token::Punctuation => match text[tokens[at].start as usize] {
                b'(' => depth += 1,
                b')' => depth -= 1,
                b';' if depth <= 0 && body == 0 => {
                    if here > 0 {
                        statements.push(Statement { text, tokens: &tokens[start..at] });
                    }
                    (start, depth) = (at + 1, 0);
                }
                _ => {}
            },
            Token::Word if depth <= 0 && (body > 0 || whole.makes_routine()) => {
                if whole.is(here, "begin") || (body > 0 && whole.is(here, "case")) {
                    body += 1;
                } else if whole.is(here, "end") {
                    body = body.saturating_sub(1);
                }
            }
            _ => {}
        }
    }
    if start < tokens.len() {
        statements.push(Statement { text, tokens: &tokens[start..] });
    }
    statements
}

impl<'a> Statement<'a> {
    /// CREATE [OR REPLACE] {FUNCTION | PROCEDURE}: semicolons between its BEGIN and END do not end it.
    fn makes_routine(self) -> bool {
        let at = if self.is(1, "or") { 3 } else { 1 };
        self.is(0, "create") && self.any(at, &["function", "procedure"])
    }

    /// Number of tokens.
    pub(super) fn len(self) -> usize {
        self.tokens.len()
    }

    /// Nothing at or behind `at`?
    pub(super) fn ends(self, at: usize) -> bool {
        at >= self.tokens.len()
    }

    /// The tokens from `at` on.
    pub(super) fn from(self, at: usize) -> Self {
        Self { text: self.text, tokens: self.tokens.get(at..).unwrap_or_default() }
    }

    /// The tokens before `end`.
    pub(super) fn to(self, end: usize) -> Self {
        Self { text: self.text, tokens: &self.tokens[..end.min(self.tokens.len())] }
    }

    /// Kind of the token at `at`.
    pub(super) fn token(self, at: usize) -> Option<Token> {
        self.tokens.get(at).map(|lexeme| lexeme.token)
    }

    /// Its bytes; empty behind the end.
    pub(super) fn bytes(self, at: usize) -> &'a [u8] {
        self.tokens.get(at).map_or(&[], |lexeme| lexeme.bytes(self.text))
    }

    /// Is it this word, without quotes, in any case?
    pub(super) fn is(self, at: usize, word: &str) -> bool {
        self.token(at) == Some(Token::Word) && self.bytes(at).eq_ignore_ascii_case(word.as_bytes())
    }

    /// Is it one of these words?
    pub(super) fn any(self, at: usize, words: &[&str]) -> bool {
        self.token(at) == Some(Token::Word)
            && words.iter().any(|word| self.bytes(at).eq_ignore_ascii_case(word.as_bytes()))
    }

    /// Is the run from `at` these words?
    pub(super) fn all(self, at: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(n, word)| self.is(at + n, word))
    }

    /// Is it this one-byte punctuation or operator?
    pub(super) fn mark(self, at: usize, mark: u8) -> bool {
        matches!(self.token(at), Some(Token::Punctuation | Token::Operator)) && self.bytes(at) == [mark]
    }

    /// Is any token this word?
    pub(super) fn has(self, word: &str) -> bool {
        (0..self.len()).any(|at| self.is(at, word))
    }

    /// Is any token one of these words?
    pub(super) fn has_any(self, words: &[&str]) -> bool {
        (0..self.len()).any(|at| self.any(at, words))
    }

    /// The identifier at `at` as PostgreSQL folds and cuts it; key words count as identifiers.
    pub(super) fn name(self, at: usize) -> Option<Box<str>> {
        let bytes = self.bytes(at);
        match self.token(at)? {
            Token::Word => Some(cut(String::from_utf8_lossy(bytes).to_ascii_lowercase())),
            Token::Quoted => Some(cut(String::from_utf8_lossy(&bytes[1..bytes.len() - 1]).replace("\"\"", "\""))),
            _ => None,
        }
    }

    /// The value of the text literal at `at`, where its notation leaves no doubt.
    pub(super) fn literal(self, at: usize) -> Option<String> {
        let bytes = String::from_utf8_lossy(self.bytes(at));
        match self.token(at)? {
            Token::Text | Token::EscapeText => {
                let inside = &bytes[bytes.find('\'')? + 1..bytes.len() - 1];
                // A continuation line or an escape: not worth taking apart.
                let plain = !inside.contains('\\') && !inside.replace("''", "").contains('\'');
                plain.then(|| inside.replace("''", "'"))
            }
            Token::DollarText => {
                let tag = bytes[1..].find('$')? + 2;
                Some(bytes[tag..bytes.len() - tag].to_owned())
            }
            _ => None,
        }
    }

    /// Name or text literal, as where PostgreSQL's grammar has `NonReservedWord_or_Sconst`.
    pub(super) fn name_or_literal(self, at: usize) -> Option<Box<str>> {
        self.name(at).or_else(|| self.literal(at).map(String::into_boxed_str))
    }

    /// The position of the closing partner of the parenthesis at `open`.
    pub(super) fn partner(self, open: usize) -> Option<usize> {
        let mut depth = 0_i32;
        for at in open..self.len() {
            depth += i32::from(self.mark(at, b'(')) - i32::from(self.mark(at, b')'));
            if depth == 0 {
                return Some(at);
            }
        }
        None
    }
}

/// Cuts an identifier at PostgreSQL's limit, at the border of a character.
pub(super) fn cut(mut name: String) -> Box<str> {
    if name.len() > NAME_BYTES {
        let end = (0..=NAME_BYTES).rev().find(|&at| name.is_char_boundary(at)).unwrap_or(0);
        name.truncate(end);
    }
    name.into_boxed_str()
}
