//! A text's facts and verdict, out of the thread's cache whenever possible (SESSIONS R9, R14). Must not wait.

use std::rc::Rc;

use crate::sql::{Effect, Facts, Fingerprint, Flags, Isolation, LexMode};

use super::Session;

/// A statement as routing sees it.
#[derive(Debug, Clone)]
pub(super) struct Looked {
    pub(super) facts: Rc<Facts>,
    pub(super) verdict: super::context::Judged,
}

impl Looked {
    /// It may run on a standby.
    pub(super) fn standby_ok(&self) -> bool {
        self.verdict.standby_ok
    }

    /// Nothing but the session's own bookkeeping is concerned, so far as the text tells.
    pub(super) fn is_local(&self) -> bool {
        matches!(&self.facts.effects[..], [Effect::Admin { .. } | Effect::Deallocate { name: Some(_) }])
            && self.facts.statements == 1
    }

    /// Inside a block it must run where the block's writes will (SESSIONS R12).
    pub(super) fn binds_block(&self) -> bool {
        self.verdict.verdict.class == crate::routing::Class::AnywhereOutsideBlock
    }
}

/// A statement that makes something that only its own server connection has (SESSIONS R5).
pub(super) fn pins(facts: &Facts) -> bool {
    let pins =
        |effect: &Effect| matches!(effect, Effect::Prepare { .. } | Effect::Listen | Effect::Declare { hold: true });
    facts.flags.any(Flags::TEMP.with(Flags::ADVISORY_LOCK)) || facts.effects.iter().any(pins)
}

/// What statement mode cannot do (SESSIONS R21).
pub(super) fn forbidden_in_statement_mode(facts: &Facts) -> Option<&'static str> {
    if pins(facts) {
        return Some("a statement that keeps its server connection");
    }
    facts.effects.iter().find_map(|effect| match effect {
        Effect::Begin(_) => Some("a transaction block"),
        Effect::Declare { .. } => Some("a cursor"),
        Effect::Savepoint => Some("a savepoint"),
        _ => None,
    })
}

/// Where a read goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Where {
    Primary,
    Standby(crate::cluster::NodeId),
}

impl Session {
    /// What a text is.
    pub(super) fn look(&mut self, text: &[u8]) -> Looked {
        let scan = self.context.recent.borrow_mut().fingerprint(text, self.lexing);
        if !scan.whole {
            return self.judge(self.context.opaque.clone());
        }
        let (facts, judged) = match self.context.known(&self.who, scan.fingerprint) {
            Some(known) => known,
            None => (self.context.analyze(text, self.lexing, scan.fingerprint), None),
        };
        if self.context.policy.borrow().wants_primary(text) {
            return self.judge(kept_on_primary(&facts));
        }
        match judged {
            Some(verdict) => Looked { facts, verdict },
            None => self.judge(facts),
        }
    }

    /// The verdict on facts.
    pub(super) fn judge(&self, facts: Rc<Facts>) -> Looked {
        let verdict = self.context.judge(&self.who, &facts);
        Looked { facts, verdict }
    }

    /// The text of the only statement of a request.
    pub(super) fn text_of(&self, survey: &super::survey::Survey) -> Option<Vec<u8>> {
        let bytes = &self.client.input.filled()[..survey.size];
        let mut name = None;
        for (header, body) in super::frames::whole(bytes) {
            match header.tag {
                b'Q' => return super::frames::query(body).map(<[u8]>::to_vec),
                b'P' => return super::frames::parse(body).map(|parse| parse.text.to_vec()),
                b'B' => name = super::frames::bind(body).map(|(_, name, _)| name),
                _ => {}
            }
        }
        let text = |tail: &[u8]| Some(tail[..tail.iter().position(|&byte| byte == 0)?].to_vec());
        match name? {
            b"" => text(&self.unnamed()?.tail),
            name => text(&self.prepared_named(name)?.text.tail),
        }
    }

    /// The session's `default_transaction_isolation`.
    pub(super) fn default_isolation(&self) -> Isolation {
        let Some(value) = self.settings.get("default_transaction_isolation") else {
            return self.context.login_isolation(&self.who);
        };
        // A startup option is as the client wrote it.
        if value.eq_ignore_ascii_case(b"read committed") || value.eq_ignore_ascii_case(b"read uncommitted") {
            Isolation::ReadCommitted
        } else if value.eq_ignore_ascii_case(b"repeatable read") {
            Isolation::RepeatableRead
        } else {
            Isolation::Serializable
        }
    }

    /// Follows what the client was told of how its texts are read.
    pub(super) fn set_told(&mut self, told: Rc<crate::backend::Reported>) {
        let off = told.get("standard_conforming_strings").is_some_and(|value| value == b"off");
        let encoding = told.get("client_encoding").unwrap_or_default();
        self.lexing = LexMode { standard_conforming_strings: !off, client_only_encoding: is_client_only(encoding) };
        self.told = told;
    }
}

/// Facts of a text that `primary_routing_query_pattern_list` wants on the primary. They have no place in the cache: literals count
/// for the list and not for the fingerprint.
fn kept_on_primary(facts: &Facts) -> Rc<Facts> {
    let flags = facts.flags.with(Flags::NO_LOAD_BALANCE);
    Rc::new(Facts { fingerprint: Fingerprint(0), flags, ..facts.clone() })
}

/// Encodings whose characters may hold ASCII bytes (SESSIONS R10).
fn is_client_only(encoding: &[u8]) -> bool {
    [&b"SJIS"[..], b"SHIFT_JIS_2004", b"BIG5", b"GBK", b"GB18030", b"UHC", b"JOHAB"].contains(&encoding)
}
