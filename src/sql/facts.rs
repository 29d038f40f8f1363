//! What a text says, as data: the answer of `sql` to everyone else. Types only; must know no servers,
//! no sessions, no catalog.

/// How the bytes of a text are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LexMode {
    /// The session's `standard_conforming_strings`; off makes `\` an escape in plain literals.
    pub standard_conforming_strings: bool,
    /// `client_encoding` may hide ASCII bytes inside characters (SJIS, BIG5, GBK, GB18030, UHC, JOHAB): a byte
    /// of 0x80 or more then makes the text opaque (SESSIONS R10).
    pub client_only_encoding: bool,
}

impl Default for LexMode {
    fn default() -> Self {
        Self { standard_conforming_strings: true, client_only_encoding: false }
    }
}

/// The 128-bit keyed hash of a text's token stream, literals of SELECT and DML replaced by their types (SESSIONS R9),
/// including the [`LexMode`]. Keyed with a random number per process: never stored, never sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(pub u128);

/// What kind of statement a text is, as far as routing and pooling care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No statement at all: white space, comments, semicolons.
    Empty,
    /// SELECT, VALUES, TABLE, WITH … SELECT.
    Select,
    /// `COPY … TO STDOUT` of a table or a query.
    CopyOut,
    /// EXPLAIN without ANALYZE of a SELECT.
    Explain,
    /// INSERT, UPDATE, DELETE, MERGE, a WITH that writes, SELECT INTO, COPY FROM.
    Dml,
    /// CREATE, ALTER, DROP, GRANT, REFRESH, TRUNCATE, … everything that changes the catalog or is called utility.
    Utility,
    /// BEGIN, COMMIT, SAVEPOINT, PREPARE TRANSACTION, …
    Transaction,
    /// SET, RESET, SHOW, DISCARD, PREPARE, EXECUTE, DEALLOCATE, LISTEN, DECLARE, FETCH, CLOSE, LOCK, …
    Session,
    /// `SHOW POOL_…` and `PGPOOL …`: answered by the proxy itself.
    Admin,
    /// Several statements in one string.
    Several,
    /// Could not be read with certainty.
    Opaque,
}

/// What a text is counted as, by its first statement. In the order of pgpool-II's `SHOW POOL_BACKEND_STATS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Verb {
    /// SELECT, VALUES, TABLE, WITH … SELECT.
    Select,
    /// INSERT.
    Insert,
    /// UPDATE.
    Update,
    /// DELETE.
    Delete,
    /// CREATE, ALTER, DROP, TRUNCATE, GRANT and the like.
    Ddl,
    /// Everything else, and what was not read.
    #[default]
    Other,
}

impl Verb {
    /// Every one, in order.
    pub const ALL: [Self; 6] = [Self::Select, Self::Insert, Self::Update, Self::Delete, Self::Ddl, Self::Other];

    /// A stable name for metrics.
    pub fn name(self) -> &'static str {
        ["select", "insert", "update", "delete", "ddl", "other"][self as usize]
    }

    /// Of a text of that kind whose first word, in lower case, is `first`.
    pub(super) fn of(kind: Kind, first: &str) -> Self {
        match (kind, first) {
            (Kind::Select, _) => Self::Select,
            (_, "insert") => Self::Insert,
            (_, "update") => Self::Update,
            (_, "delete") => Self::Delete,
            (_, "create" | "alter" | "drop" | "truncate" | "grant" | "revoke" | "comment" | "reindex" | "refresh") => {
                Self::Ddl
            }
            _ => Self::Other,
        }
    }
}

/// Properties of a text, a set of bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(pub u32);

