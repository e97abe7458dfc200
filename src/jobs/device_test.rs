//! The self-test of a device: what is known of it, whether it computes what the CPU does, and how
//! fast it is, a line each.
//!
//! Knows no card: what runs on one runs on candle's CPU device too. Invariant: a rate is no
//! verdict, since no machine is wrong for being slow.

mod rates;

use std::time::Instant;

use candle_core::{D, DType, Device, Tensor};

use crate::error::{Error, Result};
use crate::model::decoder::self_test::{self, Comparison};
use crate::model::device::card::Card;
use crate::model::device::{self, Compute, cuda_versions};
use crate::model::{
    Batch, HookPoint, HookSite, Logits, Model, ModelFiles, NoTap, Pass, Phase, Tap,
};
use crate::task::TaskCtx;
use rates::{fit_rate, memory_rate, product_rate, rate};

/// A line of the self-test.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What was looked at.
    pub name: String,
    /// The verdict; a rate and a fact are always fine.
    pub ok: bool,
    /// What was found.
    pub detail: String,
}

impl Check {
    fn fact(name: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ok: true,
            detail: detail.into(),
        }
    }
}

/// Layers of a real model that are compared.
const FIRST_LAYERS: usize = 3;
/// Tokens that a generation's rate is measured over.
const GENERATED: usize = 24;

/// The devices of a choice, opened for the test; candle's CPU device for the CPU.
pub struct Tested {
    devices: Vec<Device>,
    cards: Vec<Card>,
    dtype: DType,
    notes: Vec<String>,
}

impl Tested {
    /// Opens what `compute` names.
    ///
    /// # Errors
    /// A device that this build or this machine does not have.
    pub fn open(compute: Compute) -> Result<Self> {
        let opened = device::open(compute.device, compute.dtype)?;
        let on_cpu = opened.devices.is_empty();
        Ok(Self {
            devices: if on_cpu {
                vec![Device::Cpu]
            } else {
                opened.devices
            },
            cards: opened.cards,
            // candle's CPU device computes in any type, and is here to be tested.
            dtype: match compute.dtype {
                Some(dtype) if on_cpu => dtype,
                _ => opened.dtype,
            },
            notes: if on_cpu { Vec::new() } else { opened.notes },
        })
    }

    fn name(&self, i: usize) -> String {
        self.cards
            .get(i)
            .map_or_else(|| "candle's CPU device".to_owned(), Card::title)
    }

    /// What is known of each device.
    pub fn facts(&self) -> Vec<Check> {
        let mut out: Vec<Check> = self
            .cards
            .iter()
            .map(|card| Check::fact("card", card.described()))
            .collect();
        if self.cards.is_empty() {
            out.push(Check::fact(
                "card",
                "none: candle's operations on the CPU are held against this program's own",
            ));
        }
        if self.devices.iter().any(Device::is_cuda)
            && let Ok((driver, toolkit)) = cuda_versions()
        {
            let detail = format!("knows CUDA up to {driver}; this build was made with {toolkit}");
            out.push(Check::fact("driver", detail));
        }
        out.extend(self.notes.iter().map(|note| Check::fact("note", note)));
        out
    }

    /// Whether each device computes what the CPU does: operations, products of quantised types,
    /// small networks, two lanes at once, and what crosses from device to device.
    ///
    /// # Errors
    /// Only what cannot be made here; what the device fails at is a verdict.
    pub fn comparisons(&self, ctx: &TaskCtx) -> Result<Vec<Check>> {
        let mut out = Vec::new();
        for (i, device) in self.devices.iter().enumerate() {
            let on = if self.devices.len() > 1 {
                format!(" on {}", self.name(i))
            } else {
                String::new()
            };
            let groups = [
                ("operation", self_test::operations(device)),
                ("blocks", self_test::products(device, self.dtype)?),
                ("network", self_test::networks(device)),
            ];
            for (group, comparisons) in groups {
                ctx.check()?;
                out.extend(comparisons.iter().map(|c| verdict(group, &on, c)));
            }
            out.push(lanes(device, &on));
        }
        for pair in self.devices.windows(2) {
            out.push(crossing(&pair[0], &pair[1]));
        }
        Ok(out)
    }

