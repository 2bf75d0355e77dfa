//! Mutation testing: which changes of the code does no test notice?
//!
//! cargo-mutants lists the mutants. It would build the tests once for each, which takes days for
//! all of them. This program puts all mutants into one copy of the code, each behind a condition,
//! builds the copy once, and finds out which tests reach which mutants. Each mutant is then
//! switched on by an environment variable, and only the tests that reach it run.
//!
//! Mutants are left out, counted and printed that cannot be switched on at run time (another type
//! for `impl Trait`, an operator of a condition with `let`), that do not compile, or that a build
//! with all features does not have.

mod instrument;
mod suite;

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::Write as _;
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
    /// Where the mutants are recorded that are caught, so that another run leaves them out.
    results: Option<PathBuf>,
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
    let results = std::env::var_os("RESULTS").map(PathBuf::from);
    Ok(Arguments { copy, target, shard, accepted, file, results, tests })
}

/// The mutants that were caught by this run and the runs before it.
#[derive(Default)]
struct Results {
    file: Option<std::fs::File>,
    caught: BTreeSet<String>,
}

impl Results {
    /// The first line is the commit. Another one may have other tests.
    fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::default()) };
        let commit = std::env::var("COMMIT").map_err(|_| "RESULTS needs COMMIT")?;
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        let text = std::fs::read_to_string(path)?;
        let mut lines = text.lines().map(str::to_owned);
        match lines.next() {
            None => writeln!(file, "{commit}")?,
            Some(found) if found == commit => {}
            Some(found) => {
                return Err(format!("results of {commit}: found those of {found}").into());
            }
        }
        Ok(Self { file: Some(file), caught: lines.collect() })
    }

    fn add(&mut self, mutant: &Mutant) -> std::io::Result<()> {
        self.file.as_mut().map_or(Ok(()), |file| writeln!(file, "{}", mutant.name))
    }
}

/// The mutants of the shard, as cargo-mutants lists them, and their number with those that cannot
/// be switched on. The test kit is not listed: it is tested by its use. Nor is what only fuzzing
/// and the tests of the schedule have.
fn listed(arguments: &Arguments) -> Result<(Vec<Mutant>, usize), Failure> {
    let list = Command::new("cargo")
        .args(["mutants", "--list", "--json", "--all-features"])
        .args(["--exclude", "src/testing/**", "--exclude", "src/fuzzing.rs"])
        .args(["--exclude", "src/keys/remote/schedule/model.rs"])
        .current_dir(&arguments.copy)
        .output()?;
    if !list.status.success() {
        return Err(String::from_utf8_lossy(&list.stderr).into_owned().into());
    }
    let all: Vec<serde_json::Value> = serde_json::from_slice(&list.stdout)?;
    let (number, of) = arguments.shard;
    let is_chosen = |(index, one): &(usize, &serde_json::Value)| {
        let file = one["file"].as_str().unwrap_or_default();
        (index + 1) % of == number % of
            && arguments.file.as_ref().is_none_or(|part| file.contains(part))
    };
    let chosen: Vec<_> = all.iter().enumerate().filter(is_chosen).collect();
    let mut mutants = Vec::new();
    for (index, one) in &chosen {
        match Mutant::read(index + 1, one) {
            Some(mutant) => mutants.push(mutant),
            None => println!("left out, as its type is hidden: {}", one["name"]),
        }
    }
    Ok((mutants, chosen.len()))
}

