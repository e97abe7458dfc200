mod levels;
mod plot;
mod session;

use super::*;
use crate::analysis::{Tree, TreeNode};
use crate::engine::SteerPart;
use crate::factor::recursive::Growth;
use crate::ui::app::{Effect, Msg};
use crate::ui::harness::Harness;
use crate::ui::theme::Profile;
use proptest::prelude::*;
use std::sync::Arc;

fn harness(width: u16, height: u16, features: usize) -> Harness {
    let mut harness = Harness::opened_with(width, height, Profile::TrueColour, features);
    // By share the made-up features stand in the order of their ids.
    harness.keys("s g 2").wait(0.2);
    harness
}

fn sent_shared(harness: &Harness) -> Vec<Vec<usize>> {
    let shared = |c: &Command| match c {
        Command::Shared(ids) => Some(ids.clone()),
        _ => None,
    };
    harness.sent.iter().filter_map(shared).collect()
}

#[test]
fn the_tree_at_three_sizes() {
    insta::assert_snapshot!("tree_120x36", harness(120, 36, 40).screen());
    insta::assert_snapshot!("tree_80x24", harness(80, 24, 40).screen());
    insta::assert_snapshot!("tree_60x18", harness(60, 18, 40).screen());
}

#[test]
fn a_feature_is_steered_with_in_three_ways_side_by_side() {
    for (width, height) in [(140, 40), (80, 24), (60, 18)] {
        let mut harness = harness(width, height, 40);
        harness.keys("g b").wait(0.1);
        if !harness.sent.iter().any(|c| matches!(c, Command::Steer(_))) {
            // The first row is a cluster: its first feature.
            harness.keys("2 l l l j b").wait(0.1);
        }
        let parts: Vec<SteerPart> = harness
            .sent
            .iter()
            .filter_map(|c| {
                if let Command::Steer(ask) = c {
                    Some(ask.part.clone())
                } else {
                    None
                }
            })
            .collect();
        assert!(
            matches!(
                &parts[..],
                [
                    SteerPart::Whole,
                    SteerPart::CoreOf(_),
                    SteerPart::ExclusiveOf(_)
                ]
            ),
            "{parts:?} {}",
            harness.screen()
        );
        let top = harness.screen();
        // On a small screen the last is below.
        let screen = top + "\n" + &harness.keys("pagedown").screen();
        for way in ["baseline", "whole feature", "core alone", "own neurons"] {
            assert!(screen.contains(way), "{way}: {screen}");
        }
    }
}

#[test]
fn four_hundred_features_begin_folded() {
    let mut harness = harness(80, 24, 400);
    insta::assert_snapshot!("tree_400", harness.screen());
    harness.keys("space");
    assert!(harness.screen().contains("#0 "), "{}", harness.screen());
}

#[test]
fn a_cluster_is_chosen_by_going_left_and_its_branches_stand_out() {
    let mut harness = harness(120, 36, 40);
    harness.keys("h h").wait(0.2);
    insta::assert_snapshot!("tree_cluster", harness.screen());
    insta::assert_snapshot!("tree_cluster_styles", harness.styles());
    assert_eq!(sent_shared(&harness).last().map(Vec::len), Some(3));
}

#[test]
fn every_colour_profile_reads() {
    for (name, profile) in [("mono", Profile::Mono), ("ansi", Profile::Ansi)] {
        let mut harness = Harness::opened_with(80, 24, profile, 40);
        harness.keys("2 h").wait(0.2);
        insta::assert_snapshot!(format!("tree_{name}_styles"), harness.styles());
    }
}

#[test]
fn shared_neurons_are_requested_once_the_cursor_has_stopped() {
    let mut harness = harness(80, 24, 40);
    let before = sent_shared(&harness).len();
    harness.keys("j j j j");
    assert_eq!(sent_shared(&harness).len(), before);
    harness.wait(0.2);
    assert_eq!(sent_shared(&harness).len(), before + 1);
    // What is known is not asked for again.
    harness
        .keys("k")
        .wait(0.2)
        .keys("j")
        .wait(0.2)
        .keys("k")
        .wait(0.2);
    assert!(sent_shared(&harness).len() <= before + 2);
}

#[test]
fn folding_up_to_a_height_and_back() {
    let mut harness = harness(120, 36, 40);
    let open = harness.screen();
    harness.keys("<");
    let folded = harness.screen();
    assert!(folded.contains('▸') && folded.contains('▼'), "{folded}");
    for _ in 0..60 {
        harness.keys("<");
    }
    let least = harness.screen();
    assert!(
        !least
            .lines()
            .any(|l| l.split('│').next().unwrap().contains('#')),
        "{least}"
    );
    for _ in 0..60 {
        harness.keys(">");
    }
    let again = harness.screen();
    let rows = |screen: &str| screen.lines().filter(|l| l.contains('%')).count();
    assert_eq!(rows(&again), rows(&open), "{again}");
}

