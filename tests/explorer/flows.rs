//! What a researcher does in the explorer, key by key.

use crate::terminal::{ENTER, ESC, home};

#[test]
fn a_feature_leads_to_its_neurons_and_back() {
    let home = home();
    home.study(&["12"]);
    let mut t = home.explore(120, 36, &[]);
    let feature = t.word_after("Contexts of ");
    t.keys("n");
    t.sees("weight  others");
    t.keys(ENTER);
    t.sees("used by");
    let neuron = t.word_after("Neuron ");
    t.sees(&format!("{feature} › Neuron {neuron}"));
    t.sees(&format!("Contexts of neuron {neuron}"));
    t.keys("j");
    t.keys(ENTER);
    t.sees(&format!("{feature} › neuron {neuron} › Feature #"));
    let other = t.word_after("› Feature ");
    assert_ne!(other, feature);
    t.keys(ESC);
    t.sees(&format!("{feature} › Neuron {neuron}"));
    t.keys(ESC);
    t.sees(&format!("Contexts of {feature}"));
    t.keys(ESC);
    t.loses(" › ");
    t.quits();
}

#[test]
fn marked_features_are_compared() {
    let home = home();
    home.study(&["12"]);
    let mut t = home.explore(120, 36, &[]);
    t.keys(" C");
    t.sees("mark two features or more");
    t.keys("  C");
    t.sees("Compare #");
    t.sees("cosine of neurons");
    t.sees("residual stream");
    t.sees("core (in most)");
    t.keys("y");
    t.sees("Markdown");
    t.keys("m");
    t.sees("copied");
    t.keys(ENTER);
    t.sees("Contexts of #");
    t.keys(ESC);
    t.sees("Compare #");
    t.keys(ESC);
    t.sees("Features 12");
    t.quits();
}

#[test]
fn the_tree_is_searched_folded_joined_otherwise_and_turned_into_levels() {
    let home = home();
    home.study(&["12"]);
    let mut t = home.explore(120, 36, &[]);
    t.keys("2");
    t.sees("average linkage");
    t.keys("/time");
    t.sees("/ time");
    t.keys(ENTER);
    t.sees("n next, esc clears");
    t.keys(ESC);
    t.loses("n next, esc clears");
    t.keys("<<<<<<<<<<<<");
    t.until("one fold", |s| s.contains("▸ 12") || s.contains("members"));
    t.keys(">>>>>>>>>>>>");
    t.keys("K");
    t.loses("average linkage");
    t.sees("linkage");
    t.keys("t");
    t.sees("Levels 12 →");
    t.keys("H");
    t.sees("features of each level");
    t.keys("\u{15}5 2");
    t.keys(ENTER);
    t.sees("Levels 12 → 5 → 2");
    t.keys("t");
    t.sees("Tree of shared neurons");
    t.quits();
}

#[test]
fn a_feature_its_core_and_its_own_neurons_steer_side_by_side_and_live_follows() {
    let home = home();
    home.study(&["12"]);
    let mut t = home.explore(120, 36, &[]);
    t.keys("2");
    t.sees("average linkage");
    // A search ends on a feature, which has a cluster.
    t.keys("/time");
    t.keys(ENTER);
    t.sees("n next, esc clears");
    t.keys("b");
    for way in ["whole feature", "core alone", "own neurons alone"] {
        t.sees(way);
    }
    t.until("three α", |s| {
        s.matches("α ").count() >= 3 || s.contains("out of reach")
    });
    t.until("an end", |s| !s.contains("cancels"));
    t.keys("t");
    t.sees("steered text");
    t.keys("t");
    t.sees("baseline text");
    t.quits();
}

#[test]
fn a_text_is_read_as_it_is_typed() {
    let home = home();
    home.study(&["12"]);
    let mut t = home.explore(80, 24, &[]);
    t.keys("4e");
    t.keys("a river");
    t.sees("7 tokens");
    t.keys(" on Tuesday");
    t.sees("18 tokens");
    t.sees("unexplained");
    t.keys(ESC);
    t.sees("e edit");
    t.keys("yt");
    t.sees("copied 18 tokens");
    let written = t.written.lock().unwrap().clone();
    assert!(written.windows(5).any(|w| w == b"\x1b]52;"), "by OSC 52");
    t.quits();
}

#[test]
fn a_filter_is_there_again_in_the_next_session() {
    let home = home();
    home.study(&["12"]);
    let mut t = home.explore(80, 24, &[]);
    // From the contexts too.
    t.keys("\t/-label:time");
    t.sees(" of 12");
    t.keys(ENTER);
    t.keys("s");
    t.sees("share▾");
    t.quits();
    let t = home.explore(80, 24, &[]);
    t.sees("/ -label:time");
    t.sees("share▾");
    t.quits();
}

