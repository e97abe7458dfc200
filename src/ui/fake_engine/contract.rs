//! The fake engine held against the engine: every command goes to both, the engine on a small random
//! model, and what comes back is compared in kind, in order and in which fields are set.
//!
//! Invariant: a command that is missing here does not compile ([`name`]) or fails the test.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::FakeEngine;
use crate::analysis::hierarchy::Linkage;
use crate::analysis::neurons::Overlap;
use crate::engine::testing::{Live, Workshop};
use crate::engine::{
    Baseline, Command, Event, Job, Mode, Probe, Refinement, Reply, RequestCounter, SetKind,
    SteerPart, SteerSettings, SweepRequest, TrainConfig, TypedNote,
};
use crate::eval::steering::SteeringConfig;
use crate::factor::FitConfig;
use crate::factor::recursive::Growth;
use crate::jobs::causal::CausalRequest;
use crate::jobs::evaluation::Method;
use crate::model::generate::Sampling;
use crate::steering::{Positions, Strength};

macro_rules! every_command {
    ($($name:ident),* $(,)?) => {
        /// Every command by its name.
        const COMMANDS: &[&str] = &[$(stringify!($name)),*];

        /// A command's name.
        fn name(command: &Command) -> &'static str {
            match command {
                $(Command::$name { .. } => stringify!($name),)*
            }
        }
    };
}

every_command![
    ListModels,
    ListStudies,
    Estimate,
    Open,
    OpenStudy,
    ModelAt,
    Collect,
    Fit,
    GoOn,
    Refine,
    TrainSae,
    SweepK,
    Pause,
    Resume,
    Cancel,
    Inspect,
    Neuron,
    Tree,
    Levels,
    Compare,
    ShowFit,
    ShowSet,
    CompareFits,
    Labels,
    Find,
    UndoNote,
    Shared,
    Trace,
    Steer,
    Evaluate,
    Evaluations,
    OpenEvaluation,
    EvaluatedTexts,
    Pace,
    Note,
    Export,
    ExportTree,
    ExportClusters,
    ExportLevels,
    ExportNotes,
    ImportNotes,
    CompareStudy,
    SaveSession,
    Shutdown,
];

/// Jobs that the fake only begins: a test says itself how they go on.
const LEFT_OPEN: &[&str] = &[
    "Collect", "Fit", "GoOn", "Refine", "TrainSae", "SweepK", "Evaluate",
];

/// What a person would do with a small study, every command at least once, each where it succeeds.
fn session(workshop: &Workshop) -> Vec<Command> {
    let study = workshop.study();
    let tree = (Overlap::WeightedJaccard, Linkage::Average);
    let fit = |features| FitConfig {
        features,
        max_sweeps: Some(4),
        ..FitConfig::default()
    };
    let note = TypedNote {
        study: study.clone(),
        fit: "k6".to_owned(),
        id: 1,
        line: "water #place *3 -- rivers".to_owned(),
    };
    let notes = workshop.path("notes.json");
    vec![
        Command::ListModels,
        Command::ListStudies,
        Command::Estimate(workshop.request(6)),
        Command::Open(workshop.request(6)),
        Command::OpenStudy(study.clone()),
        Command::ModelAt(workshop.model.display().to_string()),
        Command::Inspect(0),
        Command::Neuron(5),
        Command::Tree(tree.0, tree.1),
        Command::Shared(vec![0, 1]),
        Command::Compare(vec![0, 1]),
        Command::Labels,
        Command::Find(Probe::Like(0)),
        Command::Find(Probe::Label("water".to_owned())),
        Command::Find(Probe::Context("river".to_owned())),
        Command::Find(Probe::Fires("a river".to_owned())),
        Command::Levels(Growth::Growing, false, vec![3]),
        Command::Levels(Growth::Growing, true, vec![3]),
        Command::Trace("a river on Tuesday".to_owned()),
        Command::Steer(SteerSettings {
            features: vec![(0, 1.0)],
            part: SteerPart::Whole,
            mode: Mode::Add,
            prompt: "I think".to_owned(),
            strength: Strength::Kl(0.1),
            negative: false,
            positions: Positions::default(),
            samples: 1,
            sampling: Sampling {
                max_tokens: 3,
                ..Sampling::default()
            },
        }),
        Command::Note(note),
        Command::ExportNotes(notes.clone()),
        Command::ImportNotes(notes),
        Command::UndoNote,
        Command::Export {
            format: "markdown".to_owned(),
            path: workshop.path("card.md"),
        },
        Command::ExportTree(tree.0, tree.1, workshop.path("tree.svg")),
        Command::ExportClusters(tree.0, tree.1, 0.9, workshop.path("clusters.json")),
        Command::ExportLevels(workshop.path("levels.json")),
        Command::Pause,
        Command::Resume,
        Command::Fit(fit(4)),
        Command::GoOn("k4".to_owned()),
        Command::ShowFit("k6".to_owned()),
        Command::CompareFits("k6".to_owned(), "k4".to_owned()),
        Command::CompareStudy("k6".to_owned(), study.join("fits").join("k4")),
        Command::Refine(Refinement {
            fit: Some("k6".to_owned()),
            add: 1,
            merge: 0,
            lock: Vec::new(),
        }),
        Command::SweepK(SweepRequest {
            fit: Some("k6".to_owned()),
            features: vec![2, 3],
            seeds: 1,
            ..SweepRequest::default()
        }),
        Command::TrainSae(TrainConfig {
            latents: 8,
            top_k: 2,
            epochs: 1,
            batch: 16,
            ..TrainConfig::default()
        }),
        Command::ShowSet(Baseline::DiffMean.into()),
        Command::ShowSet(SetKind::FIT),
        Command::Evaluate(Box::new(CausalRequest {
            methods: vec![
                Method::Set(SetKind::FIT),
                Method::Set(Baseline::Random.into()),
            ],
            config: SteeringConfig {
                targets: vec![0.1],
                prompts: vec!["I think".to_owned(), "She said".to_owned()],
                samples: 1,
                sampling: Sampling {
                    max_tokens: 3,
                    ..Sampling::default()
                },
                ..SteeringConfig::default()
            },
            name: Some("kept".to_owned()),
            ..CausalRequest::default()
        })),
        Command::Evaluations,
        Command::OpenEvaluation("kept".to_owned()),
        Command::EvaluatedTexts("kept".to_owned(), "random".to_owned()),
        Command::Pace(Box::new(SteeringConfig {
            batch: 1,
            ..SteeringConfig::default()
        })),
        Command::Cancel(Job::Fit),
        Command::SaveSession(json!({"fit": "k6"})),
        Command::Collect,
        Command::Shutdown,
    ]
}

