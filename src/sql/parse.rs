//! sqlparser's view of one query or DML statement, rebuilt from our own tokens so that both see the same text: literals are
//! replaced, comments are gone. Must not be trusted to find everything; may only narrow what the lexer allows.

use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};

use rustc_hash::FxHashSet;
use sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, Statement as Tree, TableAlias, TableFactor, Visit, Visitor,
};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::parser::Parser;

use super::lexer::Token;
use super::statement::{Statement, cut};
use super::{Name, calls};

/// What sqlparser found.
#[derive(Debug, Default)]
pub(super) struct Parsed {
    /// A query, and nothing in it writes, locks or creates.
    pub(super) read: bool,
    /// Functions called.
    pub(super) functions: Vec<Name>,
    /// Relations named, less those that are certainly a WITH's.
    pub(super) relations: Vec<Name>,
    aliases: FxHashSet<Box<str>>,
}

impl Parsed {
    /// Is a name before a parenthesis the alias of something, and no function of that name is called?
    pub(super) fn explains(&self, name: &str) -> bool {
        self.aliases.contains(name) && !self.functions.iter().any(|function| &*function.name == name)
    }
}

/// Parses the statement. `None`: sqlparser does not understand it.
pub(super) fn parse(st: Statement<'_>) -> Option<Parsed> {
    let text = rebuild(st)?;
    // A panic of the parser must not be the session's end; the text is then as good as not understood.
    catch_unwind(AssertUnwindSafe(|| {
        let trees = Parser::parse_sql(&PostgreSqlDialect {}, &text).ok()?;
        let [tree] = trees.as_slice() else { return None };
        let mut walk = Walk { parsed: Parsed { read: true, ..Parsed::default() }, ..Walk::default() };
        let _: ControlFlow<()> = tree.visit(&mut walk);
        Some(walk.parsed)
    }))
    .ok()
    .flatten()
}

/// The statement as sqlparser should see it. `None`: it holds something that cannot be said plainly.
fn rebuild(st: Statement<'_>) -> Option<String> {
    let mut text = String::with_capacity(st.len() * 8);
    let mut at = 0;
    while at < st.len() {
        if is_left_out(st, at) {
            at += 1;
            continue;
        }
        let bytes = String::from_utf8_lossy(st.bytes(at));
        let piece: &str = match st.token(at)? {
            // TABLE t is SELECT * FROM t; as an expression of its own its relation would not be visited.
            Token::Word if st.is(at, "table") => "SELECT * FROM",
            Token::Word | Token::Quoted | Token::Param | Token::Operator | Token::Punctuation => &bytes,
            Token::Text | Token::EscapeText | Token::DollarText | Token::UnicodeText => "'x'",
            Token::Bits => "B'1'",
            Token::Integer => "1",
            Token::Decimal => "1.5",
            Token::UnicodeQuoted | Token::Bad => return None,
        };
        let point = |at: usize| st.mark(at, b'.');
        let number = |at: usize| matches!(st.token(at), Some(Token::Integer | Token::Decimal | Token::Param));
        let joined = at > 0 && ((point(at) && !number(at - 1)) || (point(at - 1) && !(at > 1 && number(at - 2))));
        if at > 0 && !joined {
            text.push(' ');
        }
        text.push_str(piece);
        at += 1;
        if st.token(at - 1) == Some(Token::UnicodeText) && st.is(at, "uescape") {
            at += 2;
        }
    }
    Some(text)
}

/// Words that sqlparser does not know or takes for names, and that change nothing about what is read: ONLY before a
/// relation, the strength of a row lock, SYMMETRIC.
fn is_left_out(st: Statement<'_>, at: usize) -> bool {
    let Some(before) = at.checked_sub(1) else { return false };
    if st.is(at, "only") {
        return st.any(before, &["from", "join", "update", "using", "table", "into"]) || st.mark(before, b',');
    }
    (st.is(at, "no") && st.is(before, "for"))
        || (st.is(at, "key") && st.any(before, &["for", "no"]) && st.any(at + 1, &["share", "update"]))
        || (st.any(at, &["symmetric", "asymmetric"]) && st.is(before, "between"))
}

