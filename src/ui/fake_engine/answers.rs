//! What the fake answers to commands.

use std::sync::Arc;

use super::{CONCEPTS, FakeEngine, noise, scored};
use crate::analysis::LabelMatrix;
use crate::engine::{Command, Event, Job, Pace, Reply, Request, SetKind};
use crate::steering::SteerInfo;

impl FakeEngine {
    /// What the engine would answer at once.
    pub fn answer(&mut self, request: &Request) -> Vec<Reply> {
        if let Command::Cancel(job) = request.command {
            let running = self
                .running
                .iter()
                .position(|r| r.command.job() == Some(job));
            let cancelled = |at| Reply {
                to: Some(self.running.remove(at).id),
                event: Event::Cancelled(job),
            };
            return running.map(cancelled).into_iter().collect();
        }
        let events = self.events(&request.command);
        if let [Event::Started(_)] = events[..] {
            self.running.push(request.clone());
        }
        let to = Some(request.id);
        events
            .into_iter()
            .map(|event| Reply { to, event })
            .collect()
    }

    fn events(&mut self, command: &Command) -> Vec<Event> {
        match command {
            Command::ListModels => vec![Event::Models(Self::models())],
            Command::ListStudies => vec![Event::Studies(Self::studies())],
            Command::Estimate(request) => {
                let mut estimate = Self::estimate();
                if request.fit.features > 300 {
                    estimate.refusal = Some(
                        "the factors of 400 features need 14.1 GB of memory and 12.3 GB are free: take 300 features or fewer".to_owned(),
                    );
                }
                vec![Event::Estimate(Ok(estimate))]
            }
            Command::OpenStudy(_) => {
                let mut events = vec![Event::Started(Job::Load)];
                events.extend(self.open.then_some(Event::Closed));
                events.extend(self.study_with_fit());
                events.push(Event::Model(Box::new(Self::model())));
                events.push(Event::Done(Job::Load, String::new()));
                self.open = true;
                events
            }
            Command::Open(_) => self.make(),
            Command::ModelAt(_) => vec![
                Event::Started(Job::Load),
                Event::Model(Box::new(Self::model())),
                Event::Done(Job::Load, Self::model().id),
                Event::Study(Box::new(self.study())),
                Event::Features(Arc::new(self.list(41, true))),
            ],
            // What begins with these is the test's own to tell.
            Command::Collect
            | Command::GoOn(_)
            | Command::Fit(_)
            | Command::Refine(_)
            | Command::TrainSae(_)
            | Command::SweepK(_)
            | Command::Evaluate(_) => command.job().map(Event::Started).into_iter().collect(),
            Command::Inspect(id) => vec![Event::Card(Box::new(self.card(*id)))],
            Command::Neuron(index) => vec![Event::Neuron(Box::new(self.neuron(*index)))],
            Command::Tree(..) => vec![Event::Tree(Arc::new(self.tree()))],
            Command::Shared(ids) => vec![Event::Shared(Box::new(Self::shared(ids)))],
            Command::Trace(text) => vec![
                Event::Started(Job::Trace),
                Event::Trace(Box::new(self.trace(text))),
                Event::Done(Job::Trace, String::new()),
            ],
            Command::UndoNote | Command::ImportNotes(_) => {
                vec![Event::Features(Arc::new(self.list(41, true)))]
            }
            Command::Note(note) => {
                self.names.retain(|(i, _)| *i != note.id);
                if !note.line.is_empty() {
                    self.names.push((note.id, note.line.clone()));
                }
                vec![
                    Event::Features(Arc::new(self.list(41, true))),
                    Event::Noted(Box::new(note.clone()), None),
                ]
            }
            Command::Steer(ask) => self.steer(ask.samples),
            Command::Pause => vec![Event::Paused(true)],
            Command::Resume => vec![Event::Paused(false)],
            Command::Export { path, .. }
            | Command::ExportTree(_, _, path)
            | Command::ExportClusters(.., path)
            | Command::ExportLevels(path)
            | Command::ExportNotes(path) => {
                vec![Event::Exported(path.clone())]
            }
            Command::Levels(_, together, _) => {
                let mut levels = self.levels();
                levels
                    .levels
                    .iter_mut()
                    .skip(1)
                    .for_each(|level| level.joint = together.then_some((0.7, 0.63)));
                vec![
                    Event::Started(Job::Levels),
                    Event::Levels(Arc::new(levels)),
                    Event::Done(Job::Levels, "levels of 20, 10, 5 features".to_owned()),
                ]
            }
            Command::Compare(ids) => vec![Event::Comparison(Box::new(self.comparison(ids)))],
            Command::CompareFits(a, b) => {
                vec![Event::FitsCompared(Box::new(self.fits_compared(a, b)))]
            }
            Command::CompareStudy(a, dir) => {
                vec![Event::FitsCompared(Box::new(
                    self.fits_compared(a, &dir.display().to_string()),
                ))]
            }
            Command::Labels => {
                let share = |id: usize, l: usize| {
                    if l == id % CONCEPTS.len() {
                        0.6
                    } else {
                        0.04 * noise(id, l)
                    }
                };
                let row = |id: usize| (0..CONCEPTS.len()).map(|l| share(id, l)).collect();
                vec![Event::Labels(Arc::new(LabelMatrix {
                    labels: CONCEPTS.iter().map(|c| c.0.to_owned()).collect(),
                    base: vec![0.04; CONCEPTS.len()],
                    shares: (0..self.features).map(row).collect(),
                }))]
            }
            Command::Find(probe) => {
                let score = |id: usize| {
                    if id % CONCEPTS.len() == 5 {
                        1.0 - id as f32 / 50.0
                    } else {
                        0.0
                    }
                };
                vec![Event::Found(
                    probe.clone(),
                    Arc::new((0..self.features).map(score).collect()),
                )]
            }
            Command::ShowSet(SetKind::Fit(_)) => {
                vec![Event::Features(Arc::new(self.list(41, true)))]
            }
            Command::ShowSet(kind) => {
                vec![
                    Event::Started(Job::Set),
                    Event::Features(Arc::new(self.set(kind))),
                    Event::Done(Job::Set, format!("directions of {kind}")),
                ]
            }
            Command::ShowFit(_) => {
                let mut events = self.study_with_fit();
                events.rotate_left(1);
                events
            }
            Command::Evaluations => vec![Event::Evaluations(self.evaluations.clone())],
            Command::OpenEvaluation(name) => {
                vec![Event::Evaluation(Box::new(Self::evaluation(name)))]
            }
            Command::EvaluatedTexts(name, method) => {
                vec![Event::EvaluatedTexts(Box::new(Self::evaluated_texts(
                    name, method,
                )))]
            }
            Command::Pace(_) => vec![Event::Pace(Some(Pace {
                token: 0.002,
                strength: 0.01,
            }))],
            Command::SaveSession(_) | Command::Cancel(_) | Command::Shutdown => Vec::new(),
        }
    }