/// The name and the content of an event, as it is written down.
fn parts(event: &Event) -> (String, Value) {
    match serde_json::to_value(event).expect("events are plain data") {
        Value::String(kind) => (kind, Value::Null),
        Value::Object(map) => map.into_iter().next().expect("a variant's name"),
        other => panic!("no event: {other}"),
    }
}

/// The kinds of the events in their order: repeated ones once, of the end of a job which. How often
/// progress is told and what is logged depends on the time it takes; a list of features comes once
/// more when the logit lens has read it, beside what else is told, such as sweeps.
fn kinds(replies: &[Reply]) -> Vec<String> {
    let mut out: Vec<String> = Vec::new();
    for reply in replies {
        let kind = match &reply.event {
            Event::Log(..) | Event::Progress { .. } => continue,
            Event::Started(job) => format!("Started({job:?})"),
            Event::Done(job, _) => format!("Done({job:?})"),
            Event::Cancelled(job) => format!("Cancelled({job:?})"),
            Event::Failed(job, why) => format!("Failed({job:?}): {why}"),
            Event::Refused(why) => format!("Refused: {why}"),
            event => parts(event).0,
        };
        let beside = ["Features", "Sweep"].contains(&kind.as_str());
        let again = out.last() == Some(&kind) || (beside && out.contains(&kind));
        if !again {
            out.push(kind);
        }
    }
    out
}

/// The paths of the fields that hold something, of every element of a list alike.
fn fields(value: &Value, path: &str, out: &mut BTreeSet<String>) {
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            fields(value, &format!("{path}.{key}"), out);
        }),
        Value::Array(list) => list.iter().for_each(|value| fields(value, path, out)),
        Value::Null => {}
        Value::String(text) if text.is_empty() => {}
        _ => _ = out.insert(path.to_owned()),
    }
}

/// That a job's events lie between its beginning and its end.
fn check_order(replies: &[Reply], command: &str) {
    let mut running = BTreeSet::new();
    for reply in replies {
        match &reply.event {
            Event::Started(job) => {
                assert!(
                    running.insert(format!("{job:?}")),
                    "{command}: {job:?} began twice"
                );
            }
            Event::Progress { job, .. } => {
                assert!(
                    running.contains(&format!("{job:?}")),
                    "{command}: {job:?} did not begin"
                );
            }
            Event::Done(job, _) | Event::Cancelled(job) | Event::Failed(job, _) => {
                assert!(
                    running.remove(&format!("{job:?}")),
                    "{command}: {job:?} did not begin"
                );
            }
            _ => {}
        }
    }
}

