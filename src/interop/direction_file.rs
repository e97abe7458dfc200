//! Directions from a file of arrays: `.safetensors`, `.npy`, `.npz`, a file of `torch.save`, or a
//! control vector (GGUF).
//!
//! Which arrays are directions is told by shape: an axis as long as the hook is wide. A matrix of
//! which both axes are is refused, unless its name says which: `Z` has a direction a column, `V` and
//! `W_dec` a direction a row.

use std::path::Path;

use super::archive::Archive;
use super::{control_vector, npy};
use crate::error::{Error, Result};

/// Arrays that are read alone where a file has them, and whether a row of them is a direction.
const KNOWN: [(&str, bool); 4] = [("Z", false), ("V", true), ("W_dec", true), ("w_dec", true)];
/// Most values of all directions together.
const MAX_VALUES: usize = 1 << 34;

/// The endings of the files that are read.
pub const ENDINGS: [&str; 7] = ["safetensors", "npy", "npz", "gguf", "pt", "pth", "bin"];

/// Directions as they were found.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundDirections {
    /// The directions one after the other, each as wide as the hook.
    pub columns: Vec<f32>,
    /// A name for each.
    pub titles: Vec<String>,
}

/// The hook that a file names in its metadata (safetensors that this program wrote).
///
/// # Errors
/// A file that cannot be read.
pub fn hook_named_in(path: &Path) -> Result<Option<String>> {
    match ending(path).as_deref() {
        Some("npy" | "gguf") => Ok(None),
        _ => Ok(Archive::open(path)?.metadata("hook").map(str::to_owned)),
    }
}

fn ending(path: &Path) -> Option<String> {
    Some(path.extension()?.to_string_lossy().to_ascii_lowercase())
}

/// Reads the directions of `width` values in a file; of a control vector that of block `block`.
///
/// # Errors
/// A file that cannot be read or holds none of this width, a matrix that can be read two ways, a
/// direction of zeros or of what is no number.
pub fn read(path: &Path, width: usize, block: Option<usize>) -> Result<FoundDirections> {
    let found = match ending(path).as_deref() {
        Some("gguf") => of_control_vector(path, width, block)?,
        Some("npy") => of_npy(path, width)?,
        _ => of_archive(path, width)?,
    };
    for (direction, title) in found.columns.chunks_exact(width.max(1)).zip(&found.titles) {
        let problem = match direction.iter().find(|v| !v.is_finite()) {
            Some(value) => format!("holds {value}: every value must be finite"),
            None if direction.iter().all(|v| *v == 0.0) => "is zero".to_owned(),
            None => continue,
        };
        let title = title.escape_debug();
        return Err(Error::file(path, format!("direction '{title}' {problem}")));
    }
    Ok(found)
}

fn of_control_vector(path: &Path, width: usize, block: Option<usize>) -> Result<FoundDirections> {
    let vector = control_vector::read(path)?;
    let Some(block) = block else {
        return Err(Error::usage(format!(
            "{} is a control vector, which is added to the residual stream: it is of hook_resid_post alone",
            path.display()
        )));
    };
    let columns = vector.by_block.get(&block).cloned().ok_or_else(|| {
        let blocks: Vec<String> = vector.by_block.keys().map(ToString::to_string).collect();
        Error::file(
            path,
            format!(
                "has no vector of block {block}; it has those of {}",
                blocks.join(", ")
            ),
        )
    })?;
    if columns.len() != width {
        return Err(no_such_width(
            path,
            width,
            &format!("direction.{block} has {}", columns.len()),
        ));
    }
    Ok(FoundDirections {
        columns,
        titles: vec![format!("direction.{block}")],
    })
}

fn no_such_width(path: &Path, width: usize, found: &str) -> Error {
    Error::file(
        path,
        format!("holds no directions of {width} values, which the hook's are ({found})"),
    )
}

fn of_npy(path: &Path, width: usize) -> Result<FoundDirections> {
    let mut matrix = npy::open(path)?;
    let (rows, cols) = matrix.shape();
    let by_row = orientation(path, "array", (rows, cols), width)?
        .ok_or_else(|| no_such_width(path, width, &format!("{rows} × {cols}")))?;
    let mut values = Vec::new();
    matrix.each_block(&mut |block| {
        values.extend_from_slice(block);
        Ok(())
    })?;
    let columns = laid_out(values, (rows, cols), by_row);
    let titles = (0..columns.len() / width.max(1)).map(|i| i.to_string());
    Ok(FoundDirections {
        titles: titles.collect(),
        columns,
    })
}

/// Whether a row of a matrix is a direction; `None` where no axis is as wide as the hook.
fn orientation(
    path: &Path,
    name: &str,
    (rows, cols): (usize, usize),
    width: usize,
) -> Result<Option<bool>> {
    let known = KNOWN.iter().find(|(known, _)| *known == name);
    match (known, rows == width, cols == width) {
        (Some((_, true)), _, true) => Ok(Some(true)),
        (Some((_, false)), true, _) => Ok(Some(false)),
        (Some(_), ..) | (None, false, false) => Ok(None),
        (None, false, true) => Ok(Some(true)),
        (None, true, false) => Ok(Some(false)),
        (None, true, true) => Err(Error::file(
            path,
            format!(
                "'{}' is {rows} × {cols}, so that its directions can be rows or columns: save it in a file of names as V (a row each) or Z (a column each)",
                name.escape_debug()
            ),
        )),
    }
}

