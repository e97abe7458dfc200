//! For tests: the engine itself, which handles one request at a time, with a small random language
//! model and texts.

use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, unbounded};

use super::{Command, Engine, Event, OpenRequest, Reply, Request, RequestCounter, engine};
use crate::factor::FitConfig;

#[path = "../../tests/support/mod.rs"]
pub(crate) mod support;

/// The model, the texts and the study of a test, in a directory that is removed with this value.
pub(crate) struct Workshop {
    dir: tempfile::TempDir,
    /// A random Llama of four layers whose tokens are bytes.
    pub model: PathBuf,
    /// Short texts with one of three labels each.
    pub corpus: PathBuf,
}

impl Workshop {
    /// Makes the model and a corpus of `texts` texts.
    pub fn new(texts: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self {
            model: support::tiny_model(dir.path()),
            corpus: support::corpus(dir.path(), texts),
            dir,
        }
    }

    /// The path of a file in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path of its study.
    pub fn study(&self) -> PathBuf {
        self.path("study")
    }

    /// The request that opens the study, or makes it if absent, with layer 1 and `features`
    /// features.
    pub fn request(&self, features: usize) -> OpenRequest {
        OpenRequest {
            model: Some(self.model.display().to_string()),
            layer: Some(1),
            corpus: Some(self.corpus.clone()),
            study: Some(self.study()),
            fit: FitConfig {
                features,
                max_sweeps: Some(4),
                ..FitConfig::default()
            },
            ..OpenRequest::default()
        }
    }

    /// Makes a study whose collection was interrupted half-way; it needs a few hundred texts.
    pub fn half_collected(&self, dir: &Path) {
        support::half_collected(dir, &self.model, &self.corpus);
    }
}

/// An engine that handles one request after another.
pub(crate) struct Live {
    pub(super) engine: Engine,
    pub(super) replies: Receiver<Reply>,
    pub(super) counter: RequestCounter,
}

impl Live {
    /// An engine with nothing open.
    pub fn new() -> Self {
        let (outbox, replies) = unbounded();
        Self {
            engine: engine(outbox).expect("threads"),
            replies,
            counter: RequestCounter::default(),
        }
    }

    /// An engine with the study of `workshop`, collected, fitted and open.
    pub fn opened(workshop: &Workshop, features: usize) -> Self {
        let live = Self::new();
        let events = live.ask(Command::Open(workshop.request(features)));
        let failed = events
            .iter()
            .find(|e| matches!(e, Event::Failed(..) | Event::Refused(_)));
        assert!(failed.is_none(), "{failed:?}");
        live
    }

    /// Handles a request and returns all replies once all lanes are idle.
    pub fn handle(&self, request: Request) -> Vec<Reply> {
        self.engine.handle(request);
        let engine = &self.engine;
        // Other lanes submit work to the lane of the logit lens, so that lane is waited for last.
        for lane in [
            &engine.work,
            &engine.trace,
            &engine.steer,
            &engine.train,
            &engine.sets,
            &engine.slow_read,
            &engine.levels,
            &engine.read,
            &*engine.lens,
        ] {
            lane.wait();
        }
        self.replies.try_iter().collect()
    }

    /// Handles a command and returns its events.
    pub fn ask(&self, command: Command) -> Vec<Event> {
        let replies = self.handle(self.counter.request(command));
        replies.into_iter().map(|reply| reply.event).collect()
    }

    /// Ends the engine, which unlocks the study.
    pub fn close(self) {
        self.engine.shutdown();
    }

    /// Handles a command that must be refused or fail, and returns the reason.
    pub fn refusal(&self, command: Command) -> String {
        let events = self.ask(command);
        let why = events.iter().find_map(|event| match event {
            Event::Refused(why) | Event::Failed(_, why) => Some(why.clone()),
            _ => None,
        });
        why.unwrap_or_else(|| panic!("it was to be refused: {events:?}"))
    }
}