#[test]
fn the_weekday_experiment_is_a_key() {
    let mut harness = harness(120, 36, 40);
    // The cluster of days, then one day in it.
    harness.keys("h h h").wait(0.1).keys("l l l");
    let day = harness.app.world.selected.unwrap();
    harness.keys("x").wait(0.1);
    harness.keys("enter");
    let ask = |harness: &Harness| match harness
        .sent
        .iter()
        .rev()
        .find(|c| matches!(c, Command::Steer(_)))
    {
        Some(Command::Steer(ask)) => ask.clone(),
        other => panic!("{other:?}"),
    };
    let own = ask(&harness);
    assert_eq!(own.features, [(day, 1.0)]);
    let SteerPart::ExclusiveOf(others) = own.part else {
        panic!("{:?}", own.part)
    };
    assert_eq!(others.len(), 3);
    assert!(!others.contains(&day));
    harness.keys("2 c enter");
    let core = ask(&harness);
    let SteerPart::CoreOf(cluster) = core.part else {
        panic!("{:?}", core.part)
    };
    assert_eq!(cluster.len(), 4);
    harness.keys("2 a enter");
    assert_eq!(ask(&harness).part, SteerPart::Whole);
}

#[test]
fn what_shares_nothing_has_no_core_and_says_so() {
    let mut harness = harness(80, 24, 40);
    harness.keys("G");
    assert!(
        harness.screen().contains("share no neurons"),
        "{}",
        harness.screen()
    );
    harness.keys("space G");
    harness.keys("c");
    assert!(
        harness.screen().contains("there is no core"),
        "{}",
        harness.screen()
    );
    harness.keys("h");
    assert!(
        harness.screen().contains("on their own"),
        "{}",
        harness.screen()
    );
}

#[test]
fn enter_on_a_feature_opens_it_and_back_returns() {
    let mut harness = harness(120, 36, 40);
    harness.keys("j j");
    let id = harness.app.world.selected.unwrap();
    harness.keys("enter");
    assert_ne!(harness.app.focus(), PaneId::Tree);
    assert_eq!(harness.app.world.selected, Some(id));
    harness.keys("esc");
    assert_eq!(harness.app.focus(), PaneId::Tree);
}

#[test]
fn a_new_tree_keeps_cursor_and_folds() {
    let mut harness = harness(120, 36, 40);
    harness.keys("h h space");
    harness.answers = false;
    let list = harness.engine.list(42, true);
    harness.event(Event::Features(Arc::new(list)));
    let folded = harness.screen();
    let tree = harness.engine.tree();
    harness.reply(Event::Tree(Arc::new(tree)));
    assert_eq!(harness.screen(), folded);
}

#[test]
fn the_panel_is_walked_and_its_neurons_opened() {
    for (width, height) in [(120, 36), (80, 24)] {
        let mut harness = harness(width, height, 40);
        harness
            .keys("/")
            .type_text("scarlet")
            .keys("enter")
            .wait(0.2);
        harness.keys("tab");
        assert_eq!(
            harness.app.focus(),
            PaneId::Tree,
            "into the panel: {}",
            harness.screen()
        );
        harness.keys("end enter");
        assert!(
            harness.app.world.open_neuron.is_some(),
            "{}",
            harness.screen()
        );
        harness.keys("esc");
        assert_eq!(
            (harness.app.focus(), harness.app.world.open_neuron),
            (PaneId::Tree, None)
        );
        harness.keys("esc tab tab");
        assert_ne!(
            harness.app.focus(),
            PaneId::Tree,
            "out of the panel, to the next tab"
        );
    }
}

#[test]
fn the_tree_is_cut_at_a_height_that_is_typed() {
    let mut harness = harness(120, 36, 40);
    harness.keys("H").type_text("x").keys("enter");
    assert!(
        harness
            .screen()
            .contains("a height is a number from 0 to 1"),
        "{}",
        harness.screen()
    );
    harness.keys("ctrl-u").type_text("0.9");
    let screen = harness.screen();
    let line = screen
        .lines()
        .find(|l| l.contains("cut at height"))
        .expect("the line")
        .to_owned();
    harness.keys("enter");
    let number = |text: &str| -> usize {
        text.split_whitespace()
            .next()
            .and_then(|n| n.parse().ok())
            .expect("a number")
    };
    let clusters = number(
        line.split("0.9")
            .nth(1)
            .and_then(|t| t.split_once("  "))
            .expect("a count")
            .1,
    );
    assert!(
        harness
            .screen()
            .contains(&format!("cut at 0.90: {clusters} clusters")),
        "{line}\n{}",
        harness.screen()
    );
    harness.keys("y j");
    let Some(Effect::Copy(text, _)) = harness.effects.last() else {
        panic!("nothing copied")
    };
    let rows: Vec<serde_json::Value> = serde_json::from_str(text).expect("JSON");
    assert_eq!(
        rows.iter().filter(|row| row["height"].is_number()).count(),
        clusters
    );
    harness.keys("E");
    assert!(
        harness
            .sent
            .iter()
            .any(|c| matches!(c, Command::ExportClusters(_, _, h, _) if *h == 0.9))
    );
    let before = harness.sent.len();
    harness.keys("t E");
    let after = &harness.sent[before..];
    assert!(
        after.iter().any(|c| matches!(c, Command::ExportLevels(_))),
        "{after:?}"
    );
    assert!(!after.iter().any(|c| matches!(c, Command::ExportTree(..))));
}

