//! The soak: a server with most features of portcullis under load, while what it depends on fails.
//! `ci/soak.sh` builds and starts it.
//!
//! There are two processes, because memory and file descriptors of the server are measured alone:
//!
//! ```text
//! soak load ── world    issuers: 10,000 tenants and two configured ones, at six ports
//!           ├─ redis    the process that the server shares proofs and revocations through
//!           ├─ slow     notices when the machine is too busy for Redis to answer in time
//!           ├─ chaos    when which of these fails; tells `judge` what is disturbed
//!           ├─ load     good and hostile requests, each with the answer that it must get
//!           ├─ judge    compares answers; knows the documented windows
//!           ├─ recorder one sample of the server per second: a table, a plot, the check of growth
//!           └─ child    starts `soak server`, keeps its log
//! soak server ─ axum and portcullis; `plant` makes it misbehave, to see that the soak notices
//! ```

mod arguments;
mod chaos;
mod child;
mod judge;
mod load;
mod plant;
mod plot;
mod recorder;
mod redis;
mod run;
mod server;
mod slow;
mod stats;
mod windows;
mod world;

use std::process::ExitCode;

use peak_alloc::PeakAlloc;

/// Counts the bytes on the heap of the server: a leak shows there sooner than in the resident
/// memory, which the allocator rounds.
#[global_allocator]
static HEAP: PeakAlloc = PeakAlloc;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    match start() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<ExitCode, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match arguments::read()? {
        arguments::Role::Server => {
            runtime.block_on(server::run())?;
            Ok(ExitCode::SUCCESS)
        }
        arguments::Role::Load(settings) => runtime.block_on(run::run(settings)),
    }
}
