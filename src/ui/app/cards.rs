//! Requests for feature cards: one at a time, the newest wins, and again about once a second while a
//! fit moves under the selection.
//!
//! Invariant: a request that is not answered yet is never sent again: a card that takes longer than
//! a snapshot is finished, shown, and only then asked for anew.

use std::time::Duration;

use super::{App, Effect};
use crate::engine::{Command, Event, Reply, RequestId};

/// How often the card of the selection is requested again while the fit runs.
const REFRESH: Duration = Duration::from_secs(1);

/// A request that is not answered yet.
#[derive(Debug)]
struct Pending {
    request: RequestId,
    /// The feature whose card was requested.
    id: usize,
    /// The list on show that the id is of.
    list: Option<String>,
    at: Duration,
}

/// The requests for feature cards.
#[derive(Debug, Default)]
pub(super) struct CardRequests {
    /// The request that is not answered yet.
    pending: Option<Pending>,
    /// The feature whose card is requested once the pending one is answered.
    next: Option<usize>,
    /// When the last request was sent, since the start.
    last: Option<Duration>,
    /// When to request again because the fit moved on.
    refresh_at: Option<Duration>,
}

impl CardRequests {
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.refresh_at
    }

    /// Whether `reply` answers the pending request.
    pub(super) fn is_open(&self, reply: &Reply) -> bool {
        reply.is_to(self.pending.as_ref().map(|pending| pending.request))
    }

    /// Whether the pending request is of this list's ids.
    pub(super) fn is_of(&self, list: Option<&str>) -> bool {
        let pending = self.pending.as_ref();
        pending.is_some_and(|pending| pending.list.as_deref() == list)
    }
}

impl App {
    /// Asks for the card of feature `id`, now or when the question before it is answered.
    pub(super) fn request_card(&mut self, id: usize) -> Vec<Effect> {
        let now = self.world.now;
        match &self.cards.pending {
            // The same snapshot gave two reasons to ask.
            Some(pending) if pending.id == id && pending.at == now => Vec::new(),
            Some(_) => {
                self.cards.next = Some(id);
                Vec::new()
            }
            None => {
                let request = self.requests.request(Command::Inspect(id));
                self.cards.pending = Some(Pending {
                    request: request.id,
                    id,
                    list: self.world.features.as_ref().map(|list| list.fit.clone()),
                    at: now,
                });
                self.cards.next = None;
                self.cards.last = Some(now);
                self.cards.refresh_at = None;
                vec![Effect::Send(request)]
            }
        }
    }

    pub(super) fn card_event(&mut self, reply: &Reply) -> Vec<Effect> {
        match &reply.event {
            Event::Card(_) | Event::Refused(_) if self.cards.is_open(reply) => {
                self.cards.pending = None;
                self.cards
                    .next
                    .take()
                    .map(|id| self.request_card(id))
                    .unwrap_or_default()
            }
            Event::Features(list) => self.card_is_stale(list.finished),
            // The lens of a card that came before its model.
            Event::Model(_) if self.world.features.is_some() => self
                .world
                .selected
                .map(|id| self.request_card(id))
                .unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    fn card_is_stale(&mut self, finished: bool) -> Vec<Effect> {
        let Some(id) = self.world.selected else {
            return Vec::new();
        };
        let due = self
            .cards
            .last
            .map_or(Duration::ZERO, |last| last + REFRESH);
        if finished || self.world.now >= due {
            return self.request_card(id);
        }
        self.cards.refresh_at = Some(due);
        Vec::new()
    }

    pub(super) fn refresh_card(&mut self) -> Vec<Effect> {
        let now = self.world.now;
        if self.cards.refresh_at.is_some_and(|at| at <= now) {
            self.cards.refresh_at = None;
            return self
                .world
                .selected
                .map(|id| self.request_card(id))
                .unwrap_or_default();
        }
        Vec::new()
    }
}
