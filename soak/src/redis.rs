//! The Redis that the server shares used proofs and revocations through. Its settings are those of
//! docs/revocation.md, with which it loses nothing.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::Failure;

pub(crate) struct Redis {
    program: PathBuf,
    work: PathBuf,
    pub(crate) port: u16,
    process: Option<Child>,
}

impl Redis {
    pub(crate) async fn start(program: &Path, work: &Path) -> Result<Self, Failure> {
        let port = TcpListener::bind("127.0.0.1:0").await?.local_addr()?.port();
        let (program, work) = (program.to_owned(), work.to_owned());
        let mut redis = Self { program, work, port, process: None };
        redis.run().await?;
        Ok(redis)
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// Starts the process, and waits until it answers.
    pub(crate) async fn run(&mut self) -> Result<(), Failure> {
        let mut command = Command::new(&self.program);
        command
            .args(["--port", &self.port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always"])
            .args(["--maxmemory-policy", "noeviction", "--dir"])
            .arg(&self.work);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.process = Some(command.kill_on_drop(true).spawn()?);
        self.wait().await
    }

    /// Waits until it answers.
    pub(crate) async fn wait(&self) -> Result<(), Failure> {
        for _ in 0..300 {
            if matches!(timeout(Duration::from_secs(1), self.ping()).await, Ok(Ok(true))) {
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
        Err("Redis does not answer".into())
    }

    async fn ping(&self) -> Result<bool, std::io::Error> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        stream.write_all(b"PING\r\n").await?;
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).await?;
        Ok(&answer == b"+PONG")
    }

    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Sends a signal by its name, such as `STOP`.
    pub(crate) async fn signal(&self, name: &str) -> Result<(), Failure> {
        let id = self.process.as_ref().and_then(Child::id).ok_or("Redis is not running")?;
        let sent = Command::new("kill").args([format!("-{name}"), id.to_string()]).status().await?;
        if sent.success() { Ok(()) } else { Err(format!("kill -{name} failed").into()) }
    }
}