    /// Rates of the first device: its memory, products in each type, a fit.
    ///
    /// # Errors
    /// What the device fails at.
    pub fn rates(&self, ctx: &TaskCtx) -> Result<Vec<Check>> {
        let Some(device) = self.devices.first() else {
            return Ok(Vec::new());
        };
        let mut out = vec![memory_rate(device, self.cards.first())?];
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            ctx.check()?;
            out.push(product_rate(device, dtype, self.cards.first())?);
        }
        out.push(fit_rate(device, ctx)?);
        Ok(out)
    }

    /// The first layers of a model on the first device against the CPU.
    ///
    /// # Errors
    /// Files that cannot be opened, and what the device fails at.
    pub fn first_layers(
        &self,
        files: &ModelFiles,
        ids: &[u32],
        ctx: &TaskCtx,
    ) -> Result<Vec<Check>> {
        let device = self.devices.first().unwrap_or(&Device::Cpu);
        let on = (device, self.dtype);
        let found = self_test::first_layers(files, FIRST_LAYERS, ids, on, ctx)?;
        Ok(found.iter().map(|c| verdict("model", "", c)).collect())
    }

    /// Rates of an open model: a long prompt, generation, and collecting at its middle layer.
    ///
    /// # Errors
    /// What a pass refuses.
    pub fn model_rates(&self, model: &Model, ctx: &TaskCtx) -> Result<Vec<Check>> {
        let gpu = model.gpu().is_some();
        let tokens = model.info().context.min(if gpu { 2048 } else { 128 });
        let ids: Vec<u32> = (0..tokens)
            .map(|i| (i * 37 % model.info().vocab) as u32)
            .collect();
        let prefill = rate(|| {
            let one = batch(vec![ids.clone()]);
            let logits = model.forward(&one, Phase::Prompt, None, &mut NoTap, Logits::Last, ctx)?;
            finish(logits)?;
            Ok(tokens as f64)
        })?;
        let generation = self.generation_rate(model, &ids[..tokens.min(16)], ctx)?;
        let hook = HookPoint {
            layer: model.info().layers / 2,
            site: HookSite::MlpPost,
        };
        let rows = (model.batch_tokens() / tokens.min(512)).max(1);
        let collect = rate(|| {
            let all = batch(vec![ids[..tokens.min(512)].to_vec(); rows]);
            let mut tap = ToHost(vec![hook], 0);
            model.forward(&all, Phase::Prompt, None, &mut tap, Logits::None, ctx)?;
            Ok((rows * tokens.min(512)) as f64)
        })?;
        Ok(vec![
            Check::fact(
                "rate: prompt",
                format!("{prefill:.0} tokens/s, {tokens} at once"),
            ),
            generation,
            Check::fact(
                "rate: collecting",
                format!(
                    "{collect:.0} tokens/s at {hook}, their activations in f32 in this machine's memory"
                ),
            ),
        ])
    }

    fn generation_rate(&self, model: &Model, prompt: &[u32], ctx: &TaskCtx) -> Result<Check> {
        let mut cache = model.new_cache(1);
        let first = batch(vec![prompt.to_vec()]);
        let logits = model.forward(
            &first,
            Phase::Prompt,
            Some(&mut cache),
            &mut NoTap,
            Logits::Last,
            ctx,
        )?;
        let mut id = greedy(logits)?;
        let started = Instant::now();
        for _ in 0..GENERATED {
            let next = batch(vec![vec![id]]);
            let logits = model.forward(
                &next,
                Phase::Generated,
                Some(&mut cache),
                &mut NoTap,
                Logits::Last,
                ctx,
            )?;
            id = greedy(logits)?;
        }
        let rate = GENERATED as f64 / started.elapsed().as_secs_f64().max(1e-9);
        // Each token reads all weights once.
        let read = rate * model.info().weight_bytes as f64;
        let share = self
            .cards
            .first()
            .and_then(|card| card.bandwidth)
            .map_or_else(String::new, |most| {
                format!(
                    ": {:.0}% of the memory's bandwidth, of which one text at a time can use all",
                    100.0 * read / most
                )
            });
        Ok(Check::fact(
            "rate: generation",
            format!("{rate:.1} tokens/s of one text{share}"),
        ))
    }
}

fn verdict(group: &str, on: &str, c: &Comparison) -> Check {
    let detail = match &c.found {
        Ok(found) => format!(
            "differs by {found:.1e} of its norm (at most {:.0e})",
            c.most
        ),
        Err(problem) => problem.clone(),
    };
    Check {
        name: format!("{group}: {} in {}{on}", c.name, c.dtype),
        ok: c.is_equal(),
        detail,
    }
}

