//! Who may import whom, and which code is pure.

use proc_macro2::LineColumn;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::code::{ends_with, for_tests};
use crate::{Breach, Source};

/// Which side of the fourth layer a module is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plane {
    None,
    Control,
    Data,
}

/// Module, layer, plane.
const MODULES: &[(&str, u8, Plane)] = &[
    ("support", 0, Plane::None),
    ("wire", 0, Plane::None),
    ("sql", 0, Plane::None),
    ("metrics", 0, Plane::None),
    ("config", 1, Plane::None),
    ("cluster", 1, Plane::None),
    ("auth", 1, Plane::None),
    ("routing", 2, Plane::None),
    ("net", 3, Plane::None),
    ("cache", 3, Plane::None),
    ("backend", 3, Plane::None),
    ("health", 4, Plane::Control),
    ("failover", 4, Plane::Control),
    ("recovery", 4, Plane::Control),
    ("watchdog", 4, Plane::Control),
    ("session", 4, Plane::Data),
    ("pcp", 5, Plane::None),
    ("web", 5, Plane::None),
    ("app", 6, Plane::None),
    ("cli", 7, Plane::None),
    ("main", 8, Plane::None),
];

/// Within a layer: from, to. The vocabulary and the clock are everyone's; connections are made of streams.
const NEIGHBOURS: &[(&str, &str)] = &[
    ("wire", "support"),
    ("sql", "support"),
    ("metrics", "support"),
    ("config", "cluster"),
    ("backend", "net"),
    ("backend", "cache"),
];

/// Roots of paths that pure code does not use.
const IMPURE: &[&[&str]] = &[
    &["tokio"],
    &["socket2"],
    &["std", "fs"],
    &["std", "process"],
    &["std", "thread"],
    &["std", "net", "TcpStream"],
    &["std", "net", "TcpListener"],
    &["std", "net", "UdpSocket"],
    &["std", "os", "unix", "net"],
];

pub(crate) fn check(source: &Source) -> Vec<Breach> {
    let Some(inner) = source.path.strip_prefix("src/").filter(|_| !source.test) else { return Vec::new() };
    let Ok(file) = syn::parse_file(&source.text) else { return Vec::new() };
    let mut module: Vec<String> = inner.trim_end_matches(".rs").split('/').map(str::to_owned).collect();
    // A mod.rs speaks for its folder; lib.rs is the root, which imports nobody.
    if module.last().is_some_and(|name| name == "mod" || name == "lib") {
        module.pop();
    }
    let Some(own) = module.first().cloned() else { return Vec::new() };
    let mut walk = Walk { path: &source.path, pure: is_pure(&own, inner), module, own, breaches: Vec::new() };
    if find(&walk.own).is_none() {
        let what = format!("module `{}` has no row in the table of layers", walk.own);
        return vec![Breach::new("layers", &source.path, what)];
    }
    walk.visit_file(&file);
    walk.breaches.dedup();
    walk.breaches
}

fn find(module: &str) -> Option<&'static (&'static str, u8, Plane)> {
    MODULES.iter().find(|(name, ..)| *name == module)
}

/// Layers 0 and 2, and engines wherever they are; the clock is what others must not be.
fn is_pure(own: &str, inner: &str) -> bool {
    let engine = inner.split('/').any(|part| part == "engine" || part == "engine.rs");
    inner != "support/clock.rs" && (engine || find(own).is_some_and(|(_, layer, _)| matches!(layer, 0 | 2)))
}

/// Why `from` may not import `to`.
fn objection(from: &str, to: &str) -> Option<String> {
    let ((_, above, own), (_, below, other)) = (find(from)?, find(to)?);
    if from == to || NEIGHBOURS.contains(&(from, to)) || above > below {
        return None;
    }
    if *own != Plane::None && *other != Plane::None && own != other {
        return Some(format!("`{from}` and `{to}` are of different planes"));
    }
    Some(format!("`{from}` (layer {above}) may not import `{to}` (layer {below})"))
}

struct Walk<'a> {
    path: &'a str,
    /// This file's module, from the root.
    module: Vec<String>,
    own: String,
    pure: bool,
    breaches: Vec<Breach>,
}

impl Walk<'_> {
    fn add(&mut self, rule: &'static str, at: LineColumn, what: &str) {
        self.breaches.push(Breach::new(rule, self.path, format!("line {}: {what}", at.line)));
    }

    /// The same path from the crate's root; none if it starts elsewhere.
    fn under_root(&self, names: &[String]) -> Option<Vec<String>> {
        let mut base = match names.first()?.as_str() {
            "crate" => Vec::new(),
            "super" | "self" => self.module.clone(),
            _ => return None,
        };
        for name in names {
            match name.as_str() {
                "super" => drop(base.pop()),
                "self" | "crate" => {}
                name => base.push(name.to_owned()),
            }
        }
        Some(base)
    }

    fn path_of(&mut self, names: &[String], at: LineColumn) {
        if let Some(target) = self.under_root(names)
            && let Some(why) = target.first().and_then(|to| objection(&self.own, to))
        {
            self.add("layers", at, &why);
        }
        let starts = |root: &&&[&str]| names.len() >= root.len() && root.iter().zip(names).all(|(a, b)| a == b);
        if let Some(root) = IMPURE.iter().find(starts).filter(|_| self.pure) {
            self.add("pure", at, &format!("decides, and does not touch {}", root.join("::")));
        }
    }

    fn tree(&mut self, prefix: &[String], tree: &syn::UseTree, at: LineColumn) {
        let with = |ident: &syn::Ident| prefix.iter().cloned().chain([ident.to_string()]).collect::<Vec<_>>();
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree, at),
            syn::UseTree::Name(name) => self.path_of(&with(&name.ident), at),
            syn::UseTree::Rename(name) => self.path_of(&with(&name.ident), at),
            syn::UseTree::Glob(_) => self.path_of(prefix, at),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(prefix, item, at)),
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if for_tests(&item.attrs) {
            return;
        }
        self.module.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.module.pop();
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if !for_tests(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !for_tests(&item.attrs) {
            self.tree(&[], &item.tree, item.span().start());
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.path_of(&names, path.span().start());
        if self.pure && ends_with(path, &["clock", "now"]) {
            self.add("pure", path.span().start(), "is told the time as an argument");
        }
        visit::visit_path(self, path);
    }
}
