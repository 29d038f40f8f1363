//! Any bytes, cut into tokens: in order, within bounds, the fingerprint agrees on whether they could be read, and texts seen before do
//! not change it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgherd::sql::lexer::{Lexer, Token};
use pgherd::sql::{LexMode, Recent, fingerprint};

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
        // Twice the one half, then the other one, behind the same head.
        let mut recent = Recent::default();
        let (one, other) = data.split_at(data.len() / 2);
        for half in [one, one, other] {
            let text = [b"select a_column, another_column from t where b = ", half].concat();
            assert_eq!(recent.fingerprint(&text, mode), fingerprint(&text, mode));
        }
    }
});
