"""What the program does for the package: found, called, its JSON given back, its failures one exception."""

import contextlib
import importlib.metadata
import importlib.util
import io
import os
import pathlib
import signal
import stat
import subprocess
import sys
import threading
import time
import unittest
from unittest import mock

import made

import mlpeek

EXAMPLE = pathlib.Path(__file__).parents[2] / "src/python/examples/steer.py"


def script(name, text):
    path = made.folder() / name
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class Program(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.study = mlpeek.open(made.study())

    def test_steering_is_the_command_lines(self):
        options = {"kl": 0.05, "temperature": 0, "max_tokens": 6, "fit": "one"}
        ours = self.study.steer("2:1,3:-0.5", ["tide and", "-- bread"], **options)
        line = ["steer", made.study(), "2:1,3:-0.5", "--prompt", "tide and", "--prompt", "-- bread", "--kl", "0.05"]
        (theirs,) = mlpeek.run(*line, "--temperature", "0", "--max-tokens", "6", "--fit", "one")
        self.assertEqual(ours, theirs)
        self.assertEqual((len(ours["steered"]), ours["prompts"]), (2, ["tide and", "-- bread"]))
        at_alpha = self.study.steer("2:1,3:-0.5", ["tide and", "-- bread"], alpha=ours["alpha"], temperature=0, max_tokens=6, fit="one")
        self.assertEqual(at_alpha["steered"], ours["steered"])

    def test_a_trace_has_the_fits_own_features(self):
        trace = self.study.trace("- tide and boat", fit="one")
        self.assertEqual("".join(trace["tokens"]).removeprefix("<s>"), "- tide and boat")
        self.assertTrue(trace["coefficients"])
        for feature in trace["coefficients"]:
            self.assertEqual(len(feature["values"]), len(trace["tokens"]))

    def test_sets_of_directions_are_listed(self):
        rows = self.study.features("fit:one,diffmean", layer=1, frame=False)
        self.assertEqual([row["set"] for row in rows], ["one"] * 6 + ["diffmean"] * 3)
        self.assertEqual(self.study.feature("diffmean:sea", layer=1)["hook"], "blocks.1.mlp.hook_post")
        cut = self.study.run("tree", fit="one", cut=0.9)
        self.assertEqual(sorted(j for line in cut for cluster in line["clusters"] for j in cluster["features"]), list(range(6)))

    def test_a_failure_is_the_programs_line(self):
        for call, code, words in (
            (lambda: self.study.steer(6, fit="one"), 2, "no direction '6'"),
            (lambda: self.study.steer(1, kl=-1), 2, "a KL target must be a positive number"),
            (lambda: self.study.steer(1, colour="red"), 2, "unexpected argument '--colour'"),
            (lambda: mlpeek.run("info", made.folder() / "nowhere"), 2, "is no study"),
        ):
            heard = io.StringIO()
            with contextlib.redirect_stderr(heard), self.assertRaisesRegex(mlpeek.MlpeekError, words) as caught:
                call()
            self.assertEqual(caught.exception.code, code)
            self.assertNotIn("\n", str(caught.exception))
            self.assertNotIn(words, heard.getvalue(), "the line is the exception's alone")

    def test_remarks_are_passed_on(self):
        heard = io.StringIO()
        with contextlib.redirect_stderr(heard):
            program = script("remarks", "echo 'a remark' >&2; echo '{\"a\": 1}'\n")
            with mock.patch.dict(os.environ, MLPEEK_BIN=str(program)):
                self.assertEqual(mlpeek.run("x"), [{"a": 1}])
        self.assertEqual(heard.getvalue(), "a remark\n")

    def test_what_is_no_mlpeek(self):
        for text, words in (
            ("echo words\n", "no line of JSON"), ("kill -9 $$\n", "signal 9"), ("exit 3\n", "code 3 and said nothing"),
            ("echo oh >&2; exit 1\n", "oh"), ("echo '[1]'\n", "no line of JSON"),
        ):
            with mock.patch.dict(os.environ, MLPEEK_BIN=str(script("other", text))), contextlib.redirect_stderr(io.StringIO()):
                with self.assertRaisesRegex(mlpeek.MlpeekError, words):
                    mlpeek.run("x")

    def test_much_on_both_streams_does_not_block(self):
        noise = "i=0; while [ $i -lt 20000 ]; do echo '{\"event\": \"progress\"}'; echo aaaaaaaaaaaaaaaaaaaa >&2; i=$((i+1)); done\n"
        with mock.patch.dict(os.environ, MLPEEK_BIN=str(script("noise", noise))), contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(len(mlpeek.run("x")), 20000)

    def test_an_interrupt_stops_the_command(self):
        stopped = made.folder() / "stopped"
        program = script("waits", f"trap 'touch {stopped}; exit 130' INT\necho '{{}}'\nwhile :; do sleep 0.05; done\n")
        # As a notebook does: the signal goes to this process alone.
        threading.Thread(target=lambda: (time.sleep(0.5), os.kill(os.getpid(), signal.SIGINT))).start()
        with mock.patch.dict(os.environ, MLPEEK_BIN=str(program)), self.assertRaises(KeyboardInterrupt):
            mlpeek.run("x")
        self.assertTrue(stopped.exists())

    def test_where_the_program_is_looked_for(self):
        program = script("mlpeek", "echo '{}'\n")
        with mock.patch.dict(os.environ, MLPEEK_BIN=str(program)):
            self.assertEqual(mlpeek.find_binary(), str(program))
        with mock.patch.dict(os.environ, MLPEEK_BIN="/nowhere/mlpeek"), self.assertRaisesRegex(mlpeek.MlpeekError, "MLPEEK_BIN"):
            mlpeek.find_binary()
        elsewhere = {k: v for k, v in os.environ.items() if k != "MLPEEK_BIN"} | {"PATH": str(program.parent)}
        with mock.patch.dict(os.environ, elsewhere, clear=True), mock.patch("mlpeek.binary._script_folders", return_value=[]):
            self.assertEqual(mlpeek.find_binary(), str(program))
            os.environ["PATH"] = ""
            with self.assertRaisesRegex(mlpeek.MlpeekError, "neither beside this package nor on PATH"):
                mlpeek.find_binary()

    def test_the_package_as_a_module_is_the_program(self):
        said = subprocess.run([sys.executable, "-m", "mlpeek", "--version"], capture_output=True, text=True)
        program = subprocess.run([mlpeek.find_binary(), "--version"], capture_output=True, text=True)
        self.assertEqual((said.returncode, said.stdout), (0, program.stdout))

    @unittest.skipIf("MLPEEK_BIN" in os.environ, "another program than the installed one is named")
    def test_the_wheel_brings_the_program_of_its_version(self):
        self.assertEqual(pathlib.Path(mlpeek.find_binary()).parent, pathlib.Path(sys.executable).parent)
        said = subprocess.run([mlpeek.find_binary(), "--version"], capture_output=True, text=True).stdout
        self.assertEqual(said.split(), ["mlpeek", importlib.metadata.version("mlpeek")])
        about = importlib.metadata.metadata("mlpeek")
        self.assertEqual((about["License-Expression"], about["Requires-Python"]), ("MIT OR Apache-2.0", ">=3.10"))
        required = [word for word in about.get_all("Requires-Dist") if "extra" not in word]
        self.assertEqual([word.split(">")[0] for word in required], ["numpy"])

    @unittest.skipUnless(importlib.util.find_spec("torch") and importlib.util.find_spec("transformers"), "torch, transformers: not there")
    def test_transformers_steered_by_the_example_says_what_mlpeek_says(self):
        for feature in (0, 3):
            line = [sys.executable, EXAMPLE, made.study(), str(feature), "tide and boat"]
            done = subprocess.run(line, capture_output=True, text=True)
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
            ours, theirs = done.stdout.splitlines()
            self.assertEqual(ours.removeprefix("mlpeek").strip(), theirs.removeprefix("transformers").strip())
        self.assertGreater(len(ours), len("mlpeek       tide and boat"))

    @unittest.skipUnless(importlib.util.find_spec("torch"), "torch is not there")
    def test_tensors(self):
        import torch

        direction = self.study.fit("one").direction(3)
        tensor = direction.to_torch(dtype=torch.float64)
        self.assertEqual((tensor.dtype, tensor.tolist()), (torch.float64, direction.vector.tolist()))
        rows = self.study.activations(layer=1)
        self.assertEqual(rows.to_torch(slice(2, 4)).tolist(), rows[2:4].tolist())


if __name__ == "__main__":
    unittest.main()
