//! Authentication messages of a server: never a panic; one that begins with SCRAM is not believed without its proof.
#![no_main]

use libfuzzer_sys::fuzz_target;
use pgherd::auth::scram::{LoginKeys, derive};
use pgherd::auth::server::{ServerLogin, Step};
use pgherd::auth::{Credentials, Md5Hash, Password};

fuzz_target!(|input: (u8, Vec<Vec<u8>>)| {
    let (choice, messages) = input;
    let credentials = match choice & 3 {
        0 => Credentials::None,
        1 => Credentials::Password(Password::new("secret")),
        2 => Credentials::Md5(Md5Hash::of_password(b"secret", "u")),
        _ => Credentials::Scram(LoginKeys { salt: (*b"sal").into(), iterations: 1, keys: derive(b"secret", b"sal", 1) }),
    };
    let channel = (choice & 0x80 != 0).then_some([7; 32].as_slice());
    let mut login = ServerLogin::new("u", &credentials, channel);
    let mut scram = false;
    for message in messages {
        let Ok(step) = login.authentication(&message) else { return };
        login = match step {
            Step::Done => {
                assert!(!scram, "believed without proof");
                return;
            }
            Step::Wait(next) => next,
            Step::Send { next, .. } => {
                scram |= message.starts_with(&[0, 0, 0, 10]);
                next
            }
            // Not what is tested, and slow.
            Step::Derive { order, .. } if order.iterations > 10 => return,
            Step::Derive { order, next } => match next.with_keys(&order.run()) {
                Step::Send { next, .. } => next,
                other => panic!("keys are answered with a proof: {other:?}"),
            },
        };
    }
});