/// Removes the mutants that have no place, and those that do not compile, until the others do.
/// Returns how many do not compile.
fn compile(arguments: &Arguments, mutants: &mut Vec<Mutant>) -> Result<usize, Failure> {
    let sources = instrument::Sources::read(&arguments.copy)?;
    let mut not_compiling = 0;
    loop {
        let before = mutants.clone();
        let regions = sources.instrument(&arguments.copy, mutants)?;
        for mutant in before {
            if !mutants.iter().any(|one| one.id == mutant.id) {
                println!("left out, as it has no place: {}", mutant.name);
            }
        }
        let errors = suite::errors(&arguments.copy, &arguments.target)?;
        if errors.is_empty() {
            return Ok(not_compiling);
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
        for mutant in mutants.iter().filter(|mutant| dropped.contains(&mutant.id)) {
            println!("left out, as it does not compile: {}", mutant.name);
        }
        not_compiling += dropped.len();
        mutants.retain(|mutant| !dropped.contains(&mutant.id));
    }
}

fn run() -> Result<bool, Failure> {
    let arguments = arguments()?;
    let (mut mutants, all) = listed(&arguments)?;
    let not_compiling = compile(&arguments, &mut mutants)?;
    println!(
        "{all} mutants: {not_compiling} do not compile, {} have no place, {} can be switched on",
        all - not_compiling - mutants.len(),
        mutants.len()
    );
    let suite = Suite::build(&arguments.copy, &arguments.target, &arguments.tests)?;
    println!("{} tests pass on their own", suite.tests.len());
    if !arguments.tests.is_empty() {
        mutants.retain(|mutant| suite.reaching(mutant.id) > 0);
    }
    if mutants.is_empty() {
        return Err("expected mutants, found none in this shard and these files".into());
    }
    let mut results = Results::read(arguments.results.as_deref())?;
    let caught_before = mutants.len();
    mutants.retain(|mutant| !results.caught.contains(&mutant.name));
    let caught_before = caught_before - mutants.len();
    let (missed, late) = missed(&suite, &mutants, &mut results)?;
    let accepted = std::fs::read_to_string(&arguments.accepted).unwrap_or_default();
    // Each line accepts one of the mutants with this name.
    let mut accepted: Vec<&str> =
        accepted.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).collect();
    let is_accepted = |mutant: &&&Mutant| {
        let name = mutant.stable_name();
        let line = accepted.iter().position(|line| *line == name);
        line.map(|line| accepted.swap_remove(line)).is_some()
    };
    let known = missed.iter().filter(is_accepted).count();
    // Only a run of all mutants can tell which lines are outdated.
    let is_whole = arguments.shard == (1, 1) && arguments.file.is_none();
    let outdated = if is_whole { accepted } else { Vec::new() };
    for line in &outdated {
        println!("accepted, but not missed: {line}");
    }
    println!(
        "{} of {} caught, {late} of them by their time; {} missed, of which {known} are accepted",
        caught_before + mutants.len() - missed.len(),
        caught_before + mutants.len(),
        missed.len()
    );
    Ok(missed.len() == known && outdated.is_empty())
}

/// Runs the tests that reach each mutant, two mutants at a time. Returns those that pass them all,
/// and how many of the others are only too slow.
fn missed<'a>(
    suite: &Suite,
    mutants: &'a [Mutant],
    results: &mut Results,
) -> Result<(Vec<&'a Mutant>, usize), Failure> {
    let (next, late) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let (missed, caught) = (Mutex::new(Vec::new()), Mutex::new(results));
    std::thread::scope(|scope| {
        let work = || -> Result<(), std::io::Error> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                let Some(mutant) = mutants.get(number) else { return Ok(()) };
                if number % 200 == 199 {
                    println!("{number} of {} done", mutants.len());
                }
                match suite.outcome_with(mutant.id)? {
                    Outcome::Failed => locked(&caught).add(mutant)?,
                    Outcome::LateEnd => locked(&late).push(mutant),
                    Outcome::Passed => {
                        let reached = suite.reaching(mutant.id);
                        println!("missed, {reached} tests reach it: {}", mutant.name);
                        locked(&missed).push(mutant);
                    }
                }
            }
        };
        let workers = [scope.spawn(work), scope.spawn(work)];
        workers.into_iter().try_for_each(|worker| {
            worker.join().unwrap_or_else(|_| Err(std::io::Error::other("a worker panicked")))
        })
    })?;
    // Once more, one at a time: beside another mutant, one may be late for no fault of its own.
    let mut late_again = 0;
    for mutant in locked(&late).drain(..) {
        match suite.outcome_with(mutant.id)? {
            Outcome::Passed => {
                println!("missed, though late at first: {}", mutant.name);
                locked(&missed).push(mutant);
            }
            outcome => {
                if outcome == Outcome::LateEnd {
                    late_again += 1;
                    println!("caught by its time: {}", mutant.name);
                }
                locked(&caught).add(mutant)?;
            }
        }
    }
    Ok((missed.into_inner().unwrap_or_else(PoisonError::into_inner), late_again))
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
