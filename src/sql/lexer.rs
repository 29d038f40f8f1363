//! Bytes to tokens exactly as PostgreSQL's `scan.l` cuts them, so that a text means to us what it means to the server.
//! Owned by whoever iterates; borrows the text. Must not guess: what it cannot cut with certainty ends the text as
//! `Kind::Bad`, and nobody may trust what came before (SESSIONS R10).

use super::LexMode;
use super::eight::{HIGH, continuing};

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Token {
    /// An identifier or key word without quotes.
    Word = 1,
    /// `"identifier"`.
    Quoted,
    /// `U&"identifier"`, escapes not resolved.
    UnicodeQuoted,
    /// `'…'` or `N'…'`, continuation lines included.
    Text,
    /// `E'…'`.
    EscapeText,
    /// `U&'…'`.
    UnicodeText,
    /// `$tag$…$tag$`.
    DollarText,
    /// `B'…'` or `X'…'`.
    Bits,
    /// A number without point or exponent.
    Integer,
    /// A number with point or exponent.
    Decimal,
    /// `$1`.
    Param,
    /// An operator of one or more characters, `::`, `:=` and `..` included.
    Operator,
    /// One of `( ) [ ] , ; . :`; the byte at `start` says which.
    Punctuation,
    /// Cannot be cut: unterminated, a byte that PostgreSQL refuses, or an encoding that hides ASCII.
    Bad,
}

impl Token {
    /// A literal value, whatever its notation.
    pub fn is_literal(self) -> bool {
        matches!(
            self,
            Self::Text
                | Self::EscapeText
                | Self::UnicodeText
                | Self::DollarText
                | Self::Bits
                | Self::Integer
                | Self::Decimal
        )
    }
}

/// A token and where it lies in the text: bytes `start..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lexeme {
    /// Its kind.
    pub token: Token,
    /// Offset of its first byte.
    pub start: u32,
    /// Offset behind its last byte.
    pub end: u32,
}

impl Lexeme {
    /// The token's bytes within the text that it was cut from.
    pub fn bytes(self, text: &[u8]) -> &[u8] {
        &text[self.start as usize..self.end as usize]
    }

    /// Length in bytes.
    pub fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// No token is empty; here for the sake of convention.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

const SPACE: u8 = 1;
const START: u8 = 2;
const CONT: u8 = 4;
const DIGIT: u8 = 8;
const OPERATOR: u8 = 16;
const SELF: u8 = 32;

/// Classes of bytes as in `scan.l`: `space` (with the vertical tab of PostgreSQL 16, an error before), `ident_start`,
/// `ident_cont`, `decdigit`, `op_chars`, and the part of `self` that is no operator character.
const CLASS: [u8; 256] = {
    let mut class = [0_u8; 256];
    let mut byte = 0_usize;
    while byte < 256 {
        let b = byte as u8;
        if matches!(b, b' ' | b'\t' | b'\n' | b'\r' | 0x0B | 0x0C) {
            class[byte] |= SPACE;
        }
        if b.is_ascii_alphabetic() || b == b'_' || b >= 0x80 {
            class[byte] |= START | CONT;
        }
        if b.is_ascii_digit() {
            class[byte] |= DIGIT | CONT;
        }
        if b == b'$' {
            class[byte] |= CONT;
        }
        if matches!(
            b,
            b'~' | b'!'
                | b'@'
                | b'#'
                | b'^'
                | b'&'
                | b'|'
                | b'`'
                | b'?'
                | b'+'
                | b'-'
                | b'*'
                | b'/'
                | b'%'
                | b'<'
                | b'>'
                | b'='
        ) {
            class[byte] |= OPERATOR;
        }
        if matches!(b, b'(' | b')' | b'[' | b']' | b',' | b';' | b'.' | b':') {
            class[byte] |= SELF;
        }
        byte += 1;
    }
    class
};

#[inline]
fn is(byte: u8, class: u8) -> bool {
    CLASS[byte as usize] & class != 0
}

/// Texts longer than this are never cut (offsets are 32 bits wide); far above what a session buffers.
const LONGEST: usize = 1 << 30;

/// Iterates over the tokens of a text. After [`Token::Bad`] it ends.
#[derive(Debug, Clone)]
pub struct Lexer<'a> {
    text: &'a [u8],
    at: usize,
    escapes: bool,
    hint: bool,
}

