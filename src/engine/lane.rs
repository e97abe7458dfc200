//! A thread that runs closures one after another and outlives their panics.

use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};

use crate::panics::catch_panic;

type Work = Box<dyn FnOnce() + Send>;

/// A queue of work and the thread that runs it.
pub(super) struct Lane {
    queue: Option<Sender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl Lane {
    /// Starts the thread; `on_panic` is called with the message of a panic.
    pub fn new(name: &str, on_panic: impl Fn(String) + Send + 'static) -> std::io::Result<Self> {
        let (queue, work) = unbounded::<Work>();
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                for piece in work {
                    if let Err(words) = catch_panic(piece) {
                        on_panic(words);
                    }
                }
            })?;
        Ok(Self {
            queue: Some(queue),
            thread: Some(thread),
        })
    }

    /// Appends `work` to the queue.
    pub fn submit(&self, work: impl FnOnce() + Send + 'static) {
        if let Some(queue) = &self.queue {
            // The receiver lives as long as the thread, which ends only in `finish`.
            let _ = queue.send(Box::new(work));
        }
    }

    /// Waits until everything submitted so far is done.
    #[cfg(test)]
    pub fn wait(&self) {
        let (done, ended) = unbounded();
        self.submit(move || drop(done));
        // The sender is dropped when its turn has come.
        let _: Result<(), _> = ended.recv();
    }

    /// Waits until everything submitted is done.
    pub fn finish(mut self) {
        self.queue = None;
        if let Some(thread) = self.thread.take() {
            // A panic was already reported through `on_panic`.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lane_outlives_a_panic() {
        let (told, hear) = unbounded();
        let lane = Lane::new("test", move |text| told.send(text).unwrap()).unwrap();
        let (done, wait) = unbounded();
        lane.submit(|| panic!("no {}", "luck"));
        lane.submit(move || done.send(7).unwrap());
        assert_eq!(wait.recv().unwrap(), 7);
        assert!(hear.recv().unwrap().starts_with("no luck"));
        lane.finish();
    }
}