/// The directions of a row-major matrix, one after the other.
fn laid_out(values: Vec<f32>, (rows, cols): (usize, usize), by_row: bool) -> Vec<f32> {
    if by_row {
        return values;
    }
    (0..values.len())
        .map(|at| values[(at % rows) * cols + at / rows])
        .collect()
}

fn of_archive(path: &Path, width: usize) -> Result<FoundDirections> {
    let mut file = Archive::open(path)?;
    let mut names = file.names();
    names.sort();
    if let Some((known, _)) = KNOWN
        .iter()
        .find(|(known, _)| names.iter().any(|n| n == known))
    {
        names.retain(|name| name == known);
    }
    let given: std::collections::BTreeMap<usize, String> = file
        .metadata("names")
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let alone = names.len() == 1;
    let (mut columns, mut titles, mut seen) = (Vec::new(), Vec::new(), Vec::new());
    for name in names {
        let shape = file.shape(&name)?;
        let sizes: Option<Vec<usize>> = shape.iter().map(|&s| usize::try_from(s).ok()).collect();
        let shown = format!("'{}' {shape:?}", name.escape_debug());
        let (rows, cols, by_row) = match sizes.as_deref() {
            Some(&[len]) if len == width => (1, len, true),
            Some(&[rows, cols]) => match orientation(path, &name, (rows, cols), width)? {
                Some(by_row) if rows.checked_mul(cols).is_some_and(|n| n <= MAX_VALUES) => {
                    (rows, cols, by_row)
                }
                _ => {
                    seen.push(shown);
                    continue;
                }
            },
            _ => {
                seen.push(shown);
                continue;
            }
        };
        let shape: Vec<usize> = sizes.unwrap_or_default();
        let values = laid_out(file.read(&name, &shape)?, (rows, cols), by_row);
        let count = values.len() / width.max(1);
        titles.extend((0..count).map(|i| match (alone, count) {
            (true, _) => given.get(&i).cloned().unwrap_or_else(|| i.to_string()),
            (false, 1) => name.clone(),
            (false, _) => format!("{name} {i}"),
        }));
        columns.extend(values);
    }
    if columns.is_empty() {
        seen.truncate(8);
        return Err(no_such_width(path, width, &seen.join(", ")));
    }
    Ok(FoundDirections { columns, titles })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::interop::tensors::write_named;

    /// Writes tensors of these names and shapes, filled with 1, 2, 3, …
    fn file(dir: &Path, tensors: &[(&str, &[usize])]) -> std::path::PathBuf {
        let path = dir.join("v.safetensors");
        let filled: Vec<_> = tensors
            .iter()
            .map(|(name, shape)| {
                let count: usize = shape.iter().product();
                let values = (1..=count).map(|i| i as f32).collect();
                ((*name).to_owned(), shape.to_vec(), values)
            })
            .collect();
        write_named(&path, &filled).unwrap();
        path
    }

    #[test]
    fn the_axis_that_is_as_long_as_the_hook_is_wide_is_a_directions() {
        let dir = tempfile::tempdir().unwrap();
        let found = |tensors: &[(&str, &[usize])], width| {
            read(&file(dir.path(), tensors), width, None).map(|f| (f.columns, f.titles))
        };
        let by_column = vec![1.0, 3.0, 5.0, 2.0, 4.0, 6.0];
        let titles = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            found(&[("a", &[3, 2])], 3).unwrap(),
            (by_column, titles(&["0", "1"]))
        );
        let by_row: Vec<f32> = (1..=6).map(|i| i as f32).collect();
        assert_eq!(found(&[("a", &[3, 2])], 2).unwrap().0, by_row);
        let square: &[(&str, &[usize])] = &[("a", &[2, 2])];
        let refused = found(square, 2).unwrap_err().to_string();
        assert!(refused.contains("rows or columns"), "{refused}");
        assert_eq!(found(&[("V", &[2, 2])], 2).unwrap().0, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(
            found(&[("Z", &[2, 2]), ("x", &[2])], 2).unwrap().0,
            [1.0, 3.0, 2.0, 4.0]
        );
        let two: &[(&str, &[usize])] = &[("left", &[2]), ("many", &[2, 3])];
        assert_eq!(
            found(two, 2).unwrap().1,
            titles(&["left", "many 0", "many 1", "many 2"])
        );
        let none = found(&[("a", &[3, 2])], 5).unwrap_err().to_string();
        assert!(none.contains("'a' [3, 2]"), "{none}");
    }

    #[test]
    fn a_direction_of_zeros_or_of_no_numbers_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("v.safetensors");
        for (values, words) in [(vec![0.0, 0.0], "is zero"), (vec![1.0, f32::NAN], "finite")] {
            write_named(&path, &[("a".to_owned(), vec![2], values)]).unwrap();
            let refused = read(&path, 2, None).unwrap_err().to_string();
            assert!(refused.contains(words), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn damage_never_panics(
            at in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            ending in 0usize..ENDINGS.len(),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let mut bytes = std::fs::read(file(dir.path(), &[("a", &[3, 2])])).unwrap();
            for (index, value) in at {
                let i = index.index(bytes.len());
                bytes[i] = value;
            }
            let path = dir.path().join(format!("x.{}", ENDINGS[ending]));
            std::fs::write(&path, bytes).unwrap();
            let _ = hook_named_in(&path);
            let _ = read(&path, 3, Some(1));
        }
    }
}