    /// A study with its finished fit, as it comes on show.
    fn study_with_fit(&self) -> Vec<Event> {
        let mut events = vec![Event::Study(Box::new(self.study()))];
        events.extend((1..=41).map(Self::sweep).map(Event::Sweep));
        events.push(Event::Features(Arc::new(self.list(41, true))));
        events
    }

    /// A study that is made: its model is loaded, its activations are collected, it is fitted.
    fn make(&mut self) -> Vec<Event> {
        let model = || Event::Model(Box::new(Self::model()));
        let study = || Event::Study(Box::new(self.study()));
        let words = |words: &str| words.to_owned();
        let mut events = vec![
            Event::Started(Job::Load),
            Event::Done(Job::Load, words("SmolLM2-135M (cpu, Q4_1), 30 layers")),
            Event::Started(Job::Collect),
        ];
        events.extend(self.open.then_some(Event::Closed));
        let collected = words("17,204 tokens of 1,104 samples in 14.2 s");
        events.extend([
            model(),
            study(),
            model(),
            Event::Done(Job::Collect, collected),
            Event::Started(Job::Fit),
            Event::FitBegun("bcd-k40".to_owned()),
        ]);
        events.extend((1..=41).map(Self::sweep).map(Event::Sweep));
        events.extend([
            Event::Features(Arc::new(self.list(41, true))),
            Event::Done(Job::Fit, words("error 0.322 after 41 sweeps, 5.3 s")),
            study(),
        ]);
        self.open = true;
        events
    }

    fn steer(&self, samples: usize) -> Vec<Event> {
        let info = SteerInfo {
            alpha: 18.4,
            kl: 0.251,
            note: None,
            risen: scored(
                &["Sunday", "Monday", "Friday", "weekend", "day"],
                0,
                4.2,
                -0.5,
            ),
            fallen: scored(&["that", "the", "it", "we", "I"], 0, -2.2, 0.3),
        };
        let mut events = vec![Event::Started(Job::Steer), Event::SteerInfo(Box::new(info))];
        let baseline = " the best way to learn is to ask questions and to listen to what comes back, every day.";
        let steered = " Sunday is the best day for it, and Monday the worst; by Friday we will know more.\nOn Sunday, then.";
        let words =
            |text: &str| -> Vec<String> { text.split_inclusive(' ').map(str::to_owned).collect() };
        let (a, b) = (words(baseline), words(steered));
        for i in 0..a.len().max(b.len()) {
            for sample in 0..samples {
                for (steered, from) in [(false, &a), (true, &b)] {
                    if let Some(text) = from.get(i) {
                        events.push(Event::SteerText {
                            sample,
                            steered,
                            text: text.clone(),
                        });
                    }
                }
            }
        }
        events.push(Event::Done(Job::Steer, "40 tokens in 1.2 s".to_owned()));
        events
    }
}
