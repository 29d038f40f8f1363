//! One connection to the administration port, from its first message to its last: who it is, and what it asks. Pure: messages go in, steps
//! come out. Must not let anything be asked before the login.

use super::admins::{Admins, LONGEST_NAME};
use super::frame::{Frame, texts};
use super::request::{BadRequest, Request};

/// Where a connection stands. Each message consumes it and leaves the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It has said nothing.
    New,
    /// It was sent this challenge.
    Challenged([u8; 4]),
    /// It is an administrator's.
    Open(Login),
    /// Nothing more is read from it.
    Over,
}

/// How an administrator has logged in. Looked at again with each request: who is taken out of the file, or gets another password there,
/// has no rights any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    user: String,
    salt: [u8; 4],
    digest: Vec<u8>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Step {
    /// Send the challenge.
    Challenge([u8; 4]),
    /// Say that the login has succeeded.
    Welcome,
    /// Say that it has failed; the connection ends. An attempt to be counted.
    Reject {
        /// The name that was given.
        user: String,
    },
    /// Answer this.
    Serve(Request),
    /// Say that this is no request; the connection goes on.
    Refuse(String),
    /// Say why, with a detail; the connection ends.
    Abort(String, String),
    /// The connection ends.
    Close,
}

impl State {
    /// Takes the connection's next message. `salt` is used if it asks for a challenge.
    pub fn step(self, frame: &Frame, admins: &Admins, salt: [u8; 4]) -> (Self, Step) {
        match (self, frame.kind) {
            (Self::Over, _) | (_, b'X') => (Self::Over, Step::Close),
            (Self::New | Self::Challenged(_), b'M') => (Self::Challenged(salt), Step::Challenge(salt)),
            (Self::Challenged(salt), b'R') => log_in(frame, admins, salt),
            (Self::New | Self::Challenged(_), _) => {
                let text = "authentication failed for new PCP connection".to_owned();
                (Self::Over, Step::Abort(text, "connection not authorized".to_owned()))
            }
            (Self::Open(login), _) if !admins.verify(&login.user, &login.digest, login.salt) => {
                let text = format!("\"{}\" is an administrator no more, or has another password", login.user);
                (Self::Over, Step::Abort(text, String::new()))
            }
            (Self::Open(login), _) => match Request::read(frame) {
                Ok(request) => (Self::Open(login), Step::Serve(request)),
                Err(BadRequest::Body(text)) => (Self::Open(login), Step::Refuse(text)),
                Err(BadRequest::Kind(kind)) => {
                    let text = format!("unknown PCP packet type \"{}\"", char::from(kind).escape_default());
                    (Self::Over, Step::Abort(text, String::new()))
                }
            },
        }
    }

    /// The administrator, once logged in.
    pub fn user(&self) -> Option<&str> {
        match self {
            Self::Open(login) => Some(&login.user),
            _ => None,
        }
    }
}

fn log_in(frame: &Frame, admins: &Admins, salt: [u8; 4]) -> (State, Step) {
    let parts = texts(&frame.body);
    let name = String::from_utf8_lossy(parts[0].get(..LONGEST_NAME).unwrap_or(parts[0])).into_owned();
    let digest = parts.get(1).copied().unwrap_or_default();
    if parts.len() == 2 && name.as_bytes() == parts[0] && admins.verify(&name, digest, salt) {
        (State::Open(Login { user: name, salt, digest: digest.to_vec() }), Step::Welcome)
    } else {
        (State::Over, Step::Reject { user: name })
    }
}

#[cfg(test)]
mod tests {
    use super::super::admins::respond;
    use super::*;
    use std::path::Path;

    const SALT: [u8; 4] = *b"salt";

    fn admins() -> Admins {
        Admins::parse("pcpu:5ebe2294ecd0e0f08eab7690d2a6ee69", Path::new("pcp.conf")).expect("right")
    }

