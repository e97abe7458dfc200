//! A sentence encoder: a BERT whose last states, averaged over a text's tokens and brought to unit length,
//! stand for the text's meaning, as sentence-transformers computes them.
//!
//! Owns reading such a model and embedding texts. Knows nothing of labels or judges. Invariant: an
//! embedding has unit length, and depends on its own text up to rounding, whatever the texts beside it.

use std::collections::HashMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::bert::{BertModel, Config};
use serde_json::Value;

use super::source::EncoderFiles;
use super::tokenizer::parse_library;
use super::weights::Weights;
use crate::error::{Error, Result};
use crate::panics::catch_panic;
use crate::task::{Progress, TaskCtx};

/// Tokens, padding included, that are read at a time.
const BATCH_TOKENS: usize = 1024;
/// More layers than any BERT has.
const MOST_LAYERS: usize = 100;

/// A sentence encoder, on the CPU in f32.
pub struct SentenceEncoder {
    model: BertModel,
    tokenizer: tokenizers::Tokenizer,
    width: usize,
    /// Tokens of a text that are read; what follows is left out.
    longest: usize,
    padding: u32,
    name: String,
    origin: String,
}

impl SentenceEncoder {
    /// Reads the encoder of `files`.
    ///
    /// # Errors
    /// A file that is missing or broken, a model that is no BERT, and one that pools its states in
    /// another way than by their mean.
    pub fn open(files: &EncoderFiles) -> Result<Self> {
        let dir = files.dir.as_path();
        check_pooling(dir)?;
        let path = dir.join("config.json");
        let config: Config = serde_json::from_value(read_json(&path)?)
            .map_err(|e| Error::file(&path, format!("is not the configuration of a BERT: {e}")))?;
        check_config(&config, &path)?;
        let path = dir.join("tokenizer.json");
        let json = std::fs::read(&path).map_err(Error::io("read", &path))?;
        let tokenizer = parse_library(&json, &path)?;
        if tokenizer.get_vocab_size(true) > config.vocab_size {
            let problem = format!(
                "has {} tokens, and the model reads {}: take both from one place",
                tokenizer.get_vocab_size(true),
                config.vocab_size
            );
            return Err(Error::file(&path, problem));
        }
        let longest = longest(dir, config.max_position_embeddings)?;
        let weights = dir.join("model.safetensors");
        let tensors = tensors(&weights)?;
        let vars = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
        let model = catch_panic(|| BertModel::load(vars, &config))
            .map_err(|_| Error::file(&weights, "does not fit its config.json"))?
            .map_err(|e| Error::file(&weights, format!("does not fit its config.json: {e}")))?;
        Ok(Self {
            model,
            tokenizer,
            width: config.hidden_size,
            longest,
            padding: config.pad_token_id as u32,
            name: files.name(),
            origin: files.origin.clone(),
        })
    }

    /// The encoder's name with its weights' hash, unless it is the default one: what tells its
    /// ratings from another's.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it comes from.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Numbers of an embedding.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The embeddings of `texts`, in their order, each of unit length.
    ///
    /// # Errors
    /// A text that the tokenizer cannot read, and [`Error::Cancelled`].
    pub fn embed(&self, texts: &[&str], ctx: &TaskCtx) -> Result<Vec<Vec<f32>>> {
        let ids = texts
            .iter()
            .map(|text| self.ids(text))
            .collect::<Result<Vec<_>>>()?;
        // Texts of one length stand together, so that little padding is computed.
        let mut order: Vec<usize> = (0..ids.len()).collect();
        order.sort_by_key(|&i| ids[i].len());
        let mut out = vec![Vec::new(); ids.len()];
        let (mut done, mut rest) = (0, order.as_slice());
        while !rest.is_empty() {
            ctx.checkpoint(Progress::new(
                "embedding texts",
                done as u64,
                ids.len() as u64,
                "texts",
            ))?;
            let fits = |count: usize| count * ids[rest[count - 1]].len() <= BATCH_TOKENS;
            let count = (1..=rest.len()).take_while(|&n| fits(n)).count().max(1);
            let (batch, after) = rest.split_at(count);
            let rows: Vec<&[u32]> = batch.iter().map(|&i| ids[i].as_slice()).collect();
            for (&i, embedding) in batch.iter().zip(self.embed_rows(&rows)?) {
                out[i] = embedding;
            }
            (done, rest) = (done + count, after);
        }
        Ok(out)
    }

