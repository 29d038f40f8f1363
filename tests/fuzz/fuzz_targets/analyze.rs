//! Any bytes, read to the end: no panic, no overflow, and the quick reading is never more trusting than the full one.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgherd::sql::{Flags, INLINE_TEXT, LexMode, analyze, analyze_lexer_only};

fuzz_target!(|data: &[u8]| {
    let data = &data[..data.len().min(INLINE_TEXT)];
    let full = analyze(data, LexMode::default());
    let quick = analyze_lexer_only(data, LexMode::default());
    assert!(!quick.may_read());
    assert!(!full.flags.has(Flags::OPAQUE) || quick.flags.has(Flags::OPAQUE));
    assert_eq!(full.effects, quick.effects);
});
