//! Password messages of a client that knows no password: never a panic, never let in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgherd::auth::client::{Question, Step, Typical, begin};
use pgherd::auth::hba::Method;
use pgherd::auth::scram::{SaltMaker, Verifier};
use pgherd::auth::{Md5Hash, Password, Stored};

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| {
    let (choice, messages) = input;
    let stored = match choice & 3 {
        0 => None,
        1 => Some(Stored::Plain(Password::new([choice; 40]))),
        2 => Some(Stored::Md5(Md5Hash::of_password(&[choice; 40], "u"))),
        _ => Some(Stored::Scram(Verifier::from_password(&[choice; 40], b"salt", 1))),
    };
    let method = [Method::Password, Method::Md5, Method::ScramSha256][usize::from(choice >> 2) % 3];
    let channel = (choice & 0x80 != 0).then_some([7; 32].as_slice());
    let salts = SaltMaker::new();
    let question =
        Question { user: "u", method, stored: stored.as_ref(), typical: Typical::Scram, salts: &salts, channel };
    let mut step = begin(&question);
    let mut messages = messages.into_iter();
    loop {
        step = match step {
            Step::Accepted { .. } => panic!("let in without a password"),
            Step::Derive { order, next } => match next.with_keys(&order.run()) {
                Ok(step) => step,
                Err(_) => return,
            },
            Step::Send { next, .. } => {
                let Some(message) = messages.next() else { return };
                match next.answer(&message) {
                    Ok(step) => step,
                    Err(_) => return,
                }
            }
        };
    }
});
