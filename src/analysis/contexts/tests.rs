use super::super::tests::{columns, factors, table};
use super::*;
use crate::activations::InMemory;

/// Two sentences and a label each; feature 0 is about "Monday", feature 1 never fires.
fn small() -> (Factors, TokenTable) {
    let tokens = table(&[
        (&["on", " Monday", " I"], Some("day")),
        (&["Monday", " in", " May"], Some("month")),
    ]);
    let features = columns(3, &[vec![0.6, -0.8, 0.0], vec![0.0, 1.0, 0.0]]);
    let y = vec![0.0, 4.0, 0.1, 3.0, 0.0, 0.9, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    (factors(features, 6, y), tokens)
}

fn notes() -> Notes {
    Notes {
        names: [(0, "weekdays".to_owned())].into(),
        ..Notes::default()
    }
}

#[test]
fn a_row_sums_up_a_feature() {
    let (factors, tokens) = small();
    let rows = feature_rows(&factors, &tokens, &notes());
    assert_eq!(
        rows[0].top_tokens,
        [" Monday"],
        "the same word without its blank is not told twice"
    );
    assert_eq!(
        (rows[0].neurons, rows[0].share, rows[0].density),
        (2, 1.0, 0.5)
    );
    assert_eq!(rows[0].name.as_deref(), Some("weekdays"));
    let purity = rows[0].purity.as_ref().unwrap();
    assert_eq!(
        (purity.label.as_str(), purity.share, purity.base),
        ("day", 0.5, 0.5)
    );
    assert!(rows[1].top_tokens.is_empty() && rows[1].purity.is_none() && rows[1].name.is_none());
    assert_eq!((rows[1].share, rows[1].density), (0.0, 0.0));
}

#[test]
fn a_card_shows_one_context_a_sample() {
    let (factors, tokens) = small();
    let card = feature_card(&factors, &tokens, &notes(), 0).unwrap();
    let row = feature_rows(&factors, &tokens, &notes()).swap_remove(0);
    assert_eq!(card.row, row);
    assert_eq!(card_of_row(row, &factors, &tokens).unwrap(), card);
    assert_eq!(
        card.contexts.iter().map(|c| c.row).collect::<Vec<_>>(),
        [1, 3]
    );
    let first = &card.contexts[0];
    assert_eq!(
        (first.sample, first.peak, first.label.as_deref()),
        (0, 1, Some("day"))
    );
    assert_eq!(first.tokens, ["on", " Monday", " I"]);
    assert_eq!(first.values, [0.0, 4.0, 0.1]);
    assert_eq!(
        (
            card.peak,
            card.histogram.len(),
            card.histogram.iter().sum::<u32>()
        ),
        (4.0, 24, 4)
    );
    assert_eq!(
        card.quantiles
            .iter()
            .map(|(q, c)| (*q, c.row))
            .collect::<Vec<_>>(),
        [(0.9, 1), (0.8, 3), (0.4, 5), (0.1, 2)]
    );
    assert_eq!(card.neurons[0].index, 1);
    assert_eq!(card.neurons[0].used_by, 2);
    assert!(card.related.is_empty(), "neuron 1 has opposite signs");
    let mass: f32 = card.labels.iter().map(|l| l.mass).sum();
    assert!((mass - 1.0).abs() < 1e-6);
}

#[test]
fn a_feature_that_never_fires_has_an_empty_card() {
    let (factors, tokens) = small();
    let card = feature_card(&factors, &tokens, &notes(), 1).unwrap();
    assert!(card.contexts.is_empty() && card.quantiles.is_empty() && card.labels.is_empty());
    assert_eq!((card.peak, card.histogram.iter().sum::<u32>()), (0.0, 0));
}

#[test]
fn an_unknown_id_names_the_range() {
    let (factors, tokens) = small();
    let error = feature_card(&factors, &tokens, &notes(), 2).unwrap_err();
    assert_eq!(
        error.to_string(),
        "feature 2 does not exist: this fit has features 0 to 1"
    );
    assert_eq!(error.exit_code(), 2);
    let activations = InMemory::new(1, 3, vec![0.0; 3]);
    let error = neuron_card(&factors, &tokens, &activations, 3).unwrap_err();
    assert_eq!(
        error.to_string(),
        "neuron 3 does not exist: this hook has neurons 0 to 2"
    );
}

#[test]
fn no_features_and_no_rows_are_no_panic() {
    let tokens = TokenTable::default();
    let none = factors(columns(3, &[]), 0, Vec::new());
    assert!(feature_rows(&none, &tokens, &Notes::default()).is_empty());
    let error = feature_card(&none, &tokens, &Notes::default(), 0).unwrap_err();
    assert_eq!(
        error.to_string(),
        "feature 0 does not exist: this fit has no features"
    );
    let no_rows = factors(columns(2, &[vec![1.0, 0.0]]), 0, Vec::new());
    assert_eq!(
        feature_rows(&no_rows, &tokens, &Notes::default())[0].share,
        0.0
    );
    assert!(
        feature_card(&no_rows, &tokens, &Notes::default(), 0)
            .unwrap()
            .contexts
            .is_empty()
    );
}

#[test]
fn an_imported_matrix_without_tokens_shows_its_rows() {
    let imported = factors(columns(2, &[vec![1.0, 0.0]]), 3, vec![0.0, 2.0, 1.0]);
    let card = feature_card(&imported, &TokenTable::default(), &Notes::default(), 0).unwrap();
    assert_eq!(card.contexts[0].tokens, ["#1"]);
    assert_eq!((card.contexts[0].peak, card.contexts[0].sample), (0, 1));
    assert_eq!(card.row.top_tokens, ["#1", "#2"]);
}

#[test]
fn one_long_text_gives_contexts_that_do_not_touch() {
    let pieces = vec!["x"; 400];
    let tokens = table(&[(&pieces, None)]);
    let y: Vec<f32> = (0..400).map(|i| (i % 97) as f32).collect();
    let long = factors(columns(1, &[vec![1.0]]), 400, y);
    let card = feature_card(&long, &tokens, &Notes::default(), 0).unwrap();
    assert!(card.contexts.len() > 8, "{}", card.contexts.len());
    for (i, a) in card.contexts.iter().enumerate() {
        assert!(
            a.tokens.len() <= 31
                && a.values[a.peak] == a.values.iter().copied().fold(0.0, f32::max)
                || i > 0
        );
        assert!(
            card.contexts[..i]
                .iter()
                .all(|b| b.row.abs_diff(a.row) > 30)
        );
    }
    assert_eq!(card.contexts[0].values.len(), 31);
}

#[test]
fn a_neurons_contexts_have_both_signs() {
    let (factors, tokens) = small();
    let activations = InMemory::new(
        6,
        3,
        vec![
            0.0, 1.0, 0.0, 0.0, -5.0, 0.0, 0.0, 2.0, 0.0, //
            0.0, 3.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.5, 0.0,
        ],
    );
    let card = neuron_card(&factors, &tokens, &activations, 1).unwrap();
    assert_eq!(
        card.contexts.iter().map(|c| c.row).collect::<Vec<_>>(),
        [3, 1]
    );
    assert_eq!(card.contexts[1].values, [1.0, -5.0, 2.0]);
    assert_eq!(
        card.features,
        [(1, 1.0, String::new()), (0, -0.8, " Monday".to_owned())]
    );
    let unused = neuron_card(&factors, &tokens, &activations, 2).unwrap();
    assert!(unused.features.is_empty() && unused.contexts.is_empty());
}

#[test]
fn characters_split_over_tokens_are_whole_at_the_ends_of_a_window_and_in_the_list() {
    // 今 and 🎉 a byte a token, so that windows of 15 tokens either side begin and end inside one.
    let pieces: Vec<String> = "今🎉"
        .repeat(8)
        .bytes()
        .map(|b| format!("<0x{b:02X}>"))
        .collect();
    let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
    let tokens = table(&[(&pieces, None), (&["<0x8A>", "<0xE4>"], None)]);
    for row in 0..pieces.len() {
        let shown = context(&tokens, &vec![0.0; tokens.rows.len()], row);
        let text = shown.tokens.concat();
        assert!(
            "今🎉".repeat(8).contains(&text) && !text.is_empty(),
            "{text}"
        );
        assert_eq!((shown.tokens.len(), shown.row), (shown.values.len(), row));
        assert_eq!(
            character(&tokens, row),
            if row % 7 < 3 { "今" } else { "🎉" }
        );
    }
    let beyond = pieces.len();
    assert_eq!(
        [character(&tokens, beyond), character(&tokens, beyond + 1)],
        ["<0x8A>", "<0xE4>"]
    );
    assert_eq!(
        top_tokens(&tokens, &[1, 0, 8, 4, beyond]),
        ["今", "🎉", "<0x8A>"]
    );
}