    fn ids(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = self.tokenizer.encode_fast(text, true).map_err(|e| {
            Error::refused(format!(
                "the encoder's tokenizer cannot read this text: {e}"
            ))
        })?;
        let mut ids = encoding.get_ids().to_vec();
        if ids.len() > self.longest {
            // The token that ends every text stays its end.
            let end = ids[ids.len() - 1];
            ids.truncate(self.longest - 1);
            ids.push(end);
        }
        Ok(ids)
    }

    /// The embeddings of rows of ids, the longest of them last.
    fn embed_rows(&self, rows: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let length = rows.last().map_or(0, |row| row.len());
        if length == 0 {
            return Ok(vec![vec![0.0; self.width]; rows.len()]);
        }
        let padded = |row: &&[u32]| {
            let mut row = row.to_vec();
            row.resize(length, self.padding);
            row
        };
        let shape = (rows.len(), length);
        let ids: Vec<u32> = rows.iter().flat_map(padded).collect();
        let mask: Vec<f32> = rows
            .iter()
            .flat_map(|row| (0..length).map(|at| f32::from(u8::from(at < row.len()))))
            .collect();
        let ids = Tensor::from_vec(ids, shape, &Device::Cpu)?;
        let mask = Tensor::from_vec(mask, shape, &Device::Cpu)?;
        let states = self.model.forward(&ids, &ids.zeros_like()?, Some(&mask))?;
        let states = states.flatten_all()?.to_vec1::<f32>()?;
        let rows = rows.iter().zip(states.chunks(length * self.width));
        Ok(rows
            .map(|(row, states)| mean(states, row.len(), self.width))
            .collect())
    }
}

/// The mean of the first `count` states, at unit length.
fn mean(states: &[f32], count: usize, width: usize) -> Vec<f32> {
    let mut sum = vec![0.0f64; width];
    for state in states.chunks_exact(width).take(count) {
        sum.iter_mut()
            .zip(state)
            .for_each(|(sum, &v)| *sum += f64::from(v));
    }
    let norm = sum.iter().map(|v| v * v).sum::<f64>().sqrt();
    let scale = if norm > 0.0 { 1.0 / norm } else { 0.0 };
    sum.into_iter().map(|v| (v * scale) as f32).collect()
}

fn read_json(path: &Path) -> Result<Value> {
    let bytes = std::fs::read(path).map_err(Error::io("read", path))?;
    crate::lfs::refuse_pointer(&bytes, path)?;
    serde_json::from_slice(&bytes).map_err(|e| Error::file(path, format!("is no JSON: {e}")))
}

/// The content of a file that an encoder may lack.
fn optional_json(path: &Path) -> Result<Value> {
    match path.exists() {
        true => read_json(path),
        false => Ok(Value::Null),
    }
}

/// Refuses an encoder that makes embeddings in another way than by the mean of its states: its
/// numbers would be others than its own library's.
fn check_pooling(dir: &Path) -> Result<()> {
    let path = dir.join("1_Pooling/config.json");
    let pooling = optional_json(&path)?;
    let modes = pooling
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(key, on)| key.starts_with("pooling_mode_") && on.as_bool() == Some(true));
    let modes: Vec<&str> = match pooling.get("pooling_mode").and_then(Value::as_str) {
        Some(mode) => vec![mode],
        None => modes.map(|(key, _)| key.as_str()).collect(),
    };
    if !pooling.is_null() && modes != ["mean"] && modes != ["pooling_mode_mean_tokens"] {
        let modes = modes.join(", ");
        let problem = format!(
            "pools its states otherwise than by their mean ({modes}): take another encoder"
        );
        return Err(Error::file(path, problem));
    }
    let path = dir.join("modules.json");
    let modules = optional_json(&path)?;
    let types = modules.as_array().into_iter().flatten();
    let known = ["Transformer", "Pooling", "Normalize"];
    for kind in types.filter_map(|module| module.get("type")?.as_str()) {
        if !known.contains(&kind.rsplit('.').next().unwrap_or(kind)) {
            let problem = format!(
                "has a module {}, which is not computed here: take an encoder of transformer and mean pooling",
                kind.escape_debug()
            );
            return Err(Error::file(path, problem));
        }
    }
    Ok(())
}

