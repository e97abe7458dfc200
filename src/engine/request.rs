//! The envelopes of commands and events: a [`Command`] is sent as a [`Request`] with a number, and
//! every event that it causes as a [`Reply`] with this number.
//!
//! Invariant: with several requests open at once, the sender of each can recognise its own answers,
//! refusals and end.

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
    /// The command to run.
    pub command: Command,
}

/// An event on its way from the engine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// The request that caused it; `None` if no request did.
    pub to: Option<RequestId>,
    /// The event.
    pub event: Event,
}

impl Request {
    /// The last request. No reply names it: the event channel closes when the engine has ended.
    pub fn shutdown() -> Self {
        Self {
            id: RequestId(0),
            command: Command::Shutdown,
        }
    }
}

impl Reply {
    /// Whether the request `open` caused it.
    pub fn is_to(&self, open: Option<RequestId>) -> bool {
        open.is_some() && self.to == open
    }
}

/// Numbers requests in the order in which they are made.
#[derive(Debug, Default)]
pub struct RequestCounter(Cell<u64>);

impl RequestCounter {
    /// A request with the next number, from 1.
    pub fn request(&self, command: Command) -> Request {
        self.0.set(self.0.get() + 1);
        Request {
            id: RequestId(self.0.get()),
            command,
        }
    }
}