#[test]
fn a_note_is_kept_through_a_refit_and_taken_back() {
    let home = home();
    let notes = home.study(&["12"]).join("notes.json");
    let mut t = home.explore(120, 36, &[]);
    t.keys("r");
    t.sees("Name and notes");
    t.keys("rivers #water *4 -- seen by hand");
    t.keys(ENTER);
    t.sees("★★★★");
    assert!(
        std::fs::read_to_string(&notes)
            .unwrap()
            .contains("seen by hand")
    );
    t.keys("5f");
    t.sees("fitting done: ");
    t.keys("1/rivers");
    t.sees("Features 1 of 12");
    t.sees("seen by hand");
    t.keys(ENTER);
    t.keys("r");
    t.keys(" again");
    t.keys(ENTER);
    t.sees("seen by hand again");
    t.keys("U");
    t.loses("seen by hand again");
    t.sees("seen by hand");
    assert!(!std::fs::read_to_string(&notes).unwrap().contains("again"));
    t.quits();
}

#[test]
fn two_fits_are_compared_and_switched() {
    let home = home();
    home.study(&["6", "12"]);
    let mut t = home.explore(80, 24, &[]);
    t.sees("Features 12");
    t.keys("5");
    t.sees("Fit k12");
    t.keys("jc");
    t.sees("matched from cosine");
    t.keys(ESC);
    t.loses("matched from cosine");
    t.keys(ENTER);
    t.sees("Fit k6");
    t.keys("1");
    t.sees("Features 6");
    t.quits();
}

#[test]
fn a_sweep_over_k_is_asked_for_and_its_table_copied() {
    let home = home();
    home.study(&["6"]);
    let mut t = home.explore(120, 36, &[]);
    t.keys("5S");
    t.sees("15 fits of 5 numbers of features");
    t.keys("\u{15}3 5");
    t.keys("\t\u{15}2");
    t.sees("4 fits of 2 numbers of features");
    t.keys(ENTER);
    t.sees("sweep over k 2 of 2");
    t.sees("seeds 42 to 43, warm");
    t.sees("stability");
    t.sees("sweeps again");
    t.keys("y");
    t.sees("Markdown");
    t.keys("t");
    t.sees("copied");
    t.quits();
}

#[test]
fn a_fit_goes_on_with_more_features() {
    let home = home();
    home.study(&["6"]);
    let mut t = home.explore(80, 24, &[]);
    t.sees("Features 6");
    t.keys("5");
    t.sees("Fit k6");
    t.keys("+F");
    t.sees("Fit k10");
    t.sees("fitting done: ");
    t.keys("1");
    t.sees("Features 10");
    t.keys("~");
    t.sees("going on from k6 with 10 features");
    t.keys("~");
    t.quits();
}

#[test]
fn any_set_of_directions_is_read_and_steered_with_and_an_autoencoder_becomes_one() {
    let home = home();
    home.study(&["12"]);
    let mut t = home.explore(120, 36, &[]);
    t.keys("D");
    t.sees("differences in means");
    t.keys("j");
    t.keys(ENTER);
    t.sees("at blocks.1.mlp.hook_post");
    t.sees("diffmean · D back to");
    t.sees("promotes");
    t.keys("2");
    t.sees("diffmean is on show");
    t.keys("a");
    t.keys(ENTER);
    t.until("α of a direction", |s| {
        s.contains("diffmean #") && (s.contains("α ") || s.contains("out of reach"))
    });
    t.until("an end", |s| !s.contains("cancels"));
    t.keys("1");
    t.keys(ESC);
    t.sees("Features 12");

    t.keys("5T");
    t.sees("Train an autoencoder");
    for (latents, rest) in [("16", "\x1b[B"), ("4", "\x1b[B"), ("5", "")] {
        t.keys("\x7f\x7f\x7f\x7f");
        t.keys(latents);
        if !rest.is_empty() {
            t.keys(rest);
        }
    }
    t.keys(ENTER);
    t.sees("pass 5 of 5");
    t.until("figures", |s| s.contains("'topk16', FVU"));
    t.keys("D");
    t.sees("sae:topk16");
    t.keys("jj");
    t.keys(ENTER);
    t.sees("sae:topk16 · D back to");
    t.keys("1");
    t.sees("sae:topk16 16 at");
    t.keys("D");
    t.keys("g");
    t.keys(ENTER);
    t.sees("Features 12");
    t.quits();
}