/// Names of a WITH that the query being visited may mean, and the queries whose end makes further names visible.
#[derive(Debug, Default)]
struct Scope {
    visible: Vec<Box<str>>,
    pending: Vec<(*const Query, Box<str>)>,
}

#[derive(Debug, Default)]
struct Walk {
    parsed: Parsed,
    scopes: Vec<Scope>,
    /// The name of a table function, visited as a relation after its table factor.
    function: Option<*const ObjectName>,
}

impl Walk {
    fn alias(&mut self, alias: Option<&TableAlias>) {
        if let Some(alias) = alias {
            self.parsed.aliases.insert(fold(&alias.name));
        }
    }

    fn call(&mut self, name: &ObjectName) {
        let plain =
            |ident: &Ident| ident.quote_style.is_none() && calls::is_never_function(&ident.value.to_ascii_lowercase());
        if matches!(name.0.as_slice(), [part] if part.as_ident().is_some_and(plain)) {
            return;
        }
        if let Some(name) = last_two(name) {
            self.parsed.functions.push(name);
        }
    }
}

impl Visitor for Walk {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &Tree) -> ControlFlow<()> {
        self.parsed.read &= matches!(statement, Tree::Query(_));
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.parsed.read &= query.locks.is_empty() && query.for_clause.is_none() && query.settings.is_none();
        let mut scope = Scope::default();
        if let Some(with) = &query.with {
            for cte in &with.cte_tables {
                self.alias(Some(&cte.alias));
                let name = fold(&cte.alias.name);
                if with.recursive {
                    scope.visible.push(name);
                } else {
                    scope.pending.push((&raw const *cte.query, name));
                }
            }
        }
        self.scopes.push(scope);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        self.scopes.pop();
        if let Some(scope) = self.scopes.last_mut()
            && let Some(at) = scope.pending.iter().position(|(pending, _)| std::ptr::eq(*pending, query))
        {
            let (_, name) = scope.pending.swap_remove(at);
            scope.visible.push(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.parsed.read &= select.into.is_none();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        match factor {
            TableFactor::Table { name, alias, args, .. } => {
                self.alias(alias.as_ref());
                if args.is_some() {
                    self.call(name);
                    self.function = Some(&raw const *name);
                }
            }
            TableFactor::Function { name, alias, .. } => {
                self.alias(alias.as_ref());
                self.call(name);
            }
            TableFactor::Derived { alias, .. }
            | TableFactor::TableFunction { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::JsonTable { alias, .. }
            | TableFactor::NestedJoin { alias, .. }
            | TableFactor::XmlTable { alias, .. } => self.alias(alias.as_ref()),
            // Forms of other databases.
            _ => self.parsed.read = false,
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
        if self.function.take_if(|function| std::ptr::eq(*function, relation)).is_some() {
            return ControlFlow::Continue(());
        }
        let Some(name) = last_two(relation) else {
            self.parsed.read = false;
            return ControlFlow::Continue(());
        };
        let with = name.schema.is_empty() && self.scopes.iter().any(|scope| scope.visible.contains(&name.name));
        if !with {
            self.parsed.relations.push(name);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            self.call(&function.name);
        }
        ControlFlow::Continue(())
    }
}

/// An identifier as PostgreSQL folds and cuts it.
fn fold(ident: &Ident) -> Box<str> {
    cut(if ident.quote_style.is_some() { ident.value.clone() } else { ident.value.to_ascii_lowercase() })
}

/// Schema and name of a dotted name.
fn last_two(name: &ObjectName) -> Option<Name> {
    let part = |from_end: usize| name.0.len().checked_sub(from_end).and_then(|at| name.0[at].as_ident()).map(fold);
    Some(Name { name: part(1)?, schema: part(2).unwrap_or_default() })
}
