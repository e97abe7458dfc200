//! For tests: the engine itself, given one request at a time, and what it needs: a small random
//! language model and texts, made on the spot.

use std::path::{Path, PathBuf};

use crossbeam_channel::{Receiver, unbounded};

use super::{Command, Engine, Event, OpenRequest, Reply, Request, RequestCounter, engine};
use crate::factor::FitConfig;

#[path = "../../tests/support/mod.rs"]
pub(crate) mod support;

/// The model, the texts and the study of a test, in a directory that goes with it.
pub(crate) struct Workshop {
    dir: tempfile::TempDir,
    /// A random Llama of four layers whose tokens are bytes.
    pub model: PathBuf,
    /// Short texts with one of three labels each.
    pub corpus: PathBuf,
}

impl Workshop {
    /// With so many texts.
    pub fn new(texts: usize) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Self {
            model: support::tiny_model(dir.path()),
            corpus: support::corpus(dir.path(), texts),
            dir,
        }
    }

    /// Something in its directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Where its study lies.
    pub fn study(&self) -> PathBuf {
        self.path("study")
    }

    /// What opens the study, making it where it is not there: layer 1 and so many features.
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

    /// A study of which collecting was stopped half-way: it takes some hundred texts.
    pub fn half_collected(&self, dir: &Path) {
        support::half_collected(dir, &self.model, &self.corpus);
    }
}

/// An engine that is asked one thing after another.
pub(crate) struct Live {
    pub(super) engine: Engine,
    pub(super) replies: Receiver<Reply>,
    pub(super) counter: RequestCounter,
}

impl Live {
    /// With nothing open.
    pub fn new() -> Self {
        let (outbox, replies) = unbounded();
        Self {
            engine: engine(outbox).expect("threads"),
            replies,
            counter: RequestCounter::default(),
        }
    }

    /// With the study of `workshop` made, fitted and open.
    pub fn opened(workshop: &Workshop, features: usize) -> Self {
        let live = Self::new();
        let events = live.ask(Command::Open(workshop.request(features)));
        let failed = events
            .iter()
            .find(|e| matches!(e, Event::Failed(..) | Event::Refused(_)));
        assert!(failed.is_none(), "{failed:?}");
        live
    }

    /// Everything that comes of a request, once nothing more comes.
    pub fn handle(&self, request: Request) -> Vec<Reply> {
        self.engine.handle(request);
        let engine = &self.engine;
        // Opening gives work to the lane of the logit lens: that one is waited for last.
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

    /// The events that come of a command.
    pub fn ask(&self, command: Command) -> Vec<Event> {
        let replies = self.handle(self.counter.request(command));
        replies.into_iter().map(|reply| reply.event).collect()
    }

    /// Ends it; the study is free then for another.
    pub fn close(self) {
        self.engine.shutdown();
    }

    /// Why a command is refused or fails.
    pub fn refusal(&self, command: Command) -> String {
        let events = self.ask(command);
        let why = events.iter().find_map(|event| match event {
            Event::Refused(why) | Event::Failed(_, why) => Some(why.clone()),
            _ => None,
        });
        why.unwrap_or_else(|| panic!("it was to be refused: {events:?}"))
    }
}