#[test]
fn an_empty_pane_says_what_to_press() {
    let mut harness = Harness::new(80, 24, Profile::TrueColour);
    harness.keys("2");
    insta::assert_snapshot!("tree_empty", harness.screen());
    harness.keys("space");
    assert!(
        harness.screen().contains("it needs a fit"),
        "{}",
        harness.screen()
    );
}

#[test]
fn the_tree_is_asked_for_again_when_the_fit_moves_but_not_for_a_name() {
    let mut harness = harness(80, 24, 40);
    let trees = |harness: &Harness| {
        harness
            .sent
            .iter()
            .filter(|c| matches!(c, Command::Tree(..)))
            .count()
    };
    assert_eq!(trees(&harness), 1);
    let list = harness.engine.list(41, true);
    harness.event(Event::Features(Arc::new(list)));
    assert_eq!(trees(&harness), 1);
    let list = harness.engine.list(42, false);
    harness.event(Event::Features(Arc::new(list)));
    assert_eq!(trees(&harness), 1, "too soon");
    harness.wait(4.0);
    assert_eq!(trees(&harness), 2);
}

#[test]
fn copying_gives_the_rows_with_their_heights() {
    let mut harness = harness(80, 24, 40);
    harness.keys("y t");
    let Some(Effect::Copy(text, _)) = harness.effects.last() else {
        panic!("nothing copied")
    };
    assert!(
        text.lines().count() > 30 && text.contains("#12 Sunday"),
        "{text}"
    );
}

#[test]
fn clicks_choose_and_open() {
    use crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
    let mut harness = harness(120, 36, 40);
    let click = MouseEvent {
        kind: MouseEventKind::Down(MouseButton::Left),
        column: 40,
        row: 6,
        modifiers: crossterm::event::KeyModifiers::NONE,
    };
    let before = harness.app.world.selected;
    harness.msg(Msg::Mouse(click));
    assert_ne!(harness.app.world.selected, before);
    harness.msg(Msg::Mouse(click));
    assert_ne!(harness.app.focus(), PaneId::Tree);
}

fn any_tree() -> impl Strategy<Value = Tree> {
    // Anything that a file could hold: children out of range, twice, none.
    let node = (
        proptest::collection::vec(0usize..40, 0..3),
        0f32..1.2,
        proptest::collection::vec(0usize..50, 0..4),
    );
    proptest::collection::vec(node, 0..40).prop_map(|nodes| Tree {
        nodes: nodes
            .into_iter()
            .enumerate()
            .map(|(id, (children, height, features))| TreeNode {
                id,
                children,
                height,
                features,
            })
            .collect(),
        measure: "any".to_owned(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_tree_and_any_keys_draw_at_any_size(
        tree in any_tree(), width in 1u16..140, height in 1u16..50,
        keys in proptest::collection::vec(0usize..14, 0..24)
    ) {
        let mut harness = Harness::opened_with(width, height, Profile::TrueColour, 40);
        harness.answers = false;
        harness.keys("2").reply(Event::Tree(Arc::new(tree)));
        harness.answers = true;
        for key in keys {
            let spelt = ["up", "down", "left", "right", "space", "<", ">", "g", "G", "n", "c", "2", "pagedown", "z"];
            harness.keys(spelt[key]).wait(0.1);
            let _ = harness.screen();
        }
    }
}

#[test]
fn another_overlap_is_another_tree() {
    let mut harness = harness(120, 36, 40);
    harness.keys("O");
    assert!(matches!(
        harness.sent.last(),
        Some(Command::Tree(Overlap::Jaccard, Linkage::Average))
    ));
    harness.keys("O K");
    assert!(matches!(
        harness.sent.last(),
        Some(Command::Tree(Overlap::Cosine, Linkage::Complete))
    ));
    harness.keys("E");
    let asked = |c: &Command| {
        matches!(
            c,
            Command::ExportTree(Overlap::Cosine, Linkage::Complete, _)
        )
    };
    assert_eq!(harness.sent.iter().filter(|c| asked(c)).count(), 3);
    harness.keys("t c");
    assert!(
        harness.screen().contains("that is for the dendrogram"),
        "{}",
        harness.screen()
    );
}
