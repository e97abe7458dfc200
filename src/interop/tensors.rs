//! safetensors in and out.

use std::path::Path;

use half::{bf16, f16};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::disk;
use crate::error::{Error, Result};
use crate::factor::Factors;

/// Reads the one two-dimensional tensor of a file (or the one named `name`) as row-major f32: (rows, cols, data).
pub fn read_matrix(path: &Path, name: Option<&str>) -> Result<(usize, usize, Vec<f32>)> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::file(path, format!("is no sound safetensors file ({e}): write it again")))?;
    let names = || file.names().iter().map(|n| n.escape_default().to_string()).collect::<Vec<_>>().join(", ");
    let view = match name {
        Some(name) => {
            file.tensor(name).map_err(|_| Error::file(path, format!("has no tensor '{name}': it has {}", names())))?
        }
        None => {
            let mut matrices = file.tensors().into_iter().map(|(_, v)| v).filter(|v| v.shape().len() == 2);
            match (matrices.next(), matrices.next()) {
                (Some(one), None) => one,
                (None, _) => {
                    return Err(Error::file(path, format!("has no two-dimensional tensor: it has {}", names())));
                }
                _ => {
                    return Err(Error::file(
                        path,
                        format!("has several matrices: choose one with --tensor ({})", names()),
                    ));
                }
            }
        }
    };
    let [rows, cols] = view.shape()[..] else {
        return Err(Error::file(path, format!("the tensor has shape {:?}: a matrix has two dimensions", view.shape())));
    };
    let data = view.data();
    let values = match view.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F64 => data
            .chunks_exact(8)
            .map(|b| f64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as f32)
            .collect(),
        Dtype::F16 => data.chunks_exact(2).map(|b| f16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        Dtype::BF16 => data.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect(),
        other => return Err(Error::file(path, format!("holds {other:?} values: write f32, f64, f16 or bf16"))),
    };
    Ok((rows, cols, values))
}

/// Writes `Z` d × k and `Y` n × k, f32, atomically.
pub fn write_factors(path: &Path, factors: &Factors) -> Result<()> {
    let (d, k, n) = (factors.features.rows, factors.features.columns(), factors.coefficients.rows);
    let (mut z, mut y) = (vec![0.0; d * k], vec![0.0; n * k]);
    for j in 0..k {
        let (indices, values) = factors.features.column(j);
        for (&i, &v) in indices.iter().zip(values) {
            z[i as usize * k + j] = v;
        }
        for (row, &v) in factors.coefficients.feature(j).iter().enumerate() {
            y[row * k + j] = v;
        }
    }
    write_named(path, &[("Z".to_owned(), vec![d, k], z), ("Y".to_owned(), vec![n, k], y)])
}

/// Writes named f32 tensors (name, shape, row-major data), atomically.
pub fn write_named(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<()> {
    write(path, tensors, None)
}

/// Writes what `mlpeek forward` saw: `tokens` (i64) beside named f32 tensors, atomically.
pub fn write_forward(path: &Path, ids: &[u32], tensors: &[(String, Vec<usize>, Vec<f32>)]) -> Result<()> {
    write(path, tensors, Some(ids))
}

fn write(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)], ids: Option<&[u32]>) -> Result<()> {
    let bad = |e: safetensors::SafeTensorError| Error::file(path, format!("cannot be made as safetensors: {e}"));
    let ids: Option<Vec<u8>> = ids.map(|ids| ids.iter().flat_map(|&id| i64::from(id).to_le_bytes()).collect());
    let data: Vec<Vec<u8>> = tensors.iter().map(|t| t.2.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let mut views = Vec::with_capacity(tensors.len() + 1);
    if let Some(ids) = &ids {
        views.push(("tokens", TensorView::new(Dtype::I64, vec![ids.len() / 8], ids).map_err(bad)?));
    }
    for ((name, shape, _), data) in tensors.iter().zip(&data) {
        views.push((name, TensorView::new(Dtype::F32, shape.clone(), data).map_err(bad)?));
    }
    disk::write_atomic(path, &safetensors::serialize(views, None).map_err(bad)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_matrix_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.safetensors");
        write_forward(&path, &[1, 2], &[("a".into(), vec![2, 3], vec![1., 2., 3., 4., 5., 6.])]).unwrap();
        assert_eq!(read_matrix(&path, None).unwrap(), (2, 3, vec![1., 2., 3., 4., 5., 6.]));
        assert!(read_matrix(&path, Some("b")).unwrap_err().to_string().contains("it has"));
        assert!(read_matrix(&path, Some("tokens")).is_err(), "one dimension is no matrix");
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("x.safetensors");
            std::fs::write(&path, bytes).unwrap();
            prop_assert!(read_matrix(&path, None).is_err());
        }
    }
}