#[test]
fn the_fit_that_was_chosen_is_on_show_again() {
    let home = home();
    home.study(&["6", "12"]);
    let mut t = home.explore(80, 24, &[]);
    t.sees("Features 12");
    t.keys("5");
    t.sees("Fit k12");
    t.keys("j");
    t.keys(ENTER);
    t.sees("Fit k6");
    t.keys("1j ");
    t.sees("◆");
    t.quits();
    let t = home.explore(80, 24, &[]);
    t.sees("Features 6");
    t.sees("◆");
    t.quits();
}

#[test]
fn features_stand_against_labels() {
    let home = home();
    home.study(&["12"]);
    let mut t = home.explore(120, 36, &[]);
    t.keys("M");
    t.sees("Features by ");
    t.sees("of ΣY on ");
    t.keys("lj");
    t.keys("yj");
    t.sees("copied");
    t.keys(ENTER);
    t.sees("Contexts of #");
    t.quits();
}

#[test]
fn features_that_fire_on_a_text_are_asked_for() {
    let home = home();
    home.study(&["12"]);
    let mut t = home.explore(120, 36, &[]);
    t.keys("/fires:\"a river on Tuesday\"");
    t.until("an answer", |s| {
        s.contains("Tuesday\"") && !s.contains("asking…")
    });
    t.keys(ESC);
    t.sees("Features 12");
    // Features of so small a model fire on anything, so that the opposite keeps fewer.
    t.keys("/-fires:\"a river on Tuesday\"");
    t.sees(" of 12");
    t.keys(ESC);
    t.sees("Features 12 ");
    t.quits();
}

#[test]
fn what_is_on_show_is_written_to_files() {
    let home = home();
    let study = home.study(&["12"]);
    let mut t = home.explore(120, 36, &[]);
    let feature = t.word_after("Contexts of #");
    t.keys("E");
    t.sees("wrote ");
    assert!(
        std::fs::read_to_string(study.join(format!("feature-{feature}.md")))
            .unwrap()
            .contains("## Neurons")
    );
    t.keys("2");
    t.sees("average linkage");
    t.keys("H");
    t.sees("cut at height");
    t.keys("\x150.99");
    t.sees("features by themselves");
    t.keys(ENTER);
    t.sees("Tree cut at 0.99");
    t.keys("E");
    t.sees("clusters-k12.json");
    let clusters: serde_json::Value =
        serde_json::from_slice(&std::fs::read(study.join("clusters-k12.json")).unwrap()).unwrap();
    let features: usize = clusters["clusters"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["features"].as_array().unwrap().len())
        .sum();
    assert_eq!(features, 12);
    for ending in ["svg", "nwk", "json"] {
        assert!(
            study.join(format!("tree-k12.{ending}")).exists(),
            "{ending}"
        );
    }
    t.keys("t");
    t.sees("Levels 12 →");
    t.keys("E");
    t.sees("levels-k12.json");
    let levels: serde_json::Value =
        serde_json::from_slice(&std::fs::read(study.join("levels-k12.json")).unwrap()).unwrap();
    assert!(levels["level_nodes"].as_array().unwrap().len() > 12);
    t.quits();
}

#[test]
fn notes_go_out_and_come_in_and_an_edit_by_hand_is_kept() {
    let home = home();
    let study = home.study(&["12"]);
    let notes = study.join("notes.json");
    let mut t = home.explore(120, 36, &[]);
    t.keys("r");
    t.sees("Name and notes");
    t.keys("rivers");
    t.keys(ENTER);
    t.sees("rivers");
    t.keys(":export-notes");
    t.keys(ENTER);
    t.sees("wrote ");
    let exported = study.join("notes-k12.json");
    let text = std::fs::read_to_string(&exported).unwrap();
    assert!(text.contains("rivers"));
    // Another feature is named by hand while the study is open.
    let mut all: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&notes).unwrap()).unwrap();
    let taken = all["k12"]["names"]
        .as_object()
        .unwrap()
        .keys()
        .next()
        .unwrap()
        .clone();
    let by_hand = if taken == "3" { "4" } else { "3" };
    all["k12"]["names"][by_hand] = "by hand".into();
    std::fs::write(&notes, all.to_string()).unwrap();
    t.keys("r and lakes");
    t.keys(ENTER);
    t.sees("rivers and lakes");
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&notes).unwrap()).unwrap();
    assert_eq!(kept["k12"]["names"][by_hand], "by hand");
    assert_eq!(kept["k12"]["names"][&taken], "rivers and lakes");
    std::fs::write(&exported, text.replace("rivers", "brooks")).unwrap();
    t.keys(":import-notes");
    t.keys(ENTER);
    t.sees("Names and notes from a file");
    t.keys(ENTER);
    t.sees("brooks");
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&notes).unwrap()).unwrap();
    assert_eq!(kept["k12"]["names"][by_hand], "by hand");
    t.quits();
}
