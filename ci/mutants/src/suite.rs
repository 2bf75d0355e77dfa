//! The tests of the copy: how it is built, which tests reach which mutants, and whether one of them
//! fails when a mutant is on.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Failure, below};

/// What a test may take, beside three times what it takes without a mutant.
const PATIENCE: Duration = Duration::from_secs(10);

/// How many tests run at first, twice as many then, and so on: most mutants fail in one of the
/// first.
const FIRST: usize = 4;

/// An error of the compiler, in bytes of a file.
#[derive(Debug)]
pub struct CompileError {
    pub file: String,
    pub start: usize,
    pub end: usize,
    text: String,
}

impl CompileError {
    pub fn is_about_a_move(&self) -> bool {
        self.text.contains("moved value")
    }
}

/// How tests end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    Failed,
    /// They took longer than they may, such as with a loop that does not end.
    LateEnd,
}

pub struct Test {
    binary: PathBuf,
    name: String,
    took: Duration,
}

pub struct Suite {
    pub tests: Vec<Test>,
    /// For each mutant, the tests that reach it. First those that likely fail soon: they are quick,
    /// and reach few other mutants.
    by_mutant: HashMap<usize, Vec<usize>>,
    folder: PathBuf,
    /// Tests that have passed together without a mutant.
    reliable: Mutex<HashSet<Vec<usize>>>,
}

