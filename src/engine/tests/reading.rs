//! Commands that only read what is on show, the files that they write, and notes.

use serde_json::Value;

use crate::analysis::hierarchy::Linkage;
use crate::analysis::neurons::Overlap;
use crate::engine::testing::{Live, Workshop};
use crate::engine::{Baseline, Command, Event, FeatureList, Probe, TypedNote};
use crate::factor::recursive::Growth;

const TREE: (Overlap, Linkage) = (Overlap::WeightedJaccard, Linkage::Average);

fn note(workshop: &Workshop, id: usize, line: &str) -> Command {
    Command::Note(TypedNote {
        study: workshop.study(),
        fit: "k6".to_owned(),
        id,
        line: line.to_owned(),
    })
}

/// The list that these events bring.
fn list(events: &[Event]) -> &FeatureList {
    let list = events.iter().rev().find_map(|event| match event {
        Event::Features(list) => Some(&**list),
        _ => None,
    });
    list.expect("a list is sent")
}

#[test]
fn numbers_a_feature_answer_what_was_asked() {
    let workshop = Workshop::new(30);
    let live = Live::opened(&workshop, 6);
    let ask = |probe: Probe| {
        let events = live.ask(Command::Find(probe.clone()));
        let [Event::Found(asked, scores)] = &events[..] else {
            panic!("{events:?}")
        };
        assert_eq!((asked, scores.len()), (&probe, 6));
        scores.to_vec()
    };
    let like = ask(Probe::Like(2));
    assert!(
        (like[2] - 1.0).abs() < 1e-5 && like.iter().all(|s| *s <= 1.0 + 1e-5),
        "{like:?}"
    );
    let labels: Vec<f32> = ["water", "time", "count"]
        .map(|label| ask(Probe::Label(label.to_owned())))
        .into_iter()
        .reduce(|a, b| a.iter().zip(&b).map(|(a, b)| a + b).collect())
        .unwrap();
    let fires = |sum: &f32| *sum == 0.0 || (*sum - 1.0).abs() < 1e-4;
    assert!(
        labels.iter().all(fires),
        "three labels share all: {labels:?}"
    );
    let context = ask(Probe::Context("nothing that is written".to_owned()));
    assert!(context.iter().all(|share| *share == 0.0), "{context:?}");
    let text = ask(Probe::Fires("river".to_owned()));
    assert!(text.iter().all(|s| s.is_finite() && *s >= 0.0), "{text:?}");
    let refused = live.refusal(Command::Find(Probe::Like(6)));
    assert!(refused.contains("features 0 to 5"), "{refused}");
    live.close();
}

#[test]
fn what_is_on_show_is_written_as_each_format_says() {
    let workshop = Workshop::new(30);
    let live = Live::opened(&workshop, 6);
    let export = |format: &str, file: &str| Command::Export {
        format: format.to_owned(),
        path: workshop.path(file),
    };
    let refused = live.refusal(export("json", "card.json"));
    assert!(refused.contains("open one first"), "{refused}");
    live.ask(Command::Inspect(3));
    let written = |command: Command, file: &str| {
        let events = live.ask(command);
        assert_eq!(events, [Event::Exported(workshop.path(file))]);
        std::fs::read(workshop.path(file)).unwrap()
    };
    let json = |bytes: &[u8]| -> Value { serde_json::from_slice(bytes).unwrap() };
    let card = json(&written(export("json", "card.json"), "card.json"));
    assert_eq!(card["feature"], 3);
    let text = written(export("markdown", "card.md"), "card.md");
    assert!(String::from_utf8(text).unwrap().contains("| ---"));
    let factors = written(export("safetensors", "factors"), "factors");
    assert!(safetensors::SafeTensors::deserialize(&factors).is_ok());
    let refused = live.refusal(export("parquet", "x"));
    assert!(
        refused.contains("safetensors, json or markdown"),
        "{refused}"
    );

    let tree = |file: &str| Command::ExportTree(TREE.0, TREE.1, workshop.path(file));
    let nodes = json(&written(tree("tree.json"), "tree.json"));
    assert_eq!(
        nodes["nodes"].as_array().map(Vec::len),
        Some(11),
        "6 leaves and 5 joins"
    );
    assert!(written(tree("tree.svg"), "tree.svg").starts_with(b"<svg"));
    assert!(
        written(tree("tree.nwk"), "tree.nwk")
            .trim_ascii_end()
            .ends_with(b";")
    );
    let refused = live.refusal(tree("tree.png"));
    assert!(refused.contains(".svg, .nwk or .json"), "{refused}");
    let cut = Command::ExportClusters(TREE.0, TREE.1, 2.0, workshop.path("cut.json"));
    let clusters = json(&written(cut, "cut.json"));
    assert_eq!(
        clusters["clusters"].as_array().map(Vec::len),
        Some(1),
        "all below 2"
    );

    let levels = || Command::ExportLevels(workshop.path("levels.json"));
    let refused = live.refusal(levels());
    assert!(refused.contains("were not found yet"), "{refused}");
    live.ask(Command::Levels(Growth::Growing, false, vec![3]));
    let found = json(&written(levels(), "levels.json"));
    assert_eq!(found["fit"], "k6", "{found}");
    live.close();
}

