//! The engine of the explorer: it receives [`Request`]s and sends [`Reply`]s, both plain data.
//!
//! Worker threads share the model, the study and the factors. Long work (load, collect, fit) runs
//! on one lane, reading, tracing and steering on separate lanes, so that no long job blocks a
//! reading command.

mod fits;
mod handling;
mod lane;
mod lending;
mod messages;
mod open;
mod own_model;
mod reading;
mod request;
mod session;
pub mod sets;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod work;

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::error::{Error, Result};
use crate::panics::catch_panic;
use crate::task::{CancelToken, TaskCtx};

use handling::Handling;
use lane::Lane;
pub use messages::*;
pub use request::{Reply, Request, RequestCounter, RequestId};
pub(crate) use session::Meter;
use session::{Session, lock};

/// Starts the engine's threads. The reply channel closes after [`Command::Shutdown`] (or when the
/// request channel closes) once everything is saved.
///
/// # Errors
/// If a thread cannot be started.
pub fn start() -> std::io::Result<(Sender<Request>, Receiver<Reply>)> {
    let (requests, inbox) = unbounded();
    let (outbox, replies) = unbounded();
    let engine = engine(outbox)?;
    std::thread::Builder::new()
        .name("engine".to_owned())
        .spawn(move || engine.run(&inbox))?;
    Ok((requests, replies))
}

fn engine(outbox: Sender<Reply>) -> std::io::Result<Engine> {
    let session = Session::new(outbox);
    Ok(Engine {
        work: engine_lane(&session, "work")?,
        read: engine_lane(&session, "read")?,
        lens: Arc::new(engine_lane(&session, "lens")?),
        trace: engine_lane(&session, "trace")?,
        steer: engine_lane(&session, "steer")?,
        train: engine_lane(&session, "train")?,
        sets: engine_lane(&session, "sets")?,
        slow_read: engine_lane(&session, "slow_read")?,
        levels: engine_lane(&session, "levels")?,
        session,
        cancels: Arc::default(),
        hold: Arc::default(),
    })
}

fn engine_lane(session: &Session, name: &str) -> std::io::Result<Lane> {
    let session = session.clone();
    Lane::new(name, move |text| {
        session.log(Level::Error, format!("internal error: {text}"))
    })
}

/// The switch that pauses and continues a fit.
#[derive(Default)]
struct Hold {
    held: Mutex<bool>,
    changed: Condvar,
}

impl Hold {
    fn set(&self, held: bool) {
        *lock(&self.held) = held;
        self.changed.notify_all();
    }

    fn is_held(&self) -> bool {
        *lock(&self.held)
    }

    /// Waits until the pause ends; returns an error if the task is cancelled meanwhile.
    fn wait(&self, ctx: &TaskCtx) -> Result<()> {
        let mut held = lock(&self.held);
        while *held {
            ctx.check()?;
            held = self
                .changed
                .wait_timeout(held, Duration::from_millis(50))
                .map_or_else(|poisoned| poisoned.into_inner().0, |(guard, _)| guard);
        }
        Ok(())
    }
}

struct Engine {
    session: Session,
    work: Lane,
    read: Lane,
    /// Runs the logit lens of the whole list: it takes seconds, and showing a feature must not wait
    /// for it.
    lens: Arc<Lane>,
    trace: Lane,
    steer: Lane,
    train: Lane,
    /// While no fit runs, only this lane changes what is on show, one request after another.
    sets: Lane,
    /// Answers slow questions, so that those about what is on show need not wait for them.
    slow_read: Lane,
    /// Computes features of features, so that questions need not wait for them.
    levels: Lane,
    cancels: Arc<Mutex<HashMap<Job, CancelToken>>>,
    hold: Arc<Hold>,
}

impl Engine {
    fn run(self, inbox: &Receiver<Request>) {
        for request in inbox {
            if request.command == Command::Shutdown {
                break;
            }
            self.handle(request);
        }
        self.shutdown();
    }

    fn handle(&self, request: Request) {
        let handling = Handling {
            engine: self,
            session: self.session.for_request(request.id),
        };
        handling.handle(request.command);
    }

    fn shutdown(self) {
        for token in lock(&self.cancels).values() {
            token.cancel();
        }
        self.hold.set(false);
        self.work.finish();
        self.trace.finish();
        self.steer.finish();
        self.train.finish();
        self.sets.finish();
        self.slow_read.finish();
        self.levels.finish();
        self.read.finish();
        if let Ok(lens) = Arc::try_unwrap(self.lens) {
            lens.finish();
        }
    }

    fn cancel(&self, job: Job) {
        if let Some(token) = lock(&self.cancels).get(&job) {
            token.cancel();
        }
    }

    fn replace_token(&self, job: Job, token: &CancelToken) {
        if let Some(old) = lock(&self.cancels).insert(job, token.clone()) {
            old.cancel();
        }
    }
}

/// Runs one job and reports its start and its end to the shell. A panic becomes a failure of the
/// job.
fn run_job<T>(
    session: &Session,
    job: Job,
    token: &CancelToken,
    work: impl FnOnce(&TaskCtx) -> Result<(T, String)>,
) -> Result<T> {
    session.emit(Event::Started(job));
    let ctx = session.task(job, token.clone());
    let result = catch_panic(|| work(&ctx)).unwrap_or_else(|words| Err(internal(&words)));
    match result {
        Ok((value, words)) => {
            session.emit(Event::Done(job, words));
            Ok(value)
        }
        Err(Error::Cancelled) => {
            session.emit(Event::Cancelled(job));
            Err(Error::Cancelled)
        }
        Err(e) => {
            session.emit(Event::Failed(job, e.to_string()));
            Err(e)
        }
    }
}

/// The error that reports a caught panic.
fn internal(words: &str) -> Error {
    Error::refused(format!("internal error: {words}"))
}
