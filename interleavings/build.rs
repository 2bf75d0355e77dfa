//! Copies the explored modules of portcullis, so that the code that is explored is the code that
//! runs. In the copy,
//!
//! - paths to std's synchronization, hashing and collections, and to other crates, lead to the
//!   modules of the same name in `stubs/`, which use loom;
//! - some sizes are smaller ([`REDUCED`]): a table with two slots has all the interleavings that
//!   matter, and can be explored;
//! - each planted fault stands beside the code that it replaces, and is chosen at run time.

use std::path::{Path, PathBuf};
use std::{env, fs};

#[allow(dead_code)] // `breaks` is for main.rs.
#[path = "src/faults.rs"]
mod faults;

use faults::FAULTS;

/// The explored modules, in `../src`.
const EXPLORED: &[&str] = &[
    "access_token/charge.rs",
    "dpop/replays.rs",
    "keys/remote/health.rs",
    "keys/remote/mod.rs",
    "keys/remote/schedule.rs",
    "keys/remote/task.rs",
    "permits.rs",
    "revocation/entry.rs",
    "revocation/follow.rs",
    "revocation/mod.rs",
    "revocation/revoked.rs",
    "shared_store/mod.rs",
    "single_flight.rs",
    "token_cache.rs",
    "verifier/introspections/under_way.rs",
];

/// Where a path leads to in the copy.
const REDIRECTED: &[(&str, &str)] = &[
    ("std::sync::", "crate::sync::"),
    ("std::hash::", "crate::hash::"),
    ("std::collections::", "crate::collections::"),
    ("arc_swap::", "crate::arc_swap::"),
    ("reqwest::", "crate::reqwest::"),
    ("tokio::", "crate::tokio::"),
    ("url::", "crate::url::"),
];

/// A size in a file, and the one in the copy.
const REDUCED: &[(&str, &str, &str)] = &[
    ("dpop/replays.rs", "const SHARDS: usize = 64;", "const SHARDS: usize = 2;"),
    ("dpop/replays.rs", "const COUNTERS: usize = 16 * 1024;", "const COUNTERS: usize = 1;"),
    ("revocation/revoked.rs", "const SHARDS: usize = 16;", "const SHARDS: usize = 1;"),
    ("token_cache.rs", "const WAYS: usize = 4;", "const WAYS: usize = 2;"),
    ("token_cache.rs", "const SWEPT_AT_ONCE: usize = 16;", "const SWEPT_AT_ONCE: usize = 1;"),
];

/// A change of a copy: the range that it replaces, and the new text.
struct Change {
    at: usize,
    original: &'static str,
    text: String,
}

fn main() {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let tree = out.join("tree");
    let _ = fs::remove_dir_all(&tree);
    copy_stubs(Path::new("stubs"), &tree);
    for file in EXPLORED {
        let source = Path::new("../src").join(file);
        println!("cargo:rerun-if-changed={}", source.display());
        let text = fs::read_to_string(&source).unwrap_or_else(|error| panic!("{file}: {error}"));
        write(&tree.join(file), &changed(file, &text));
    }
    println!("cargo:rerun-if-changed=stubs");
    println!("cargo:rerun-if-changed=src/faults.rs");
    // The root is included by path, and paths of modules are relative to the file that names them.
    let root = tree.join("root.rs");
    write(&out.join("root.rs"), &modules(&root));
}

/// Makes the paths of the modules in `root.rs` absolute.
fn modules(root: &Path) -> String {
    let text = fs::read_to_string(root).expect("stubs/root.rs");
    let folder = root.parent().expect("a file is in a folder");
    let mut modules = String::new();
    for line in text.lines() {
        let module = line.strip_prefix("pub(crate) mod ");
        if let Some(name) = module.and_then(|name| name.strip_suffix(';')) {
            let file = folder.join(format!("{name}.rs"));
            let file = if file.exists() { file } else { folder.join(name).join("mod.rs") };
            modules += &format!("#[path = {:?}]\n", file.display().to_string());
            // The copies contain what the explorations do not use.
            modules += "#[allow(unused, unexpected_cfgs, unreachable_patterns, clippy::all)]\n";
        }
        modules += line;
        modules.push('\n');
    }
    modules
}

fn copy_stubs(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).expect("the folder of stubs") {
        let path = entry.expect("an entry").path();
        let to = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy_stubs(&path, &to);
        } else {
            write(&to, &fs::read_to_string(&path).expect("a stub"));
        }
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().expect("a file is in a folder")).expect("a new folder");
    fs::write(path, text).expect("a new file");
}

/// The copy of a file.
fn changed(file: &str, text: &str) -> String {
    // Unit tests stay behind.
    let text = text.split("\n#[cfg(test)]\n").next().unwrap_or_default();
    let mut changes: Vec<Change> = Vec::new();
    for (_, original, reduced) in REDUCED.iter().filter(|(of, ..)| *of == file) {
        let at = only(file, text, original);
        changes.push(Change { at, original, text: (*reduced).to_owned() });
    }
    for fault in FAULTS.iter().filter(|fault| fault.file == file) {
        for &(original, instead) in fault.edits {
            let at = only(file, text, original);
            let earlier = changes.iter().position(|one| (one.at, one.original) == (at, original));
            let before = earlier.map(|earlier| changes.remove(earlier));
            let rest = before.map_or_else(|| original.to_owned(), |before| before.text);
            changes.push(Change { at, original, text: planted(fault.name, instead, &rest) });
        }
    }
    changes.sort_by_key(|change| change.at);
    let (mut copy, mut from) = (String::new(), 0);
    for change in changes {
        assert!(from <= change.at, "{file}: changes overlap at {:?}", change.original);
        copy += &text[from..change.at];
        copy += &change.text;
        from = change.at + change.original.len();
    }
    copy += &text[from..];
    redirected(&copy)
}

/// The code with a fault, if that is chosen, and without it.
fn planted(name: &str, instead: &str, original: &str) -> String {
    let condition = format!("crate::planted::is({name:?})");
    if let Some((variable, value)) = original.strip_prefix("let ").and_then(|l| l.split_once(" = "))
    {
        let value = value.strip_suffix(';').expect("the whole statement");
        // A lock that is not taken.
        let value = if instead == "None" { format!("Some({value})") } else { value.to_owned() };
        return format!("let {variable} = if {condition} {{ {instead} }} else {{ {value} }};");
    }
    let choice = format!("if {condition} {{ {instead} }} else {{ {original} }}");
    let is_statement = original.ends_with([';', '}']);
    if is_statement { choice } else { format!("({choice})") }
}

/// The position of a text that must be there exactly once: otherwise, the code has changed, and
/// the change must follow it.
fn only(file: &str, text: &str, original: &str) -> usize {
    let found: Vec<_> = text.match_indices(original).map(|(at, _)| at).collect();
    match found[..] {
        [at] => at,
        _ => panic!("{file}: expected {original:?} once, found it {} times", found.len()),
    }
}

/// Follows [`REDIRECTED`], for paths that begin there.
fn redirected(text: &str) -> String {
    let mut text = text.to_owned();
    for (from, to) in REDIRECTED {
        let mut copy = String::with_capacity(text.len());
        let mut rest = &text[..];
        while let Some(at) = rest.find(from) {
            let (before, after) = rest.split_at(at);
            let is_within = before.ends_with([':', '_']) || before.ends_with(char::is_alphanumeric);
            copy += before;
            copy += if is_within { from } else { to };
            rest = &after[from.len()..];
        }
        copy += rest;
        text = copy;
    }
    text
}
