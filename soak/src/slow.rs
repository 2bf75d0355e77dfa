//! Notices when Redis is late although the chaos does not stop it, because the machine is busy.
//! The server waits for it for 250 ms, as documented, and no soak can demand more of the machine.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::Failure;
use crate::judge::Judge;
use crate::windows::Cause;

const EVERY: Duration = Duration::from_millis(50);
const LATE: Duration = Duration::from_millis(100);

/// Asks Redis every 50 ms, and reports the times in which it is late.
pub(crate) async fn run(port: u16, judge: Arc<Judge>) -> Result<(), Failure> {
    let mut connection = None;
    loop {
        // The time of the timer counts: late timers are the sign of a busy machine too.
        let due = Instant::now() + EVERY;
        sleep_until(due).await;
        let mut asking = Box::pin(ask(port, &mut connection));
        let late = due + LATE;
        let in_time = timeout(late.saturating_duration_since(Instant::now()), &mut asking).await;
        if in_time.is_ok() && Instant::now() < late {
            continue;
        }
        // A planned outage has windows of its own.
        let is_planned = judge.is_disturbed(Cause::Redis, Duration::ZERO);
        if !is_planned {
            judge.begins(Cause::SlowRedis);
        }
        if in_time.is_err() {
            asking.await;
        }
        if !is_planned {
            judge.ends(Cause::SlowRedis);
            judge.was_slow(due.elapsed());
        }
    }
}

/// Returns when Redis has answered.
async fn ask(port: u16, connection: &mut Option<TcpStream>) {
    loop {
        if let Some(open) = connection
            && timeout(Duration::from_secs(10), ping(open)).await.is_ok_and(|answer| answer.is_ok())
        {
            return;
        }
        *connection = TcpStream::connect(("127.0.0.1", port)).await.ok();
        if connection.is_none() {
            sleep(EVERY).await;
        }
    }
}

async fn ping(connection: &mut TcpStream) -> Result<(), std::io::Error> {
    connection.write_all(b"PING\r\n").await?;
    let mut answer = [0; 7];
    connection.read_exact(&mut answer).await?;
    Ok(())
}
