//! The levels of features of features in the Tree pane.

use super::*;

#[test]
fn levels_are_walked_at_three_sizes() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = harness(width, height, 40);
        harness.keys("t");
        assert!(
            harness
                .sent
                .iter()
                .any(|c| matches!(c, Command::Levels(..)))
        );
        let screen = harness.screen();
        assert!(screen.contains("Levels 40 → 12 → 6"), "{screen}");
        harness.keys("g <");
        assert!(
            !harness.screen().contains("└ ▸"),
            "all are folded: {}",
            harness.screen()
        );
        harness.keys("j enter");
        assert!(
            harness.screen().contains("└ ▸"),
            "a node opens: {}",
            harness.screen()
        );
        harness.keys("j enter j enter");
        assert!(
            harness.screen().contains("Contexts") || harness.screen().contains("of the fit"),
            "{}",
            harness.screen()
        );
    }
}

#[test]
fn the_rule_for_p_and_the_linkage_have_a_key() {
    let mut harness = harness(120, 36, 40);
    harness.keys("K");
    assert!(
        matches!(
            harness.sent.last(),
            Some(Command::Tree(_, Linkage::Complete))
        ),
        "{:?}",
        harness.sent.last()
    );
    harness.keys("t K");
    let fixed = |c: &Command| matches!(c, Command::Levels(Growth::Fixed, false, _));
    assert!(harness.sent.iter().any(fixed));
    harness.keys("O");
    assert!(
        matches!(
            harness.sent.last(),
            Some(Command::Levels(Growth::Fixed, true, _))
        ),
        "{:?}",
        harness.sent.last()
    );
    assert!(
        harness.screen().contains("· tuned") && harness.screen().contains("63% (70% untuned)"),
        "{}",
        harness.screen()
    );
    // Back in the dendrogram, the features can be steered with in three ways.
    harness.keys("t g l l l c").keys("2 E");
    let exported = harness
        .sent
        .iter()
        .filter(|c| matches!(c, Command::ExportTree(_, Linkage::Complete, _)))
        .count();
    assert_eq!(exported, 3);
}

#[test]
fn the_levels_are_searched_at_every_depth() {
    for (width, height) in [(120, 36), (80, 24), (60, 18)] {
        let mut harness = harness(width, height, 40);
        harness.keys("t < /").type_text("kenya");
        assert!(harness.screen().contains("/ kenya"), "{}", harness.screen());
        harness.keys("enter");
        let first = harness.screen();
        assert!(
            first.contains("Kenya") && first.contains("n next"),
            "{first}"
        );
        let cursor = |harness: &Harness| {
            harness
                .screen()
                .lines()
                .find(|l| l.starts_with('▌'))
                .map(|l| l.chars().take(12).collect::<String>())
        };
        let before = cursor(&harness);
        harness.keys("n");
        assert_ne!(cursor(&harness), before, "the next one");
        harness.keys("N");
        assert_eq!(
            cursor(&harness).map(|l| l.replace('▾', "▸")),
            before.map(|l| l.replace('▾', "▸")),
            "and back"
        );
        harness.keys("esc");
        assert!(!harness.screen().contains("n next"), "{}", harness.screen());
        harness.keys("/").type_text("xyzzy").keys("enter");
        assert!(
            harness.screen().contains("0 features"),
            "{}",
            harness.screen()
        );
    }
}

#[test]
fn sizes_of_levels_are_typed_and_kept() {
    let asked = |harness: &Harness| match harness
        .sent
        .iter()
        .rev()
        .find(|c| matches!(c, Command::Levels(..)))
    {
        Some(Command::Levels(_, _, sizes)) => sizes.clone(),
        _ => panic!("no levels were asked for"),
    };
    for (width, height) in [(120, 36), (60, 18)] {
        let mut harness = harness(width, height, 40);
        harness.keys("t");
        assert_eq!(asked(&harness), Vec::<usize>::new(), "by halves");
        harness.keys("H");
        assert!(
            harness.screen().contains("features of each level 20 10 5"),
            "{}",
            harness.screen()
        );
        harness.keys("ctrl-u").type_text("40 5").keys("enter");
        assert!(
            harness
                .screen()
                .contains("40 over 40: each level has fewer"),
            "{}",
            harness.screen()
        );
        harness.keys("ctrl-u").type_text("12, 6").keys("enter");
        assert_eq!(asked(&harness), [12, 6]);
        assert!(
            harness.screen().contains("Levels 40 → 12 → 6"),
            "{}",
            harness.screen()
        );
        harness.keys("O");
        assert_eq!(asked(&harness), [12, 6], "the sizes stay with another rule");
        assert_eq!(
            harness.app.session()["panes"]["Tree"]["levels"]["sizes"],
            serde_json::json!([12, 6])
        );
        harness.keys("H ctrl-u enter");
        assert_eq!(asked(&harness), Vec::<usize>::new());
        harness.keys("H esc").keys("t H");
        assert!(
            harness.screen().contains("cut at height"),
            "{}",
            harness.screen()
        );
    }
}
