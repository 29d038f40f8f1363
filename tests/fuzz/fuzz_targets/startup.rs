//! Packets of the startup phase from a stranger: never a panic, never more bytes used than there are, and what is
//! complete stays the same whatever comes behind it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgherd::wire::{MAX_STARTUP, parse_startup};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(Some((startup, used))) = parse_startup(bytes) {
        assert!(used <= bytes.len() && used <= MAX_STARTUP);
        assert_eq!(parse_startup(&bytes[..used]), Ok(Some((startup, used))));
    }
});
