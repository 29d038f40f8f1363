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
/// Groups of texts by their heads, and texts in each: with the longest texts and most values, a megabyte.
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
    /// Texts since one was taken up, or could not be.
    missed: u32,
    /// The last one that came often could not be: it has too many values, or none that may be left out.
    barren: bool,
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
        if (self.barren || self.samples[self.next].is_some()) && self.missed < PATIENCE {
            return;
        }
        let sample = Sample::new(text, mode, scan);
        (self.missed, self.barren) = (0, sample.is_none());
        if let Some(sample) = sample {
            self.samples[self.next] = Some(Box::new(sample));
            self.next = (self.next + 1) % EACH;
        }
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
mod tests;
