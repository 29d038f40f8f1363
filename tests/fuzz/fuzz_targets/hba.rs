//! Files of rules: never a panic or a circle, and no client is let in by a file that holds no word for it.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use pgherd::auth::hba::{Client, Hba, Method, Wanted};

fuzz_target!(|text: &str| {
    let include = |_: &Path| Ok(text.to_owned());
    let Ok(hba) = Hba::parse(text, Path::new("/hba"), &include) else { return };
    for ip in [None, Some([127, 0, 0, 1].into()), Some([0x2001u16, 0, 0, 0, 0, 0, 0, 1].into())] {
        let client = Client { ip, tls: false, same_host: false, user: "u", wanted: Wanted::Database("d") };
        if hba.decide(&client).is_some_and(|rule| rule.method == Method::Trust) {
            assert!(text.contains("trust"));
        }
    }
});