fn cargo(arguments: &[&str], copy: &Path, target: &Path) -> Result<Vec<Value>, Failure> {
    let output = Command::new("cargo")
        .args(arguments)
        .args(["--all-features", "--message-format=json"])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", target)
        .stderr(Stdio::null())
        .output()?;
    let lines = String::from_utf8(output.stdout)?;
    Ok(lines.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// The errors of the library, with and without its own tests.
pub fn errors(copy: &Path, target: &Path) -> Result<Vec<CompileError>, Failure> {
    let mut errors = Vec::new();
    for message in cargo(&["check", "--lib", "--profile", "test"], copy, target)? {
        let message = &message["message"];
        if message["level"] != "error" {
            continue;
        }
        let spans = message["spans"].as_array().into_iter().flatten();
        for span in spans.filter(|span| span["is_primary"] == true) {
            let at = |name: &str| usize::try_from(span[name].as_u64().unwrap_or(0)).unwrap_or(0);
            let file = PathBuf::from(span["file_name"].as_str().unwrap_or_default());
            errors.push(CompileError {
                file: below(&file, copy),
                start: at("byte_start"),
                end: at("byte_end"),
                text: message["message"].as_str().unwrap_or_default().to_owned(),
            });
        }
    }
    Ok(errors)
}

impl Suite {
    /// Builds all tests, or those in `src/` and these files, and runs each on its own.
    pub fn build(copy: &Path, target: &Path, files: &[String]) -> Result<Self, Failure> {
        let mut binaries = Vec::new();
        let mut arguments = vec!["test", "--no-run"];
        if !files.is_empty() {
            arguments.push("--lib");
        }
        for file in files {
            arguments.extend(["--test", file]);
        }
        for message in cargo(&arguments, copy, target)? {
            if message["reason"] == "compiler-message" && message["message"]["level"] == "error" {
                return Err(message["message"]["rendered"].as_str().unwrap_or("error").into());
            }
            let is_test = message["profile"]["test"] == true;
            if let Some(binary) = message["executable"].as_str().filter(|_| is_test) {
                binaries.push(PathBuf::from(binary));
            }
        }
        let mut suite = Self {
            tests: Vec::new(),
            by_mutant: HashMap::new(),
            folder: copy.to_owned(),
            reliable: Mutex::default(),
        };
        let trace = target.join("trace");
        for binary in binaries {
            let list = Command::new(&binary).args(["--list", "--format", "terse"]).output()?;
            let list = String::from_utf8(list.stdout)?;
            for name in list.lines().filter_map(|line| line.strip_suffix(": test")) {
                let _ = std::fs::remove_file(&trace);
                let began = Instant::now();
                let tests = [(&*binary, name)];
                let traced = [("MUTANT_TRACE", &*trace.to_string_lossy())];
                if suite.outcome(&tests, PATIENCE * 6, &traced)? != Outcome::Passed {
                    println!("left out, as it fails on its own: {name}");
                    continue;
                }
                let took = began.elapsed();
                let index = suite.tests.len();
                suite.tests.push(Test { binary: binary.clone(), name: name.to_owned(), took });
                let reached = std::fs::read_to_string(&trace).unwrap_or_default();
                for mutant in reached.lines().filter_map(|line| line.parse().ok()) {
                    suite.by_mutant.entry(mutant).or_default().push(index);
                }
            }
        }
        let mut reached = vec![0; suite.tests.len()];
        for index in suite.by_mutant.values().flatten() {
            reached[*index] += 1;
        }
        for tests in suite.by_mutant.values_mut() {
            tests.sort_by_key(|index| suite.tests[*index].took * reached[*index]);
        }
        Ok(suite)
    }

    pub fn reaching(&self, mutant: usize) -> usize {
        self.by_mutant.get(&mutant).map_or(0, Vec::len)
    }

    /// How the tests end that reach this mutant: the first that do not pass, if there are any.
    pub fn outcome_with(&self, mutant: usize) -> io::Result<Outcome> {
        let Some(tests) = self.by_mutant.get(&mutant) else { return Ok(Outcome::Passed) };
        let (mut rest, mut count) = (&tests[..], FIRST);
        while !rest.is_empty() {
            let (next, others) = rest.split_at(rest.len().min(count));
            for tests in self.by_binary(next) {
                let outcome = self.outcome_of(mutant, &tests)?;
                if outcome != Outcome::Passed {
                    return Ok(outcome);
                }
            }
            (rest, count) = (others, count * 2);
        }
        Ok(Outcome::Passed)
    }

    fn by_binary(&self, tests: &[usize]) -> Vec<Vec<usize>> {
        let mut all: Vec<Vec<usize>> = Vec::new();
        for test in tests {
            let is_same = |one: &usize| self.tests[*one].binary == self.tests[*test].binary;
            match all.iter_mut().find(|several| several.first().is_some_and(is_same)) {
                Some(several) => several.push(*test),
                None => all.push(vec![*test]),
            }
        }
        all
    }

    /// How tests of one binary end. If they fail, they must have passed without the mutant, in this
    /// same company: a test that fails by chance would catch every mutant.
    fn outcome_of(&self, mutant: usize, tests: &[usize]) -> io::Result<Outcome> {
        for _ in 0..3 {
            let outcome = self.together(tests, mutant)?;
            if outcome != Outcome::Failed || self.is_reliable(tests)? {
                return Ok(outcome);
            }
        }
        let names = tests.iter().map(|test| &*self.tests[*test].name);
        println!("unreliable, counts as passed: {}", names.collect::<Vec<_>>().join(", "));
        Ok(Outcome::Passed)
    }

    fn is_reliable(&self, tests: &[usize]) -> io::Result<bool> {
        let known = || self.reliable.lock().unwrap_or_else(PoisonError::into_inner);
        if known().contains(tests) {
            return Ok(true);
        }
        let has_passed = self.together(tests, 0)? == Outcome::Passed;
        if has_passed {
            known().insert(tests.to_vec());
        }
        Ok(has_passed)
    }

    /// Runs tests of one binary, with a mutant or, for 0, without.
    fn together(&self, tests: &[usize], mutant: usize) -> io::Result<Outcome> {
        let tests: Vec<_> = tests.iter().map(|index| &self.tests[*index]).collect();
        let took: Duration = tests.iter().map(|test| test.took).sum();
        let names: Vec<_> = tests.iter().map(|test| (&*test.binary, &*test.name)).collect();
        self.outcome(&names, PATIENCE + took * 3, &[("MUTANT", &mutant.to_string())])
    }

    /// Runs tests of one binary. A mutant may also take all memory, so that is limited.
    fn outcome(
        &self,
        tests: &[(&Path, &str)],
        limit: Duration,
        environment: &[(&str, &str)],
    ) -> io::Result<Outcome> {
        let Some((binary, _)) = tests.first() else { return Ok(Outcome::Passed) };
        let names = tests.iter().map(|(_, name)| name);
        let mut process = Command::new("sh")
            .args(["-c", "ulimit -v 12000000; exec \"$0\" --exact --test-threads 2 \"$@\""])
            .arg(binary)
            .args(names)
            .envs(environment.iter().copied())
            .current_dir(&self.folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let began = Instant::now();
        loop {
            match process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(Outcome::Passed),
                Ok(Some(_)) => return Ok(Outcome::Failed),
                Ok(None) if began.elapsed() < limit => std::thread::sleep(Duration::from_millis(2)),
                _ => {
                    let _ = process.kill();
                    let _ = process.wait();
                    return Ok(Outcome::LateEnd);
                }
            }
        }
    }
}
