//! The words of the file for each enum of the settings, both ways.

use super::settings::{
    Arbiter, Consistency, Fence, LogFormat, LogLevel, NodeRole, OnQuorumLoss, OnSyncShortage, OpaquePolicy, PcpLayout,
    PoolMode, Promote, SslMode,
};

/// An enum that the file spells as a word.
pub(super) trait Word: Copy + PartialEq + 'static {
    const WORDS: &'static [(&'static str, Self)];

    fn from_word(text: &str) -> Option<Self> {
        Self::WORDS.iter().find(|(word, _)| *word == text).map(|(_, value)| *value)
    }

    fn to_word(self) -> &'static str {
        Self::WORDS.iter().find(|(_, value)| *value == self).map_or("", |(word, _)| word)
    }
}

macro_rules! words {
    ($($name:ident: $($word:literal = $variant:ident),+;)*) => { $(
        impl Word for $name {
            const WORDS: &'static [(&'static str, Self)] = &[$(($word, Self::$variant)),+];
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.to_word())
            }
        }
    )* };
}

words! {
    PoolMode: "transaction" = Transaction, "session" = Session, "statement" = Statement;
    OpaquePolicy: "clean" = Clean, "pin" = Pin;
    NodeRole: "auto" = Auto, "primary" = Primary, "standby" = Standby;
    SslMode: "disable" = Disable, "prefer" = Prefer, "require" = Require, "verify-ca" = VerifyCa,
        "verify-full" = VerifyFull;
    Consistency: "session" = Session, "proxy" = Proxy, "eventual" = Eventual;
    Promote: "never" = Never, "builtin" = Builtin, "command" = Command;
    Fence: "required" = Required, "best_effort" = BestEffort;
    OnSyncShortage: "wait" = Wait, "relax" = Relax;
    OnQuorumLoss: "stop" = Stop, "hold_course" = HoldCourse;
    Arbiter: "nodes" = Nodes, "witness" = Witness, "trusted" = Trusted;
    LogLevel: "error" = Error, "warn" = Warn, "info" = Info, "debug" = Debug, "trace" = Trace;
    LogFormat: "text" = Text, "json" = Json;
    PcpLayout: "4.3" = V43, "4.4" = V44, "4.5" = V45, "4.7" = V47;
}