impl Flags {
    /// Nothing known.
    pub const NONE: Self = Self(0);
    /// Lexer and parser agree that it could run on a standby, its functions and relations permitting (SESSIONS R8).
    pub const READ: Self = Self(1);
    /// May change session state that the text does not show: DO, CALL, a function that is not built in (its name is also in
    /// [`Facts::functions`]), `set_config` without literal arguments, a text not read whole (SESSIONS R1).
    pub const OPAQUE: Self = Self(1 << 1);
    /// Calls a built-in function that is not on the allow list of standbys, or reads such a relation (`pg_settings`, …).
    pub const PRIMARY_ONLY: Self = Self(1 << 2);
    /// Carries `/*NO LOAD BALANCE*/`.
    pub const NO_LOAD_BALANCE: Self = Self(1 << 3);
    /// Creates, alters or drops something that the catalog knowledge of the database depends on (not TEMP).
    pub const DDL: Self = Self(1 << 4);
    /// Creates a temporary relation (CREATE TEMP …, SELECT INTO TEMP, CREATE … AS in pg_temp).
    pub const TEMP: Self = Self(1 << 5);
    /// Calls `currval` or `lastval`.
    pub const SEQUENCE_VALUE: Self = Self(1 << 6);
    /// Calls `setseed`.
    pub const SETSEED: Self = Self(1 << 7);
    /// Takes a session-level advisory lock (`pg_advisory_lock`, `pg_try_advisory_lock`, shared forms).
    pub const ADVISORY_LOCK: Self = Self(1 << 8);
    /// Gives up session-level advisory locks (`pg_advisory_unlock…`).
    pub const ADVISORY_UNLOCK: Self = Self(1 << 9);
    /// `now()`-like values, whose meaning is fixed at the start of the block: binds a block to the primary (SESSIONS R12).
    pub const NOW_LIKE: Self = Self(1 << 10);
    /// Takes row locks, or has INTO, or a data-modifying WITH.
    pub const LOCKS_OR_WRITES: Self = Self(1 << 11);
    /// Writes rows or anything else that a later read should see. Everything that is not READ and not pure session
    /// or transaction control.
    pub const WRITES: Self = Self(1 << 12);
    /// `COPY … FROM STDIN`: the client's data follows.
    pub const COPY_IN: Self = Self(1 << 13);
    /// `SET`/`RESET` of `client_encoding`/`NAMES` or `standard_conforming_strings`: later texts cannot be read before it is answered.
    pub const CHANGES_LEXING: Self = Self(1 << 14);
    /// `CREATE TABLE … AS`, DML or SELECT that calls `nextval`/`setval`.
    pub const SEQUENCE_WRITE: Self = Self(1 << 15);
    /// DROP TABLE and the like, CLOSE, UNLISTEN, DISCARD, `pg_advisory_unlock`: may end the reason of a pin, probe after it (SESSIONS R5).
    pub const MAY_UNPIN: Self = Self(1 << 16);
    /// Cannot run inside a transaction block (VACUUM, CREATE DATABASE, DISCARD ALL, …).
    pub const NO_BLOCK: Self = Self(1 << 17);
    /// ALTER ROLE, ALTER DATABASE … SET, ALTER SYSTEM: login defaults may change, idle server connections retire (SESSIONS R6).
    pub const LOGIN_DEFAULTS: Self = Self(1 << 18);

    /// [`Flags::OPAQUE`] only because of [`Facts::functions`]: knowledge of the catalog may lift it.
    pub const OPAQUE_BY_NAME: Self = Self(1 << 19);

    /// Writes rows whose columns may take their defaults: a writing text with INSERT, COPY FROM or DEFAULT in it.
    pub const DEFAULTS: Self = Self(1 << 20);

    /// All bits of `other` are set.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Any bit of `other` is set.
    pub const fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Both sets together.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// Isolation of a transaction, as named in BEGIN or SET TRANSACTION.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Isolation {
    /// READ UNCOMMITTED behaves as READ COMMITTED.
    ReadCommitted,
    /// REPEATABLE READ.
    RepeatableRead,
    /// SERIALIZABLE.
    Serializable,
}

/// Modes of BEGIN / START TRANSACTION / SET TRANSACTION; `None` where not named.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Modes {
    /// ISOLATION LEVEL.
    pub isolation: Option<Isolation>,
    /// READ ONLY (true) or READ WRITE (false).
    pub read_only: Option<bool>,
    /// `[NOT] DEFERRABLE`.
    pub deferrable: Option<bool>,
}

