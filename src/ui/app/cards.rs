//! Asking for feature cards: one question at a time, the newest wins, and again about once a second
//! while a fit moves under the selection.

use std::time::Duration;

use super::{App, Effect};
use crate::engine::{Command, Event};

/// How often the card of the selection is asked for again while the fit runs.
const REFRESH: Duration = Duration::from_secs(1);

/// After this a question counts as lost.
const LOST: Duration = Duration::from_secs(5);

/// The questions about features.
#[derive(Debug, Default)]
pub(super) struct Cards {
    /// Asked and not answered, with the time.
    asked: Option<(usize, Duration)>,
    /// To ask when the answer is there.
    wanted: Option<usize>,
    /// When the last one was asked.
    last: Option<Duration>,
    /// When to ask again because the fit moved on.
    refresh_at: Option<Duration>,
}

impl Cards {
    pub(super) fn deadline(&self) -> Option<Duration> {
        let lost = self
            .asked
            .filter(|_| self.wanted.is_some())
            .map(|(_, at)| at + LOST);
        self.refresh_at.into_iter().chain(lost).min()
    }
}

impl App {
    /// Asks for the card of feature `id`, now or when the question before it is answered.
    pub(super) fn ask_card(&mut self, id: usize) -> Vec<Effect> {
        let now = self.world.now;
        match self.cards.asked {
            // The same snapshot gave two reasons to ask.
            Some((asked, at)) if asked == id && at == now => Vec::new(),
            Some((_, at)) if now < at + LOST => {
                self.cards.wanted = Some(id);
                Vec::new()
            }
            _ => {
                self.cards.asked = Some((id, now));
                self.cards.wanted = None;
                self.cards.last = Some(now);
                self.cards.refresh_at = None;
                vec![Effect::Send(Command::Inspect(id))]
            }
        }
    }

    pub(super) fn card_event(&mut self, event: &Event) -> Vec<Effect> {
        match event {
            Event::Card(_) | Event::Refused(_) => {
                self.cards.asked = None;
                self.cards
                    .wanted
                    .take()
                    .map(|id| self.ask_card(id))
                    .unwrap_or_default()
            }
            Event::Features(list) => self.card_is_stale(list.finished),
            // The lens of a card that came before its model.
            Event::Model(_) if self.world.features.is_some() => self
                .world
                .selected
                .map(|id| self.ask_card(id))
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
            return self.ask_card(id);
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
                .map(|id| self.ask_card(id))
                .unwrap_or_default();
        }
        match (self.cards.asked, self.cards.wanted) {
            (Some((_, at)), Some(id)) if now >= at + LOST => self.ask_card(id),
            _ => Vec::new(),
        }
    }
}