#[test]
fn notes_are_kept_taken_back_and_carried_in_a_file() {
    let workshop = Workshop::new(30);
    let live = Live::opened(&workshop, 6);
    let refused = live.refusal(Command::UndoNote);
    assert!(refused.contains("nothing was noted"), "{refused}");
    let noted = live.ask(note(&workshop, 1, "rivers #water"));
    assert_eq!(list(&noted).rows[1].name.as_deref(), Some("rivers"));
    assert!(
        matches!(noted.last(), Some(Event::Noted(_, None))),
        "{noted:?}"
    );
    let beyond = live.ask(note(&workshop, 6, "nothing"));
    assert!(
        matches!(&beyond[..], [Event::Noted(_, Some(why))] if why.contains("features 0 to 5")),
        "{beyond:?}"
    );
    let file = workshop.path("notes.json");
    let events = live.ask(Command::ExportNotes(file.clone()));
    assert_eq!(events, [Event::Exported(file.clone())]);
    live.ask(note(&workshop, 1, "streams"));
    let undone = live.ask(Command::UndoNote);
    assert_eq!(list(&undone).rows[1].name.as_deref(), Some("rivers"));
    live.ask(note(&workshop, 1, ""));
    let taken = live.ask(Command::ImportNotes(file));
    assert_eq!(list(&taken).rows[1].name.as_deref(), Some("rivers"));
    // A set of directions has no notes, and a note on the fit behind it goes to its file.
    live.ask(Command::ShowSet(Baseline::Random.into()));
    let refused = live.refusal(Command::ExportNotes(workshop.path("none.json")));
    assert!(refused.contains("go back to the fit first"), "{refused}");
    live.ask(note(&workshop, 2, "seen behind the set"));
    live.close();
    let live = Live::new();
    let opened = live.ask(Command::OpenStudy(workshop.study()));
    assert_eq!(
        list(&opened).rows[2].name.as_deref(),
        Some("seen behind the set")
    );
    live.close();
}

#[test]
fn two_fits_are_matched_and_a_fit_with_itself_wholly() {
    let workshop = Workshop::new(30);
    let live = Live::opened(&workshop, 6);
    let compared = |command: Command| {
        let events = live.ask(command);
        let found = events.into_iter().find_map(|event| match event {
            Event::FitsCompared(found) => Some(*found),
            _ => None,
        });
        found.expect("they are compared")
    };
    let same = compared(Command::CompareFits("k6".to_owned(), "k6".to_owned()));
    assert_eq!(same.matched.len(), 6, "{same:?}");
    let by_path = Command::CompareStudy("k6".to_owned(), workshop.study().join("fits/k6"));
    assert_eq!(compared(by_path).matched.len(), 6);
    let newest = Command::CompareStudy("k6".to_owned(), workshop.study());
    assert_eq!(compared(newest).matched.len(), 6);
    let refused = live.refusal(Command::CompareFits("k6".to_owned(), "k7".to_owned()));
    assert!(refused.contains("k7"), "{refused}");
    live.close();
}

#[test]
fn a_feature_is_read_while_the_lens_of_the_list_takes_its_time() {
    use crate::engine::{Request, handling::Handling};
    let workshop = Workshop::new(30);
    let live = Live::opened(&workshop, 6);
    let (go_on, wait) = crossbeam_channel::unbounded::<()>();
    live.engine.lens.submit(move || {
        // It ends when the sender is dropped.
        let _: Result<(), _> = wait.recv();
    });
    let request: Request = live.counter.request(Command::Inspect(3));
    let handling = Handling {
        engine: &live.engine,
        session: live.engine.session.for_request(request.id),
    };
    // A fit that moves on asks for the lens again and again.
    (0..20).for_each(|_| handling.opener().refresh_lens());
    live.engine.handle(request);
    live.engine.read.wait();
    let card = |reply: super::super::Reply| matches!(reply.event, Event::Card(_));
    assert!(live.replies.try_iter().any(card), "it waits for no lens");
    drop(go_on);
    live.engine.lens.wait();
    let lists = live
        .replies
        .try_iter()
        .filter(|r| matches!(r.event, Event::Features(_)));
    assert_eq!(lists.count(), 1, "the newest snapshot's alone");
    live.close();
}
