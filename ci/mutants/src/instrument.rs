//! Puts mutants into the source, each behind a condition that is false unless it is switched on.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use proc_macro2::LineColumn;
use serde_json::Value;
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

use crate::suite::CompileError;
use crate::{Failure, below};

/// What the copy of the crate gets in addition: which mutant is on, and which ones were reached.
const SWITCH: &str = r#"
/// Whether this mutant is switched on.
#[doc(hidden)]
pub fn mutant(id: usize) -> bool {
    use std::io::Write as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{LazyLock, Mutex};
    static ACTIVE: LazyLock<usize> =
        LazyLock::new(|| std::env::var("MUTANT").ok().and_then(|id| id.parse().ok()).unwrap_or(0));
    static TRACE: LazyLock<Option<Mutex<std::fs::File>>> = LazyLock::new(|| {
        let path = std::env::var_os("MUTANT_TRACE")?;
        std::fs::OpenOptions::new().create(true).append(true).open(path).ok().map(Mutex::new)
    });
    static REACHED: [AtomicBool; 20_000] = [const { AtomicBool::new(false) }; 20_000];
    if let Some(trace) = &*TRACE {
        if !REACHED[id].swap(true, Ordering::Relaxed) {
            let mut trace = trace.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let _ = writeln!(trace, "{id}");
        }
    }
    *ACTIVE == id
}
"#;

/// A mutant may compute what overflows: then it is caught when it is reached.
const ALLOW: &str = "#![allow(warnings, arithmetic_overflow, unconditional_panic)]\n";

#[derive(Clone, Copy, Debug, PartialEq)]
enum Genre {
    Function,
    Binary,
    Unary,
    Arm,
    Guard,
    Field,
}

/// A change of the code, as cargo-mutants lists it.
#[derive(Clone, Debug)]
pub struct Mutant {
    pub id: usize,
    pub file: String,
    pub name: String,
    genre: Genre,
    start: LineColumn,
    replacement: String,
}

impl Mutant {
    /// `None` if it is of a kind that cannot be switched on.
    pub fn read(id: usize, json: &Value) -> Option<Self> {
        let genre = match json["genre"].as_str()? {
            "FnValue" => Genre::Function,
            "BinaryOperator" => Genre::Binary,
            "UnaryOperator" => Genre::Unary,
            "MatchArm" => Genre::Arm,
            "MatchArmGuard" => Genre::Guard,
            "StructField" => Genre::Field,
            _ => return None,
        };
        // A function has one return type that its signature does not name.
        let has_hidden_type =
            json["function"]["return_type"].as_str().is_some_and(|of| of.contains("impl "));
        if genre == Genre::Function && has_hidden_type {
            return None;
        }
        let at = |name| usize::try_from(json["span"]["start"][name].as_u64()?).ok();
        Some(Self {
            id,
            file: json["file"].as_str()?.to_owned(),
            name: json["name"].as_str()?.to_owned(),
            genre,
            start: LineColumn { line: at("line")?, column: at("column")?.checked_sub(1)? },
            replacement: json["replacement"].as_str()?.to_owned(),
        })
    }

    /// The name without line and column, which change with every commit.
    pub fn stable_name(&self) -> String {
        let mut parts = self.name.splitn(4, ':');
        let file = parts.next().unwrap_or_default();
        format!("{file}:{}", parts.nth(2).unwrap_or_default())
    }
}

/// Where a mutant is in the changed code, in bytes.
pub struct Region {
    pub id: usize,
    file: String,
    pub start: usize,
    pub end: usize,
}

impl Region {
    pub fn has(&self, error: &CompileError) -> bool {
        self.file == error.file && self.start <= error.end && error.start <= self.end
    }

    pub fn is_before(&self, error: &CompileError) -> bool {
        self.file == error.file && self.end <= error.start
    }

    pub fn is_after(&self, error: &CompileError) -> bool {
        self.file == error.file && error.end <= self.start
    }
}

/// The sources before any change.
pub struct Sources(Vec<(PathBuf, String, String)>);

