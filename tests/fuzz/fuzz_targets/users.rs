//! Files of users and SCRAM verifiers: never a panic; a verifier that is read is written the same.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pgherd::auth::Users;
use pgherd::auth::scram::Verifier;

fuzz_target!(|text: &str| {
    if let Ok(users) = Users::parse(text, Path::new("users")) {
        assert!(users.len() <= text.lines().count());
    }
    if let Some(verifier) = Verifier::parse(text) {
        assert_eq!(Verifier::parse(&verifier.to_text()), Some(verifier));
    }
});
