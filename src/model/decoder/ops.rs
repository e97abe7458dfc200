//! The small operations between the products: norms, activations, sums; this crate's loops on the
//! CPU, candle's elsewhere.

use candle_core::{DType, Device, Tensor};
use candle_nn::ops::sigmoid;
use half::{bf16, f16};

use super::linear::{Placement, with_slice};
use super::vector;
use crate::error::Result;
use crate::model::config::{Activation, Norm, NormKind};

/// A norm with its weights; Gemma's 1 + w is already added.
pub(super) struct NormWeights {
    norm: Norm,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    device: Option<OnDevice>,
}

/// The weights of a norm on a device.
struct OnDevice {
    weight: Tensor,
    bias: Option<Tensor>,
    /// The same in f32.
    wide: (Tensor, Option<Tensor>),
    /// Whether they lose nothing in the compute dtype. Where they do, as Gemma's 1 + w does, the norm
    /// is computed in f32, as `transformers` does.
    exact: bool,
}

impl OnDevice {
    fn new(weight: &[f32], bias: Option<&[f32]>, device: &Device, dtype: DType) -> Result<Self> {
        let wide = |v: &[f32]| Tensor::from_slice(v, v.len(), device);
        let wide = (wide(weight)?, bias.map(wide).transpose()?);
        let narrow = |v: &Tensor| v.to_dtype(dtype);
        let exact = |v: Option<&[f32]>| {
            v.unwrap_or_default().iter().all(|&v| match dtype {
                DType::BF16 => bf16::from_f32(v).to_f32() == v,
                DType::F16 => f16::from_f32(v).to_f32() == v,
                _ => true,
            })
        };
        Ok(Self {
            weight: narrow(&wide.0)?,
            bias: wide.1.as_ref().map(narrow).transpose()?,
            exact: exact(Some(weight)) && exact(bias),
            wide,
        })
    }

    fn apply(&self, x: &Tensor, eps: f32) -> Result<Tensor> {
        // candle's kernels for cards compute in f32 whatever the dtype, those for the CPU do not.
        if x.dtype() != DType::F32 && !(self.exact && x.device().is_cuda()) {
            let out = self.apply(&x.to_dtype(DType::F32)?, eps)?;
            return Ok(out.to_dtype(x.dtype())?);
        }
        let (weight, bias) = match x.dtype() {
            DType::F32 => (&self.wide.0, &self.wide.1),
            _ => (&self.weight, &self.bias),
        };
        let x = x.contiguous()?;
        Ok(match bias {
            None => candle_nn::ops::rms_norm(&x, weight, eps)?,
            Some(bias) => candle_nn::ops::layer_norm(&x, weight, bias, eps)?,
        })
    }
}

impl NormWeights {
    pub(super) fn new(
        norm: Norm,
        mut weight: Vec<f32>,
        bias: Option<Vec<f32>>,
        placement: &Placement,
    ) -> Result<Self> {
        if norm.plus_one {
            weight.iter_mut().for_each(|w| *w += 1.0);
        }
        let device = match placement {
            Placement::Mapped => None,
            Placement::Device(device, dtype) => {
                Some(OnDevice::new(&weight, bias.as_deref(), device, *dtype)?)
            }
        };
        Ok(Self {
            norm,
            weight,
            bias,
            device,
        })
    }

    pub(super) fn weight(&self) -> &[f32] {
        &self.weight
    }

    pub(super) fn kind(&self) -> NormKind {
        self.norm.kind
    }

    pub(super) fn eps(&self) -> f64 {
        self.norm.eps
    }

    pub(super) fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// Normalises each row of `[rows, width]`.
    pub(super) fn apply(&self, x: &Tensor) -> Result<Tensor> {
        let eps = self.norm.eps;
        match &self.device {
            None => {
                let out = with_slice(x, |x| {
                    vector::norm(self.norm.kind, eps, &self.weight, self.bias.as_deref(), x)
                })?;
                Ok(Tensor::from_vec(out, x.shape(), &Device::Cpu)?)
            }
            Some(device) => device.apply(x, eps as f32),
        }
    }
}

/// act(gate) ∘ up of `[rows, gate | up]`, or act(x) of `[rows, width]`.
pub(super) fn activate(
    x: &Tensor,
    kind: Activation,
    gated: bool,
    width: usize,
    on_cpu: bool,
) -> Result<Tensor> {
    let rows = x.dim(0)?;
    if on_cpu {
        let out = with_slice(x, |x| vector::activate(kind, gated, x, width))?;
        return Ok(Tensor::from_vec(out, (rows, width), &Device::Cpu)?);
    }
    if gated {
        let (gate, up) = (x.narrow(1, 0, width)?, x.narrow(1, width, width)?);
        activate_apart(&[gate.contiguous()?, up.contiguous()?], kind)
    } else {
        activate_apart(std::slice::from_ref(x), kind)
    }
}

/// act(gate) ∘ up of `[gate, up]`, or act(x) of `[x]`, with candle's operations.
pub(super) fn activate_apart(parts: &[Tensor], kind: Activation) -> Result<Tensor> {
    let gate = act(&parts[0], kind)?;
    Ok(match parts.get(1) {
        Some(up) => (gate * up)?,
        None => gate,
    })
}

fn act(x: &Tensor, kind: Activation) -> Result<Tensor> {
    // In half precision candle rounds at each step of these, but for one; `transformers` at the end.
    let rounds = match kind {
        Activation::Silu => !x.device().is_cuda(),
        Activation::Gelu | Activation::GeluTanh | Activation::QuickGelu => true,
        Activation::Relu | Activation::Relu2 => false,
    };
    if rounds && x.dtype() != DType::F32 {
        return Ok(act(&x.to_dtype(DType::F32)?, kind)?.to_dtype(x.dtype())?);
    }
    Ok(match kind {
        Activation::Silu => x.silu()?,
        Activation::Gelu => x.gelu_erf()?,
        Activation::GeluTanh => x.gelu()?,
        Activation::Relu => x.relu()?,
        Activation::Relu2 => x.relu()?.sqr()?,
        Activation::QuickGelu => (x * sigmoid(&(x * 1.702)?)?)?,
    })
}

/// The sum of two tensors of one shape.
pub(super) fn add(a: &Tensor, b: &Tensor, on_cpu: bool) -> Result<Tensor> {
    if !on_cpu {
        return Ok((a + b)?);
    }
    let out = with_slice(a, |a| with_slice(b, |b| vector::add(a, b)))??;
    Ok(Tensor::from_vec(out, a.shape(), &Device::Cpu)?)
}

/// `cap · tanh(x / cap)`
pub(super) fn softcap(x: &Tensor, cap: f64) -> Result<Tensor> {
    Ok(((x / cap)?.tanh()? * cap)?)
}
