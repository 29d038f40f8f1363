//! Limits of style within one file.

use proc_macro2::LineColumn;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

use crate::{Breach, Source};

const FUNCTION_LINES: usize = 70;
const FILE_LINES: usize = 500;
const INLINE_TEST_LINES: usize = 150;
const PARAMETERS: usize = 6;
const BOOLS: usize = 2;

pub(crate) fn check(source: &Source) -> Vec<Breach> {
    let mut breaches = Vec::new();
    let mut add = |rule, what: String| breaches.push(Breach::new(rule, &source.path, what));
    let lines = source.text.lines().count();
    if lines > FILE_LINES {
        add("file length", format!("{lines} lines, at most {FILE_LINES}"));
    }
    let first = source.text.lines().next().unwrap_or_default();
    let head = first.strip_prefix("//! ").unwrap_or_default();
    if head.len() < 10 || head.starts_with("To be written") {
        add("head", "starts with `//!` and says its job, its owner, what it must not do".to_owned());
    }
    let file = match syn::parse_file(&source.text) {
        Ok(file) => file,
        Err(error) => {
            add("syntax", error.to_string());
            return breaches;
        }
    };
    if !source.test {
        let mut walk = Walk { path: &source.path, breaches };
        walk.visit_file(&file);
        breaches = walk.breaches;
    }
    breaches
}

/// Is the item compiled for tests only?
pub(crate) fn for_tests(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(|p| p.is_ident("test"))
    })
}

/// Does `path` end with these names?
pub(crate) fn ends_with(path: &syn::Path, names: &[&str]) -> bool {
    let skip = path.segments.len().checked_sub(names.len());
    skip.is_some_and(|skip| path.segments.iter().skip(skip).zip(names).all(|(segment, name)| segment.ident == name))
}

struct Walk<'a> {
    path: &'a str,
    breaches: Vec<Breach>,
}

impl Walk<'_> {
    fn add(&mut self, rule: &'static str, at: LineColumn, what: &str) {
        self.breaches.push(Breach::new(rule, self.path, format!("line {}: {what}", at.line)));
    }

    fn named(&mut self, rule: &'static str, name: &syn::Ident, what: String) {
        self.breaches.push(Breach::new(rule, format!("{}::{name}", self.path), what));
    }

    fn function(&mut self, signature: &syn::Signature, block: Option<&syn::Block>) {
        let from = signature.span().start().line;
        let to = block.map_or(from, |block| block.span().end().line);
        let (lines, name) = (to - from + 1, &signature.ident);
        if lines > FUNCTION_LINES {
            self.named("function length", name, format!("{lines} lines, at most {FUNCTION_LINES}"));
        }
        let parameters = signature.inputs.iter().filter(|input| matches!(input, syn::FnArg::Typed(_))).count();
        if parameters > PARAMETERS {
            self.named("parameters", name, format!("{parameters} parameters, at most {PARAMETERS}"));
        }
        if signature.unsafety.is_some() {
            self.add("unsafe", signature.span().start(), "an unsafe function");
        }
    }
}

impl<'ast> Visit<'ast> for Walk<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        let attributes = match item {
            syn::Item::Fn(item) => &item.attrs,
            syn::Item::Mod(item) => &item.attrs,
            syn::Item::Impl(item) => &item.attrs,
            syn::Item::Struct(item) => &item.attrs,
            syn::Item::Use(item) => &item.attrs,
            syn::Item::Const(item) => &item.attrs,
            _ => &Vec::new(),
        };
        if !for_tests(attributes) {
            return visit::visit_item(self, item);
        }
        let lines = item.span().end().line - item.span().start().line + 1;
        if lines > INLINE_TEST_LINES {
            let what = format!("{lines} lines of tests belong into a sibling tests.rs");
            self.add("tests beside", item.span().start(), &what);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, Some(&item.block));
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if !for_tests(&item.attrs) {
            self.function(&item.sig, Some(&item.block));
            visit::visit_impl_item_fn(self, item);
        }
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.function(&item.sig, item.default.as_ref());
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast syn::ItemStruct) {
        let is_bool = |field: &&syn::Field| matches!(&field.ty, syn::Type::Path(path) if path.path.is_ident("bool"));
        let bools = item.fields.iter().filter(is_bool).count();
        if bools > BOOLS {
            self.named("bools", &item.ident, format!("{bools} bools, at most {BOOLS}"));
        }
        visit::visit_item_struct(self, item);
    }

    fn visit_attribute(&mut self, attribute: &'ast syn::Attribute) {
        if let syn::Meta::List(list) = &attribute.meta {
            let text = list.tokens.to_string();
            if (list.path.is_ident("allow") || list.path.is_ident("expect")) && text.contains("unsafe_code") {
                self.add("unsafe", attribute.span().start(), "allows unsafe code");
            }
            if list.path.is_ident("serde") && text.contains("flatten") {
                self.add("flatten", attribute.span().start(), "serde(flatten) hides errors");
            }
        }
        visit::visit_attribute(self, attribute);
    }

    fn visit_expr_unsafe(&mut self, block: &'ast syn::ExprUnsafe) {
        self.add("unsafe", block.span().start(), "an unsafe block");
        visit::visit_expr_unsafe(self, block);
    }

    fn visit_expr_method_call(&mut self, call: &'ast syn::ExprMethodCall) {
        if call.method == "unwrap" && call.args.is_empty() {
            self.add("unwrap", call.method.span().start(), "`expect(\"why it holds\")` says why");
        }
        if call.method == "expect" && call.args.len() == 1 {
            let short = |text: &syn::LitStr| text.value().len() < 6;
            if matches!(&call.args[0], syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) if short(text)) {
                self.add("expect", call.method.span().start(), "says why it holds");
            }
        }
        visit::visit_expr_method_call(self, call);
    }

    fn visit_expr_call(&mut self, call: &'ast syn::ExprCall) {
        if let syn::Expr::Path(function) = &*call.func
            && call.args.is_empty()
            && ends_with(&function.path, &["mpsc", "channel"])
        {
            self.add("unbounded", call.span().start(), "std's channel() has no bound; sync_channel(n) has");
        }
        visit::visit_expr_call(self, call);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let at = path.span().start();
        if path.segments.iter().any(|segment| segment.ident == "unbounded_channel") {
            self.add("unbounded", at, "every channel has a bound");
        }
        let now = ends_with(path, &["Instant", "now"]) || ends_with(path, &["SystemTime", "now"]);
        if now && self.path != "src/support/clock.rs" {
            self.add("clock", at, "only support::clock asks for the time");
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        // Arguments of macros are bare tokens; what matters is found in their text.
        let text = call.tokens.to_string().replace(' ', "");
        let at = call.span().start();
        if text.contains(".unwrap()") {
            self.add("unwrap", at, "`expect(\"why it holds\")` says why");
        }
        if text.contains("Instant::now") || text.contains("SystemTime::now") {
            self.add("clock", at, "only support::clock asks for the time");
        }
        if text.contains("unbounded_channel") {
            self.add("unbounded", at, "every channel has a bound");
        }
        visit::visit_macro(self, call);
    }
}