impl Sources {
    pub fn read(copy: &Path) -> Result<Self, Failure> {
        let (mut folders, mut all) = (vec![copy.join("src")], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder)? {
                let path = entry?.path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "rs") {
                    let text = fs::read_to_string(&path)?;
                    all.push((path.clone(), below(&path, copy), text));
                }
            }
        }
        Ok(Self(all))
    }

    /// Writes all files with these mutants. Those that have no place are removed from the list,
    /// such as an operator of a condition with `let`.
    pub fn instrument(
        &self,
        copy: &Path,
        mutants: &mut Vec<Mutant>,
    ) -> Result<Vec<Region>, Failure> {
        let (mut regions, mut placed) = (Vec::new(), HashSet::new());
        for (path, name, text) in &self.0 {
            let own: Vec<_> = mutants.iter().filter(|mutant| mutant.file == *name).collect();
            let mut changed = if own.is_empty() {
                text.clone()
            } else {
                changed(text, name, &own, &mut regions, &mut placed)?
            };
            if *path == copy.join("src/lib.rs") {
                changed += SWITCH;
                changed.insert_str(0, ALLOW);
                for region in regions.iter_mut().filter(|region| region.file == *name) {
                    let before = ALLOW.len();
                    region.start += before;
                    region.end += before;
                }
            }
            if fs::read_to_string(path).ok().as_ref() != Some(&changed) {
                fs::write(path, changed)?;
            }
        }
        mutants.retain(|mutant| placed.contains(&mutant.id));
        Ok(regions)
    }
}

/// At one place, ends come before starts. What contains others comes first at a start, and last at
/// an end, so its length is negative at a start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    End(usize),
    /// After an expression with all that is inserted into it.
    EndOfAll,
    /// Before an expression with all that is inserted into it.
    StartOfAll,
    Start(Reverse<usize>, usize),
}

/// Text that is inserted, and the mutant that it is.
struct Insertion {
    at: usize,
    /// Of several at one place.
    order: Order,
    text: String,
    id: Option<usize>,
}

fn changed(
    text: &str,
    file: &str,
    mutants: &[&Mutant],
    regions: &mut Vec<Region>,
    placed: &mut HashSet<usize>,
) -> Result<String, Failure> {
    let parsed = syn::parse_file(text)?;
    let mut at_start: HashMap<(usize, usize), Vec<&Mutant>> = HashMap::new();
    for mutant in mutants {
        at_start.entry((mutant.start.line, mutant.start.column)).or_default().push(mutant);
    }
    let (insertions, constants) = (Vec::new(), HashMap::new());
    let placed_here = HashSet::new();
    let mut finder =
        Finder { text, at_start, insertions, constants, is_constant: false, placed: placed_here };
    let mut constants = Constants(Vec::new());
    constants.visit_file(&parsed);
    for item in constants.0 {
        finder.replace_in_constant(item);
    }
    finder.visit_file(&parsed);
    placed.extend(finder.placed);
    let mut insertions = finder.insertions;
    insertions.sort_by_key(|one| (one.at, one.order));
    let (mut changed, mut done) = (String::with_capacity(2 * text.len()), 0);
    for Insertion { at, text: inserted, id, .. } in insertions {
        changed += &text[done..at];
        done = at;
        let start = changed.len();
        changed += &inserted;
        if let Some(id) = id {
            regions.push(Region { id, file: file.to_owned(), start, end: changed.len() });
        }
    }
    changed += &text[done..];
    Ok(changed)
}

struct Finder<'a> {
    text: &'a str,
    at_start: HashMap<(usize, usize), Vec<&'a Mutant>>,
    insertions: Vec<Insertion>,
    /// The constants of the file, and their expressions with each of the mutants. They are replaced
    /// where the constant is used: a constant cannot depend on a switch.
    constants: HashMap<String, Vec<(&'a Mutant, String)>>,
    /// Whether the code that is visited runs at compile time.
    is_constant: bool,
    /// The mutants that are put somewhere.
    placed: HashSet<usize>,
}

/// The constants of a file.
struct Constants<'ast>(Vec<&'ast syn::ItemConst>);

impl<'ast> Visit<'ast> for Constants<'ast> {
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.0.push(item);
    }
}

/// The operators of an expression.
struct Operators<'ast>(Vec<&'ast syn::BinOp>);

impl<'ast> Visit<'ast> for Operators<'ast> {
    fn visit_expr_binary(&mut self, both: &'ast syn::ExprBinary) {
        self.0.push(&both.op);
        visit::visit_expr_binary(self, both);
    }
}

