"""The page of the guide on Python: its code runs, in its order, as it stands there."""

import importlib.util
import os
import pathlib
import re
import shutil
import unittest

import made

import mlpeek

PAGE = pathlib.Path(__file__).parents[2] / "src/guide/python.md"


class Guide(unittest.TestCase):
    def test_its_code_runs(self):
        folder = made.folder() / "guide"
        shutil.copytree(made.study(), folder / "study")
        # As the page has it: a study with one hook's newest fit k100, and a fifteenth feature.
        fit = ("--name", "k100", "-k", "16", "--sparsity", "0.1", "--max-sweeps", "4", "--layer", "1")
        mlpeek.run("fit", folder / "study", *fit)
        blocks = re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.S | re.M)
        self.assertGreater(len(blocks), 3)
        names = {}
        here = os.getcwd()
        os.chdir(folder)
        try:
            for block in blocks:
                if block.startswith("# torch") and not importlib.util.find_spec("torch"):
                    continue
                # The made study has two hooks, where the page's has one.
                exec(compile(block.replace("s.activations()", "s.activations(layer=1)"), str(PAGE), "exec"), names)
        finally:
            os.chdir(here)
        self.assertEqual(names["error"].shape, (100, made.D_MLP))
        self.assertEqual((names["push"].shape, len(names["table"])), ((made.D_MODEL,), 16))
        self.assertEqual(len(names["steered"]), 1)

    def test_every_public_name_is_on_it(self):
        text = PAGE.read_text()
        for kind, by in ((mlpeek.Study, "s"), (mlpeek.Fit, "fit")):
            public = {name for name in vars(kind) if not name.startswith("_")}
            left_out = {name for name in public if f"{by}.{name}" not in text and f".{name}" not in text}
            # What says no more than its name, or is a way to the same.
            left_out -= {"hook", "unplaced_notes", "has_factors", "is_finished", "resumable", "verify", "layer"}
            self.assertEqual(left_out, set(), kind)


if __name__ == "__main__":
    unittest.main()