/// What one statement does to the session, in the order of the text. Identifiers are folded as PostgreSQL folds them.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// BEGIN / START TRANSACTION with valid modes.
    Begin(Modes),
    /// COMMIT / END.
    Commit {
        /// AND CHAIN.
        chain: bool,
    },
    /// ROLLBACK / ABORT (not TO SAVEPOINT).
    Rollback {
        /// AND CHAIN.
        chain: bool,
    },
    /// SAVEPOINT, RELEASE, ROLLBACK TO.
    Savepoint,
    /// PREPARE TRANSACTION, COMMIT PREPARED, ROLLBACK PREPARED.
    TwoPhase,
    /// `SET [SESSION] name`, or a literal `set_config(name, value, false)`. TIME ZONE is `timezone`, NAMES `client_encoding`, ROLE `role`,
    /// SESSION AUTHORIZATION `session_authorization`, SESSION CHARACTERISTICS one `default_transaction_…` each.
    Set {
        /// The parameter, lower case.
        name: Box<str>,
    },
    /// SET LOCAL, SET TRANSACTION, SET CONSTRAINTS, a literal `set_config(…, true)`.
    SetLocal,
    /// SET LOCAL name TO DEFAULT.
    ResetLocal {
        /// The parameter, lower case.
        name: Box<str>,
    },
    /// RESET name, SET name TO DEFAULT, SET TIME ZONE LOCAL|DEFAULT, RESET ROLE ….
    Reset {
        /// The parameter, lower case.
        name: Box<str>,
    },
    /// RESET ALL.
    ResetAll,
    /// DISCARD ALL.
    DiscardAll,
    /// DISCARD PLANS, SEQUENCES, TEMP.
    Discard,
    /// PREPARE name AS …: pins until DEALLOCATE.
    Prepare {
        /// Statement name, folded.
        name: Box<str>,
    },
    /// EXECUTE name.
    Execute {
        /// Statement name, folded.
        name: Box<str>,
    },
    /// DEALLOCATE name; `None` is ALL.
    Deallocate {
        /// Statement name, folded.
        name: Option<Box<str>>,
    },
    /// DECLARE … CURSOR.
    Declare {
        /// WITH HOLD: outlives its transaction.
        hold: bool,
    },
    /// FETCH, MOVE.
    Fetch,
    /// CLOSE name or ALL.
    CloseCursor,
    /// LISTEN channel.
    Listen,
    /// UNLISTEN channel or *.
    Unlisten,
    /// LOCK TABLE.
    Lock,
    /// SHOW name (a parameter of the server).
    Show {
        /// The parameter, lower case; `all` for SHOW ALL.
        name: Box<str>,
    },
    /// `SHOW POOL_…` / `PGPOOL …`: the words after folding, string literals unquoted.
    Admin {
        /// e.g. `["show", "pool_nodes"]`, `["pgpool", "show", "route", "select 1"]`.
        words: Box<[Box<str>]>,
    },
}

/// A relation or function as the text names it, folded; `schema` empty when not qualified.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name {
    /// Schema (last qualifier before the name).
    pub schema: Box<str>,
    /// Last part.
    pub name: Box<str>,
}

/// Everything that routing and pooling need to know of a text, independent of any server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Hash of the token stream.
    pub fingerprint: Fingerprint,
    /// Kind of the only statement; [`Kind::Several`] for more than one.
    pub kind: Kind,
    /// What it is counted as.
    pub verb: Verb,
    /// Union over all statements of the text.
    pub flags: Flags,
    /// Non-empty statements in the text, capped at 65 535.
    pub statements: u16,
    /// Session effects in the order of the text.
    pub effects: Box<[Effect]>,
    /// Functions called that are *not* in the table of built-in functions: their verdict needs the catalog.
    pub functions: Box<[Name]>,
    /// Relations read or written, CTE names excluded where certain.
    pub relations: Box<[Name]>,
    /// Built-in functions called without `pg_catalog.` before them: a user's overload of the name may be meant.
    pub builtins: Box<[&'static str]>,
    /// [`name_hash`] of each name behind a point: `x.f` calls the function `f` where `x` has no such column.
    pub attributes: Box<[u32]>,
}

/// A hash of a name that is the same in every process, for [`Facts::attributes`] (FNV-1a, 32 bits).
pub fn name_hash(name: &str) -> u32 {
    name.bytes().fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl Facts {
    /// The facts of a text that was not, or could not be, read: goes to the primary and makes its transaction opaque.
    pub fn opaque() -> Self {
        Self {
            fingerprint: Fingerprint(0),
            kind: Kind::Opaque,
            verb: Verb::Other,
            flags: Flags::OPAQUE.with(Flags::WRITES),
            statements: 1,
            effects: Box::default(),
            functions: Box::default(),
            relations: Box::default(),
            builtins: Box::default(),
            attributes: Box::default(),
        }
    }

    /// Memory taken, in bytes, by estimate.
    pub fn bytes(&self) -> usize {
        let names = |names: &[Name]| {
            names.iter().map(|name| size_of::<Name>() + name.schema.len() + name.name.len()).sum::<usize>()
        };
        size_of::<Self>()
            + names(&self.functions)
            + names(&self.relations)
            + self.effects.len() * (size_of::<Effect>() + 32)
            + size_of_val(&*self.builtins)
            + size_of_val(&*self.attributes)
    }

    /// Could it run on a standby as far as the text alone tells?
    pub fn may_read(&self) -> bool {
        self.flags.has(Flags::READ)
    }
}
