//! What a stranger and an administrator may send to the administration port: never a panic, never more bytes used than there are, nothing
//! served before a login; the file of administrators.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pgherd::pcp::Admins;
use pgherd::pcp::engine::{State, Step};
use pgherd::pcp::frame::{MOST_REQUEST, split};
use pgherd::pcp::request::Request;

fuzz_target!(|bytes: &[u8]| {
    let admins = Admins::parse("pcpu:5ebe2294ecd0e0f08eab7690d2a6ee69", Path::new("pcp.conf")).expect("a line");
    let (mut rest, mut state) = (bytes, State::New);
    while let Ok(Some((frame, used))) = split(rest, MOST_REQUEST) {
        assert!(used <= rest.len() && used == frame.body.len() + 5);
        rest = &rest[used..];
        let _ = Request::read(&frame);
        let step;
        (state, step) = state.step(&frame, &admins, [0; 4]);
        // The digest of a login would have to be found by chance.
        assert!(!matches!(step, Step::Serve(_)) || state.user().is_some());
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        if let Ok(admins) = Admins::parse(text, Path::new("pcp.conf")) {
            assert!(admins.len() <= text.lines().count());
        }
    }
});
