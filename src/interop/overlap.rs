//! The matrix of shared neurons for elsewhere: CSV for a table, SVG for a paper.
//!
//! Sees counts, an order and a label a feature. Invariant: whatever the labels hold, the file is well
//! formed.

use std::fmt::Write;

use crate::analysis::neurons::SharedCounts;
use crate::plot::escaped;

/// Side of a cell, and where the cells begin, in pixels.
const CELL: usize = 8;
const LEFT: usize = 300;
const TOP: usize = 36;
/// The colour of no shared neuron and of the most, as red, green and blue.
const NONE: [f64; 3] = [255.0, 255.0, 255.0];
const MOST: [f64; 3] = [8.0, 48.0, 107.0];

/// A row a feature, in `order`: its number, its label, and the neurons that it shares with each.
pub fn to_csv(counts: &SharedCounts, order: &[usize], label: &dyn Fn(usize) -> String) -> String {
    let mut out = String::from("feature,label");
    for id in order {
        let _ = write!(out, ",{id}");
    }
    out.push('\n');
    for &i in order {
        let text: String = label(i)
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let _ = write!(out, "{i},\"{}\"", text.replace('"', "\"\""));
        for &j in order {
            let _ = write!(out, ",{}", counts.count(i, j));
        }
        out.push('\n');
    }
    out
}

/// A picture: a cell for each two features in `order`, the darker the more neurons they share. The
/// darkest is the most that two different features share, so that the diagonal hides nothing.
pub fn to_svg(counts: &SharedCounts, order: &[usize], label: &dyn Fn(usize) -> String) -> String {
    let most = counts.largest_of_pairs().max(1);
    let side = CELL * order.len();
    let (width, height) = (LEFT + side + 20, TOP + side + 40);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" font-size=\"7\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{LEFT}\" y=\"22\" font-size=\"12\">neurons that two \
         features share: 0 is white, {most} or more the darkest</text>\n"
    );
    for (row, &i) in order.iter().enumerate() {
        let y = TOP + CELL * row;
        let _ = writeln!(
            out,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            LEFT - 4,
            y + CELL - 1,
            escaped(&label(i))
        );
        // Neighbours of one colour are one rectangle, and white ones none.
        let mut from = 0;
        while from < order.len() {
            let count = counts.count(i, order[from]).min(most);
            let same = |&j: &usize| counts.count(i, j).min(most) == count;
            let run = order[from..].iter().take_while(|j| same(j)).count();
            if count > 0 {
                let _ = writeln!(
                    out,
                    "<rect x=\"{}\" y=\"{y}\" width=\"{}\" height=\"{CELL}\" fill=\"{}\"/>",
                    LEFT + CELL * from,
                    CELL * run,
                    colour(f64::from(count) / f64::from(most))
                );
            }
            from += run;
        }
    }
    out + "</svg>\n"
}

/// Between white and dark blue; the square root keeps few apart from none.
fn colour(share: f64) -> String {
    let at = share.clamp(0.0, 1.0).sqrt();
    let [r, g, b] = [0, 1, 2].map(|c| (NONE[c] + (MOST[c] - NONE[c]) * at).round() as u8);
    format!("#{r:02x}{g:02x}{b:02x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts() -> SharedCounts {
        let columns = [
            vec![1.0, 2.0, 0.0],
            vec![0.0, -3.0, 0.5],
            vec![0.0, 0.0, 0.0],
        ];
        SharedCounts::new(&crate::analysis::tests::columns(3, &columns))
    }

    #[test]
    fn a_row_is_a_feature_in_the_order() {
        let label = |id: usize| format!("{id} \"a\"\n, b");
        let csv = to_csv(&counts(), &[1, 0, 2], &label);
        let rows: Vec<&str> = csv.lines().collect();
        assert_eq!(rows[0], "feature,label,1,0,2");
        assert_eq!(rows[1], "1,\"1 \"\"a\"\" , b\",2,1,0");
        assert_eq!(rows[3], "2,\"2 \"\"a\"\" , b\",0,0,0");
    }

    #[test]
    fn a_picture_is_well_formed_and_joins_equal_neighbours() {
        let svg = to_svg(&counts(), &[0, 1, 2], &|id| format!("<{id}&"));
        assert!(svg.contains("&lt;0&amp;") && !svg.contains("<0"), "{svg}");
        // Of two rows with cells each is one run of the darkest: one shared neuron is the most.
        assert_eq!(svg.matches(&colour(1.0)).count(), 2, "{svg}");
        assert_eq!(
            (colour(0.0).as_str(), colour(1.0).as_str()),
            ("#ffffff", "#08306b")
        );
    }
}
