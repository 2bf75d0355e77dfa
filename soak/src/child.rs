//! The process of the server under test, and its log.

use std::collections::VecDeque;
use std::path::Path;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::fs::File;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdin, Command};
use tokio::time::timeout;

use crate::Failure;

/// How many lines of the log can be printed beside a failure.
const LINES: usize = 500;

pub(crate) struct Server {
    process: Child,
    /// The server ends when this is closed.
    input: ChildStdin,
    pub(crate) address: String,
    pub(crate) id: u32,
    pub(crate) log: Log,
}

/// The last lines of the log, and how many panics it has.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<VecDeque<(Instant, String)>>>, Arc<AtomicU64>);

impl Server {
    /// Starts the server with this configuration. Its log goes to `file`.
    pub(crate) async fn start(config: &Value, file: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("server").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.kill_on_drop(true).spawn()?;
        let id = process.id().ok_or("the server has ended")?;
        let mut input = process.stdin.take().ok_or("no input")?;
        let log = Log::default();
        let errors = process.stderr.take().ok_or("no log")?;
        tokio::spawn(log.clone().read(errors, File::create(file).await?));
        input.write_all(format!("{config}\n").as_bytes()).await?;
        let mut lines = BufReader::new(process.stdout.take().ok_or("no output")?).lines();
        let started = timeout(Duration::from_secs(30), lines.next_line()).await;
        let Ok(Ok(Some(address))) = started else {
            return Err(format!("the server did not start:\n{}", log.since(None).join("\n")).into());
        };
        Ok(Self { process, input, address, id, log })
    }

    /// Whether the process is still running.
    pub(crate) fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    pub(crate) async fn stop(mut self) {
        drop(self.input);
        if timeout(Duration::from_secs(10), self.process.wait()).await.is_err() {
            let _ = self.process.kill().await;
        }
    }
}

impl Log {
    async fn read(self, errors: ChildStderr, mut file: File) {
        let mut lines = BufReader::new(errors).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            let _ = file.write_all(format!("{line}\n").as_bytes()).await;
            if line.contains("panicked at") {
                self.1.fetch_add(1, Ordering::Relaxed);
            }
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.len() == LINES {
                last.pop_front();
            }
            last.push_back((Instant::now(), line));
        }
    }

    pub(crate) fn panics(&self) -> u64 {
        self.1.load(Ordering::Relaxed)
    }

    /// The lines that were written since then, at most 10 of them.
    pub(crate) fn since(&self, time: Option<Instant>) -> Vec<String> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = last.iter().filter(|(at, _)| time.is_none_or(|time| *at >= time));
        let mut lines: Vec<_> = lines.rev().take(10).map(|(_, line)| line.clone()).collect();
        lines.reverse();
        lines
    }
}
