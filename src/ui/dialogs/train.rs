//! The form of what a sparse autoencoder is trained with, over the Fit pane.

use super::form::{FormDialog, RequestForm};
use crate::engine::{Command, TrainConfig};
use crate::study::SaeEntry;
use crate::text;
use crate::ui::form::{Field, Fields, whole_number};
use crate::ui::world::World;

/// The fields: a name, and what it means.
const FIELDS: [(&str, &str); 3] = [
    ("latents", "how many directions it looks for"),
    ("active", "how many of them describe a token"),
    ("passes", "over all tokens"),
];

/// What it is trained with, as it is typed.
#[derive(Debug)]
pub struct TrainForm {
    /// What is not asked for.
    base: TrainConfig,
    typed: [String; 3],
}

/// Trainings of the hook on show, newest first.
fn trainings_at_hook(world: &World) -> impl Iterator<Item = &SaeEntry> {
    let study = world.study.as_deref();
    study.into_iter().flat_map(|s| {
        s.saes
            .iter()
            .rev()
            .filter(|sae| sae.hook == s.hook && sae.trained.is_some())
    })
}

/// Begins with the training that was stopped, or the defaults.
pub fn train_dialog(world: &World) -> FormDialog<TrainForm> {
    let stopped = trainings_at_hook(world)
        .find(|sae| sae.resumable)
        .and_then(|sae| sae.trained.clone());
    let base = stopped.unwrap_or_default();
    let typed = [base.latents, base.top_k, base.epochs].map(|n| n.to_string());
    FormDialog::new(TrainForm { base, typed }, world)
}

impl TrainForm {
    /// The configuration as it is typed, or what is wrong with it.
    fn config(&self) -> Result<TrainConfig, String> {
        let number = |i: usize| whole_number(&self.typed[i], FIELDS[i].0, 1..=usize::MAX);
        let (latents, top_k, epochs) = (number(0)?, number(1)?, number(2)?);
        if top_k > latents {
            return Err(format!(
                "of {} latents at most as many are active",
                text::count(latents)
            ));
        }
        Ok(TrainConfig {
            latents,
            top_k,
            epochs,
            ..self.base.clone()
        })
    }
}

impl Fields for TrainForm {
    fn fields(&self, _: &World) -> Vec<Field> {
        let field = |((name, help), typed): ((&str, &str), &String)| Field::text(name, help, typed);
        FIELDS.into_iter().zip(&self.typed).map(field).collect()
    }

    fn step(&mut self, _: usize, _: bool, _: &World) -> Result<(), String> {
        Ok(())
    }

    fn set(&mut self, at: usize, typed: &str, _: &World) -> Result<(), String> {
        typed.clone_into(&mut self.typed[at]);
        Ok(())
    }
}

impl RequestForm for TrainForm {
    const TITLE: &'static str = "Train an autoencoder";
    const WIDTH: u16 = 66;
    const VALUE: usize = 10;
    const VERB: &'static str = "trains";

    fn command(&self, _: &World) -> Result<Command, String> {
        self.config().map(Command::TrainSae)
    }

