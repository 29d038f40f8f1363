//! Eight bytes of a text at once, as one word. Pure arithmetic; must not know what a token is.

/// The high bit of each of eight bytes.
pub(super) const HIGH: u64 = 0x8080_8080_8080_8080;

/// Sets the high bit of each of eight bytes that is a letter, a digit, `_`, `$` or beyond ASCII, as `ident_cont` of `scan.l` has it; the
/// other bits mean nothing.
#[inline(always)]
pub(super) const fn continuing(bytes: u64) -> u64 {
    const EACH: u64 = 0x0101_0101_0101_0101;
    // No sum or difference below leaves its byte.
    let low = bytes & !HIGH;
    let small = low | (EACH * 0x20);
    let letter = (small + EACH * (0x80 - b'a' as u64)) & !(small + EACH * (0x7F - b'z' as u64));
    let digit = (low + EACH * (0x80 - b'0' as u64)) & !(low + EACH * (0x7F - b'9' as u64));
    let underscore = HIGH - (low ^ (EACH * b'_' as u64));
    let dollar = HIGH - (low ^ (EACH * b'$' as u64));
    letter | digit | underscore | dollar | bytes
}

/// Eight bytes of `text` from `at`, zero behind `end`.
#[inline]
pub(super) fn load(text: &[u8], at: usize, end: usize) -> u64 {
    let left = end - at;
    if let Some(bytes) = text.get(at..at + 8) {
        let all = u64::from_le_bytes(bytes.try_into().expect("eight bytes were asked for"));
        return if left >= 8 { all } else { all & ((1_u64 << (left * 8)) - 1) };
    }
    let mut bytes = [0_u8; 8];
    let left = left.min(8);
    bytes[..left].copy_from_slice(&text[at..at + left]);
    u64::from_le_bytes(bytes)
}

/// ASCII capitals to small letters, eight at a time.
#[inline]
pub(super) const fn lower(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let low = word & (ONES * 0x7F);
    let above_z = low + ONES * (0x7F - b'Z' as u64);
    let from_a = low + ONES * (0x80 - b'A' as u64);
    let capital = !word & (from_a ^ above_z) & (ONES * 0x80);
    word | (capital >> 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_what_it_is_beside_any_other() {
        for byte in 0..=u8::MAX {
            for other in [0, b' ', b'a', 0x7F, 0x80, 0xFF] {
                let word = u64::from_le_bytes([other, byte, other, other, byte, other, other, byte]);
                let continues = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$') || byte >= 0x80;
                for at in [1, 4, 7] {
                    assert_eq!(continuing(word).to_le_bytes()[at] & 0x80 != 0, continues, "{byte} {other}");
                    assert_eq!(lower(word).to_le_bytes()[at], byte.to_ascii_lowercase(), "{byte} {other}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_read_beyond_the_end() {
        let text = b"abcdefghij";
        for (at, end, wanted) in
            [(0, 8, &b"abcdefgh"[..]), (0, 3, b"abc"), (1, 4, b"bcd"), (7, 10, b"hij"), (9, 10, b"j")]
        {
            let mut padded = [0; 8];
            padded[..wanted.len()].copy_from_slice(wanted);
            assert_eq!(load(text, at, end).to_le_bytes(), padded, "{at}..{end}");
        }
    }
}