/// Beginnings of fields that one of the two has and the other has not, with a reason for each. One
/// that is no longer needed fails the test.
const EXCUSED: &[(&str, &str)] = &[
    (
        "Comparison.shared.core",
        "features of so small a fit share no neurons",
    ),
    ("Shared.core", "features of so small a fit share no neurons"),
    (
        "Neuron.features",
        "no feature of so small a fit has this neuron",
    ),
    (
        "EvaluatedTexts.labels.",
        "no label of the workshop is steered as far as a text",
    ),
    (
        "Evaluation.measures.",
        "no label of the workshop is steered as far as a text",
    ),
    (
        "Evaluation.methods.",
        "no label of the workshop is steered as far as a text",
    ),
    (
        "Features.rows.note.",
        "the fake keeps the name of a note and drops the rest",
    ),
    (
        "FitsCompared.b_words",
        "the fake's other fit has numbers and no words",
    ),
    (
        "Model.identity.",
        "panes do not read what a model is told from others by",
    ),
    (
        "Model.tokenizer_sha256",
        "panes do not read what a model is told from others by",
    ),
    (
        "Model.weights_sha256",
        "panes do not read what a model is told from others by",
    ),
    ("Models.problem", "no model of the workshop is damaged"),
    (
        "Study.concentrated.",
        "no neuron of the fake holds most of the activations",
    ),
    (
        "Study.fits.config.max_sweeps",
        "the fake's fits ended by themselves",
    ),
    (
        "Study.saes.trained.",
        "the fake's autoencoder was loaded and not trained",
    ),
    (
        "Sweep.stop",
        "the fake's fit is told of before its last sweep",
    ),
];

#[test]
fn the_fake_answers_every_command_as_the_engine_does() {
    let workshop = Workshop::new(30);
    let (live, half) = (Live::new(), Live::new());
    let counter = RequestCounter::default();
    // What was collected whole cannot be gone on with.
    let many = Workshop::new(400);
    let partly = many.path("half");
    many.half_collected(&partly);
    half.ask(Command::OpenStudy(partly));
    let mut fake = FakeEngine::default();
    let commands = session(&workshop);
    let tried: BTreeSet<&str> = commands.iter().map(name).collect();
    assert_eq!(tried, COMMANDS.iter().copied().collect(), "each is tried");

    let mut problems = Vec::new();
    let mut told: BTreeMap<String, [BTreeSet<String>; 2]> = BTreeMap::new();
    for command in commands {
        let command_name = name(&command);
        let request = counter.request(command);
        let made_up = fake.answer(&request);
        // The loop of the engine ends at it, and nothing is told.
        let real = match command_name {
            "Shutdown" => Vec::new(),
            "Collect" => half.handle(request.clone()),
            _ => live.handle(request.clone()),
        };
        for (i, replies) in [&real, &made_up].into_iter().enumerate() {
            for reply in replies {
                assert_eq!(
                    reply.to,
                    Some(request.id),
                    "{command_name}: {:?}",
                    reply.event
                );
                let (kind, content) = parts(&reply.event);
                fields(
                    &content,
                    &kind,
                    &mut told.entry(kind.clone()).or_default()[i],
                );
            }
        }
        check_order(&real, command_name);
        // The engine's jobs have ended by now; the fake's end with them.
        fake.running.clear();
        let (mut real, made_up) = (kinds(&real), kinds(&made_up));
        if command_name == "ModelAt" {
            // The list comes from the lane that reads, beside the end of the job.
            real.sort_by_key(|kind| kind == "Features");
        }
        let same = match LEFT_OPEN.contains(&command_name) {
            true => !made_up.is_empty() && real.starts_with(&made_up),
            false => real == made_up,
        };
        if !same {
            problems.push(format!(
                "{command_name}: the engine tells {real:?}, the fake {made_up:?}"
            ));
        }
    }
    let mut used = BTreeSet::new();
    for (kind, [real, made_up]) in &told {
        // Kinds that only one of them tells are named above; these two vary by nature.
        if real.is_empty() || made_up.is_empty() || ["Log", "Progress"].contains(&kind.as_str()) {
            continue;
        }
        let mut unexcused = |path: &&String| {
            let known = EXCUSED.iter().find(|(start, _)| path.starts_with(start));
            used.extend(known.map(|(start, _)| *start));
            known.is_none()
        };
        let missing: Vec<_> = real.difference(made_up).filter(&mut unexcused).collect();
        let invented: Vec<_> = made_up.difference(real).filter(&mut unexcused).collect();
        if !missing.is_empty() || !invented.is_empty() {
            problems.push(format!(
                "{kind}: the fake lacks {missing:?} and makes up {invented:?}"
            ));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    for (start, why) in EXCUSED {
        assert!(used.contains(start), "{start} is no longer excused: {why}");
    }
}
