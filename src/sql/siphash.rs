//! SipHash-1-3 with 128 bits of output over whole 64-bit words, keyed. Pure arithmetic; must not choose its own key.

/// A hash in the making.
#[derive(Debug, Clone)]
pub(super) struct Sip {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
    words: u64,
}

impl Sip {
    /// Starts with a secret key.
    #[inline]
    pub(super) fn new(key: [u64; 2]) -> Self {
        Self {
            v0: key[0] ^ 0x736f_6d65_7073_6575,
            v1: key[1] ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            v2: key[0] ^ 0x6c79_6765_6e65_7261,
            v3: key[1] ^ 0x7465_6462_7974_6573,
            words: 0,
        }
    }

    #[inline]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    /// Adds one word.
    #[inline]
    pub(super) fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.v0 ^= word;
        self.words += 1;
    }

    /// Ends with a last word that the caller chooses; the number of words before it is hashed too.
    #[inline]
    pub(super) fn finish(mut self, last: u64) -> u128 {
        self.word(last);
        let words = self.words;
        self.word(words);
        self.v2 ^= 0xee;
        for _ in 0..3 {
            self.round();
        }
        let low = self.v0 ^ self.v1 ^ self.v2 ^ self.v3;
        self.v1 ^= 0xdd;
        for _ in 0..3 {
            self.round();
        }
        let high = self.v0 ^ self.v1 ^ self.v2 ^ self.v3;
        (u128::from(high) << 64) | u128::from(low)
    }
}
