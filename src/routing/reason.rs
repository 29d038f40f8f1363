//! Why a statement goes where it goes, as names for metrics and sentences for people. Must not decide anything.

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident => $name:literal, $sentence:literal;)*) => {
        /// Why a statement goes where it goes.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Reason {
            $($(#[$doc])* $variant,)*
        }

        impl Reason {
            /// Every reason, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// A stable name for metrics, in snake case.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The reason as a sentence, for `PGPOOL SHOW ROUTE`.
            pub fn sentence(self) -> &'static str {
                match self {
                    $(Self::$variant => $sentence,)*
                }
            }
        }
    };
}

reasons! {
    /// A read, sent to the session's standby.
    Read => "read", "It is a read.";
    /// A read, sent to another standby than the session's own, which may not serve it now.
    OtherStandby => "other_standby", "It is a read, and the session's own standby cannot serve it now.";
    /// `routing.load_balance` is off.
    LoadBalanceOff => "load_balance_off", "Load balancing is switched off.";
    /// `/*NO LOAD BALANCE*/`.
    Hint => "hint", "The text carries /*NO LOAD BALANCE*/.";
    /// `routing.primary_routing_query_pattern_list`.
    Pattern => "pattern", "The text matches primary_routing_query_pattern_list.";
    /// Writes rows, or something that could not be told from it.
    Write => "write", "It writes, or could not be shown not to.";
    /// FOR UPDATE and the like, LOCK.
    Lock => "lock", "It takes locks that standbys do not give.";
    /// A command on the session: SET, SHOW, PREPARE, LISTEN, …
    Session => "session_command", "It is a command about the session, whose state is the primary's.";
    /// BEGIN, COMMIT and the like.
    Transaction => "transaction_command", "It is a command about the transaction.";
    /// CREATE, VACUUM, and everything else that only a primary does.
    Utility => "utility", "It is a command that only the primary executes.";
    /// Several statements in one text.
    Several => "several_statements", "The text holds several statements.";
    /// Answered by the proxy.
    Admin => "admin", "It is a command that the proxy answers itself.";
    /// Could not be read with certainty.
    Opaque => "opaque", "The text could not be read with certainty.";
    /// A built-in function or a system relation that belongs to the primary.
    PrimaryOnly => "primary_only", "It calls a built-in function or reads a system relation whose answer differs between servers.";
    /// A function of `routing.write_functions`.
    WriteFunction => "write_function", "It calls a function that write_functions lists.";
    /// A function that is volatile, or may do something unseen.
    VolatileFunction => "volatile_function", "It calls a function that may write or change the session.";
    /// A function of which nothing is known yet.
    UnknownFunction => "unknown_function", "It calls a function that is not known in this database yet.";
    /// A user's function has the name of a built-in one.
    ShadowedFunction => "shadowed_function", "It calls a function whose name a function of this database shares, and that one may write.";
    /// The catalog of this database was not read yet.
    NoCatalog => "no_catalog", "The functions and relations of this database are not known yet.";
    /// A relation of which nothing is known yet.
    UnknownRelation => "unknown_relation", "It reads a relation that is not known in this database yet.";
    /// An unlogged table: standbys do not have its rows.
    Unlogged => "unlogged_table", "It reads an unlogged table, which standbys do not have.";
    /// A foreign table.
    Foreign => "foreign_table", "It reads a foreign table.";
    /// A sequence: standbys see its values ahead.
    Sequence => "sequence", "It reads a sequence, whose value standbys see too early.";
    /// A table with row security: its policies may call anything.
    RowSecurity => "row_security", "It reads a table with row security, whose policies may call anything.";
    /// A view that is not made of reads alone.
    View => "view", "It reads a view that may write or is not for standbys.";
    /// The session has state on the primary that a standby lacks.
    Pinned => "pinned", "The session is pinned to the primary.";
    /// The block has written, or is bound otherwise.
    BlockBound => "block_bound", "The transaction block is bound to the primary.";
    /// REPEATABLE READ or SERIALIZABLE.
    Isolation => "isolation", "The transaction block needs one snapshot for all its statements.";
    /// `now()` in a block.
    NowInBlock => "now_in_block", "It asks for the time at which the transaction block began.";
    /// No standby has what the session must see.
    Consistency => "consistency", "No standby has replayed what this session must see.";
    /// Every standby lags behind more than `routing.delay_threshold`.
    Lag => "lag", "Every standby lags behind more than delay_threshold.";
    /// There is no standby to be used.
    NoStandby => "no_standby", "No standby is up.";
    /// The primary takes its share of the reads.
    PrimaryShare => "primary_share", "It is a read, and the primary takes this session's reads by its weight.";
    /// A standby refused the same text lately.
    Remembered => "remembered", "A standby refused this statement lately.";
    /// There is no primary now.
    NoPrimary => "no_primary", "No primary is known now.";
}

#[cfg(test)]
mod tests {
    use super::Reason;

    #[test]
    fn names_are_unique_and_in_snake_case() {
        let mut names: Vec<&str> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert!(names.iter().all(|name| name.bytes().all(|b| b == b'_' || b.is_ascii_lowercase())));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
        assert!(Reason::ALL.iter().all(|reason| reason.sentence().ends_with('.')));
    }
}