    fn outlook(&self, world: &World) -> Result<String, String> {
        let config = self.config()?;
        let same = trainings_at_hook(world).find(|sae| sae.trained.as_ref() == Some(&config));
        let rows = world.study.as_ref().map_or(0, |s| s.rows);
        let steps = rows.div_ceil(config.batch.max(1)) * config.epochs;
        Ok(match same {
            Some(sae) if sae.resumable => {
                format!("{} goes on where it was stopped", text::clean(&sae.name))
            }
            Some(sae) if sae.figures.is_some() => {
                format!("{} is this already", text::clean(&sae.name))
            }
            _ => format!(
                "{} steps of {} of {} tokens",
                text::count(steps),
                config.batch,
                text::count(rows)
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Event, Job, TrainPoint};
    use crate::ui::fake_engine::FakeEngine;
    use crate::ui::harness::Harness;
    use crate::ui::theme::Profile;

    fn train_requests(harness: &Harness) -> Vec<&TrainConfig> {
        harness
            .sent
            .iter()
            .filter_map(|c| {
                if let Command::TrainSae(config) = c {
                    Some(config)
                } else {
                    None
                }
            })
            .collect()
    }

    fn point(epoch: usize) -> Event {
        Event::TrainPoint(TrainPoint {
            step: epoch as u64 * 34,
            total: 60 * 34,
            epoch,
            fvu: 0.2 + 0.8 / epoch as f64,
            dead: 3 * epoch,
            seconds: epoch as f64 * 2.5,
            pass: None,
        })
    }

    /// A harness where a training runs.
    fn training(width: u16, height: u16, profile: Profile) -> Harness {
        let mut harness = Harness::opened(width, height, profile);
        harness.keys("5 T enter");
        let mut entry = harness.engine.study().saes[0].clone();
        let config = train_requests(&harness)[0].clone();
        (entry.name, entry.latents, entry.figures, entry.trained) =
            ("topk2048".into(), 2048, None, Some(config));
        harness
            .event(Event::Started(Job::Train))
            .event(Event::Training(Box::new(entry)));
        harness
    }

    #[test]
    fn the_form_begins_with_the_defaults_and_is_edited() {
        let mut harness = Harness::opened(80, 24, Profile::Mono);
        harness.keys("5 T");
        assert!(
            harness
                .screen()
                .contains("2,040 steps of 512 of 17,204 tokens"),
            "{}",
            harness.screen()
        );
        harness
            .keys("backspace backspace backspace backspace")
            .type_text("512")
            .keys("down")
            .type_text("x")
            .keys("enter");
        assert!(
            train_requests(&harness).is_empty()
                && harness.screen().contains("active: a whole number"),
            "{}",
            harness.screen()
        );
        harness.keys("backspace enter");
        let defaults = TrainConfig::default();
        assert_eq!(
            train_requests(&harness),
            [&TrainConfig {
                latents: 512,
                ..defaults
            }]
        );
        harness.keys("T esc");
        assert_eq!(train_requests(&harness).len(), 1);
    }

    #[test]
    fn a_training_is_watched_like_a_fit() {
        for (width, height) in [(120, 36), (80, 24), (60, 18)] {
            let mut harness = training(width, height, Profile::TrueColour);
            assert!(
                harness
                    .screen()
                    .contains("the curve appears with the first pass"),
                "{}",
                harness.screen()
            );
            for epoch in 1..=12 {
                harness.event(point(epoch));
            }
            harness.event(FakeEngine::progress(
                Job::Train,
                "training",
                408,
                2040,
                "steps",
            ));
            let screen = harness.screen();
            assert!(
                screen.contains("pass 12 of 60") && screen.contains("dead 1.8%"),
                "{screen}"
            );
            insta::assert_snapshot!(format!("training_{width}x{height}"), screen);
            if width == 80 {
                insta::assert_snapshot!("training_styles", harness.styles());
            }
            harness.keys("T");
            assert!(
                harness.screen().contains("one is being trained"),
                "{}",
                harness.screen()
            );
            harness.keys("ctrl-c");
            assert!(harness.sent.contains(&Command::Cancel(Job::Train)));
            assert!(
                harness.screen().contains("T goes on where it was stopped"),
                "{}",
                harness.screen()
            );
            harness.event(Event::Closed);
            assert!(
                !harness.screen().contains("topk2048"),
                "{}",
                harness.screen()
            );
        }
    }

    #[test]
    fn a_stopped_training_is_offered_to_go_on() {
        let mut harness = training(80, 24, Profile::Mono);
        let mut study = harness.engine.study();
        let config = TrainConfig {
            latents: 777,
            ..TrainConfig::default()
        };
        let mut half = study.saes[0].clone();
        (half.name, half.resumable, half.figures, half.trained) =
            ("topk777".into(), true, None, Some(config.clone()));
        study.saes.push(half);
        harness
            .event(Event::Cancelled(Job::Train))
            .event(Event::Study(Box::new(study)))
            .keys("T");
        assert!(
            harness
                .screen()
                .contains("topk777 goes on where it was stopped"),
            "{}",
            harness.screen()
        );
        harness.keys("enter");
        assert_eq!(train_requests(&harness)[1], &config);
    }
}
