//! Mutation testing: which changes of the code does no test notice?
//!
//! cargo-mutants lists the mutants. It would build the tests once for each, which takes days for
//! all of them. This program puts all mutants into one copy of the code, each behind a condition,
//! builds the copy once, and finds out which tests reach which mutants. Each mutant is then
//! switched on by an environment variable, and only the tests that reach it run.
//!
//! Mutants that cannot be switched on at run time, such as another type for `impl Trait`, are left
//! out and counted.

mod instrument;
mod suite;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use instrument::Mutant;
use suite::{Outcome, Suite};

type Failure = Box<dyn std::error::Error>;

struct Arguments {
    /// A copy of the repository, which is changed.
    copy: PathBuf,
    target: PathBuf,
    /// `number/of`: each `of`-th mutant.
    shard: (usize, usize),
    /// The mutants that no test notices, and need not.
    accepted: PathBuf,
    /// Part of the paths of the files whose mutants are taken.
    file: Option<String>,
    /// The only files in `tests/` that run, beside the tests in `src/`. Empty: all of them. Mutants
    /// that these tests do not reach are left out then.
    tests: Vec<String>,
}

fn arguments() -> Result<Arguments, Failure> {
    let mut all = std::env::args().skip(1);
    let mut next = |what: &str| all.next().ok_or(format!("expected {what}"));
    let (copy, target) = (next("a copy of the repository")?, next("a target folder")?);
    let (shard, accepted) = (next("a shard such as 1/40")?, next("a list of accepted mutants")?);
    let (number, of) = shard.split_once('/').ok_or("expected a shard such as 1/40")?;
    let shard = (number.parse()?, of.parse()?);
    let (copy, target, accepted) = (copy.into(), target.into(), accepted.into());
    let (file, tests) = (all.next(), all.collect());
    Ok(Arguments { copy, target, shard, accepted, file, tests })
}

/// The mutants of the shard, as cargo-mutants lists them. The test kit is left out: it is tested by
/// its use.
fn listed(arguments: &Arguments) -> Result<Vec<Mutant>, Failure> {
    let list = Command::new("cargo")
        .args(["mutants", "--list", "--json", "--all-features", "--exclude", "src/testing/**"])
        .current_dir(&arguments.copy)
        .output()?;
    if !list.status.success() {
        return Err(String::from_utf8_lossy(&list.stderr).into_owned().into());
    }
    let all: Vec<serde_json::Value> = serde_json::from_slice(&list.stdout)?;
    let (number, of) = arguments.shard;
    let is_chosen =
        |mutant: &Mutant| arguments.file.as_ref().is_none_or(|file| mutant.file.contains(file));
    let all = all.iter().enumerate().filter_map(|(index, one)| Mutant::read(index + 1, one));
    Ok(all.filter(is_chosen).filter(|mutant| mutant.id % of == number % of).collect())
}

/// Removes the mutants that do not compile, until the others do.
fn compile(arguments: &Arguments, mutants: &mut Vec<Mutant>) -> Result<(), Failure> {
    let sources = instrument::Sources::read(&arguments.copy)?;
    loop {
        let regions = sources.instrument(&arguments.copy, mutants)?;
        let errors = suite::errors(&arguments.copy, &arguments.target)?;
        if errors.is_empty() {
            return Ok(());
        }
        let mut dropped = BTreeSet::new();
        for error in &errors {
            let of_error = regions.iter().filter(|region| region.has(error));
            // The smallest: an error in a mutant is also one within the function that has it.
            let smallest = of_error.min_by_key(|region| region.end - region.start);
            // A mutant that moves a value is an error after it, where the value is used again. A
            // match that is not exhaustive without an arm is an error before that arm.
            let nearest = || {
                if error.is_about_a_move() {
                    let before = regions.iter().filter(|region| region.is_before(error));
                    before.max_by_key(|region| region.end)
                } else {
                    let after = regions.iter().filter(|region| region.is_after(error));
                    after.min_by_key(|region| region.start)
                }
            };
            dropped.extend(smallest.or_else(nearest).map(|region| region.id));
        }
        if dropped.is_empty() {
            return Err(format!("expected errors within mutants, found {errors:?}").into());
        }
        mutants.retain(|mutant| !dropped.contains(&mutant.id));
    }
}

fn run() -> Result<bool, Failure> {
    let arguments = arguments()?;
    let mut mutants = listed(&arguments)?;
    let all = mutants.len();
    compile(&arguments, &mut mutants)?;
    println!("{all} mutants, {} of them can be switched on", mutants.len());
    let suite = Suite::build(&arguments.copy, &arguments.target, &arguments.tests)?;
    println!("{} tests pass on their own", suite.tests.len());
    if !arguments.tests.is_empty() {
        mutants.retain(|mutant| suite.reaching(mutant.id) > 0);
    }
    let accepted = std::fs::read_to_string(&arguments.accepted).unwrap_or_default();
    let accepted: BTreeSet<&str> =
        accepted.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(number) else { break };
                    if number % 200 == 199 {
                        println!("{number} of {} done", mutants.len());
                    }
                    match suite.outcome_with(mutant.id) {
                        Outcome::Failed => {}
                        // On a busy machine, a mutant may be late for no fault of its own.
                        Outcome::LateEnd => println!("caught by its time: {}", mutant.name),
                        Outcome::Passed => {
                            let reached = suite.reaching(mutant.id);
                            println!("missed, {reached} tests reach it: {}", mutant.name);
                            missed.lock().unwrap_or_else(PoisonError::into_inner).push(mutant);
                        }
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap_or_else(PoisonError::into_inner);
    let known = missed.iter().filter(|mutant| accepted.contains(&*mutant.stable_name())).count();
    println!(
        "{} of {} caught, {} missed of which {known} are accepted",
        mutants.len() - missed.len(),
        mutants.len(),
        missed.len()
    );
    Ok(missed.len() == known)
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("mutants: {error}");
            ExitCode::FAILURE
        }
    }
}

/// A path as cargo reports it.
fn below(path: &Path, root: &Path) -> String {
    path.strip_prefix(root).unwrap_or(path).to_string_lossy().into_owned()
}
