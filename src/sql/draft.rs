//! The facts of one statement in the making, and how those of several become one. Must not read text.

use super::{Effect, Flags, Kind, Name};

/// What is known of one statement so far.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    pub(super) kind: Kind,
    pub(super) flags: Flags,
    pub(super) effects: Vec<Effect>,
    pub(super) functions: Vec<Name>,
    pub(super) relations: Vec<Name>,
    pub(super) builtins: Vec<&'static str>,
    pub(super) attributes: Vec<u32>,
    /// The tokens that sqlparser should see, as positions in the statement.
    pub(super) query: Option<(usize, usize)>,
}

impl Draft {
    /// A statement of this kind with these flags, nothing else known.
    pub(super) fn new(kind: Kind, flags: Flags) -> Self {
        Self {
            kind,
            flags,
            effects: Vec::new(),
            functions: Vec::new(),
            relations: Vec::new(),
            builtins: Vec::new(),
            attributes: Vec::new(),
            query: None,
        }
    }

    /// Could not be read with certainty.
    pub(super) fn opaque() -> Self {
        Self::new(Kind::Opaque, Flags::OPAQUE.with(Flags::WRITES))
    }

    /// A command on the session or its transaction, with what it does if its form is known to be right.
    pub(super) fn command(kind: Kind, effect: Option<Effect>) -> Self {
        Self::new(kind, Flags::NONE).effect(effect)
    }

    /// Adds what the statement does.
    pub(super) fn effect(mut self, effect: impl IntoIterator<Item = Effect>) -> Self {
        self.effects.extend(effect);
        self
    }

    /// Adds flags.
    pub(super) fn with(mut self, flags: Flags) -> Self {
        self.flags = self.flags.with(flags);
        self
    }

    /// Asks for sqlparser's view of the tokens `from..to`.
    pub(super) fn parse(mut self, from: usize, to: usize) -> Self {
        self.query = Some((from, to));
        self
    }

    /// Adds a function that PostgreSQL does not bring along.
    pub(super) fn function(&mut self, name: Name) {
        if !self.functions.contains(&name) {
            self.functions.push(name);
        }
    }

    /// Adds a relation.
    pub(super) fn relation(&mut self, name: Name) {
        if !self.relations.contains(&name) {
            self.relations.push(name);
        }
    }

    /// Two statements of one text, in order.
    pub(super) fn append(&mut self, next: Self) {
        self.kind = Kind::Several;
        // OPAQUE only by name stays so only if that holds for every statement that is opaque.
        let by_name = |draft: &Self| !draft.flags.has(Flags::OPAQUE) || draft.flags.has(Flags::OPAQUE_BY_NAME);
        let liftable = by_name(self) && by_name(&next);
        self.flags = self.flags.with(next.flags).without(Flags::READ);
        if !liftable {
            self.flags = self.flags.without(Flags::OPAQUE_BY_NAME);
        }
        self.effects.extend(next.effects);
        next.functions.into_iter().for_each(|name| self.function(name));
        next.relations.into_iter().for_each(|name| self.relation(name));
        self.builtins.extend(next.builtins);
        self.attributes.extend(next.attributes);
    }
}
