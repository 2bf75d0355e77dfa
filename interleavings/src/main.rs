//! Explores the interleavings of the modules that share state between threads.
//!
//! ```text
//! portcullis-interleavings explore [NAME…]    checks the invariants
//! portcullis-interleavings faults             checks that each planted fault is found
//! ```

mod explore;
#[allow(dead_code)] // The code of a fault is for build.rs.
mod faults;
mod planted;

include!(concat!(env!("OUT_DIR"), "/root.rs"));

use std::process::{Command, ExitCode, exit};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;
use std::{env, panic};

use explore::{EXPLORATIONS, Exploration};
use faults::FAULTS;

/// The exit code if an invariant does not hold.
const BROKEN: i32 = 3;

/// How many interleavings of the current exploration have begun.
static BEGUN: AtomicUsize = AtomicUsize::new(0);

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["explore", ref names @ ..] => explore_all(names),
        // For a process of its own: what was found ends it.
        ["fault", name] => {
            let fault = FAULTS.iter().find(|fault| fault.name == name).expect("a fault's name");
            planted::plant(fault.name);
            check(exploration(fault.breaks));
            ExitCode::SUCCESS
        }
        ["faults"] => find_all_faults(),
        _ => {
            eprintln!("expected `explore [NAME…]` or `faults`");
            ExitCode::FAILURE
        }
    }
}

fn exploration(name: &str) -> &'static Exploration {
    EXPLORATIONS.iter().find(|one| one.name == name).unwrap_or_else(|| panic!("no {name}"))
}

fn explore_all(names: &[&str]) -> ExitCode {
    let (mut all, mut number) = (0, 0);
    for exploration in EXPLORATIONS {
        if !names.is_empty() && !names.contains(&exploration.name) {
            continue;
        }
        let since = Instant::now();
        let explored = check(exploration);
        let took = since.elapsed().as_secs_f64();
        println!("{:>8} interleavings, {took:.1} s: {}", explored, exploration.name);
        (all, number) = (all + explored, number + 1);
    }
    println!("{number} invariants hold in {all} interleavings");
    ExitCode::SUCCESS
}

/// Explores the interleavings, and returns how many there are. Ends the process if one breaks the
/// invariant.
fn check(exploration: &'static Exploration) -> usize {
    panic::set_hook(Box::new(|panic| {
        // The scheduler ends its threads by a panic without a message.
        let Some(message) = panic.payload_as_str() else { return };
        let message = message.replace('\n', " ");
        // At once: to unwind would run code of the model outside of it.
        let number = BEGUN.load(Ordering::SeqCst);
        eprintln!("in interleaving {number}: {message}\n    broken: {}", exploration.name);
        exit(BROKEN);
    }));
    BEGUN.store(0, Ordering::SeqCst);
    let more = env::var("PREEMPTIONS").ok().and_then(|more| more.parse::<usize>().ok());
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(exploration.preemptions + more.unwrap_or(0));
    builder.max_branches = 20_000;
    builder.check(|| {
        BEGUN.fetch_add(1, Ordering::SeqCst);
        (exploration.run)();
    });
    let _ = panic::take_hook();
    BEGUN.load(Ordering::SeqCst)
}

/// Whether an invariant was broken, or threads wait for each other. An execution that is too long
/// for loom shows nothing.
fn is_finding(line: &str) -> bool {
    line.starts_with("in interleaving") && !line.contains("maximum number of branches")
}

fn find_all_faults() -> ExitCode {
    let this = env::current_exe().expect("the path of this program");
    let mut found = 0;
    for fault in FAULTS {
        let child = Command::new(&this).args(["fault", fault.name]).output();
        let output = child.expect("this program starts again");
        let said = String::from_utf8_lossy(&output.stderr);
        let line = said.lines().next().unwrap_or_default();
        if output.status.code() == Some(BROKEN) && is_finding(line) {
            println!("found {line}\n    planted: {}", fault.name);
            found += 1;
        } else {
            println!(
                "NOT FOUND by {:?} ({})\n    planted: {}",
                fault.breaks, output.status, fault.name
            );
        }
    }
    let has_fault = |name: &str| FAULTS.iter().any(|fault| fault.breaks == name);
    let without: Vec<_> =
        EXPLORATIONS.iter().map(|one| one.name).filter(|name| !has_fault(name)).collect();
    for name in &without {
        println!("NO FAULT is planted for {name:?}");
    }
    println!("{found} of {} planted faults found", FAULTS.len());
    if found == FAULTS.len() && without.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