impl<'a> Lexer<'a> {
    /// Starts at the first byte of `text`.
    pub fn new(text: &'a [u8], mode: LexMode) -> Self {
        Self { text, at: 0, escapes: !mode.standard_conforming_strings, hint: false }
    }

    /// Was `/*NO LOAD BALANCE*/` among what was read so far?
    pub fn hint(&self) -> bool {
        self.hint
    }

    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        // 0 is in no class and legal in no text, so it may stand for the end.
        self.text.get(at).copied().unwrap_or(0)
    }

    #[inline(always)]
    fn skip_class(&self, mut at: usize, class: u8) -> usize {
        while at < self.text.len() && is(self.text[at], class) {
            at += 1;
        }
        at
    }

    /// Behind the bytes from `at` on that continue an identifier, eight at a time as long as there are eight.
    #[inline(always)]
    fn word_end(&self, mut at: usize) -> usize {
        while let Some(bytes) = self.text.get(at..at + 8) {
            let bytes = u64::from_le_bytes(bytes.try_into().expect("eight bytes were asked for"));
            let others = !continuing(bytes) & HIGH;
            if others != 0 {
                return at + others.trailing_zeros() as usize / 8;
            }
            at += 8;
        }
        self.skip_class(at, CONT)
    }

    /// The position behind white space and comments, `None` in an unterminated comment.
    #[inline(always)]
    fn skip_blank(&mut self) -> Option<usize> {
        let mut at = self.at;
        loop {
            at = self.skip_class(at, SPACE);
            match self.byte(at) {
                b'-' if self.byte(at + 1) == b'-' => at = self.line_end(at),
                b'/' if self.byte(at + 1) == b'*' => at = self.comment(at)?,
                _ => return Some(at),
            }
        }
    }

    /// The line break that ends a `--` comment, a zero byte, or the end of the text.
    #[inline(never)]
    fn line_end(&self, at: usize) -> usize {
        self.text[at..].iter().position(|&b| matches!(b, b'\n' | b'\r' | 0)).map_or(self.text.len(), |n| at + n)
    }

    /// Behind a nested `/* … */`; remembers the hint.
    #[inline(never)]
    fn comment(&mut self, start: usize) -> Option<usize> {
        let mut depth = 0_u32;
        let mut at = start;
        while at + 1 < self.text.len() {
            match (self.text[at], self.text[at + 1]) {
                (b'/', b'*') => {
                    depth += 1;
                    at += 2;
                }
                (b'*', b'/') => {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        self.hint |= is_hint(&self.text[start + 2..at - 2]);
                        return Some(at);
                    }
                }
                (0, _) => return None,
                _ => at += 1,
            }
        }
        None
    }

    /// A word, or one of the literals that begin with a letter.
    #[inline(always)]
    fn word(&mut self, start: usize) -> (Token, Option<usize>) {
        let end = self.word_end(start + 1);
        if end > start + 1 {
            return (Token::Word, Some(end));
        }
        let first = self.text[start] | 0x20;
        let next = self.byte(start + 1);
        if next == b'\'' {
            match first {
                b'e' => return (Token::EscapeText, self.quoted_text(start + 1, true)),
                b'n' => return (Token::Text, self.quoted_text(start + 1, self.escapes)),
                b'b' | b'x' => return (Token::Bits, self.quoted_text(start + 1, false)),
                _ => {}
            }
        }
        if first == b'u' && next == b'&' {
            match self.byte(start + 2) {
                b'"' => return (Token::UnicodeQuoted, self.until_doubled(start + 3, b'"')),
                // PostgreSQL refuses it when backslashes are escapes.
                b'\'' if self.escapes => return (Token::Bad, None),
                b'\'' => return (Token::UnicodeText, self.quoted_text(start + 2, false)),
                _ => {}
            }
        }
        (Token::Word, Some(end))
    }

    /// Behind a quoted thing in which the quote itself is doubled.
    #[inline(never)]
    fn until_doubled(&self, mut at: usize, quote: u8) -> Option<usize> {
        while at < self.text.len() {
            match self.text[at] {
                0 => return None,
                b if b == quote && self.byte(at + 1) == quote => at += 2,
                b if b == quote => return Some(at + 1),
                _ => at += 1,
            }
        }
        None
    }

    /// Behind a text literal whose opening quote is at `open`, its continuations on later lines included.
    #[inline(never)]
    fn quoted_text(&self, open: usize, escapes: bool) -> Option<usize> {
        let mut at = open + 1;
        loop {
            at = if escapes { self.until_escaped(at)? } else { self.until_doubled(at, b'\'')? };
            match self.continuation(at) {
                Some(next) => at = next,
                None => return Some(at),
            }
        }
    }

    /// Behind the closing quote of a literal with backslash escapes.
    fn until_escaped(&self, mut at: usize) -> Option<usize> {
        while at < self.text.len() {
            match self.text[at] {
                0 => return None,
                b'\\' => at += 2,
                b'\'' if self.byte(at + 1) == b'\'' => at += 2,
                b'\'' => return Some(at + 1),
                _ => at += 1,
            }
        }
        None
    }

    /// `'a'` *newline* `'b'` is one literal: the position inside its next part. Between them may be white space and
    /// `--` comments, and there must be a line break.
    fn continuation(&self, mut at: usize) -> Option<usize> {
        let mut broken = false;
        loop {
            match self.byte(at) {
                b'\n' | b'\r' => {
                    broken = true;
                    at += 1;
                }
                b' ' | b'\t' | 0x0B | 0x0C => at += 1,
                b'-' if self.byte(at + 1) == b'-' => {
                    at = self.line_end(at);
                    if at == self.text.len() {
                        return None;
                    }
                }
                b'\'' if broken => return Some(at + 1),
                _ => return None,
            }
        }
    }

    /// `$1` or `$tag$…$tag$`.
    #[inline(never)]
    fn dollar(&self, start: usize) -> (Token, Option<usize>) {
        if is(self.byte(start + 1), DIGIT) {
            return (Token::Param, Some(self.skip_class(start + 1, DIGIT)));
        }
        let mut tag = start + 1;
        if is(self.byte(tag), START) {
            while tag < self.text.len() && is(self.text[tag], CONT) && self.text[tag] != b'$' {
                tag += 1;
            }
        }
        if self.byte(tag) != b'$' {
            return (Token::Bad, None);
        }
        let mark = &self.text[start..=tag];
        let mut at = tag + 1;
        while at + mark.len() <= self.text.len() {
            match self.text[at] {
                0 => return (Token::Bad, None),
                b'$' if self.text[at..].starts_with(mark) => return (Token::DollarText, Some(at + mark.len())),
                _ => at += 1,
            }
        }
        (Token::Bad, None)
    }

    /// A number. What newer servers call "trailing junk" becomes a word of its own, as older ones read it.
    fn number(&self, start: usize) -> (Token, Option<usize>) {
        let digits = |at: usize| {
            let mut at = self.skip_class(at, DIGIT);
            while self.byte(at) == b'_' && is(self.byte(at + 1), DIGIT) {
                at = self.skip_class(at + 1, DIGIT);
            }
            at
        };
        if self.byte(start) == b'0' && matches!(self.byte(start + 1) | 0x20, b'x' | b'o' | b'b') {
            let mut at = start + 2;
            while self.byte(at).is_ascii_hexdigit() || self.byte(at) == b'_' {
                at += 1;
            }
            if at > start + 2 && self.byte(start + 1) | 0x20 == b'x' {
                return (Token::Integer, Some(at));
            }
        }
        let mut token = Token::Integer;
        let mut at = digits(start);
        if self.byte(at) == b'.' && self.byte(at + 1) != b'.' {
            token = Token::Decimal;
            at = digits(at + 1);
        }
        if self.byte(at) | 0x20 == b'e' {
            let sign = usize::from(matches!(self.byte(at + 1), b'+' | b'-'));
            if is(self.byte(at + 1 + sign), DIGIT) {
                token = Token::Decimal;
                at = digits(at + 1 + sign);
            }
        }
        (token, Some(at))
    }

    /// The longest run of operator characters before a comment, less trailing signs where PostgreSQL gives them back.
    fn operator(&self, start: usize) -> usize {
        let mut end = start + 1;
        while end < self.text.len() && is(self.text[end], OPERATOR) {
            if matches!((self.text[end], self.byte(end + 1)), (b'/', b'*') | (b'-', b'-')) {
                break;
            }
            end += 1;
        }
        let run = &self.text[start..end];
        let signs = |b: u8| b == b'+' || b == b'-';
        let keeps = |b: &u8| matches!(b, b'~' | b'!' | b'@' | b'#' | b'^' | b'&' | b'|' | b'`' | b'?' | b'%');
        if run.len() > 1 && signs(run[run.len() - 1]) && !run.iter().any(keeps) {
            while end - start > 1 && signs(self.text[end - 1]) {
                end -= 1;
            }
        }
        end
    }

    /// The rest of the text as one bad token, once.
    #[cold]
    fn bad(&mut self, start: usize) -> Option<Lexeme> {
        let end = self.text.len().min(LONGEST + 1);
        self.at = self.text.len();
        (start < end).then_some(Lexeme { token: Token::Bad, start: start as u32, end: end as u32 })
    }

    #[inline(always)]
    fn cut(&mut self, start: usize) -> (Token, Option<usize>) {
        let first = self.text[start];
        let class = CLASS[first as usize];
        if class & START != 0 {
            return self.word(start);
        }
        if class & DIGIT != 0 || (first == b'.' && is(self.byte(start + 1), DIGIT)) {
            return self.number(start);
        }
        if class & SELF != 0 {
            let next = self.byte(start + 1);
            if (first == b':' && matches!(next, b':' | b'=')) || (first == b'.' && next == b'.') {
                return (Token::Operator, Some(start + 2));
            }
            return (Token::Punctuation, Some(start + 1));
        }
        if class & OPERATOR != 0 {
            return (Token::Operator, Some(self.operator(start)));
        }
        match first {
            b'\'' => (Token::Text, self.quoted_text(start, self.escapes)),
            b'"' => (Token::Quoted, self.until_doubled(start + 1, b'"')),
            b'$' => self.dollar(start),
            _ => (Token::Bad, None),
        }
    }
}

impl Iterator for Lexer<'_> {
    type Item = Lexeme;

    #[inline(always)]
    fn next(&mut self) -> Option<Lexeme> {
        let start = match self.skip_blank() {
            Some(start) if start >= self.text.len() => {
                self.at = start;
                return None;
            }
            Some(start) => start,
            None => return self.bad(self.at),
        };
        match self.cut(start) {
            (token, Some(end)) if end <= self.text.len().min(LONGEST) => {
                self.at = end;
                Some(Lexeme { token, start: start as u32, end: end as u32 })
            }
            _ => self.bad(start),
        }
    }
}

/// `NO LOAD BALANCE` between comment marks, any case, spaces around allowed.
fn is_hint(inside: &[u8]) -> bool {
    inside.trim_ascii().eq_ignore_ascii_case(b"NO LOAD BALANCE")
}

/// Can the bytes be trusted to be what they look like? Not with a zero byte, nor with a high byte in an encoding that hides
/// ASCII inside characters.
pub fn trusted(text: &[u8], mode: LexMode) -> bool {
    !mode.client_only_encoding || text.is_ascii()
}

#[cfg(test)]
mod tests;
