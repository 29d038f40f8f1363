//! Any bytes, cut into tokens: in order, within bounds, and the fingerprint agrees on whether they could be read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgherd::sql::lexer::{Lexer, Token};
use pgherd::sql::{LexMode, fingerprint};

fuzz_target!(|data: &[u8]| {
    for standard_conforming_strings in [true, false] {
        let mode = LexMode { standard_conforming_strings, client_only_encoding: false };
        let (mut behind, mut bad) = (0, false);
        for lexeme in Lexer::new(data, mode) {
            assert!(!bad && lexeme.start >= behind && lexeme.end > lexeme.start && lexeme.end as usize <= data.len());
            behind = lexeme.end;
            bad = lexeme.token == Token::Bad;
        }
        assert_eq!(fingerprint(data, mode).whole, !bad);
        assert_eq!(fingerprint(data, mode), fingerprint(data, mode));
    }
});