fn check_config(config: &Config, path: &Path) -> Result<()> {
    let problem = if config
        .model_type
        .as_deref()
        .is_some_and(|kind| kind != "bert")
    {
        "is of another architecture than BERT"
    } else if config.num_attention_heads == 0 || config.hidden_size == 0 {
        "has no attention heads or no width"
    } else if !config
        .hidden_size
        .is_multiple_of(config.num_attention_heads)
    {
        "has a width that its attention heads do not divide"
    } else if config.num_hidden_layers > MOST_LAYERS {
        "has more layers than any encoder"
    } else if config.pad_token_id >= config.vocab_size {
        "pads with a token that it does not have"
    } else {
        return Ok(());
    };
    Err(Error::file(
        path,
        format!("{problem}: take a sentence encoder such as all-MiniLM-L6-v2"),
    ))
}

/// Tokens that are read of a text: what the encoder was trained on, at most what it has positions
/// for.
fn longest(dir: &Path, positions: usize) -> Result<usize> {
    let path = dir.join("sentence_bert_config.json");
    let wanted = optional_json(&path)?
        .get("max_seq_length")
        .and_then(Value::as_u64);
    let longest = wanted.map_or(positions, |n| positions.min(n as usize));
    match longest {
        0..=2 => Err(Error::file(path, "leaves no token of a text to be read")),
        _ => Ok(longest),
    }
}

fn tensors(path: &Path) -> Result<HashMap<String, Tensor>> {
    let weights = Weights::open_safetensors(std::slice::from_ref(&path.to_path_buf()))?;
    let mut out = HashMap::new();
    for name in weights.names() {
        if let Some(tensor) = weights.get(name) {
            let values = Tensor::from_vec(tensor.to_f32(), tensor.shape(), &Device::Cpu)?;
            out.insert(name.to_owned(), values);
        }
    }
    Ok(out)
}

