//! How commands and events travel: a [`Command`] as a [`Request`] with a number, and whatever comes
//! of it as a [`Reply`] that names this number.
//!
//! Invariant: with several questions open at once each asker knows its own answer, its own refusal
//! and its own end.

use std::cell::Cell;

use serde::{Deserialize, Serialize};

use super::{Command, Event};

/// The number of a request, unique within one run of the explorer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestId(pub u64);

/// A command on its way to the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// The number that its replies name.
    pub id: RequestId,
    /// What is to be done.
    pub command: Command,
}

/// An event on its way from the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request that it came of; `None` for what no request caused.
    pub to: Option<RequestId>,
    /// What has happened.
    pub event: Event,
}

impl Request {
    /// The last one. Nothing names it: the event channel closes when it is done.
    pub fn shutdown() -> Self {
        Self {
            id: RequestId(0),
            command: Command::Shutdown,
        }
    }
}

impl Reply {
    /// Whether it came of the request that `open` names.
    pub fn is_to(&self, open: Option<RequestId>) -> bool {
        open.is_some() && self.to == open
    }
}

/// Numbers requests in the order in which they are made.
#[derive(Debug, Default)]
pub struct RequestCounter(Cell<u64>);

impl RequestCounter {
    /// A request with a number that none before it had, from 1.
    pub fn request(&self, command: Command) -> Request {
        self.0.set(self.0.get() + 1);
        Request {
            id: RequestId(self.0.get()),
            command,
        }
    }
}
