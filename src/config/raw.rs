//! The file as it is said: sections and values with their spans, each value fitting its row. Must not relate values
//! to one another; that is `build`'s job.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::hints;
use super::problem::Problem;
use super::table::{Row, Section, SectionRow, Shape};
use super::value::Value;

/// A value of the file and where it stands.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) value: Value,
    pub(super) span: Range<usize>,
}

/// A section of the file.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) section: Section,
    /// Its header, or its inline table.
    pub(super) span: Range<usize>,
    pub(super) values: BTreeMap<&'static str, Given>,
    pub(super) children: Vec<Table>,
}

impl Table {
    fn new(section: Section, span: Range<usize>) -> Self {
        Self { section, span, values: BTreeMap::new(), children: Vec::new() }
    }

    /// The sections of that kind right below.
    pub(super) fn all(&self, section: Section) -> impl Iterator<Item = &Table> {
        self.children.iter().filter(move |child| child.section == section)
    }

    /// The section of that kind right below, if the file has it.
    pub(super) fn one(&self, section: Section) -> Option<&Table> {
        self.all(section).next()
    }
}

/// Reads the text of a file. All that is wrong with it comes back, not only the first.
pub(super) fn read(text: &str) -> (Table, Vec<Problem>) {
    let (document, errors) = DeTable::parse_recoverable(text);
    let mut walk = Walk { problems: Vec::new() };
    for error in errors {
        let span = error.span().unwrap_or(0..0);
        walk.problems.push(Problem::at(span, error.message().replace('\n', "; ")).hint("this file is TOML"));
    }
    if !walk.problems.is_empty() {
        // What the parser could save of a broken file would only give follow-up errors.
        return (Table::new(Section::Root, 0..0), walk.problems);
    }
    let root = walk.table(Section::Root, document.get_ref(), document.span());
    (root, walk.problems)
}

struct Walk {
    problems: Vec<Problem>,
}

impl Walk {
    fn table(&mut self, section: Section, source: &DeTable<'_>, span: Range<usize>) -> Table {
        let mut table = Table::new(section, span);
        for (key, value) in source.iter() {
            let name = key.get_ref().as_ref();
            if let Some(child) = section.children().find(|child| child.key == name) {
                self.child(child, value, &mut table);
            } else if let Some(row) = section.rows().find(|row| row.name == name) {
                self.value(row, value, &mut table);
            } else {
                self.problems.push(hints::unknown(section, name, key.span()));
            }
        }
        table
    }

    fn child(&mut self, child: &SectionRow, value: &Spanned<DeValue<'_>>, table: &mut Table) {
        let header = child.section.header();
        match (child.shape, value.get_ref()) {
            (Shape::Many, DeValue::Array(items)) => {
                for item in items.iter() {
                    match item.get_ref() {
                        DeValue::Table(inner) => table.children.push(self.table(child.section, inner, item.span())),
                        _ => self.problems.push(Problem::at(item.span(), format!("{header} is a section"))),
                    }
                }
            }
            (Shape::Always | Shape::Optional, DeValue::Table(inner)) => {
                table.children.push(self.table(child.section, inner, value.span()));
            }
            (Shape::Many, _) => self.problems.push(
                Problem::at(value.span(), format!("`{}` is a section that may come several times", child.key))
                    .hint(format!("write {header}, with two brackets")),
            ),
            (_, DeValue::Array(_)) => self.problems.push(
                Problem::at(value.span(), format!("{header} comes once"))
                    .hint(format!("write {header}, with one bracket")),
            ),
            _ => {
                let problem = Problem::at(value.span(), format!("`{}` is a section", child.key));
                self.problems.push(problem.hint(format!("write {header} on a line of its own")));
            }
        }
    }

    fn value(&mut self, row: &'static Row, value: &Spanned<DeValue<'_>>, table: &mut Table) {
        match row.kind.check(value.get_ref()) {
            Ok(checked) => {
                table.values.insert(row.name, Given { value: checked, span: value.span() });
            }
            Err(misfit) => {
                let span = misfit.span.unwrap_or_else(|| value.span());
                self.problems.push(Problem::at(span, format!("bad value for `{}`", row.name)).hint(misfit.right));
            }
        }
    }
}