#[cfg(test)]
pub(crate) mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::model::source::{SourceSettings, resolve_encoder_in};

    /// The tiny random encoder of the fixtures.
    pub(crate) fn tiny() -> SentenceEncoder {
        open(&fixtures().join("encoder")).unwrap()
    }

    /// The encoder whose directory `MLPEEK_TEST_ENCODER` names.
    pub(crate) fn real() -> SentenceEncoder {
        let dir = std::env::var("MLPEEK_TEST_ENCODER").expect("set MLPEEK_TEST_ENCODER");
        open(Path::new(&dir)).unwrap()
    }

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
    }

    fn texts() -> Vec<String> {
        let json = fs::read(fixtures().join("encoder/texts.json")).unwrap();
        serde_json::from_slice(&json).unwrap()
    }

    fn open(dir: &Path) -> Result<SentenceEncoder> {
        let settings = SourceSettings::from_lookup(|_| Some("/nowhere".into())).unwrap();
        let ctx = TaskCtx::silent();
        let files = resolve_encoder_in(&settings, dir.to_str(), &ctx)?;
        SentenceEncoder::open(&files)
    }

    /// The largest difference to what sentence-transformers computed.
    fn difference(encoder: &SentenceEncoder, expected: &str) -> f32 {
        let weights = Weights::open_safetensors(&[fixtures().join(expected)]).unwrap();
        let expected = weights.get("embeddings").unwrap();
        let texts = texts();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        assert_eq!(expected.shape(), [texts.len(), encoder.width()]);
        let vectors = encoder.embed(&texts, &TaskCtx::silent()).unwrap().concat();
        let pairs = vectors.iter().zip(expected.to_f32());
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    }

    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap().flatten() {
            let (from, to) = (entry.path(), to.join(entry.file_name()));
            match from.is_dir() {
                true => copy(&from, &to),
                false => drop(fs::copy(&from, &to).unwrap()),
            }
        }
    }

    #[test]
    fn embeddings_equal_sentence_transformers() {
        let encoder = tiny();
        let off = difference(&encoder, "encoder/expected.safetensors");
        assert!(off < 1e-5, "{off}");
        assert!(encoder.name().starts_with("encoder "), "{}", encoder.name());
    }

    #[test]
    #[ignore = "needs all-MiniLM-L6-v2: MLPEEK_TEST_ENCODER names its directory"]
    fn the_default_encoder_equals_sentence_transformers() {
        let encoder = real();
        assert_eq!(encoder.name(), "all-MiniLM-L6-v2");
        let off = difference(&encoder, "minilm.safetensors");
        assert!(off < 1e-5, "{off}");
    }

    #[test]
    fn a_text_is_embedded_alike_beside_others() {
        let encoder = tiny();
        let texts = texts();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let ctx = TaskCtx::silent();
        let together = encoder.embed(&texts, &ctx).unwrap();
        for (text, batched) in texts.iter().zip(&together) {
            let alone = &encoder.embed(&[text], &ctx).unwrap()[0];
            let off = alone.iter().zip(batched).map(|(a, b)| (a - b).abs());
            assert!(off.fold(0.0, f32::max) < 1e-6, "{text}");
            let norm: f32 = alone.iter().map(|v| v * v).sum();
            assert!((norm - 1.0).abs() < 1e-5, "{text}: {norm}");
        }
        assert!(encoder.embed(&[], &ctx).unwrap().is_empty());
    }

    #[test]
    fn what_is_no_such_encoder_is_refused_in_one_line() {
        let broken = |name: &str, content: Option<&str>| {
            let dir = tempfile::tempdir().unwrap();
            copy(&fixtures().join("encoder"), dir.path());
            match content {
                Some(content) => fs::write(dir.path().join(name), content).unwrap(),
                None => fs::remove_file(dir.path().join(name)).unwrap(),
            }
            let message = open(dir.path()).err().unwrap().to_string();
            assert!(!message.contains('\n'), "{message}");
            message
        };
        let config = fs::read_to_string(fixtures().join("encoder/config.json")).unwrap();
        let with = |from: &str, to: &str| config.replace(from, to);
        let cls = r#"{"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": false}"#;
        let dense = r#"[{"type": "sentence_transformers.models.Dense"}]"#;
        for (name, content, says) in [
            ("model.safetensors", None, "model.safetensors is missing"),
            ("model.safetensors", Some("x".to_owned()), "safetensors"),
            ("tokenizer.json", Some("{}".to_owned()), "not a tokenizer"),
            (
                "config.json",
                Some("{}".to_owned()),
                "configuration of a BERT",
            ),
            (
                "config.json",
                Some(with("\"bert\"", "\"roberta\"")),
                "another architecture",
            ),
            (
                "config.json",
                Some(with("heads\": 4", "heads\": 0")),
                "no attention heads",
            ),
            (
                "config.json",
                Some(with("heads\": 4", "heads\": 5")),
                "do not divide",
            ),
            (
                "config.json",
                Some(with("layers\": 2", "layers\": 3")),
                "does not fit",
            ),
            (
                "config.json",
                Some(with("vocab_size\": 117", "vocab_size\": 9")),
                "reads 9",
            ),
            (
                "1_Pooling/config.json",
                Some(cls.to_owned()),
                "pooling_mode_cls_token",
            ),
            ("modules.json", Some(dense.to_owned()), "Dense"),
            (
                "sentence_bert_config.json",
                Some(r#"{"max_seq_length": 2}"#.to_owned()),
                "no token",
            ),
        ] {
            let message = broken(name, content.as_deref());
            assert!(message.contains(says), "{name}: {message}");
        }
    }
}