    fn frame(kind: u8, body: &[u8]) -> Frame {
        Frame { kind, body: body.to_vec() }
    }

    fn answer(user: &str, password: &str, salt: [u8; 4]) -> Frame {
        frame(b'R', format!("{user}\0{}\0", respond(user, password, salt)).as_bytes())
    }

    fn challenged() -> State {
        let (state, step) = State::New.step(&frame(b'M', b""), &admins(), SALT);
        assert_eq!(step, Step::Challenge(SALT));
        state
    }

    #[test]
    fn who_knows_the_password_is_served() {
        let (state, step) = challenged().step(&answer("pcpu", "secret", SALT), &admins(), [0; 4]);
        assert_eq!((state.user(), &step), (Some("pcpu"), &Step::Welcome));
        let (state, step) = state.step(&frame(b'L', b""), &admins(), [0; 4]);
        assert_eq!(step, Step::Serve(Request::NodeCount));
        let (state, step) = state.step(&frame(b'I', b"zero\0"), &admins(), [0; 4]);
        assert!(matches!(&step, Step::Refuse(text) if text.contains("zero")), "{step:?}");
        let (state, step) = state.step(&frame(b'Q', b""), &admins(), [0; 4]);
        assert_eq!(step, Step::Abort("unknown PCP packet type \"Q\"".to_owned(), String::new()));
        assert_eq!(state, State::Over);
    }

    #[test]
    fn nothing_is_served_before_the_login() {
        for kind in 0..=u8::MAX {
            for state in [State::New, challenged()] {
                let (after, step) = state.clone().step(&frame(kind, b"0\0"), &admins(), SALT);
                match kind {
                    b'M' => assert_eq!(after, State::Challenged(SALT)),
                    _ => assert_eq!(after, State::Over, "{kind} in {state:?}: {step:?}"),
                }
                assert!(!matches!(step, Step::Serve(_) | Step::Welcome));
            }
        }
        // Without a challenge of its own an answer counts for nothing, even the right one to a challenge of zeros.
        let (state, _) = State::New.step(&answer("pcpu", "secret", [0; 4]), &admins(), SALT);
        assert_eq!(state, State::Over);
    }

    #[test]
    fn a_wrong_answer_ends_the_connection() {
        let right = respond("pcpu", "secret", SALT);
        let long = "n".repeat(200);
        for body in [
            String::new(),
            "pcpu".to_owned(),
            format!("pcpu\0{right}\0more\0"),
            format!("pcpu\0{}\0", &right[1..]),
            format!("pcpu\0md5{right}\0"),
            format!("\0{right}\0"),
            format!("{long}\0{right}\0"),
        ] {
            let (state, step) = challenged().step(&frame(b'R', body.as_bytes()), &admins(), [0; 4]);
            assert!(matches!(&step, Step::Reject { user } if user.len() <= LONGEST_NAME), "{step:?}");
            assert_eq!(state, State::Over);
        }
        // The old challenge is void when a new one was asked for.
        let (state, _) = challenged().step(&frame(b'M', b""), &admins(), *b"next");
        let (state, _) = state.step(&answer("pcpu", "secret", SALT), &admins(), [0; 4]);
        assert_eq!(state, State::Over);
    }

    #[test]
    fn who_is_taken_out_of_the_file_asks_nothing_more() {
        let (open, _) = challenged().step(&answer("pcpu", "secret", SALT), &admins(), SALT);
        let count = frame(b'L', b"");
        assert!(matches!(open.clone().step(&count, &admins(), SALT), (State::Open(_), Step::Serve(_))));
        for file in ["", "pcpu:00000000000000000000000000000000"] {
            let others = Admins::parse(file, Path::new("pcp.conf")).expect("right");
            let (state, step) = open.clone().step(&count, &others, SALT);
            assert!(state == State::Over && matches!(step, Step::Abort(..)), "{file}: {step:?}");
        }
    }
}