impl<'a> Finder<'a> {
    fn replace_in_constant(&mut self, item: &syn::ItemConst) {
        let mut operators = Operators(Vec::new());
        operators.visit_expr(&item.expr);
        let whole = range_of(&item.expr);
        let mut all = Vec::new();
        for operator in operators.0 {
            let range = range_of(operator);
            let (before, after) =
                (&self.text[whole.start..range.start], &self.text[range.end..whole.end]);
            for mutant in self.take(operator.span().start(), Genre::Binary) {
                all.push((mutant, format!("{before}{}{after}", mutant.replacement)));
            }
        }
        if !all.is_empty() {
            self.constants.insert(item.ident.to_string(), all);
        }
    }

    fn within(&mut self, is_constant: bool, visit: impl FnOnce(&mut Self)) {
        let before = std::mem::replace(&mut self.is_constant, is_constant);
        visit(self);
        self.is_constant = before;
    }

    fn take(&mut self, at: LineColumn, genre: Genre) -> Vec<&'a Mutant> {
        let Some(all) = self.at_start.get_mut(&(at.line, at.column)) else { return Vec::new() };
        let (own, others) = all.drain(..).partition(|mutant| mutant.genre == genre);
        *all = others;
        own
    }

    /// Replaces an expression where a mutant is on.
    fn wrap(&mut self, range: Range<usize>, mutants: &[&Mutant], with: impl Fn(&Mutant) -> String) {
        self.placed.extend(mutants.iter().map(|mutant| mutant.id));
        let mut number = 0;
        let mut push = |at, order, text, id| {
            self.insertions.push(Insertion { at, order, text, id });
        };
        let mut start = |text, id| {
            number += 1;
            push(range.start, Order::Start(Reverse(range.len()), number), text, id);
        };
        start("(".to_owned(), None);
        for mutant in mutants {
            let text = format!("if crate::mutant({}) {{ {} }} else ", mutant.id, with(mutant));
            start(text, Some(mutant.id));
        }
        start("{ ".to_owned(), None);
        push(range.end, Order::End(range.len()), " })".to_owned(), None);
    }
}

fn range_of(of: &impl syn::spanned::Spanned) -> Range<usize> {
    of.span().byte_range()
}

/// Whether code is left out of a build with all features.
fn is_left_out(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().filter(|one| one.path().is_ident("cfg")).any(|one| {
        let condition = one.meta.require_list().map(|list| list.tokens.to_string());
        condition.is_ok_and(|condition| condition.starts_with("not (feature"))
    })
}

