"""A study as the package reads it, held against what the program says and exports, and against plain formulas."""

import json
import unittest

import made
import numpy as np

import mlpeek


class Rows(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.study = mlpeek.open(made.study())
        (cls.info,) = cls.study.run("info")

    def test_a_study_says_what_the_program_says_of_it(self):
        study, info = self.study, self.info
        self.assertEqual([str(hook) for hook in study.hooks], info["hooks"])
        self.assertEqual(list(study.widths.values()), info["widths"])
        self.assertEqual(study.layers, [0, 1])
        self.assertEqual(len(study.tokens), info["collected"]["row_count"])
        self.assertEqual(len(study.samples), info["collected"]["total_sample_count"])
        self.assertEqual(study.model["weights_sha256"], info["model"]["weights_sha256"])
        self.assertEqual(study.bos, 256)
        study.verify()

    def test_tokens_spell_the_samples(self):
        study = self.study
        texts = [text for label in made.LABELS for text in json.loads(made.corpus("first.json", 16).read_text())[label]]
        self.assertEqual([sample.text for sample in study.samples[: len(texts)]], texts)
        for number in (0, 17, len(study.samples) - 1):
            rows, sample = study.tokens.rows_of(number), study.samples[number]
            self.assertEqual("".join(study.tokens.strings(rows)), sample.text)
            self.assertEqual(study.tokens.ids[rows].tolist(), list(sample.text.encode()))
            # BOS is at 0 and has no row.
            self.assertEqual(study.tokens.positions[rows].tolist(), list(range(1, len(sample.text) + 1)))
            self.assertEqual({study.labels[label] for label in study.row_labels[rows]}, {sample.label})
        token = study.tokens[3]
        self.assertEqual((token.piece, token.position, token.sample), (study.samples[0].text[3], 4, 0))

    def test_activations_are_those_that_the_model_computes(self):
        study, out = self.study, made.folder() / "forward.safetensors"
        for number in (0, 40, len(study.samples) - 1):
            text, rows = study.samples[number].text, study.tokens.rows_of(number)
            mlpeek.run("forward", "--model", made.model(), "--text", text, "--layer", "0,1", "--out", out)
            tensors = made.read_safetensors(out)
            for hook in study.hooks:
                there = tensors[str(hook)].reshape(-1, made.D_MLP)[1:]
                np.testing.assert_allclose(study.activations(hook=hook)[rows], there, rtol=1e-4, atol=1e-5)

    def test_several_shards_are_one_array(self):
        a = self.study.activations(layer=1)
        self.assertGreater(len(a.parts), 1, "the study was collected in two goes")
        n, edge, plain = len(a), len(a.parts[0]), np.concatenate(a.parts)
        self.assertEqual((a.shape, a.dtype, plain.shape), ((n, made.D_MLP), np.float32, (n, made.D_MLP)))
        mask = np.arange(n) % 7 == 0
        keys = [
            0, -1, edge, slice(None), slice(3, 9), slice(edge - 2, edge + 3), slice(n, n), slice(None, None, -5), [n - 1, 0, edge, -n],
            mask, np.s_[edge - 1 : edge + 1, 2:5], np.s_[5, 7], np.s_[:, 0], np.s_[..., 1], np.s_[[1, edge], 3], np.s_[mask, :2], [],
        ]
        for key in keys:
            picked = np.s_[np.array(key, int)] if isinstance(key, list) else key
            np.testing.assert_array_equal(a[key], plain[picked], err_msg=str(key))
        np.testing.assert_array_equal(np.asarray(a), plain)
        np.testing.assert_array_equal(np.concatenate(list(a.blocks(100))), plain)
        for wrong in (n, -n - 1, [n], mask[1:], np.s_[0, 0, 0], [0.5]):
            with self.assertRaises(IndexError, msg=str(wrong)):
                a[wrong]

    def test_rows_of_a_shard_are_not_copied(self):
        a = self.study.activations(layer=0)
        self.assertTrue(np.shares_memory(a[2:5], a.parts[0]))
        self.assertIsInstance(a.parts[0], np.memmap)
        with self.assertRaises(ValueError):
            a[2:5][0, 0] = 1

    def test_half_precision_is_cast_where_numpy_lacks_it(self):
        full = np.asarray(self.study.activations(layer=1))
        for dtype, bits in (("f16", 10), ("bf16", 7)):
            path = made.folder() / dtype
            collect = ("collect", "--model", made.model(), "--layer", "1", "--data", made.corpus("first.json", 16), "--out", path)
            mlpeek.run(*collect, "--dtype", dtype)
            half = mlpeek.open(path).activations()
            self.assertEqual((half.stored, half.parts[0].dtype), (dtype, {"f16": np.float16, "bf16": np.uint16}[dtype]))
            there = full[: len(half)]
            self.assertLess(np.abs(np.asarray(half) - there).max(), np.abs(there).max() * 2.0**-bits)
            self.assertEqual(half[5].dtype, half.dtype)
            mlpeek.open(path).verify()

    def test_a_hook_is_chosen_by_layer_site_or_name(self):
        study, second = self.study, mlpeek.Hook(1, "mlp.hook_post")
        for asked in ({"layer": 1}, {"hook": second}, {"hook": "blocks.1.mlp.hook_post"}, {"layer": 1, "hook": "mlp.hook_post"}):
            self.assertEqual(study.activations(**asked).hook, second)
        for asked in ({}, {"layer": 2}, {"hook": "mlp.hook_post"}, {"hook": "hook_mlp_out"}, {"layer": 0, "hook": second}):
            with self.assertRaisesRegex(mlpeek.MlpeekError, "blocks.1.mlp.hook_post"):
                study.activations(**asked)

    def test_an_imported_matrix_has_rows_and_no_tokens(self):
        path = made.folder() / "imported"
        matrix = np.random.default_rng(3).normal(size=(30, 8)).astype("f4")
        np.save(made.folder() / "matrix.npy", matrix)
        mlpeek.run("import", made.folder() / "matrix.npy", "--out", path)
        study = mlpeek.open(path)
        np.testing.assert_array_equal(study.activations()[:], matrix)
        self.assertEqual((study.model, study.tokens[4].piece, study.samples[4].text, study.labels), (None, "row 4", "row 4", []))
        self.assertEqual(study.row_labels.tolist(), [-1] * 30)


class Fits(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.study = mlpeek.open(made.study())

    def test_fits_are_listed_as_the_program_lists_them(self):
        (info,) = self.study.run("info")
        fits = self.study.fits
        self.assertEqual(list(fits), [fit["fit"] for fit in info["fits"]])
        for fit in info["fits"]:
            ours = fits[fit["fit"]]
            self.assertEqual(str(ours.hook), fit["hook"])
            said = (ours.feature_count, ours.relative_error, ours.state, ours.sweeps, ours.resumable)
            keys = ("feature_count", "relative_error", "state", "sweep_count", "resumable")
            self.assertEqual(said, tuple(fit[key] for key in keys))
        self.assertEqual([self.study.fit().name], [fit["fit"] for fit in info["fits"] if fit["newest"]])

    def test_factors_are_those_that_the_program_exports(self):
        for name, fit in self.study.fits.items():
            out = made.folder() / f"{name}.safetensors"
            self.study.run("export", fit=name, out=out)
            exported = made.read_safetensors(out)
            np.testing.assert_array_equal(fit.Z, exported["Z"])
            np.testing.assert_array_equal(fit.Y, exported["Y"])
            for key in ("centre", "neuron_weights"):
                ours = getattr(fit, key)
                self.assertEqual(ours is None, key not in exported)
                if ours is not None:
                    np.testing.assert_array_equal(ours, exported[key])
            self.assertEqual(fit.centre is not None, name == "two")
            self.assertTrue(np.shares_memory(fit.Y, fit.coefficients(2)))

    def test_the_error_is_the_formulas(self):
        fit = self.study.fit("one")
        a = np.asarray(self.study.activations(hook=fit.hook), np.float64)
        left = a - fit.Y.astype(np.float64) @ fit.Z.dense().T
        self.assertAlmostEqual((left**2).sum() / (a**2).sum(), fit.relative_error, places=5)
        self.assertEqual([sweep["sweep"] for sweep in fit.curve], list(range(1, len(fit.curve) + 1)))
        self.assertEqual(fit.config["features"], 6)

    def test_features_are_the_programs(self):
        fit = self.study.fit("one")
        printed = self.study.features(fit="one", frame=False)
        ours = fit.features(frame=False)
        self.assertEqual(len(ours), len(printed))
        for mine, line in zip(ours, printed):
            for key in ("feature", "name", "note", "tags", "rating", "neuron_count"):
                self.assertEqual(mine[key], line[key], key)
            for key in ("share", "density"):
                self.assertAlmostEqual(mine[key], line[key], places=6)
            self.assertAlmostEqual(mine["max_coefficient"], self.study.feature(line["feature"], fit="one")["max_coefficient"], places=5)
        self.assertEqual(ours[3]["name"], "water")
        note = self.study.notes("one")[3]
        self.assertEqual((note.name, note.text, note.tags, note.rating), ("water", "of ships", ("wet",), 4))

    def test_a_list_is_a_data_frame_where_pandas_is_there(self):
        try:
            import pandas
        except ImportError:
            self.assertIsInstance(self.study.fit("one").features(), list)
            with self.assertRaises(ImportError):
                self.study.fit("one").features(frame=True)
            self.skipTest("pandas is not installed: a list of dicts it was")
        frame = self.study.fit("one").features()
        self.assertIsInstance(frame, pandas.DataFrame)
        self.assertEqual(list(frame["feature"]), list(range(6)))

    def test_a_direction_is_a_column_at_its_hook(self):
        fit = self.study.fit("one")
        direction = fit.direction(3)
        np.testing.assert_array_equal(direction, np.asarray(fit.Z)[:, 3])
        self.assertEqual((direction.layer, direction.site, str(direction.hook)), (1, "mlp.hook_post", "blocks.1.mlp.hook_post"))
        self.assertEqual((direction.set, direction.feature, direction.name), ("one", 3, "water"))
        np.testing.assert_allclose(np.linalg.norm(direction.unit), 1, rtol=1e-6)
        rows = self.study.activations(layer=1)[:5]
        np.testing.assert_allclose(rows @ direction, rows @ fit.Z.column(3), rtol=1e-6)
        for wrong in (-1, 6):
            with self.assertRaisesRegex(mlpeek.MlpeekError, "it has 0 to 5"):
                fit.direction(wrong)

    def test_what_a_direction_adds_to_the_residual_stream_goes_through_the_output_projection(self):
        study = mlpeek.open(made.copy("residual"))
        down = made.read_safetensors(made.model() / "model.safetensors")["model.layers.1.mlp.down_proj.weight"]
        for name, direction in (("one", study.fit("one").direction(2)), ("sae:t", study.sae("t").direction(7))):
            with self.assertRaisesRegex(mlpeek.MlpeekError, "was not measured"):
                direction.residual()
            study.effects(name, kl=0.02)
            np.testing.assert_allclose(direction.residual(), down @ direction.unit, rtol=1e-4, atol=1e-6)

    def test_an_autoencoder_has_saelens_tensors(self):
        sae = self.study.sae()
        (listed,) = self.study.run("sae list")
        self.assertEqual((sae.name, sae.architecture, sae.latent_count), ("t", "topk", 12))
        self.assertEqual((str(sae.hook), sae.figures["fvu"]), (listed["hook"], listed["fvu"]))
        self.assertEqual({name: array.shape for name, array in sae.weights.items()},
                         {"W_enc": (64, 12), "b_enc": (12,), "W_dec": (12, 64), "b_dec": (64,)})
        self.assertEqual(sae.config["k"], 3)
        np.testing.assert_array_equal(sae.direction(4), sae.weights["W_dec"][4])
        # The program reads the same weights: x̂ of every row by the formula has the FVU that it found.
        a, w = np.asarray(self.study.activations(hook=sae.hook), np.float64), sae.weights
        pre = (a - w["b_dec"] * sae.config["apply_b_dec_to_input"]) @ w["W_enc"] + w["b_enc"]
        kept = np.where(pre >= np.sort(pre, axis=1)[:, -3:-2], np.maximum(pre, 0), 0)
        fvu = ((a - kept @ w["W_dec"] - w["b_dec"]) ** 2).sum() / ((a - a.mean(axis=0)) ** 2).sum()
        self.assertAlmostEqual(fvu, sae.figures["fvu"], places=4)

    def test_an_evaluation_has_its_plan_and_texts(self):
        study = mlpeek.open(made.copy("evaluated"))
        options = {"kl": 0.02, "samples": 1, "max_tokens": 2, "methods": "fit,diffmean", "layer": 1, "name": "e"}
        written = [line for line in study.run("eval steering", **options) if line["event"] == "text"]
        (evaluation,) = study.evaluations.values()
        self.assertEqual(evaluation.name, "e")
        ours = {(text["method"], text["label"], text["prompt"], text["sign"]): text["text"] for text in evaluation.texts if text["sign"]}
        for line in written:
            key = (line["method"], line["label"], line["prompt_index"], line["sign"])
            self.assertEqual(ours[key], line["text"])
        self.assertEqual(len(written), len(ours))
        self.assertEqual(set(evaluation.judged), {"offline"})
        self.assertTrue(evaluation.strengths and evaluation.plan)


if __name__ == "__main__":
    unittest.main()