/// Whether two threads that compute on one device at once get what one alone gets, to the bit.
fn lanes(device: &Device, on: &str) -> Check {
    let work = |seed: usize| -> Result<Vec<f32>> {
        let x: Vec<f32> = (0..96 * 96)
            .map(|i| ((i * 31 + seed * 17) % 101) as f32 / 101.0 - 0.5)
            .collect();
        let mut x = Tensor::from_vec(x, (96, 96), device)?;
        let w = x.t()?.contiguous()?;
        for _ in 0..20 {
            x = candle_nn::ops::softmax_last_dim(&(x.matmul(&w)? * 4.0)?)?;
        }
        Ok(x.flatten_all()?.to_vec1()?)
    };
    let both = || -> Result<bool> {
        let alone = [work(1)?, work(2)?];
        for _ in 0..8 {
            let at_once = std::thread::scope(|scope| {
                let lanes = [1, 2].map(|seed| scope.spawn(move || work(seed)));
                lanes.map(|lane| {
                    lane.join()
                        .unwrap_or_else(|_| Err(Error::refused("a lane stopped")))
                })
            });
            let [a, b] = at_once;
            if [a?, b?] != alone {
                return Ok(false);
            }
        }
        Ok(true)
    };
    let name = format!("two lanes at once{on}");
    match both() {
        Ok(ok) => Check {
            name,
            ok,
            detail: if ok {
                "give what each alone gives, to the bit".into()
            } else {
                "disturb each other".into()
            },
        },
        Err(e) => Check {
            name,
            ok: false,
            detail: e.to_string(),
        },
    }
}

/// Whether a tensor arrives at the next card as it was.
fn crossing(from: &Device, to: &Device) -> Check {
    let values: Vec<f32> = (0..4097).map(|i| i as f32).collect();
    let carried = || -> Result<Vec<f32>> {
        let x = (Tensor::from_slice(&values, values.len(), from)? * 1.0)?;
        let x = device::carry(&x, to)?;
        Ok((x * 1.0)?.to_vec1()?)
    };
    let (ok, detail) = match carried() {
        Ok(found) if found == values => (true, "arrives as it was".to_owned()),
        Ok(_) => (false, "arrives changed".to_owned()),
        Err(e) => (false, e.to_string()),
    };
    Check {
        name: format!("{:?} to {:?}", from.location(), to.location()),
        ok,
        detail,
    }
}

/// Waits for a device by bringing one value of the result here.
fn finish(x: Option<Tensor>) -> Result<()> {
    let x = x.ok_or_else(|| Error::refused("the model returned no logits"))?;
    x.flatten_all()?.narrow(0, 0, 1)?.to_device(&Device::Cpu)?;
    Ok(())
}

fn greedy(logits: Option<Tensor>) -> Result<u32> {
    let logits = logits.ok_or_else(|| Error::refused("the model returned no logits"))?;
    Ok(logits.argmax(D::Minus1)?.flatten_all()?.to_vec1::<u32>()?[0])
}

fn batch(rows: Vec<Vec<u32>>) -> Batch {
    Batch {
        rows,
        samples: Vec::new(),
    }
}

/// Brings activations to this machine's memory in f32.
struct ToHost(Vec<HookPoint>, usize);

impl Tap for ToHost {
    fn hooks(&self) -> &[HookPoint] {
        &self.0
    }
    fn intercept(&mut self, _: &Pass<'_>, _: HookPoint, x: &Tensor) -> Result<Option<Tensor>> {
        let copied = x.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        self.1 += copied.elem_count();
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::DeviceChoice;

    #[test]
    fn everything_runs_on_candles_cpu_device() {
        let compute = Compute {
            device: DeviceChoice::Cpu,
            dtype: None,
        };
        let tested = Tested::open(compute).unwrap();
        let ctx = TaskCtx::silent();
        let mut all = tested.facts();
        all.extend(tested.comparisons(&ctx).unwrap());
        all.extend(tested.rates(&ctx).unwrap());
        let failed: Vec<&Check> = all.iter().filter(|c| !c.ok).collect();
        assert!(failed.is_empty(), "{failed:?}");
        for name in ["two lanes at once", "fit", "rate: memory"] {
            assert!(all.iter().any(|c| c.name == name), "{name}");
        }
    }

    #[test]
    fn a_check_fails_where_the_results_differ() {
        let checked = |found| {
            verdict(
                "operation",
                " on cuda:1",
                &Comparison {
                    name: "product".into(),
                    dtype: "bf16",
                    found,
                    most: 2e-2,
                },
            )
        };
        let wrong = checked(Ok(1.0));
        assert_eq!(wrong.name, "operation: product in bf16 on cuda:1");
        assert!(!wrong.ok && wrong.detail.contains("1.0e0"));
        assert!(!checked(Ok(f64::NAN)).ok && checked(Ok(1e-3)).ok);
        assert_eq!(
            checked(Err("no kernel image".into())).detail,
            "no kernel image"
        );
    }
}