/// Whether an expression is a condition with `let`, which cannot be in parentheses.
fn has_let(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(both) => has_let(&both.left) || has_let(&both.right),
        _ => false,
    }
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.within(true, |own| visit::visit_item_const(own, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.within(true, |own| visit::visit_item_static(own, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.within(true, |own| visit::visit_impl_item_const(own, item));
    }

    fn visit_type_array(&mut self, array: &'ast syn::TypeArray) {
        self.within(true, |own| visit::visit_type_array(own, array));
    }

    fn visit_pat(&mut self, pattern: &'ast syn::Pat) {
        self.within(true, |own| visit::visit_pat(own, pattern));
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_left_out(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if !is_left_out(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        if is_left_out(&item.attrs) {
            return;
        }
        let is_constant = item.sig.constness.is_some();
        self.within(is_constant, |own| visit::visit_item_fn(own, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        if is_left_out(&item.attrs) {
            return;
        }
        let is_constant = item.sig.constness.is_some();
        self.within(is_constant, |own| visit::visit_impl_item_fn(own, item));
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        let name = path.path.get_ident().map(ToString::to_string);
        let constant =
            name.filter(|_| !self.is_constant).and_then(|name| self.constants.get(&name));
        if let Some(constant) = constant.cloned() {
            let mutants: Vec<_> = constant.iter().map(|(mutant, _)| *mutant).collect();
            self.wrap(range_of(path), &mutants, |mutant| {
                let own = constant.iter().find(|(one, _)| one.id == mutant.id);
                own.map_or(String::new(), |(_, text)| text.clone())
            });
        }
    }

    fn visit_expr_binary(&mut self, both: &'ast syn::ExprBinary) {
        let mutants = self.take(both.op.span().start(), Genre::Binary);
        let is_condition = has_let(&both.left) || has_let(&both.right);
        if !mutants.is_empty() && !is_condition {
            let text = self.text;
            let (left, right) = (&text[range_of(&both.left)], &text[range_of(&both.right)]);
            self.wrap(range_of(both), &mutants, |mutant| {
                format!("{left} {} {right}", mutant.replacement)
            });
        }
        visit::visit_expr_binary(self, both);
    }

    /// A deleted field has the value of the expression after `..`.
    fn visit_expr_struct(&mut self, one: &'ast syn::ExprStruct) {
        if let Some(rest) = &one.rest {
            let rest = &self.text[range_of(rest)];
            for field in &one.fields {
                let mutants = self.take(field.span().start(), Genre::Field);
                if !mutants.is_empty() {
                    let name = &self.text[range_of(&field.member)];
                    if field.colon_token.is_none() {
                        let (at, text) = (range_of(&field.expr).start, format!("{name}: "));
                        let order = Order::StartOfAll;
                        self.insertions.push(Insertion { at, order, text, id: None });
                    }
                    self.wrap(range_of(&field.expr), &mutants, |_| format!("({rest}).{name}"));
                }
            }
        }
        visit::visit_expr_struct(self, one);
    }

    fn visit_expr_unary(&mut self, one: &'ast syn::ExprUnary) {
        let mutants = self.take(one.op.span().start(), Genre::Unary);
        if !mutants.is_empty() {
            let inner = &self.text[range_of(&one.expr)];
            self.wrap(range_of(one), &mutants, |mutant| format!("{} {inner}", mutant.replacement));
        }
        visit::visit_expr_unary(self, one);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let deleted = self.take(arm.span().start(), Genre::Arm);
        let guard = arm.guard.as_ref().map(|(_, guard)| &**guard);
        let replaced =
            guard.map_or(Vec::new(), |guard| self.take(guard.span().start(), Genre::Guard));
        let is_off = |mutants: &[&Mutant]| {
            let all = mutants.iter().map(|mutant| format!("!crate::mutant({})", mutant.id));
            all.collect::<Vec<_>>().join(" && ")
        };
        let first = |mutants: &[&Mutant]| mutants.first().map(|mutant| mutant.id);
        match guard {
            None if !deleted.is_empty() => {
                self.placed.extend(deleted.iter().map(|mutant| mutant.id));
                self.insertions.push(Insertion {
                    at: range_of(&arm.pat).end,
                    order: Order::EndOfAll,
                    text: format!(" if {}", is_off(&deleted)),
                    id: first(&deleted),
                });
            }
            Some(guard) if !(has_let(guard) || deleted.is_empty() && replaced.is_empty()) => {
                let all = deleted.iter().chain(&replaced);
                self.placed.extend(all.map(|mutant| mutant.id));
                let range = range_of(guard);
                let of = |value: &str| {
                    let all = replaced.iter().filter(|mutant| mutant.replacement == value);
                    all.copied().collect::<Vec<_>>()
                };
                let (always, never) = (of("true"), of("false"));
                let mut before = String::new();
                for off in [is_off(&deleted), is_off(&never)] {
                    if !off.is_empty() {
                        before += &format!("{off} && ");
                    }
                }
                before += "(";
                for mutant in &always {
                    before += &format!("crate::mutant({}) || ", mutant.id);
                }
                before += "(";
                let id = first(&replaced).or(first(&deleted));
                self.insertions.push(Insertion {
                    at: range.start,
                    order: Order::StartOfAll,
                    text: before,
                    id,
                });
                self.insertions.push(Insertion {
                    at: range.end,
                    order: Order::EndOfAll,
                    text: "))".to_owned(),
                    id: None,
                });
            }
            _ => {}
        }
        visit::visit_arm(self, arm);
    }

    fn visit_block(&mut self, block: &'ast syn::Block) {
        if let (Some(first), Some(_)) = (block.stmts.first(), block.stmts.last()) {
            for mutant in self.take(first.span().start(), Genre::Function) {
                self.placed.insert(mutant.id);
                self.insertions.push(Insertion {
                    at: range_of(first).start,
                    order: Order::StartOfAll,
                    text: format!(
                        "if crate::mutant({}) {{ return {}; }} ",
                        mutant.id, mutant.replacement
                    ),
                    id: Some(mutant.id),
                });
            }
        }
        visit::visit_block(self, block);
    }
}
