//! The jobs on a small random model: what they compute is held against plain formulas, against each
//! other, and against what they must refuse.

use std::path::PathBuf;
use std::sync::Arc;

use super::collect::collect;
use super::fitting::{Begin, FitObserver, FitRun, Resume, run_fit};
use crate::activations::store::CacheDtype;
use crate::corpus::Corpus;
use crate::engine::testing::support;
use crate::error::Result;
use crate::factor::{Factors, FitConfig, Sweep};
use crate::model::{BosRule, HookPoint, HookSite, LoadOptions, Model, source};
use crate::study::Study;
use crate::task::TaskCtx;

mod attribution;
mod comparing;
mod directions;
mod fitting;
mod full;
mod judging;
mod reading;

const HOOKS: [HookPoint; 2] = [
    HookPoint {
        layer: 1,
        site: HookSite::MlpPost,
    },
    HookPoint {
        layer: 2,
        site: HookSite::ResidPost,
    },
];
const WIDTHS: [usize; 2] = [support::D_MLP, support::D_MODEL];

/// A random Llama of four layers and a study of two of its hooks, in a directory that goes with it.
struct Laboratory {
    dir: tempfile::TempDir,
    model: Model,
    study: Study,
}

impl Laboratory {
    /// With forty short texts of three labels.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ctx = TaskCtx::silent();
        let files = support::tiny_model(dir.path());
        let files = source::resolve(files.to_str(), &ctx).unwrap();
        let model = Model::open(&files, &LoadOptions::default(), &ctx).unwrap();
        let corpus = Corpus::open(&support::corpus(dir.path(), 40)).unwrap();
        let mut study = Study::create(
            &dir.path().join("study"),
            Some(model.info()),
            &HOOKS,
            &WIDTHS,
            &corpus,
            CacheDtype::F32,
            BosRule::Auto,
        )
        .unwrap();
        collect(&model, &corpus, &mut study, BosRule::Auto, &ctx).unwrap();
        Self { dir, model, study }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A fit of the first hook under `name`, saved.
    fn fit(&self, name: &str, config: &FitConfig) -> Arc<Factors> {
        self.fit_at(HOOKS[0], name, config, Begin::Anew)
    }

    fn fit_at(
        &self,
        hook: HookPoint,
        name: &str,
        config: &FitConfig,
        begin: Begin,
    ) -> Arc<Factors> {
        let place = FitRun::new(&self.study, name, hook, config, Resume::Never, begin).unwrap();
        let source = self.study.activations(hook).unwrap();
        let save =
            |factors: &Factors, end| self.study.save_run(name, hook, config, factors, Some(end));
        let ctx = TaskCtx::silent();
        run_fit(source.as_ref(), config, &place, &mut Silent, &save, &ctx)
            .unwrap()
            .factors
    }

    /// All rows of a hook, row-major, with their width.
    fn rows(&self, hook: HookPoint) -> (Vec<f32>, usize) {
        let source = self.study.activations(hook).unwrap();
        let (n, d) = source.shape();
        (source.rows(0..n).unwrap().data.into_owned(), d)
    }
}

/// Four features, for as many sweeps as a test can wait for.
fn small() -> FitConfig {
    FitConfig {
        features: 4,
        sparsity: Some(0.2),
        max_sweeps: Some(6),
        ..FitConfig::default()
    }
}

/// Looks at nothing.
struct Silent;

impl FitObserver for Silent {
    fn note(&mut self, _: &str) {}
    fn started(&mut self, _: f64, _: bool) {}
    fn sweep(&mut self, _: Sweep) -> Result<()> {
        Ok(())
    }
    fn snapshot(&mut self, _: &Arc<Factors>, _: bool) {}
}
